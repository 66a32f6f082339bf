"""Reads the attentions of a model: head size, factor on the logits, where the query is made."""

from collections.abc import Iterator

from torch import nn

from thetaone.records import Attention

_HEAD_SIZES = ("head_dim", "head_size", "d_head", "attention_head_size", "key_value_proj_dim")
_SCALES = ("scaling", "scale", "scale_attn")
_QUERIES = ("q_norm", "q_proj", "query", "q_lin", "wq", "to_q", "q")  # a norm undoes what is before


def read_attentions(model: nn.Module) -> Iterator[Attention]:
    """Every module that names its head size.

    Examples:
        >>> [a.head_size for a in read_attentions(nn.MultiheadAttention(32, 4))]
        [8]
    """
    for name, module in model.named_modules():
        own = vars(module)
        size = next((own[key] for key in _HEAD_SIZES if own.get(key)), None)
        if isinstance(size, int):
            yield Attention(
                name=name,
                head_size=size,
                scale=_logit_scale(module, size),
                query=_query(name, module),
            )


def _logit_scale(module: nn.Module, size: int) -> float:
    for key in _SCALES:
        value = getattr(module, key, None)
        if isinstance(value, float):
            return value
    return 1.0 if hasattr(module, "key_value_proj_dim") else size**-0.5  # T5 does not divide


def _query(name: str, module: nn.Module) -> tuple[str, ...]:
    for key in _QUERIES:
        child = module._modules.get(key)
        if child is not None:
            parameters = child.named_parameters(recurse=False)
            return tuple(f"{name}.{key}.{local}".removeprefix(".") for local, _ in parameters)
    separate = getattr(module, "q_proj_weight", None)  # nn.MultiheadAttention with other kdim
    return (f"{name}.q_proj_weight".removeprefix("."),) if separate is not None else ()
