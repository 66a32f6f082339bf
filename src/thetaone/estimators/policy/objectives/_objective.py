"""Names and formulas: which objective the gradient of a group policy loss ascends.

On-policy (one update from each batch), with completions o of one prompt, rewards R, success
probability p for 0/1 rewards, groups of G, reference policy ρ:

    E ĝ = c · ∇E[(R − b)/w(o)] + β · (the KL's term) + (the entropy's term)

c and b come from the advantage, w from the aggregation over tokens; each is stated below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, inf, sqrt
from typing import Literal

from thetaone.errors import InputError

AdvantageKind = Literal["none", "leave-one-out", "mean", "group-std", "batch-std"]
KLKind = Literal["k1", "k2", "k3"]
KLPlace = Literal["loss", "reward"]
Aggregation = Literal["sequence-sum", "sequence-mean", "token-mean", "constant"]

ADVANTAGES: tuple[AdvantageKind, ...] = ("none", "leave-one-out", "mean", "group-std", "batch-std")
AGGREGATIONS: tuple[Aggregation, ...] = ("sequence-sum", "sequence-mean", "token-mean", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a gradient ascends.

    Attributes:
        name: In words.
        formula: In symbols.
        exact: Whether E ĝ is its gradient at any batch size, up to a positive constant.
        caveats: What keeps it from being so, or from being what was meant.

    Examples:
        >>> from thetaone.estimators.policy import objective_of
        >>> objective_of(ObjectiveSettings()).formula
        'E[R]'
    """

    name: str
    formula: str
    exact: bool = True
    caveats: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.formula}"]
        return "\n".join([*lines, *(f"  {caveat}" for caveat in self.caveats)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """Everything that decides the objective of a group policy loss.

    Attributes:
        advantage: ``none`` (the reward), ``leave-one-out``, ``mean`` (R − group mean),
            ``group-std`` (the same over the group's standard deviation), ``batch-std`` (over the
            batch's).
        group_size: Completions a prompt, G [count].
        epsilon: Added to the standard deviation.
        aggregation: Over tokens: ``sequence-sum`` (sum, mean over completions), ``sequence-mean``
            (mean of each completion first), ``token-mean`` (over all tokens of the batch),
            ``constant`` (sum over a fixed length).
        kl_kind: ``k1`` log π/ρ, ``k2`` its half square, ``k3`` ρ/π − 1 − log ρ/π; None for no KL.
        kl_place: ``loss`` (differentiated) or ``reward`` (detached, times ∇log π).
        kl_weighted: Whether a KL in the loss is multiplied with the importance ratio.
        kl_coefficient: β ≥ 0.
        entropy_weight: Weight of the entropy bonus.
        updates_per_batch: Optimizer steps from each batch; more than 1 is off-policy [count].
        clip: Clipping range of the ratio, None without.

    Examples:
        >>> ObjectiveSettings(advantage="mean", group_size=4).advantage
        'mean'
    """

    advantage: AdvantageKind = "leave-one-out"
    group_size: int = 8
    epsilon: float = 0.0
    aggregation: Aggregation = "sequence-sum"
    kl_kind: KLKind | None = None
    kl_place: KLPlace = "loss"
    kl_weighted: bool = False
    kl_coefficient: float = 0.0
    entropy_weight: float = 0.0
    updates_per_batch: int = 1
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for value, allowed, name in (
            (self.advantage, ADVANTAGES, "advantage"),
            (self.aggregation, AGGREGATIONS, "aggregation"),
            (self.kl_kind, ("k1", "k2", "k3", None), "kl_kind"),
            (self.kl_place, ("loss", "reward"), "kl_place"),
        ):
            if value not in allowed:
                raise InputError(f"{name}={value!r}: choose from {', '.join(map(str, allowed))}")
        if self.group_size < 1 or self.updates_per_batch < 1:
            raise InputError(
                f"group_size={self.group_size}, updates_per_batch={self.updates_per_batch}: "
                "both must be at least 1"
            )


def objective_of(settings: ObjectiveSettings) -> Objective:
    """The objective that these settings ascend, with its formula.

    Args:
        settings: See ``ObjectiveSettings``.

    Examples:
        >>> print(objective_of(ObjectiveSettings()))
        expected reward: E[R]
    """
    terms = [_reward_term(settings)]
    if settings.kl_kind is not None and settings.kl_coefficient:
        terms.append(_kl_term(settings))
    if settings.entropy_weight:
        terms.append(
            Objective(
                name="entropy in the visited states",
                formula=f"+ {settings.entropy_weight:g}·Σ_t H(π(·|h_t)), h_t held fixed",
            )
        )
    caveats = [caveat for term in terms for caveat in term.caveats] + _off_policy(settings)
    return Objective(
        name=" and ".join(term.name for term in terms),
        formula=" ".join(term.formula for term in terms),
        exact=all(term.exact for term in terms) and settings.updates_per_batch == 1,
        caveats=tuple(caveats),
    )


def _reward_term(settings: ObjectiveSettings) -> Objective:
    if settings.advantage != "none" and settings.group_size == 1:
        return _group_of_one(settings)
    name, factor, exact, caveats = _ADVANTAGE[settings.advantage](settings)
    inside, weight_caveat, weight_exact = _AGGREGATION[settings.aggregation]
    centred = settings.advantage != "none" and settings.aggregation == "sequence-mean"
    reward = "(R − E R)" if centred else "R"
    if settings.advantage == "group-std" and settings.aggregation != "sequence-mean":
        formula = inside.format(f"C_{settings.group_size}(p)")
    else:
        formula = factor + "E[" + inside.format(reward) + "]"
    return Objective(
        name=name if settings.aggregation != "sequence-mean" else f"{name} a token",
        formula=formula,
        exact=exact and weight_exact,
        caveats=(*caveats, *([weight_caveat] if weight_caveat else [])),
    )


Advantage = tuple[str, str, bool, tuple[str, ...]]


def _plain(settings: ObjectiveSettings) -> Advantage:
    return "expected reward", "", True, ()


def _mean_with_itself(settings: ObjectiveSettings) -> Advantage:
    g = settings.group_size
    shrunk = f"the group mean holds the own reward: E ĝ is (G−1)/G = {(g - 1) / g:.3g} of ∇E[R]"
    return "expected reward", f"{g - 1}/{g}·", True, (shrunk,)


def _group_std(settings: ObjectiveSettings) -> Advantage:
    g, epsilon = settings.group_size, settings.epsilon
    at = {p: standardized_multiplier(p, g, epsilon) for p in (0.5, 0.1, 0.02)}
    table = ", ".join(f"{value:.2f} at p = {p:g}" for p, value in at.items())
    return (
        "2·arcsin√p in place of the success probability p",
        f"c_{g}(p)·",
        True,
        (
            "for 0/1 rewards the gradient of each prompt is c_G(p)·∇p: C_G(p) = ∫c_G is ascended, "
            f"2·arcsin√p for G → ∞, so that hard and easy prompts count more; c_{g} is {table}",
            "for other rewards no fixed function of the reward is ascended",
        ),
    )


def _batch_std(settings: ObjectiveSettings) -> Advantage:
    g = settings.group_size
    return (
        "expected reward",
        f"{g - 1}/{g}·(1/σ)·",
        False,
        (
            "σ, the standard deviation over the batch, is estimated from the same rewards: a "
            "positive factor on every prompt alike, and a bias of order 1/batch",
        ),
    )


_ADVANTAGE: dict[AdvantageKind, Callable[[ObjectiveSettings], Advantage]] = {
    "none": _plain,
    "leave-one-out": _plain,
    "mean": _mean_with_itself,
    "group-std": _group_std,
    "batch-std": _batch_std,
}
# what stands inside the expectation, what is wrong with it, and whether E ĝ is its gradient
_AGGREGATION: dict[Aggregation, tuple[str, str, bool]] = {
    "sequence-sum": ("{}", "", True),
    "sequence-mean": (
        "{}/|o|",
        "the mean over each completion's tokens divides by its length: a short right answer counts "
        "more than a long one, a long wrong one less, and the baseline is no longer neutral",
        True,
    ),
    "token-mean": (
        "{}/E|o|",
        "the mean over the batch's tokens is a ratio of two sums: a multiple of the gradient for "
        "many tokens, biased toward long completions by the order of 1/completions before",
        False,
    ),
    "constant": ("{}/L", "", True),
}


def _group_of_one(settings: ObjectiveSettings) -> Objective:
    return Objective(
        name="nothing of the reward",
        formula="0",
        exact=settings.advantage in ("mean", "group-std", "batch-std"),
        caveats=(
            "a group of one completion has no other to compare with: R − mean is 0. (verl takes "
            "mean 0 and std 1 there: the raw reward without a baseline.) Use G ≥ 2",
        ),
    )


def _kl_term(settings: ObjectiveSettings) -> Objective:
    beta = f"{settings.kl_coefficient:g}"
    kind, place = settings.kl_kind, settings.kl_place
    weighted = settings.kl_weighted and place == "loss"
    key = f"{kind} weighted" if weighted else f"{kind} in {place}"
    name, formula, caveat = _KL[key]
    caveats = [caveat] if caveat else []
    exact = settings.aggregation != "token-mean"
    if place == "loss" and settings.aggregation == "sequence-mean":
        if kind == "k1" and not weighted:
            name, formula = "longer completions", "E[1/|o|]"
            caveats = ["k1 in the loss is no KL; with 1/|o| it pushes lengths instead"]
        else:
            name, formula, exact = f"{name}, over lengths", f"{formula} (tokens over |o|)", False
            caveats.append("a token's term over its completion's length averages to no KL")
    elif place == "reward" and settings.aggregation == "sequence-mean":
        name, formula = f"{name}, over lengths", f"E[(K − E K)/|o|], K = Σ_t {kind}"
    if settings.aggregation == "constant" and formula != "0":
        divergence, states = formula.removesuffix(_STATES), _STATES * formula.endswith(_STATES)
        formula = f"{divergence.rstrip()}/L {states}".rstrip()
    if place == "reward" and settings.advantage in ("group-std", "batch-std"):
        exact = False
        caveats.append("rewards less a KL are not 0 or 1: ÷std has no fixed objective for them")
    if place == "reward" and settings.advantage == "mean":
        beta = f"{settings.group_size - 1}/{settings.group_size}·{beta}"
    return Objective(
        name=name,
        formula=f"− {beta}·{formula}" if formula != "0" else "− 0",
        exact=exact,
        caveats=tuple(caveats),
    )


_STATES = "in the states visited, whose law is held fixed"
_KL: dict[str, tuple[str, str, str]] = {
    "k1 in loss": (
        "no KL at all",
        "0",
        "k1 in the loss: E ∇log π = 0, so its gradient is noise of mean 0 and nothing holds the "
        "policy to ρ",
    ),
    "k2 in loss": ("reverse KL a token", f"Σ_t KL(π‖ρ) {_STATES}", ""),
    "k3 in loss": (
        "forward KL a token",
        f"Σ_t KL(ρ‖π) {_STATES}",
        "k3 in the loss: its value estimates KL(π‖ρ), its gradient is that of the forward KL(ρ‖π)",
    ),
    "k1 weighted": ("reverse KL a token", f"Σ_t KL(π‖ρ) {_STATES}", ""),
    "k2 weighted": (
        "expected half square of log π/ρ",
        f"Σ_t E[½ log²(π/ρ)] {_STATES}",
        "k2 with the ratio is another divergence than KL(π‖ρ)",
    ),
    "k3 weighted": ("reverse KL a token", f"Σ_t KL(π‖ρ) {_STATES}", ""),
    "k1 in reward": ("reverse KL", "KL(π‖ρ)", ""),
    "k2 in reward": (
        "no KL",
        "(E[Σ_t ½ log²(π/ρ)] − Σ_t KL(π‖ρ), states held fixed in the second)",
        "k2 in the reward is biased for KL(π‖ρ)",
    ),
    "k3 in reward": (
        "difference of the two KLs",
        "(KL(π‖ρ) − Σ_t KL(ρ‖π), states held fixed in the second)",
        "k3 in the reward takes the forward KL away again",
    ),
}


def _off_policy(settings: ObjectiveSettings) -> list[str]:
    if settings.updates_per_batch == 1:
        return []
    clipped = "clipped " if settings.clip else ""
    return [
        f"{settings.updates_per_batch} updates a batch: the formula holds for the first; the later "
        f"ones ascend the {clipped}ratio objective E_old[(π/π_old)·A], an approximation near π_old"
    ]


def standardized_multiplier(p: float, group_size: float, epsilon: float = 0.0) -> float:
    """c_G(p): what ÷std multiplies ∇p with, for 0/1 rewards in groups of G.

    c_G(p) = E[A | R = 1] − E[A | R = 0], over the G − 1 others; A = 0 in a group without spread.
    1/√(p(1 − p)) for G → ∞, the derivative of 2·arcsin√p.

    Args:
        p: Success probability in [0, 1].
        group_size: G ≥ 2, or inf.
        epsilon: Added to the standard deviation.

    Source: Davis & Recht 2025, arXiv 2510.13651 (the limit).

    Examples:
        >>> [round(standardized_multiplier(p, 8), 2) for p in (0.5, 0.1, 0.02)]
        [1.74, 2.18, 2.41]
    """
    if group_size == inf:
        return 1 / sqrt(p * (1 - p))
    g = int(group_size)
    total = 0.0
    for others in range(g):
        chance = comb(g - 1, others) * p**others * (1 - p) ** (g - 1 - others)
        total += chance * (
            _standardized(others + 1, g, 1, epsilon) - _standardized(others, g, 0, epsilon)
        )
    return total


def _standardized(successes: int, group_size: int, reward: int, epsilon: float) -> float:
    mean = successes / group_size
    spread = sqrt(successes * (group_size - successes) / (group_size * (group_size - 1)))
    return 0.0 if spread == 0 else (reward - mean) / (spread + epsilon)
