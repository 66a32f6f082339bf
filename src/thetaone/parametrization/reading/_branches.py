"""Residual branches of a model: those that its program shows, or those that a user names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from thetaone.errors import RoleError
from thetaone.parametrization._names import block, canonical
from thetaone.parametrization.reading.paths import Linearity, Residual, Residuals
from thetaone.parametrization.reading.program import MOVES, Program, Value
from thetaone.records import Branch


def branches_of(linearity: Linearity) -> tuple[Branch, ...]:
    """The residual branches that a program shows and that hold parameters, in order."""
    residuals = Residuals(linearity)
    with_insides = ((one, _of_last_block(residuals.inside(one))) for one in residuals.all())
    return tuple(_branch(linearity, one, inside) for one, inside in with_insides if inside)


def named_branches(model: nn.Module, patterns: Sequence[str]) -> tuple[Branch, ...]:
    """The branches whose last parameters or modules a user names by glob patterns.

    A module that is linear in its own parameters stands for them; any other one is multiplied.

    Raises:
        RoleError: A pattern matches nothing.
    """
    modules = {canonical(name + ".")[:-1]: module for name, module in model.named_modules()}
    names = [canonical(name) for name, _ in model.named_parameters()]
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


def _of_last_block(inside: list[str]) -> list[str]:
    """Without what another block computed first: a decoder's branch also needs the encoder."""
    return [name for name in inside if block(name) == block(inside[-1])]


def _branch(linearity: Linearity, residual: Residual, inside: list[str]) -> Branch:
    path = linearity.path(residual.branch, homogeneous=False)
    return Branch(
        ends=(*path.parameters, *residual.added) if path is not None else (),
        outputs=tuple(_makers(linearity.program, residual.branch)),
        inside=tuple(inside),
        scale=residual.scale,
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
