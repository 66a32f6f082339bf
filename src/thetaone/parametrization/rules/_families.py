"""Update families: how the size of a step follows from the learning rate. No torch.

Every optimizer multiplies its learning rate with some update; the family says how that update
scales, given what Table 3 wants (``size``) and what the gradient does by itself (``gradient``):

==========  ===========================================  ======================================
family      entry of ΔW                                  factor on the learning rate
==========  ===========================================  ======================================
sign        η · O(1)                                     size
gradient    η · gradient                                 size / gradient
relative    η · RMS(W) · O(1)                            size / init
orthogonal  η · s(shape) · U Vᵀ, spectral norm η·s       size · √(r_in r_out) · s(base)/s(target)
rotated     η · Uᵀ O(1) V                                size · √(r_in r_out)
==========  ===========================================  ======================================
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import unwrap
from typing import Any

from thetaone.errors import UnknownOptimizerError
from thetaone.parametrization.rules._width import Scales

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFamily:
    """How one kind of optimizer turns a learning rate into a step.

    Attributes:
        name: For messages and tables.
        lr_factor: ``(scales, options) -> factor`` on the learning rate.
        decoupled: Weight decay multiplies the weight (AdamW); otherwise it is added to the
            gradient. An option ``weight_decouple`` or ``decoupled_weight_decay`` overrides.
        matrices_only: The optimizer takes two-dimensional parameters only.
        sums_squares: Keeps a sum of squared gradients with an initial value (Adagrad).
        settles: Steps until what is said here holds [count]. RAdam's first five follow the
            gradient, and some more are still short.
    """

    name: str
    lr_factor: Callable[[Scales, Options], float]
    decoupled: bool = False
    matrices_only: bool = False
    sums_squares: bool = False
    settles: int = 0

    def is_decoupled(self, options: Options) -> bool:
        """Whether these options give decoupled weight decay."""
        for key in ("weight_decouple", "decoupled_weight_decay"):
            if key in options:
                return bool(options[key])
        return self.decoupled


def sign_rate(scales: Scales, _: Options) -> float:
    """Entries of the update are O(1): the factor is the update size itself."""
    return scales.size


def gradient_rate(scales: Scales, _: Options) -> float:
    """The update is the gradient: what the gradient does by itself is divided out."""
    return scales.size / scales.gradient


def relative_rate(scales: Scales, _: Options) -> float:
    """The update is proportional to the weight's own RMS, which scales like the init."""
    return scales.size / scales.init


def orthogonal_rate(scales: Scales, options: Options) -> float:
    """The update is a semi-orthogonal matrix times a scale made from the shape.

    Spectral norm wanted: size · √(r_in r_out), that is √(r_out/r_in) in width. torch's
    ``adjust_lr_fn`` multiplies with √max(1, rows/columns) ("original", the default) or with
    0.2·√max(rows, columns) ("match_rms_adamw"); what it does to the ratio is divided out.
    """
    spectral = scales.size * (scales.fan_in * scales.fan_out) ** 0.5
    if scales.matrix is None or scales.base_matrix is None:
        return spectral
    adjust = options.get("adjust_lr_fn")
    return spectral * _muon_scale(scales.base_matrix, adjust) / _muon_scale(scales.matrix, adjust)


def rotated_sign_rate(scales: Scales, options: Options) -> float:
    """SOAP: a sign-like step in the eigenbasis of the gradient's two covariances.

    √(r_out/r_in) with both sides rotated, r_in^-½ with the inputs' alone, √r_out/r_in with the
    outputs' alone (a side longer than ``max_precondition_dim`` is not rotated); vectors as Adam.
    ``fold`` and depth go with it as with any step.

    Source: arXiv 2512.05620, one block a side.
    """
    if scales.matrix is None or scales.base_matrix is None:
        return scales.size
    longest = int(options.get("max_precondition_dim", 10000))
    sides = [
        all(pair[i] <= longest for pair in (scales.matrix, scales.base_matrix)) for i in (0, 1)
    ]
    rest = scales.size * scales.fan_in  # what depth and folds add to 1 / r_in
    if all(sides):
        return rest * (scales.fan_out / scales.fan_in) ** 0.5
    if any(sides):
        return rest * (scales.fan_in**-0.5 if sides[1] else scales.fan_out**0.5 / scales.fan_in)
    return scales.size


def _muon_scale(matrix: tuple[int, int], adjust: str | None) -> float:
    rows, columns = matrix
    if adjust is None or adjust == "original":
        return max(1.0, rows / columns) ** 0.5
    if adjust == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    return 1.0


SIGN = UpdateFamily(name="sign", lr_factor=sign_rate)
SIGN_DECOUPLED = UpdateFamily(name="sign", lr_factor=sign_rate, decoupled=True)
RECTIFIED = UpdateFamily(name="sign", lr_factor=sign_rate, settles=7)
RECTIFIED_DECOUPLED = UpdateFamily(name="sign", lr_factor=sign_rate, decoupled=True, settles=7)
ADAGRAD = UpdateFamily(name="sign", lr_factor=sign_rate, sums_squares=True)
GRADIENT = UpdateFamily(name="gradient", lr_factor=gradient_rate)
RELATIVE = UpdateFamily(name="relative", lr_factor=relative_rate, decoupled=True)
ORTHOGONAL = UpdateFamily(
    name="orthogonal", lr_factor=orthogonal_rate, decoupled=True, matrices_only=True
)

ROTATED_SIGN = UpdateFamily(name="rotated sign", lr_factor=rotated_sign_rate, decoupled=True)

# package -> class -> family: a class is known by where it comes from, not by its name alone
_FAMILIES: Mapping[str, Mapping[str, UpdateFamily]] = {
    "torch.optim": {
        "SGD": GRADIENT,
        "Adam": SIGN,
        "AdamW": SIGN_DECOUPLED,
        "NAdam": SIGN,
        "RAdam": RECTIFIED,
        "Adamax": SIGN,
        "RMSprop": SIGN,
        "Adagrad": ADAGRAD,
        "Adafactor": RELATIVE,
        "Muon": ORTHOGONAL,
    },
    "pytorch_optimizer": {
        "Lion": SIGN_DECOUPLED,
        "SignSGD": SIGN_DECOUPLED,
        "Lamb": RELATIVE,  # the trust ratio makes a step a fraction of the weight
        "SOAP": ROTATED_SIGN,
        "ScheduleFreeSGD": GRADIENT,
        "ScheduleFreeAdamW": SIGN_DECOUPLED,
        "ScheduleFreeRAdam": RECTIFIED_DECOUPLED,
    },
    "schedulefree": {
        "SGDScheduleFree": GRADIENT,
        "AdamWScheduleFree": SIGN_DECOUPLED,
        "RAdamScheduleFree": RECTIFIED_DECOUPLED,
    },
    "bitsandbytes": {
        "Adam8bit": SIGN,
        "AdamW8bit": SIGN_DECOUPLED,
        "PagedAdamW8bit": SIGN_DECOUPLED,
        "Lion8bit": SIGN_DECOUPLED,
        "SGD8bit": GRADIENT,
    },
    "torchao": {"Adam8bit": SIGN, "AdamW8bit": SIGN_DECOUPLED},
}
_REGISTERED: dict[type, UpdateFamily] = {}


def register_update_family(optimizer: type, family: UpdateFamily) -> None:
    """Say which update family an optimizer class belongs to.

    Args:
        optimizer: The class; others of its name are not touched.
        family: E.g. ``SIGN``, ``GRADIENT``, or a new ``UpdateFamily``.

    Examples:
        >>> class MySignDescent: ...
        >>> register_update_family(MySignDescent, SIGN)
        >>> update_family(MySignDescent).name
        'sign'
    """
    _REGISTERED[optimizer] = family


def update_family(optimizer: type) -> UpdateFamily:
    """The family of an optimizer class: its own, or that of a base whose ``step`` it keeps.

    Raises:
        UnknownOptimizerError: The class is neither registered nor of a package that is known, or
            has a ``step`` of its own.

    Examples:
        >>> from torch.optim import AdamW
        >>> update_family(AdamW).name
        'sign'
    """
    if not isinstance(optimizer, type):
        raise UnknownOptimizerError(
            f"optimizer={type(optimizer).__name__} instance: pass the class, e.g. torch.optim.AdamW"
            "; an optimizer built before initialization and rates are prescribed holds old ones"
        )
    reason = "belongs to no known update family"
    for cls in optimizer.__mro__:
        family = _REGISTERED.get(cls) or _listed(cls)
        if family is not None:
            return family
        if _steps_by_itself(cls):  # whatever its bases do, it does something else
            if any(_REGISTERED.get(base) or _listed(base) for base in optimizer.__mro__):
                reason = f"has a step of its own, in {cls.__module__}.{cls.__qualname__}"
            break
    names = sorted({name for classes in _FAMILIES.values() for name in classes})
    raise UnknownOptimizerError(
        f"optimizer={optimizer.__name__} {reason} (known: {', '.join(names)}, each of its own "
        "package). Say how its step scales with "
        "thetaone.parametrization.register_update_family(cls, family), "
        "where family is SIGN, GRADIENT, RELATIVE, ORTHOGONAL or an UpdateFamily of your own"
    )


def _steps_by_itself(cls: type) -> bool:
    """Whether a class has a ``step`` that none of its bases has.

    The first optimizer that is built of a class gives it a wrapper of the ``step`` it inherits.
    """
    step = vars(cls).get("step")
    bases = (vars(base).get("step") for base in cls.__mro__[1:])
    return step is not None and unwrap(step) not in [unwrap(one) for one in bases if one]


def _listed(cls: type) -> UpdateFamily | None:
    for package, classes in _FAMILIES.items():
        if cls.__module__ == package or cls.__module__.startswith(package + "."):
            return classes.get(cls.__name__)
    return None
