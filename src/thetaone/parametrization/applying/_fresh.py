"""Whether weights are as their initializer made them: training leaves marks that no draw has.

A matrix of independent entries has a spectral norm of RMS·(√rows + √columns), nearly; a few steps
of any optimizer add a part of rank one that stands far above. Uniform draws, torch's default, end
at √3 times their RMS; training carries some of them beyond, and a base shows whether draws are
uniform. A bias that starts at zero stays there until it is trained.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from thetaone.errors import PrescriptionError
from thetaone.parametrization.applying._initialize import unheld_factor
from thetaone.parametrization.reading import parameters_of, rms_of
from thetaone.parametrization.rules import FIXED, VECTOR
from thetaone.records import Prescription, Rule

OUTLIER = 1.5  # times the spectral norm of independent entries; draws of 8 x 8 stay below 1.3
UNIFORM = 3**0.5  # largest entry over RMS
_ENTRIES = 512  # of so many, normal ones end as early as uniform ones with probability < 1e-9
_CHANCE = 4.75 * 0.8**0.5  # over √entries: what uniform draws' mean square lacks once in 10⁶
_BLOCK = 512  # rows and columns that are looked at
_ITERATIONS = 6
_ZERO = 1e-5  # a singular value over the largest that is rounding alone


class KeptValuesWarning(UserWarning):
    """Values are kept, and what they compute is not."""


def check_fresh(model: nn.Module, prescription: Prescription, base: object) -> None:
    """Refuse to rescale weights that were trained.

    Args:
        model: Whose values are about to be rescaled.
        prescription: Says which.
        base: A base model shows what its initializers draw, where they are not independent.

    Raises:
        PrescriptionError: Names the parameter and the two ways out.
    """
    trained = trained_mark(model, prescription, base)
    if trained:
        raise PrescriptionError(
            f"{trained}. Prescribed initial values would overwrite the "
            "size that it has learned. Pass rescale=False to keep all values (a checkpoint), "
            "or rescale=True where they are as an initializer made them"
        )


def check_kept(model: nn.Module, prescription: Prescription, base: object) -> None:
    """Refuse to keep trained values under a factor that no values can make up for.

    Where nothing shows that they were trained (a checkpoint may be loaded next), it is a warning.

    Args:
        model: Whose values are about to be kept.
        prescription: Says which factors stay in the forward pass.
        base: As for ``check_fresh``.

    Raises:
        PrescriptionError: Names the factor, the parameter that looks trained and the ways out.
    """
    factor = unheld_factor(model, prescription)
    if not factor:
        return
    changes = (
        f"rescale=False keeps the values, and a factor {factor} changes what they compute. A "
        "checkpoint of a parametrized model is loaded after parametrize; one of a plain model "
        "needs a model without this factor"
    )
    trained = trained_mark(model, prescription, base)
    if trained:
        raise PrescriptionError(f"{changes}; {trained}")
    warnings.warn(changes, KeptValuesWarning, stacklevel=3)


def trained_mark(model: nn.Module, prescription: Prescription, base: object) -> str:
    """The first parameter that looks trained, and by what; empty when none does."""
    parameters = parameters_of(model)
    others: Mapping[str, Tensor] = {}
    if isinstance(base, nn.Module):
        others = {name: p for name, p in parameters_of(base).items() if _has_values(p)}
    for rule in prescription.rules:
        mark = _mark(rule, parameters[rule.name], others.get(rule.name))
        if mark:
            return f"{rule.name} looks trained: {mark}"
    return ""


def spectral_outlier(weight: Tensor) -> float:
    """Spectral norm over RMS·(√rows + √columns): 1 or below for independent entries.

    Examples:
        >>> spectral_outlier(torch.ones(64, 64)) > 3
        True
    """
    block = weight.detach().flatten(1)[:_BLOCK, :_BLOCK].float()
    rms = float(block.square().mean().sqrt())
    if rms == 0.0 or min(block.shape) < 8:
        return 0.0
    ramp = torch.linspace(-1, 1, block.shape[1], dtype=block.dtype, device=block.device)
    vector = block.sum(0) + rms * ramp
    norm = 0.0
    for _ in range(_ITERATIONS):
        vector = block.T @ (block @ (vector / vector.norm()))
        norm = float(vector.norm()) ** 0.5
    return norm / (rms * (block.shape[0] ** 0.5 + block.shape[1] ** 0.5))


def _mark(rule: Rule, parameter: Tensor, other: Tensor | None) -> str:
    """What shows that a parameter was trained; empty when nothing does."""
    if rule.init_std is None or not _has_values(parameter):
        return ""
    if rule.init_std == 0.0:
        return "it starts at zero in the base and is not zero here" if bool(parameter.any()) else ""
    if other is not None and _beyond_bound(parameter, other):
        return "its largest entry lies beyond the bound of the base's uniform draws"
    if parameter.dim() < 2 or rule.role in (VECTOR, FIXED):
        return ""
    outlier = spectral_outlier(parameter)
    if not outlier >= OUTLIER:
        return ""
    if other is not None and (spectral_outlier(other) >= OUTLIER or _is_low_rank(parameter, other)):
        return ""
    return f"its spectral norm is {outlier:.2g} times that of independent entries"


def _is_low_rank(parameter: Tensor, other: Tensor) -> bool:
    """Whether both are drawn as products of fewer dimensions, of as many or as large a part.

    Training adds dimensions: what was trained has more than its base's draws.
    """
    ranks: list[int] = []
    sides: list[int] = []
    for tensor in (parameter, other):
        block = tensor.detach().flatten(1)[:_BLOCK, :_BLOCK].float()
        ranks.append(int(torch.linalg.matrix_rank(block, rtol=_ZERO)))
        sides.append(min(block.shape))
    fewer = ranks[0] < sides[0] and ranks[1] < sides[1]
    return fewer and (ranks[0] <= ranks[1] or ranks[0] * sides[1] <= ranks[1] * sides[0])


def _has_values(parameter: Tensor) -> bool:
    """Whether a tensor's entries are all at hand: not on the meta device, not sharded."""
    return not parameter.is_meta and not hasattr(parameter, "full_tensor")


def _beyond_bound(parameter: Tensor, other: Tensor) -> bool:
    """Whether entries are larger than uniform draws are, where the base's entries are such."""
    if min(parameter.numel(), other.numel()) < _ENTRIES or _peak(other) > UNIFORM * _noise(other):
        return False
    return _peak(parameter) > max(UNIFORM, _peak(other)) * _noise(parameter)


def _peak(tensor: Tensor) -> float:
    """Largest entry over RMS; 0 for zeros."""
    largest, rms = float(tensor.detach().abs().max()), rms_of(tensor)
    return largest / rms if rms > 0 else 0.0


def _noise(tensor: Tensor) -> float:
    """By what factor chance and rounding raise the peak of uniform draws, at most."""
    return (1 - _CHANCE * tensor.numel() ** -0.5) ** -0.5 + torch.finfo(tensor.dtype).eps
