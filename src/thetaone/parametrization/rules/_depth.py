"""Depth: branches of a deeper model, ``x + r^-α F(x)`` with r = depth / base depth. No torch.

With the factor on the branch (Tensor Programs VI; CompleteP, arXiv 2505.01618, has α = 1):

==============================  =============  ===================================
inside a branch                 in that form   folded into the branch's ends
==============================  =============  ===================================
initial values                  1              r^-α
size of an entry's update       r^(α-1)        r^-1
gradient by itself, so Adam ε   r^-α           1
==============================  =============  ===================================

The last column is the first under the symmetry of ``rules.scales``: no forward factor is needed,
and every family gets its own rate (at the ends Adam's and SGD's fall as r^-1; inside, SGD's grows
as r^(2α-1)). A branch that ends in no linear parameter is multiplied by a hook instead.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from thetaone.errors import InputError, MismatchError, RoleError
from thetaone.parametrization._names import place, read_stacks
from thetaone.records import FEATURE_UPDATE, OWN_UPDATE, UPDATE_NORM, WEIGHT_NORM, Blueprint, Branch


@dataclass(frozen=True, slots=True)
class DepthScales:
    """What depth does to one parameter: a folded factor, its gradient, and its update."""

    fold: float = 1.0
    gradient: float = 1.0
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class DepthRules:
    """What depth does to a model.

    Attributes:
        stacks: The containers whose blocks differ in number.
        parameters: By place; what is not named stays.
        outputs: Factor on the output of modules, by place.
    """

    stacks: frozenset[str] = frozenset()
    parameters: Mapping[str, DepthScales] = field(default_factory=dict[str, DepthScales])
    outputs: Mapping[str, float] = field(default_factory=dict[str, float])

    def of(self, name: str) -> DepthScales:
        """What a parameter gets."""
        return self.parameters.get(place(name, self.stacks), DepthScales())


def stack_growth(target: Blueprint, base: Blueprint) -> dict[str, float]:
    """How many times more blocks a parameter is found in, for those whose number changed.

    Returns:
        ``{place: r}``; empty when depth does not differ.
    """
    if len(target.sites) == len(base.sites):
        return {}
    stacks = read_stacks(target, base)
    counts, bases = (Counter(place(site.name, stacks) for site in b.sites) for b in (target, base))
    shared = counts.keys() & bases.keys()
    return {name: counts[name] / bases[name] for name in shared if counts[name] != bases[name]}


def depth_rules(target: Blueprint, base: Blueprint, exponent: float | None) -> DepthRules:
    """What each parameter of a branch gets.

    Args:
        target: With its branches, unless the base has them.
        base: Where the rate was tuned.
        exponent: α; ``None`` leaves depth alone.

    Raises:
        InputError: α lies outside [1/2, 1], where depth has a limit in which features are learned.
        RoleError: A stack grew and has no residual branch.
        MismatchError: Parameters of one branch grew differently, or play two parts.
    """
    if exponent is not None and not 0.5 <= exponent <= 1:
        raise InputError(
            f"depth_exponent={exponent}: choose a number from 0.5 to 1 (CompleteP), or None to "
            "leave depth alone"
        )
    growth = stack_growth(target, base)
    if exponent is None or not growth:
        return DepthRules()
    stacks = read_stacks(target, base)
    bases = {_key(branch): branch for branch in _placed(base, stacks)}
    branches = _placed(target, stacks) or list(bases.values())
    _check_found(growth, branches)
    found: dict[str, DepthScales] = {}
    outputs: dict[str, float] = {}
    for branch in branches:
        r = _ratio(branch, growth)
        if r == 1.0:
            continue
        own = branch.scale / bases.get(_key(branch), branch).scale
        inner = DepthScales(gradient=r**-exponent, size=r ** (exponent - 1))
        end = replace(inner, fold=r**-exponent / own)
        if not branch.ends:
            outputs[branch.outputs[0]] = end.fold
        for name in branch.inside or _whole_block(branch, growth):
            _add(found, name, end if name in branch.ends else inner, weak=not branch.inside)
    return DepthRules(stacks, found, outputs)


def expected_sizes(
    target: Blueprint, base: Blueprint, exponent: float
) -> dict[tuple[str, str], float]:
    """How weights and features of branches change from base to target when they are right.

    Returns:
        ``{(place of a layer, quantity): factor}``; 1 where it is not named.
    """
    rules = depth_rules(target, base, exponent)
    sizes: dict[tuple[str, str], float] = {}
    for name, scales in rules.parameters.items():
        layer, moved = name.removesuffix(".weight"), scales.fold * scales.size
        sizes |= {(layer, WEIGHT_NORM): scales.fold}
        sizes |= {(layer, quantity): moved for quantity in (UPDATE_NORM, OWN_UPDATE)}
    for branch in _placed(target, rules.stacks):
        folds = [rules.parameters[name].fold for name in branch.ends if name in rules.parameters]
        factor = folds[0] if folds else rules.outputs.get(next(iter(branch.outputs), ""), 1.0)
        owners = [name.rpartition(".")[0] for name in branch.ends]
        sizes |= {(layer, FEATURE_UPDATE): factor for layer in (*owners, *branch.outputs)}
    return sizes


def _placed(blueprint: Blueprint, stacks: frozenset[str]) -> list[Branch]:
    """The branches with places for names: one for all blocks of a stack."""
    placed: dict[tuple[str, ...], Branch] = {}
    for branch in blueprint.branches:
        fields = {
            key: tuple(dict.fromkeys(place(name, stacks) for name in getattr(branch, key)))
            for key in ("ends", "outputs", "inside")
        }
        one = branch.model_copy(update=fields)
        placed.setdefault(_key(one), one)
    return list(placed.values())


def _key(branch: Branch) -> tuple[str, ...]:
    return branch.ends or branch.outputs


def _whole_block(branch: Branch, growth: Mapping[str, float]) -> list[str]:
    """All parameters of the stack that a named branch lies in."""
    stack = _stack(_key(branch)[0])
    return [name for name in growth if _stack(name) == stack]


def _stack(name: str) -> str:
    return name[: name.index("*") + 1] if "*" in name else ""


def _add(found: dict[str, DepthScales], name: str, mine: DepthScales, *, weak: bool) -> None:
    """Enter what a parameter gets; a named branch leaves the ends of another one as they are."""
    other = found.get(name)
    if other is None or (weak and other.fold == 1.0):
        found[name] = mine
    elif other != mine and not (weak and mine.fold == 1.0):
        raise MismatchError(
            f"{name} ends one residual branch and lies inside another: give the two kinds of block "
            "different names, or lists of their own"
        )


def _ratio(branch: Branch, growth: Mapping[str, float]) -> float:
    names = branch.ends or branch.inside or tuple(_whole_block(branch, growth))
    ratios = {growth.get(name, 1.0) for name in names}
    if len(ratios) > 1:
        raise MismatchError(
            f"parameters of one residual branch ({', '.join(names)}) are found {sorted(ratios)} "
            "times as often as in the base: a block must have the same parameters at every depth"
        )
    return ratios.pop() if ratios else 1.0


def _check_found(growth: Mapping[str, float], branches: Iterable[Branch]) -> None:
    held = {_stack(name) for branch in branches for name in (*branch.inside, *_key(branch))}
    for name, r in growth.items():
        if _stack(name) not in held:
            raise RoleError(
                f"{name} is found {r:g} times as often as in the base and lies in no residual "
                "branch: plain layers have no rule for depth. Keep the depth, name the ends of "
                "the branches (branches=['layers.*.out']), or pass depth_exponent=None to leave "
                "depth alone"
            )
