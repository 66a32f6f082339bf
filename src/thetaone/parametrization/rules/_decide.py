"""From two blueprints to a prescription: the pure heart of the room. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from math import inf, prod
from typing import Any

from thetaone.errors import InputError, PrescriptionError, RoleError, first_line
from thetaone.parametrization.rules._choices import Choices, check_choices
from thetaone.parametrization.rules._decay import decay_factor
from thetaone.parametrization.rules._depth import DepthRules, DepthScales, depth_rules
from thetaone.parametrization.rules._early import late_products, late_sums, small_inputs
from thetaone.parametrization.rules._families import UpdateFamily, update_family
from thetaone.parametrization.rules._folds import Folds, forward_folds
from thetaone.parametrization.rules._pair import Pair, pair_of
from thetaone.parametrization.rules._roles import Assignment, assign, override
from thetaone.parametrization.rules._width import (
    BOTTLENECK,
    FIXED,
    MATRIX,
    VECTOR,
    WHY,
    Scales,
    bilinear_init,
    scales,
)
from thetaone.records import (
    LOOKUP,
    RAW,
    Blueprint,
    FeatureProduct,
    Prescription,
    RowFactor,
    Rule,
    Site,
)
from thetaone.records import VECTOR as VECTOR_SITE


@dataclass(frozen=True, kw_only=True)
class Member:
    """One optimizer of a set-up, and the options it is built with."""

    cls: type
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @cached_property
    def family(self) -> UpdateFamily:
        """Its update family."""
        return update_family(self.cls)

    def build(self, parameters: Iterable[Any], lr: Any) -> Any:
        """The optimizer of some parameters or groups, at ``lr`` unless its options say a rate.

        Raises:
            InputError: The class does not take an option's value, such as a text for a number.
        """
        options = {"lr": lr, **self.options}
        try:
            return self.cls(parameters, **options)
        except Exception as error:  # of any class, also the user's own
            written = ", ".join(f"{name}={value!r}" for name, value in options.items())
            raise InputError(
                f"{self.cls.__name__}({written}) raises {type(error).__name__}: "
                f"{first_line(error)}; give each option a value that the class takes"
            ) from error


def decide(
    target: Blueprint, base: Blueprint | None, members: Mapping[str, Member], choices: Choices
) -> Prescription:
    """The prescription of a target, from its base or (``base=None``) from its own fans.

    Args:
        target: What is to be trained.
        base: Where the learning rate was tuned.
        members: Optimizer of each role; ``rest`` for the roles not named.
        choices: The user's choices.

    Returns:
        One rule a trainable parameter.

    Raises:
        PrescriptionError: See its subclasses for each cause.
    """
    check_choices(choices, {site.name for part in (target, base) if part for site in part.sites})
    sites = [site for site in target.sites if _is_trained(site, choices)]
    forced = {site.name: override(site.name, choices.roles) for site in sites}
    late, small, early_logits = dict[str, float](), dict[str, float](), dict[str, float]()
    if base is None:
        assignments = {site.name: _spectral(site, forced[site.name]) for site in sites}
        folds, depth = Folds(), DepthRules()
        _check_assigned(assignments, folds)
    else:
        pair = pair_of(target, base)
        sites = [site for site in pair.target.sites if _is_trained(site, choices)]
        assignments, folds, depth = _from_pair(pair, sites, forced, choices)
        products, small = list(late_products(pair)), small_inputs(pair, assignments)
        late, early_logits = late_sums(pair, assignments, products, small), _early_logits(products)
    at_base = base is not None and _shapes(base) == _shapes(target)
    rules: list[Rule] = []
    roles: set[str] = set()
    for site in sites:
        role = forced[site.name] or assignments[site.name].role
        member = _member(members, site, role)
        change = Change(
            fold=folds.parameters[site.name] * _fold(site.name, choices.folds),
            rows=tuple(folds.rows[site.name]),
            initial=folds.initial[site.name],
            multiplier=folds.readouts.get(site.name, 1.0),
            depth=depth.of(site.name),
            late=late.get(site.name, 1.0),
            small=small.get(site.name, 1.0),
        )
        rule = _rule(site, assignments[site.name], member, choices, change)
        if at_base and rule.init_factor == 1.0:  # nothing grows, so values stay to the bit
            rule = rule.model_copy(update={"init_std": None})
        rules.append(rule)
        roles.add(role)
    _check_roles_present(members, roles)
    return Prescription(
        optimizer="+".join(dict.fromkeys(member.cls.__name__ for member in members.values())),
        rules=tuple(rules),
        decay_policy=choices.decay,
        spectral=base is None,
        outputs=dict(depth.outputs),
        early_logits=early_logits,
    )


def _shapes(blueprint: Blueprint) -> list[tuple[int, ...]]:
    return [site.shape for site in blueprint.sites]


def _early_logits(products: Iterable[tuple[FeatureProduct, float]]) -> dict[str, float]:
    """By module: what sums of products of random signs change by, over those of aligned ones.

    Of r times as many products, each divided by r, the first is r^-½ and the second 1.
    """
    early: dict[str, float] = {}
    for product, growth in products:
        if growth != 1.0:
            early[product.where] = min(growth**-0.5, early.get(product.where, inf))
    return early


def _from_pair(
    pair: Pair, sites: Sequence[Site], forced: Mapping[str, str | None], choices: Choices
) -> tuple[dict[str, Assignment], Folds, DepthRules]:
    """Roles, folds and depth of a target that has a base."""
    assignments = {site.name: assign(pair, site, forced[site.name]) for site in sites}
    depth = depth_rules(pair, choices.depth_exponent)
    ends = {name for branch in pair.branches for name in branch.ends}
    deep = frozenset(name for name in ends if pair.depth_growth.get(name, 1.0) != 1.0)
    folds = forward_folds(pair, assignments, skipped=deep)
    _check_assigned(assignments, folds)
    return assignments, folds, depth


def _check_assigned(assignments: Mapping[str, Assignment], folds: Folds) -> None:
    """Refuse everything that is not understood, in one error."""
    problems = [one.problem for one in assignments.values() if one.problem] + folds.problems
    if problems:
        raise RoleError("\n".join(dict.fromkeys(problems)))


def _is_trained(site: Site, choices: Choices) -> bool:
    if site.trainable:
        return True
    if choices.frozen != "skip":
        raise PrescriptionError(
            f"{site.name} is frozen (requires_grad=False), so no rate can be prescribed for it: "
            "pass frozen='skip' to leave frozen parameters as they are"
        )
    return False


def _spectral(site: Site, forced: str | None) -> Assignment:
    """Fans relative to a unit base: 1 in, 1 out, σ = 1."""
    if forced == FIXED:
        return Assignment(FIXED, site)
    if forced == VECTOR or site.kind == VECTOR_SITE:
        return Assignment(VECTOR, site, 1.0, float(prod(site.shape)))
    if site.kind == RAW:
        problem = (
            f"{site.name} {site.shape} of {site.module}: {site.problem or 'its use is not known'}: "
            "pass base=, which shows what grows, or roles={'" + site.name + "': 'vector'}"
        )
        return Assignment(FIXED, site, problem=problem)
    return Assignment(MATRIX, site, float(site.fan_in), float(site.fan_out))


def _check_roles_present(members: Mapping[str, Member], roles: set[str]) -> None:
    """Refuse a mapping whose optimizer for a role would step nothing, so that another one does."""
    missing = members.keys() - roles - {"rest"}
    if missing and len({member.cls for member in members.values()}) > 1:
        role = min(missing)
        raise RoleError(
            f"optimizer= names role {role!r}, which no parameter has: roles are told by what grows "
            "from base to target, so nothing is told where both have one width, or without a "
            f"base. Name them: roles={{'layers.*.weight': {role!r}}}"
        )


def _member(members: Mapping[str, Member], site: Site, role: str) -> Member:
    member = members.get(role, members.get("rest"))
    if member is None:
        raise InputError(
            f"{site.name} has role {role!r} and no optimizer: the mapping names "
            f"{', '.join(members)}; add 'rest'"
        )
    if not member.family.matrices_only:
        return member
    if len(site.shape) == 2 and site.kind not in (VECTOR_SITE, LOOKUP):
        return member
    if "rest" in members and members["rest"] is not member:
        return members["rest"]
    what = "an embedding" if site.kind == LOOKUP else f"of shape {site.shape}"
    raise PrescriptionError(
        f"{member.cls.__name__} takes matrices only and {site.name} is {what}: pass "
        f"optimizer={{'hidden': {member.cls.__name__}, 'rest': torch.optim.AdamW}}"
    )


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to one parameter beside its role."""

    fold: float
    rows: tuple[RowFactor, ...]
    initial: float
    multiplier: float
    depth: DepthScales
    late: float
    small: float


def _rule(
    site: Site, assignment: Assignment, member: Member, choices: Choices, change: Change
) -> Rule:
    role, base, fold = assignment.role, assignment.base, change.fold * change.depth.fold
    s = _scales(site, assignment, change.depth, fold)
    s = replace(s, init=s.init * change.initial)
    lr = member.family.lr_factor(s, member.options)
    decay = decay_factor(choices.decay, s, lr, member.family, member.options)
    if not choices.decay_vectors and len(site.shape) < 2:
        decay = 0.0
    return Rule(
        name=site.name,
        role=role,
        shape=site.shape,
        base_shape=None if role == MATRIX else base.shape,
        fan_in=site.fan_in,
        fan_out=site.fan_out,
        base_fan_in=1 if role == MATRIX else base.fan_in,
        base_fan_out=1 if role == MATRIX else base.fan_out,
        init_std=_init_std(site, base, role, s.init),
        init_factor=s.init,
        lr_factor=lr,
        decay_factor=decay,
        eps_factor=s.gradient,
        fold=fold,
        update_factor=s.size,
        early_factor=_early_factor(s, member, change.late, lr),
        early_input=change.small**-0.5,
        rows=change.rows,
        readout=site.readout_module if change.multiplier != 1.0 else "",
        multiplier=change.multiplier,
        optimizer=member.cls.__name__,
        why=_why(site, s, member.family, change),
    )


def _scales(site: Site, assignment: Assignment, deep: DepthScales, fold: float) -> Scales:
    """The scales of one parameter, by its role and by what it is."""
    role, base, r_in, r_out = assignment.role, assignment.base, assignment.r_in, assignment.r_out
    matrix, base_matrix = None, None
    if len(site.shape) >= 2:
        matrix = _flattened(site.shape)
        base_matrix = (1, 1) if role == MATRIX else _flattened(base.shape)
    s = scales(
        role, r_in, r_out, fold=fold, depth_gradient=deep.gradient, depth_size=deep.size,
        copies=assignment.copies, matrix=matrix, base_matrix=base_matrix,
    )  # fmt: skip
    if role == BOTTLENECK and site.normed:  # its size is of no effect, its relative change is
        s = replace(s, init=s.init * r_in**0.5)
    if site.fan_one:
        r_one = site.fan_one / (1 if role == MATRIX else base.fan_one)
        s = replace(s, init=bilinear_init(r_in, r_one, r_out) * fold)
    return s


def _flattened(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], prod(shape[1:])


def _early_factor(s: Scales, member: Member, late: float, lr: float) -> float:
    """What a gradient that starts smaller takes off the first updates, at the rate for later."""
    if late == 1.0:
        return 1.0
    early = replace(s, gradient=s.gradient * late**-0.5)
    return lr / member.family.lr_factor(early, member.options)


def _init_std(site: Site, base: Site, role: str, factor: float) -> float | None:
    """RMS of the target's initial values; ``None`` leaves them as the user made them."""
    if role == MATRIX:
        return factor
    if base.rms is None:
        return None
    if site.shape == base.shape and factor == 1.0 and not (base.constant and base.rms):
        return None  # but one number, such as a learned 1/√d, has the base's at every width
    return base.rms * factor


def _fold(name: str, folds: Mapping[str, float]) -> float:
    return prod(factor for pattern, factor in folds.items() if fnmatchcase(name, pattern))


def _why(site: Site, s: Scales, family: UpdateFamily, change: Change) -> str:
    parts = [WHY[s.role], f"{family.name}-like step"]
    if site.readout is not None:
        parts.append("tied to a readout")
    if change.depth != DepthScales():
        parts.append("in a residual branch")
    fold = change.fold * change.depth.fold
    if fold != 1.0:
        parts.append(f"forward factor {fold:.4g} folded in")
    if change.rows:
        factors = ", ".join(f"{f:.4g}" for f in dict.fromkeys(row.factor for row in change.rows))
        parts.append(f"some rows times {factors}")
    return "; ".join(parts)
