"""Weight decay as named policies: what a change of width does to λ. No torch.

=============  ==========================================================================
policy         λ of a group
=============  ==========================================================================
shrinkage      ηλ is the same at every width: λ ∝ 1/η (mup; Wang and Aitchison, 2405.13698)
sqrt-width     λ ∝ √width for weights that are decayed (2510.15262); √r_in, or √r_out of vectors
unscaled       λ is the same at every width
independent    each step shrinks by the given number, whatever the learning rate: λ/η
none           0
=============  ==========================================================================

Coupled decay (``Adam(weight_decay=…)``) adds λW to a gradient that is then normalised: there
``shrinkage`` keeps the ratio λW/gradient of the initial weights.
"""

from thetaone.errors import InputError
from thetaone.parametrization.rules._families import Options, UpdateFamily
from thetaone.parametrization.rules._width import VECTOR, Scales

SHRINKAGE, SQRT_WIDTH, UNSCALED = "shrinkage", "sqrt-width", "unscaled"
INDEPENDENT, NONE = "independent", "none"
POLICIES = (SHRINKAGE, SQRT_WIDTH, UNSCALED, INDEPENDENT, NONE)


def decay_factor(
    policy: str, scales: Scales, lr_factor: float, family: UpdateFamily, options: Options
) -> float:
    """Factor on the weight decay of one parameter.

    For ``independent`` the factor on λ/η, that is 1/lr_factor (the caller divides by η).

    Args:
        policy: One of ``POLICIES``.
        scales: Of the parameter.
        lr_factor: Factor on its learning rate.
        family: Update family of its optimizer.
        options: Options of its optimizer.

    Returns:
        Factor >= 0; exactly 1 at the base width, except ``none``.

    Raises:
        InputError: An unknown policy.

    Examples:
        >>> from thetaone.parametrization import SIGN_DECOUPLED
        >>> from thetaone.parametrization import scales
        >>> decay_factor("shrinkage", scales("hidden", 4, 4), 0.25, SIGN_DECOUPLED, {})
        4.0
    """
    if policy not in POLICIES:
        raise InputError(f"decay={policy!r} is not a policy: choose one of {', '.join(POLICIES)}")
    if policy == NONE:
        return 0.0
    if policy == UNSCALED:
        return 1.0
    if policy == SQRT_WIDTH:
        return (scales.fan_out if scales.role == VECTOR else scales.fan_in) ** 0.5
    if policy == SHRINKAGE and family.name == "sign" and not family.is_decoupled(options):
        return scales.gradient / scales.init
    return 1.0 / lr_factor
