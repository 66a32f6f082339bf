"""Judges what was observed: exponents, bands, three answers. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import stdtrit

from thetaone.laws import fit_exponent
from thetaone.parametrization.checking.verdict._causes import Fault, Places, likely_cause
from thetaone.parametrization.checking.verdict._expected import ALIGNED_NORM
from thetaone.records import (
    ALIGNMENT,
    CLIPPING,
    DECAY,
    FAILS,
    FEATURE_SIZE,
    FEATURE_UPDATE,
    HOLDS,
    OWN_UPDATE,
    QUANTITIES,
    UNDECIDED,
    UPDATE_NORM,
    WEIGHT_NORM,
    WIDTH,
    Answer,
    LayerVerdict,
    PowerLaw,
)

Band = tuple[float, float]
Key = tuple[str, str, int]  # layer, quantity, step

# Θ(1) means exponent 0 and the wrong rules miss by ±1/2 or more: the line is drawn midway. Initial
# norms are compared with Gaussian ones; a structured matrix bends away from that by up to 0.3.
# Alignment of few inputs with a wide update falls a little. Features of initial weights may be
# small, as a readout's are, but not large.
BANDS: Mapping[str, Band] = {
    FEATURE_SIZE: (-math.inf, 0.25),
    FEATURE_UPDATE: (-0.25, 0.25),
    WEIGHT_NORM: (-0.35, 0.35),
    UPDATE_NORM: (-0.25, 0.25),
    OWN_UPDATE: (-0.25, 0.25),
    ALIGNMENT: (-0.35, 0.35),
    DECAY: (-0.25, 0.25),
    CLIPPING: (-0.1, 0.1),
}
CONFIDENCE = 0.95
LOSS = "(loss)"  # where an operation stands that no module calls
MOST_SEEDS = 1000  # beyond this, no number of seeds is named


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What else a verdict depends on.

    Attributes:
        order: Layers in order of execution; one that is called again, at its last call too.
        roles: Role by layer, for causes.
        slack: Exponents that a layer's features may also have, by layer: (lowest, highest).
        early: Exponent, below 0, with which a layer's first updates may fall, by layer.
        early_inputs: The same of what a layer takes in.
        makers: Label of features to that of the weight that makes them.
        few: Vectors of so few entries that whether their steps agree in sign is chance.
        shifts: Parameters that are added to features: small ones do no harm.
        zero_initial: Whether some matrix starts at zero, so that gradients reach others late.
        axis: What grows.
        label: Parametrization that is judged.
        bands: Exponents that count as Θ(1), by quantity.
    """

    order: Sequence[str]
    roles: Mapping[str, str] = field(default_factory=dict[str, str])
    slack: Mapping[str, Band] = field(default_factory=dict[str, Band])
    early: Mapping[str, float] = field(default_factory=dict[str, float])
    early_inputs: Mapping[str, float] = field(default_factory=dict[str, float])
    makers: Mapping[str, str] = field(default_factory=dict[str, str])
    few: frozenset[str] = frozenset()
    shifts: frozenset[str] = frozenset()
    zero_initial: bool = False
    axis: str = WIDTH
    label: str = ""
    bands: Mapping[str, Band] = field(default_factory=lambda: BANDS)

    def band(self, key: Key) -> Band:
        """Exponents that count as Θ(1) for a row."""
        layer, quantity, step = key
        low, high = self.bands[quantity]
        if quantity in (FEATURE_SIZE, FEATURE_UPDATE) and layer in self.slack:
            low, high = low + self.slack[layer][0], high + self.slack[layer][1]
        if quantity in (UPDATE_NORM, OWN_UPDATE, FEATURE_UPDATE):
            low += self.early.get(layer, 0.0)
        if quantity in (OWN_UPDATE, FEATURE_UPDATE):
            low += self.early_inputs.get(layer, 0.0)
        if quantity == WEIGHT_NORM and layer in self.shifts:
            low = -math.inf
        if quantity == UPDATE_NORM and layer in self.few and (step > 1 or layer in self.early):
            low = -math.inf
        return low, high


def judge(
    observed: Mapping[Key, Sequence[Sequence[float]]], sizes: Sequence[int], context: Context
) -> tuple[LayerVerdict, ...]:
    """One verdict per layer, quantity and step, in order of execution.

    A row holds when the interval of its exponent lies in the band, fails when it lies outside, and
    is undecided otherwise.

    A layer's feature update is ΔW h + W₀ Δh. The first part, its own, is Θ(1) when its weights are
    maximally updated (Tensor Programs IV, Definition 5.2). Of the second, a readout (σ ∝ 1/fan_in)
    rightly loses what is not aligned with W₀, as 1/√fan_in. So a feature update that falls while
    the layer's own update does not is no fault, nor is what it passes on.

    The norm of an update is the size of its entries, which the rate sets, times how well they
    align, between 1 and about 1/√n_in + 1/√n_out. A sum over few tokens aligns as 1/√tokens from
    some width on, and less well as it comes there: a norm that falls while the entries keep their
    size is no fault, and whether ΔW h falls with it for good is open.

    Args:
        observed: Measured over expected values, shape [seeds, sizes], by layer, quantity, step;
            ``ALIGNED_NORM`` among the quantities gives no row.
        sizes: Widths or depths [count].
        context: Order, roles and bands.

    Returns:
        The verdicts.
    """
    places = Places(context.order)
    last = max(step for _, _, step in observed)
    judged = [key for key in observed if key[1] != ALIGNED_NORM]
    rows = sorted(judged, key=lambda k: (places.of(k), QUANTITIES.index(k[1]), k[2]))
    laws = {key: _law(sizes, observed[key]) for key in observed}
    answers: dict[Key, Answer] = {
        key: _of_zeros(key, observed[key], last, context)
        if (law := laws[key]) is None
        else _of_law(law, context.band(key))
        for key in rows
    }
    opened = _excuse_alignment(rows, laws, answers, context)
    _excuse_falls(rows, laws, answers, last, context)
    faults = [
        Fault(key=key, law=laws[key], role=context.roles.get(key[0], ""))
        for key in rows
        if answers[key] == FAILS
    ]
    return tuple(
        LayerVerdict(
            layer=key[0],
            role=context.roles.get(key[0], ""),
            quantity=key[1],
            step=key[2],
            law=laws[key],
            band=opened.get(key, context.band(key)),
            values=tuple(tuple(row) for row in observed[key]),
            answer=answers[key],
            seeds_needed=_seeds_needed(laws[key], context.band(key), len(observed[key]))
            if answers[key] == UNDECIDED and key not in opened
            else 0,
            cause=likely_cause(key, faults, places, context.axis, context.label)
            if answers[key] == FAILS
            else "",
        )
        for key in rows
    )


def _law(sizes: Sequence[int], values: Sequence[Sequence[float]]) -> PowerLaw | None:
    """Exponent with a Student interval over seeds; ``None`` when a value has no logarithm.

    The standard error is the larger of two: the scatter of the seeds' slopes, and the residuals
    about parallel lines. Two seeds that agree by chance are not taken for knowledge.
    """
    if any(not (0 < value < math.inf) for row in values for value in row):
        return None
    law = fit_exponent(sizes, values, confidence=CONFIDENCE)
    seeds, points = len(values), len(sizes)
    if seeds < 2 or points < 3:
        return law
    stderr = max(law.stderr, _residual_stderr(sizes, values, law.exponent))
    half = float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2)) * stderr
    interval = (law.exponent - half, law.exponent + half)
    return law.model_copy(update={"stderr": stderr, "interval": interval})


def _residual_stderr(
    sizes: Sequence[int], values: Sequence[Sequence[float]], exponent: float
) -> float:
    logs = [math.log(size) for size in sizes]
    centred = [x - sum(logs) / len(logs) for x in logs]
    spread = sum(x * x for x in centred)
    squares = 0.0
    for row in values:
        y = [math.log(value) for value in row]
        mean = sum(y) / len(y)
        squares += sum((b - mean - exponent * x) ** 2 for x, b in zip(centred, y, strict=True))
    freedom = len(values) * (len(sizes) - 1) - 1
    return math.sqrt(squares / freedom / spread / len(values))


def _of_law(law: PowerLaw, band: Band) -> Answer:
    low, high = law.interval
    if band[0] <= low and high <= band[1]:
        return HOLDS
    return FAILS if high < band[0] or low > band[1] else UNDECIDED


def _of_zeros(key: Key, values: Sequence[Sequence[float]], last: int, context: Context) -> Answer:
    """The answer where a value is zero or not finite.

    A zero initial value is a choice, and a first step that leaves a layer as it is may be one
    too: behind a matrix of zeros there is no gradient yet. A layer that never moves is dead. What
    enters an operation outside every layer is zero for good where the program says so: the log of a
    ratio of probabilities before they move, ℓ − ℓ.detach().
    """
    numbers = [value for row in values for value in row]
    if not all(map(math.isfinite, numbers)):
        return FAILS
    if all(value == 0 for value in numbers):
        if key[2] == 0 or key[2] < last or key[0].startswith(f"{LOSS} "):
            return HOLDS
        return UNDECIDED if context.zero_initial and last == 1 else FAILS
    return FAILS if key[2] in (0, last) and key[1] != FEATURE_SIZE else UNDECIDED


def _excuse_alignment(
    rows: Sequence[Key],
    laws: Mapping[Key, PowerLaw | None],
    answers: dict[Key, Answer],
    context: Context,
) -> dict[Key, Band]:
    """Let norms of updates fall as their entries align less, and leave open what that does.

    Returns:
        Bands of the layers' own updates that are left open: no number of seeds decides them.
    """
    opened: dict[Key, Band] = {}
    for key in rows:
        layer, quantity, step = key
        norm, entries = (laws.get((layer, q, step)) for q in (UPDATE_NORM, ALIGNED_NORM))
        law, (low, high) = laws[key], context.band(key)
        if law is None or norm is None or entries is None or law.interval[1] > high:
            continue
        if _of_law(entries, context.band((layer, UPDATE_NORM, step))) != HOLDS:
            continue
        if quantity == UPDATE_NORM:
            answers[key] = HOLDS
        elif quantity == OWN_UPDATE and answers[key] == FAILS:
            band = low + min(0.0, norm.exponent - entries.exponent), high
            if _of_law(law, band) != FAILS:
                answers[key], opened[key] = UNDECIDED, band
    return opened


def _excuse_falls(
    rows: Sequence[Key],
    laws: Mapping[Key, PowerLaw | None],
    answers: dict[Key, Answer],
    last: int,
    context: Context,
) -> None:
    """Let features fall that fall with W₀ Δh alone, and what comes after them as much.

    So may what comes after first changes that are small as prescribed. Where it is open whether
    the layer's own update falls, so is whether its features may.
    """
    steepest, open_fall = 0.0, 0.0
    for key in rows:
        law = laws[key]
        if key[1] != FEATURE_UPDATE or law is None or law.exponent >= 0:
            continue
        if answers[key] == HOLDS:
            if key[0] in context.early and law.exponent < context.bands[FEATURE_UPDATE][0]:
                steepest = min(steepest, law.exponent)
            continue
        makers = (key[0], context.makers.get(key[0], ""))
        updates = (answers.get((maker, OWN_UPDATE, last)) for maker in makers)
        update = next((one for one in updates if one is not None), None)
        if update == HOLDS:
            steepest = min(steepest, law.exponent)
            answers[key] = HOLDS
        elif update == UNDECIDED:
            open_fall = min(open_fall, law.exponent)
            answers[key] = UNDECIDED
        elif update is None:
            margin = context.bands[FEATURE_UPDATE][1]
            if steepest < 0 and law.exponent >= steepest - margin:
                answers[key] = HOLDS
            elif open_fall < 0 and law.exponent >= open_fall - margin:
                answers[key] = UNDECIDED


def _seeds_needed(law: PowerLaw | None, band: Band, seeds: int) -> int:
    """Fewest seeds whose interval would clear the nearest edge of the band; 0 when none does."""
    if law is None or not math.isfinite(law.stderr):
        return 0
    margin = min(abs(law.exponent - edge) for edge in band)
    spread = law.stderr * seeds**0.5
    for count in range(max(2, seeds + 1), MOST_SEEDS):
        if float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread / count**0.5 <= margin:
            return count
    return 0
