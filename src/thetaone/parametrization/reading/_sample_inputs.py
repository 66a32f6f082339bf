"""Guesses inputs that a model's forward pass takes, from its first layer or its config.

Only the shape of the computation is read from such a pass, never its values; a wrong guess fails.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SIDES = (32, 224, 16)  # of images and signals, tried in this order


def guesses(model: nn.Module) -> Iterator[Any]:
    """Inputs to try, likeliest first: a tensor, or a mapping of keywords.

    Examples:
        >>> [guess.shape for guess in guesses(nn.Linear(4, 2))]
        [torch.Size([2, 4]), torch.Size([2, 3, 4])]
    """
    first = next(((m, p) for m in model.modules() for p in m.parameters(recurse=False)), None)
    if first is None:
        return
    module, parameter = first
    yield from _hugging_face(model, parameter)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        for shape in ((2, 3), (3,)):
            yield torch.zeros(shape, dtype=torch.long, device=parameter.device)
        return
    features, axes = _features(module, parameter), len(getattr(module, "kernel_size", ()))
    shapes: list[tuple[int, ...]] = [(2, features), (2, 3, features)]
    for shape in [(2, features, *[side] * axes) for side in _SIDES] if axes else shapes:
        yield torch.randn(shape, device=parameter.device, dtype=parameter.dtype, requires_grad=True)


def _hugging_face(model: nn.Module, parameter: Tensor) -> Iterator[dict[str, Tensor]]:
    """What a ``PreTrainedModel`` calls its main input, at the size its config names."""
    known, config = getattr(model, "dummy_inputs", None), getattr(model, "config", None)
    if not isinstance(known, Mapping) or config is None:
        return
    given = {k: v.to(parameter.device) for k, v in known.items() if isinstance(v, Tensor)}
    name = getattr(model, "main_input_name", "input_ids")
    if name == "pixel_values":
        side = getattr(config, "image_size", _SIDES[0])
        sides = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
        given = {name: parameter.new_zeros(1, getattr(config, "num_channels", 3), *sides)}
    elif name == "input_features":
        length = 2 * int(getattr(config, "max_source_positions", _SIDES[0]))
        ids = torch.zeros(1, 2, dtype=torch.long, device=parameter.device)
        features = parameter.new_zeros(1, int(getattr(config, "num_mel_bins", 80)), length)
        given = {name: features, "decoder_input_ids": ids}
    yield given


def _features(module: nn.Module, parameter: Tensor) -> int:
    for name in ("in_features", "in_channels", "input_size", "embed_dim", "d_model"):
        value = getattr(module, name, None)
        if isinstance(value, int):
            return value
    return int(parameter.shape[-1])
