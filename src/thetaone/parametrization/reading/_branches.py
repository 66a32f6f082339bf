"""Residual branches of a model: those that its program shows, or those that a user names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from thetaone.errors import RoleError
from thetaone.parametrization._names import canonical_module
from thetaone.parametrization.reading._parameters import parameters_of
from thetaone.parametrization.reading.paths import Linearity, Residual, Residuals
from thetaone.parametrization.reading.program import MOVES, Program, Value
from thetaone.records import Branch


def branches_of(linearity: Linearity) -> tuple[Branch, ...]:
    """The residual branches that a program shows and that hold parameters, in order."""
    residuals = Residuals(linearity)
    every = residuals.all()
    with_insides = [(one, residuals.inside(one, every)) for one in every]
    ends = {one: _ends(residuals, one) for one in every}
    outputs = {one: _outputs(residuals, one) for one in every}
    return tuple(
        Branch(
            ends=ends[one],
            outputs=outputs[one],
            inside=tuple(inside),
            scale=one.scale,
            within=tuple(
                name
                for other in residuals.around(one, every)
                for name in ends[other] or outputs[other]
            ),
            problem=_problem(linearity, one),
        )
        for one, inside in with_insides
        if inside
    )


def named_branches(model: nn.Module, patterns: Sequence[str]) -> tuple[Branch, ...]:
    """The branches whose last parameters or modules a user names by glob patterns.

    A module that is linear in its own parameters stands for them; any other one is multiplied.

    Raises:
        RoleError: A pattern matches nothing.
    """
    modules = {canonical_module(name): module for name, module in model.named_modules()}
    names = list(parameters_of(model))
    branches: list[Branch] = []
    for pattern in patterns:
        hits = [name for name in modules if name and fnmatchcase(name, pattern)]
        inner = {hit: [n for n in names if n.rpartition(".")[0] == hit] for hit in hits}
        ends = [name for name in names if fnmatchcase(name, pattern)]
        if not hits and not ends:
            raise RoleError(
                f"branches={list(patterns)}: {pattern!r} matches no parameter and no module. "
                "Name what ends a residual branch, e.g. 'layers.*.mlp.down_proj'"
            )
        branches += [Branch(ends=(name,), outputs=(name.rpartition(".")[0],)) for name in ends]
        for hit in hits:
            linear = inner[hit] if _is_linear(modules[hit]) else []
            branches.append(Branch(ends=tuple(linear), outputs=(hit,)))
    return tuple(branches)


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is linear in all that it owns."""
    linear = (nn.Linear, nn.modules.conv._ConvNd, nn.LayerNorm, nn.RMSNorm, nn.Bilinear)
    return isinstance(module, linear) or type(module).__name__ == "Conv1D"


def _ends(residuals: Residuals, residual: Residual) -> tuple[str, ...]:
    path = residuals.linearity.path(residual.branch, homogeneous=False)
    if path is None or residuals.feeds_itself(residual, path.values):
        return ()
    return (*path.parameters, *residual.added)


def _outputs(residuals: Residuals, residual: Residual) -> tuple[str, ...]:
    if residuals.feeds_itself(residual, [residual.branch]):
        return ()
    return tuple(_makers(residuals.program, residual.branch))


def _problem(linearity: Linearity, residual: Residual) -> str:
    """Why what is added to a stream is no branch that depth has a rule for; empty for nothing."""
    if residual.weight is None:
        return ""
    names = ", ".join(linearity.uses.weights.get(residual.weight, {}))
    weights = f"the learned weights {names}" if names else "weights that the pass computes"
    return (
        f"the sum in {residual.total.where or 'the model'} multiplies by {weights} not only what "
        "is added, but what it is added to"
    )


def _makers(program: Program, value: Value) -> list[str]:
    """The modules whose output a value is, as it is, viewed, or times what depends on no input."""
    while True:
        makers = [name for name, result in program.results.items() if result is value and name]
        operation = value.source
        if makers or operation is None:
            return makers
        if operation.name not in MOVES and operation.name not in ("mul", "div"):
            return makers
        value = operation.inputs[0]
