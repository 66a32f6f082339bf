"""Factors of the forward pass, moved into parameters. No torch.

Table 3 knows no factors in the forward pass. What a model puts there is compared between target
and base, and what differs from the rule is folded: initial values and updates are multiplied by it
(the symmetry of ``rules.scales``), and the forward pass stays as it is.

- A factor on a parameter's use must not change with width.
- A sum over products of two features, such as attention logits q·k, is Θ(r) once they align
  (Tensor Programs V, section 4): its factor must change as 1/r.
- A matrix that a layer makes for each sample acts on features as a hidden one: its entries are
  independent at first, so that they start as r^-1/2, and change as 1/r.
- The readout of a tied embedding must see its input times 1/r.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from thetaone.parametrization.rules._pair import Pair
from thetaone.parametrization.rules._roles import Assignment
from thetaone.parametrization.rules._width import HIDDEN, INPUT, VECTOR, init_factor
from thetaone.records import (
    FACTOR,
    TERMS,
    UNIT,
    FeatureProduct,
    FoldTarget,
    Reduction,
    RowFactor,
    Site,
    Use,
)

_SAME = 1e-6  # relative; factors are products of a few rounded numbers


@dataclass(slots=True)
class Folds:
    """What is folded where.

    Attributes:
        parameters: Factor on whole parameters.
        initial: Further factor on the initial values of whole parameters, not on their updates.
        rows: Factors on some rows of a parameter, which stay in the forward pass.
        readouts: By embedding: factor on the input of its readout, which stays there too.
        shared: By the first of the products that share their sides: the factor they want.
        problems: What can be folded nowhere, in words.
    """

    parameters: dict[str, float] = field(default_factory=lambda: defaultdict(lambda: 1.0))
    initial: dict[str, float] = field(default_factory=lambda: defaultdict(lambda: 1.0))
    rows: dict[str, list[RowFactor]] = field(default_factory=lambda: defaultdict(list))
    readouts: dict[str, float] = field(default_factory=dict[str, float])
    shared: dict[Hashable, float] = field(default_factory=dict[Hashable, float])
    problems: list[str] = field(default_factory=list[str])

    def put(self, targets: tuple[FoldTarget, ...], factor: float) -> None:
        """Multiply parameters, or rows of them."""
        for target in targets:
            if not target.spans:
                self.parameters[target.parameter] *= factor
            for span in target.spans:
                self.rows[target.parameter].append(
                    RowFactor(axis=target.axis, start=span.start, stop=span.stop, factor=factor)
                )


def forward_folds(
    pair: Pair, assignments: Mapping[str, Assignment], *, skipped: frozenset[str] = frozenset()
) -> Folds:
    """All folds that width asks for.

    Args:
        pair: Target and base.
        assignments: Roles by name.
        skipped: Ends of residual branches, whose factor depth accounts for.
    """
    folds = Folds()
    for site in pair.target.sites:
        base = pair.bases[site.name]
        ratio = base.factor / site.factor if site.factor and base.factor else 1.0
        if ratio != ratio:
            folds.problems.append(
                f"{site.name} is multiplied by a number on the meta device: build the model with "
                "that buffer on the CPU, so that its change with width can be read"
            )
            continue
        if pair.place(site.name) in skipped:
            continue
        if problem := _differing_numbers(site, base, ratio):
            folds.problems.append(problem)
            continue
        if _same(ratio):
            continue
        if any(use.how in ("nonlinear", "shifted") for use in site.uses):
            folds.problems.append(
                f"{site.name} reaches {site.uses[0].where or 'the model'} through a function that "
                "is not linear in it, such as a gain 1 + g, and what follows wants a factor "
                f"{ratio:.4g} that so cannot be moved into it: put one number there at every width"
            )
            continue
        folds.parameters[site.name] *= ratio
    _fold_norms(pair, assignments, folds)
    for product, base in pair.products():
        _fold_product(pair, product, base, folds)
    for name, assignment in assignments.items():
        if pair.target.by_name[name].readout is not None:
            _fold_readout(pair, name, assignment, folds)
    folds.problems += [
        problem
        for reduction, base in pair.reductions()
        if not (pair.stacks and reduction.operation in (FACTOR, TERMS))  # may grow with depth
        and (problem := _reduction_problem(reduction, base))
    ]
    return folds


def _differing_numbers(site: Site, base: Site, ratio: float) -> str:
    """Why one factor is not right for all uses of a parameter; empty when it is."""
    if len(site.uses) != len(base.uses):
        return ""
    for ours, theirs in zip(site.uses, base.uses, strict=True):
        if ours.factor and theirs.factor and not _same(theirs.factor / ours.factor / ratio):
            return (
                f"{site.name} is used times {base.factor:.4g} and times {theirs.factor:.4g} at the "
                f"base, times {site.factor:.4g} and times {ours.factor:.4g} at the target, the "
                f"second in {ours.where or 'the model'}: no one weight can hold both changes. Put "
                "one number on each use at every width"
            )
    return ""


def _fold_norms(pair: Pair, assignments: Mapping[str, Assignment], folds: Folds) -> None:
    """``weight_norm``: a norm of n entries goes as σ·√n of the weight it belongs to."""
    for site in pair.target.sites:
        weight = assignments.get(site.norm_of)
        if weight is not None:
            count = site.norm_count / pair.bases[site.name].norm_count
            sigma = init_factor(weight.role, weight.r_in, weight.r_out)
            folds.parameters[site.name] *= sigma * count**0.5


def _fold_product(pair: Pair, product: FeatureProduct, base: FeatureProduct, folds: Folds) -> None:
    missing = base.size / product.size / (product.factor / base.factor)
    if missing != missing or product.cancels:
        return
    each = missing**0.5 if product.same else missing
    if product.shared is not None:
        first = folds.shared.setdefault((product.shared, product.sides), each)
        if not _same(first / each):
            folds.problems.append(
                f"{product.operation} in {product.where or 'the model'} wants a factor "
                f"{each:.4g} more where another call of the same layer wants {first:.4g}: let "
                "the forward pass divide each by the number of its features"
            )
        if product.order != product.shared:
            return
    if _same(missing):
        return
    trained = {site.name for site in pair.target.sites if site.trainable}
    for side in product.sides:
        if all(target.parameter in trained for target in side):
            folds.put(side, each)
            r, rows = product.size / base.size, product.spread / base.spread
            if rows != 1:
                for target in side:
                    folds.initial[target.parameter] *= r * init_factor(HIDDEN, r, rows)
            return
    folds.problems.append(
        f"{product.operation} in {product.where or 'the model'} sums products of two features over "
        f"{base.size} -> {product.size} of them and wants a factor {missing:.4g} more, which can "
        "be moved into no parameter that makes one of them alone: let the forward pass divide by "
        "their number, as q @ k / d_head"
    )


def _reduction_problem(reduction: Reduction, base: Reduction) -> str:
    """Why a reduction is not right at both widths; empty when it is."""
    where = reduction.where or "the model"
    ratio, factor = reduction.size / base.size, reduction.factor / base.factor
    if reduction.operation == FACTOR:
        return "" if _same(factor) else (
            f"{where} multiplies features by {base.factor:.4g} at the base and by "
            f"{reduction.factor:.4g} at the target, past everything in which they are linear: put "
            "one number there at every width"
        )  # fmt: skip
    if reduction.operation == UNIT:
        return "" if _same(factor) else (
            f"{where} divides features by their norm, which makes each {base.factor:.4g} at the "
            f"base and {reduction.factor:.4g} at the target, and adds them to what has one size at "
            "every width, or takes a function of them: multiply them by √(their number), as "
            "nn.RMSNorm does"
        )  # fmt: skip
    if _same(ratio) or _same(ratio**reduction.power * factor):
        return ""
    cure = "take the mean, or multiply it by" if reduction.power == 1 else "multiply it by"
    power = "" if reduction.power == 1 else f" to the power {reduction.power:g}"
    what = (
        f"a sum in {where} adds {base.size} -> {reduction.size} terms one by one"
        if reduction.operation == TERMS
        else f"{reduction.operation} in {where} runs over {base.size} -> {reduction.size} features "
        "as they are"
    )
    return f"{what}, so that its result changes with width: {cure} (base width / width){power}"


def _fold_readout(pair: Pair, name: str, assignment: Assignment, folds: Folds) -> None:
    site, base = pair.target.by_name[name], pair.bases[name]
    if base.readout is None or assignment.role not in (INPUT, VECTOR):
        return
    where = site.readout.where if site.readout else ""
    each = {
        ours.fan_in / theirs.fan_in * ours.factor / theirs.factor
        for ours, theirs in zip(_readouts(site), _readouts(base), strict=False)
    }
    growth = max(each)
    if len(_readouts(site)) != len(_readouts(base)) or not _same(growth / min(each)):
        folds.problems.append(
            f"{name} is also the weight of several readouts in {where or 'the model'}, whose "
            "inputs want different factors: put a factor base width / width on each of them"
        )
        return
    missing = 1 / growth / folds.parameters[name]
    if _same(missing):
        return
    trained = {one.name for one in pair.target.sites if one.trainable}
    whole = all(not t.spans and t.parameter in trained for t in site.readout_folds)
    if site.readout_folds and whole:
        folds.put(site.readout_folds, missing)
    elif site.readout_module:
        folds.readouts[name] = missing
    else:
        folds.problems.append(
            f"{name} is also the weight of a readout in {where or 'the model'}, whose "
            f"input wants a factor {missing:.4g}, which can be moved into no layer before it: put "
            "a norm before the readout, or a factor base width / width on its input"
        )


def _readouts(site: Site) -> tuple[Use, ...]:
    return (*([site.readout] if site.readout else []), *site.readouts)


def _same(ratio: float) -> bool:
    return abs(ratio - 1.0) < _SAME
