"""Reads the factors that a model's own forward pass puts on embeddings and readouts.

A factor that changes with width breaks Table 3, which knows none. ``folds.py`` moves it into
initial values and rates, or it is divided out of the multiplier of a tied readout.
"""

from torch import nn

_LOOKUP_SCALES = ("scalar_embed_scale", "embed_scale")  # Gemma; Bart, M2M-100 and kin: √width


def lookup_scale(module: nn.Module) -> float:
    """What an embedding multiplies its rows with.

    Examples:
        >>> lookup_scale(nn.Embedding(3, 4))
        1.0
    """
    found = (getattr(module, name, None) for name in _LOOKUP_SCALES)
    return next((float(value) for value in found if isinstance(value, (int, float))), 1.0)


def readout_scale(model: nn.Module) -> float:
    """What the model multiplies the input of its readout with; T5 and kin divide by √width.

    Examples:
        >>> readout_scale(nn.Linear(3, 4))
        1.0
    """
    for module in model.modules():
        own = vars(module)
        scaled = getattr(own.get("config"), "scale_decoder_outputs", False)
        width = own.get("model_dim")
        if scaled and isinstance(width, int):
            return width**-0.5
    return 1.0
