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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from thetaone.errors import InputError, MismatchError, RoleError
from thetaone.parametrization._names import place
from thetaone.parametrization.rules._pair import Pair
from thetaone.records import Branch


@dataclass(frozen=True, slots=True)
class DepthScales:
    """What depth does to one parameter: a folded factor, its gradient, and its update."""

    fold: float = 1.0
    gradient: float = 1.0
    size: float = 1.0


_UNCHANGED = DepthScales()


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
        return self.parameters.get(place(name, self.stacks), _UNCHANGED)


def depth_rules(pair: Pair, exponent: float | None) -> DepthRules:
    """What each parameter of a branch gets.

    Args:
        pair: Target and base.
        exponent: α; ``None`` leaves depth alone.

    Raises:
        InputError: α lies outside [1/2, 1], where depth has a limit in which features are learned.
        RoleError: A stack grew and has no residual branch.
        MismatchError: Parameters of one branch grew differently, or play two parts.
    """
    if exponent is not None and not (isinstance(exponent, int | float) and 0.5 <= exponent <= 1):
        raise InputError(
            f"depth_exponent={exponent!r}: choose a number from 0.5 to 1 (CompleteP), or None to "
            "leave depth alone"
        )
    growth = pair.depth_growth
    if exponent is None or not growth:
        return DepthRules()
    bases = {_key(branch): branch for branch in pair.placed_branches(pair.base)}
    _check_read(pair)
    fit = [branch for branch in pair.branches if not branch.problem]
    grown = _outermost([branch for branch in fit if _ratio(branch, growth) != 1.0])
    _check_growth_in_branches(growth, grown, pair.branches)
    parameters: dict[str, DepthScales] = {}
    outputs: dict[str, float] = {}
    for branch in grown:
        r = _ratio(branch, growth)
        scale = branch.scale / bases.get(_key(branch), branch).scale
        inner = DepthScales(gradient=r**-exponent, size=r ** (exponent - 1))
        if not branch.ends:
            outputs[_output(branch)] = r**-exponent / scale
        for name in branch.inside or _whole_block(branch, growth):
            mine = inner
            if name in branch.ends:  # a factor in front of it counts as one behind it
                present = pair.factor_growth.get(name, 1.0)
                mine = replace(inner, fold=r**-exponent / (scale if present == 1.0 else present))
            _add(parameters, name, mine, weak=not branch.inside)
    return DepthRules(pair.stacks, parameters, outputs)


def _output(branch: Branch) -> str:
    """The module whose output is multiplied.

    Raises:
        RoleError: There is none.
    """
    if not branch.outputs:
        raise RoleError(
            f"the residual branch of {branch.inside[-1]} is linear in no parameter and no "
            "module's output, so it cannot be scaled with depth: name what ends it, "
            "branches=['layers.*.out'], or pass depth_exponent=None to leave depth alone"
        )
    return branch.outputs[0]


def _check_read(pair: Pair) -> None:
    if not pair.branches and pair.target.unread:
        raise RoleError(
            "base and target differ in depth, and residual branches are found in a forward pass: "
            f"{pair.target.unread}. Pass sample= (inputs of one forward pass, or a callable of the "
            "model), or name the parameters or modules that end the branches, e.g. "
            "branches=['layers.*.out']; depth_exponent=None leaves depth alone"
        )


def _key(branch: Branch) -> tuple[str, ...]:
    return branch.ends or branch.outputs


def _whole_block(branch: Branch, growth: Mapping[str, float]) -> list[str]:
    """All parameters of the stack that a named branch lies in."""
    stack = _stack(_key(branch)[0])
    return [name for name in growth if _stack(name) == stack]


def _stack(name: str) -> str:
    return name[: name.index("*") + 1] if "*" in name else ""


def _add(placed: dict[str, DepthScales], name: str, mine: DepthScales, *, weak: bool) -> None:
    """Enter what a parameter gets; a named branch leaves the ends of another one as they are."""
    other = placed.get(name)
    if other is None or (weak and other.fold == 1.0):
        placed[name] = mine
    elif other != mine and not (weak and mine.fold == 1.0):
        raise MismatchError(
            f"{name} ends one residual branch and lies inside another: give the two kinds of block "
            "different names, or lists of their own"
        )


def _ratio(branch: Branch, growth: Mapping[str, float]) -> float:
    names = branch.ends or branch.inside or tuple(_whole_block(branch, growth))
    ratios = {growth.get(name, 1.0) for name in names}
    if len(ratios) > 1 and not branch.ends:  # a module that holds a stack of its own
        stack = _stack(_key(branch)[0]) if branch.outputs else ""
        ratios = {min((r for name, r in growth.items() if _stack(name) == stack), default=1.0)}
    if len(ratios) > 1:
        raise MismatchError(
            f"parameters of one residual branch ({', '.join(names)}) are found {sorted(ratios)} "
            "times as often as in the base: a block must have the same parameters at every depth"
        )
    return ratios.pop() if ratios else 1.0


def _outermost(branches: Sequence[Branch]) -> list[Branch]:
    """Without a block's own small skip connections, which its branch's factor covers."""
    ends = {name for branch in branches for name in _key(branch)}
    return [branch for branch in branches if not ends.intersection(branch.within)]


def _check_growth_in_branches(
    growth: Mapping[str, float], grown: Iterable[Branch], branches: Iterable[Branch]
) -> None:
    """Refuse what grows in number and lies in no branch that does."""
    held = {_stack(name) for branch in grown for name in (*branch.inside, *_key(branch))}
    for name, r in growth.items():
        if _stack(name) not in held:
            around = [b for b in branches if _stack(name) in map(_stack, b.inside)]
            raise RoleError(
                f"{name} is found {r:g} times as often as in the base and {_no_branch(around)}, or "
                "name the ends of the branches (branches=['layers.*.out']), or pass "
                "depth_exponent=None to leave depth alone"
            )


def _no_branch(around: Sequence[Branch]) -> str:
    """Why what lies in some branches lies in none that can be scaled, and what to do."""
    problem = next((branch.problem for branch in around if branch.problem), "")
    if problem:
        return f"{problem}: add the branch to the stream as it is, x + w * f(x)"
    ends = next((branch.ends for branch in around if branch.ends), ())
    if ends:
        return (
            f"lies in residual branches that end in {', '.join(ends)}, which is one for all "
            "blocks: give each block a weight of its own there"
        )
    return (
        "lies in no residual branch that is read as a sum x + f(x): plain layers, and blocks side "
        "by side whose outputs are added to no stream, have no rule for depth, and sums by "
        "index_add, scatter_add, _foreach_add or cumsum, through a maximum, or in parts that are "
        "joined again are not read. Write the sum as x + f(x), or keep the depth"
    )
