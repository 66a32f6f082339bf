"""Attention logits: q·k/d instead of q·k/√d when heads grow, folded into the query projection.

q and k become aligned while training, so their product over d features is Θ(d), not Θ(√d) (Tensor
Programs V, section 4). A factor on the query does the same as one on the logits; the symmetry of
``rules.scales`` moves it into initial values and rates, and the forward pass stays as it is. A
projection that makes query, key and value in one tensor cannot be folded: its head size should stay
and the number of heads grow. No torch.
"""

from thetaone.parametrization._names import wildcard
from thetaone.records import Blueprint


def head_folds(target: Blueprint, base: Blueprint) -> dict[str, float]:
    """Factor on each query parameter, for heads that grew.

    ``(d_base / d) / (s / s_base)`` with s the factor the forward pass puts on the logits: 1/√r for
    an attention that divides by √d, 1/r for one that does not divide.

    Args:
        target: With heads of size d.
        base: With heads of size d_base.

    Returns:
        ``{parameter: factor}``; empty when heads keep their size and grow in number.
    """
    bases = {wildcard(attention.name): attention for attention in base.attentions}
    bases |= {attention.name: attention for attention in base.attentions}
    folds: dict[str, float] = {}
    for attention in target.attentions:
        narrow = bases.get(attention.name, bases.get(wildcard(attention.name)))
        if narrow is None or narrow.head_size == attention.head_size:
            continue
        wanted = narrow.head_size / attention.head_size
        folds |= dict.fromkeys(attention.query, wanted / (attention.scale / narrow.scale))
    return folds
