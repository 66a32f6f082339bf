"""Reads a model's residual branches from one forward pass, or from the names a user gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thetaone.errors import RoleError
from thetaone.parametrization._names import block
from thetaone.parametrization.reading._graph import Graph, Node, Residual, constant, kind, sources
from thetaone.parametrization.reading._sample_inputs import guesses
from thetaone.parametrization.reading._sites import canonical
from thetaone.records import Branch

Sample = Any  # a tensor, a tuple of arguments, a mapping of keywords, or a callable of the model

# what a forward pass raises that is given inputs it was not made for
_REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
_ADVICE = (
    "pass sample= (inputs of one forward pass, or a callable of the model), or name the "
    "parameters or modules that end the branches, e.g. branches=['layers.*.out']; "
    "depth_exponent=None leaves depth alone"
)


def read_branches(model: nn.Module, sample: Sample = None) -> tuple[Branch, ...]:
    """The residual branches that a forward pass shows.

    The pass runs in evaluation mode with torch's RNG forked; nothing of the model is changed.

    Args:
        model: Any module.
        sample: Inputs; a guess from the first layer unless given (only their shapes matter).

    Returns:
        The branches that hold parameters, in the order of the pass.

    Raises:
        RoleError: No forward pass succeeded, or a branch can neither be folded nor hooked.

    Examples:
        >>> class Block(nn.Linear):
        ...     def forward(self, x):
        ...         return x + super().forward(x.tanh())
        >>> [b.ends for b in read_branches(nn.Sequential(Block(4, 4), Block(4, 4)))]
        [('0.weight', '0.bias'), ('1.weight', '1.bias')]
    """
    model = cast(nn.Module, getattr(model, "_orig_mod", model))
    with torch.random.fork_rng():
        root, makers = _trace(model, sample)
    graph = Graph({id(p): canonical(name) for name, p in model.named_parameters()})
    graph.add(root)
    found = ((residual, _own(graph.inside(residual))) for residual in graph.residuals())
    return tuple(_branch(graph, one, inside, makers) for one, inside in found if inside)


def named_branches(model: nn.Module, patterns: Sequence[str]) -> tuple[Branch, ...]:
    """The branches whose last parameters or modules a user names by glob patterns.

    A module that is linear in its own parameters stands for them; any other one is hooked.

    Raises:
        RoleError: A pattern matches nothing.
    """
    modules = {canonical(name + ".")[:-1]: module for name, module in model.named_modules()}
    names = [canonical(name) for name, _ in model.named_parameters()]
    branches: list[Branch] = []
    for pattern in patterns:
        hits = [name for name in modules if name and fnmatchcase(name, pattern)]
        own = {hit: [n for n in names if n.rpartition(".")[0] == hit] for hit in hits}
        ends = [name for name in names if fnmatchcase(name, pattern)]
        if not hits and not ends:
            raise RoleError(
                f"branches={list(patterns)}: {pattern!r} matches no parameter and no module. "
                "Name what ends a residual branch, e.g. 'layers.*.mlp.down_proj'"
            )
        branches += [Branch(ends=(name,), outputs=(name.rpartition(".")[0],)) for name in ends]
        for hit in hits:
            linear = own[hit] if _is_linear(modules[hit]) else []
            branches.append(Branch(ends=tuple(linear), outputs=(hit,)))
    return tuple(branches)


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is linear in all that it owns."""
    linear = (nn.Linear, nn.modules.conv._ConvNd, nn.LayerNorm, nn.RMSNorm, nn.Bilinear)
    return isinstance(module, linear) or type(module).__name__ == "Conv1D"


def _own(inside: list[str]) -> list[str]:
    """Without what another block computed first: a decoder's branch also needs the encoder."""
    return [name for name in inside if block(name) == block(inside[-1])]


def _branch(
    graph: Graph, residual: Residual, inside: list[str], makers: Mapping[Node, list[str]]
) -> Branch:
    ends = graph.ends(residual.branch)
    outputs = _makers(residual.branch, makers)
    if ends is None and not outputs:
        raise RoleError(
            f"the residual branch of {inside[-1]} ends in {kind(residual.branch)}, linear in no "
            f"parameter and no module's output, so it cannot be scaled with depth: {_ADVICE}"
        )
    return Branch(
        ends=tuple(ends or ()),
        outputs=tuple(outputs),
        inside=tuple(inside),
        scale=constant(residual.branch),
    )


def _makers(node: Node, makers: Mapping[Node, list[str]]) -> list[str]:
    """The modules whose output a node is, as it is, viewed, or times what needs no gradient."""
    found = list(makers.get(node, []))
    passing = ("View", "UnsafeView", "NativeDropout", "Transpose", "Mul", "Div")
    while kind(node) in passing and len(sources(node)) == 1:
        node = sources(node)[0]
        found += makers.get(node, [])
    return found


def _trace(model: nn.Module, sample: Sample) -> tuple[Node, dict[Node, list[str]]]:
    """Node of the first output, and the module that made each node, in the first pass that works.

    Raises:
        RoleError: None works.
    """
    reasons: list[str] = []
    for run in _runs(model, sample):
        makers: dict[Node, list[str]] = {}
        hooks = [
            module.register_forward_hook(_note(canonical(name + ".")[:-1], makers))
            for name, module in model.named_modules()
        ]
        modes = {module: module.training for module in model.modules()}
        try:
            model.eval()
            with torch.enable_grad():
                output = run(model)
        except _REFUSALS as refusal:
            reasons.append(f"{type(refusal).__name__}: {str(refusal).splitlines()[0][:100]}")
            continue
        finally:
            for module, training in modes.items():
                module.training = training
            for hook in hooks:
                hook.remove()
        root = next((t.grad_fn for t in _tensors(output) if t.grad_fn is not None), None)
        if root is not None:
            return root, makers
        reasons.append("the output needs no gradient")
    tried = f" ({reasons[0]})" if reasons else ""
    raise RoleError(
        "base and target differ in depth, and residual branches are found in a forward pass, "
        f"which failed on {'guessed inputs' if sample is None else 'sample='}{tried}: {_ADVICE}"
    )


def _note(name: str, makers: dict[Node, list[str]]) -> Callable[..., None]:
    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensors = _tensors(output)
        if name and tensors and tensors[0].grad_fn is not None:
            makers.setdefault(tensors[0].grad_fn, []).append(name)

    return note


def _tensors(output: Any) -> list[Tensor]:
    leaves = tree_leaves(dict(output) if isinstance(output, Mapping) else output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _runs(model: nn.Module, sample: Sample) -> Iterator[Callable[[nn.Module], Any]]:
    if sample is None:
        yield from (_call(guess) for guess in guesses(model))
    elif callable(sample) and not isinstance(sample, nn.Module):
        yield sample
    else:
        yield _call(sample)


def _call(sample: Any) -> Callable[[nn.Module], Any]:
    if isinstance(sample, Mapping):
        return lambda model: model(**sample)
    arguments = sample if isinstance(sample, (tuple, list)) else (sample,)
    return lambda model: model(*arguments)
