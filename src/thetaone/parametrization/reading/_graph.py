"""Finds residual connections in the autograd graph of one forward pass, whatever the model's code.

A residual connection is an addition ``a + b`` in which b was computed from a, and past which
nothing of a goes on: a is the stream, b the branch. The parameters in which b is linear, one in
every product, are its ends: a factor on them is a factor on the branch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

Node = Any  # torch.autograd.graph.Node; what it saves has no types

_LEAF = "torch::autograd::AccumulateGrad"
_UNARY = frozenset(
    """View UnsafeView ReshapeAlias T Transpose Permute Expand Clone Alias Slice Select Squeeze
    Unsqueeze NativeDropout ToCopy Neg Sum Mean Index IndexSelect Gather Split SplitWithSizes
    UnsafeSplit Unbind Repeat Roll Flip ConstantPadNd AvgPool1D AvgPool2D AvgPool3D""".split()  # noqa: SIM905
)
_SUMS = frozenset({"Add", "Sub", "Cat", "Stack", "IndexAdd", "IndexPut", "ScatterAdd"})
# operation -> where its factors and its added terms are among its inputs
_PRODUCTS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "Mul": ((0, 1), ()),
    "Mm": ((0, 1), ()),
    "Bmm": ((0, 1), ()),
    "GroupedMm": ((0, 1), ()),
    "Div": ((0,), ()),
    "Addmm": ((1, 2), (0,)),
    "Baddbmm": ((1, 2), (0,)),
    "Linear": ((0, 1), (2,)),
    "Convolution": ((0, 1), (2,)),
    "NativeLayerNorm": ((1,), (2,)),  # linear in its gain, not in what it normalizes
    "NativeGroupNorm": ((1,), (2,)),
    "NativeBatchNorm": ((1,), (2,)),
    "FusedRmsNorm": ((1,), ()),
}


class Residual(NamedTuple):
    """``total = stream + branch``, as nodes of the graph."""

    total: Node
    stream: Node
    branch: Node


@dataclass(slots=True)
class Graph:
    """The graph below some outputs, with what every node depends on as a set of bits.

    Attributes:
        names: ``id`` of each parameter to its name.
        order: Nodes, each after all it depends on.
        place: Node to its index in ``order``.
        closure: By index, the bits of the nodes it depends on, itself included.
        uses: Node to the nodes computed from it directly; the root has none.
    """

    names: Mapping[int, str]
    order: list[Node] = field(default_factory=list[Node])
    place: dict[Node, int] = field(default_factory=dict[Node, int])
    closure: list[int] = field(default_factory=list[int])
    uses: dict[Node, list[Node]] = field(default_factory=dict[Node, list[Node]])

    def add(self, root: Node) -> None:
        """Take in everything below a node."""
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in self.place:
                continue
            if not ready:
                stack.append((node, True))
                stack.extend((source, False) for source in sources(node))
                continue
            self.place[node] = len(self.order)
            self.order.append(node)
            bits = 1 << self.place[node]
            for source in sources(node):
                bits |= self.closure[self.place[source]]
                self.uses.setdefault(source, []).append(node)
            self.closure.append(bits)

    def depends(self, node: Node, on: Node) -> bool:
        """Whether a node was computed from another one, or is it."""
        return bool(self.closure[self.place[node]] >> self.place[on] & 1)

    def residuals(self) -> list[Residual]:
        """The residual connections that lie in no other one's branch, in order."""
        found: list[Residual] = []
        for node in self.order:
            terms = sources(node)
            if kind(node) == "Add" and len(terms) == 2 and terms[0] is not terms[1]:
                pairs = (terms, terms[::-1])
                candidates = (Residual(node, a, b) for a, b in pairs if self.depends(b, a))
                found += [one for one in candidates if self._ends_stream(one)]
        return [one for one in found if not any(self._inside(one, other) for other in found)]

    def inside(self, residual: Residual) -> list[str]:
        """The parameters that a branch depends on and its stream does not."""
        stream, branch = (self.closure[self.place[node]] for node in residual[1:])
        bits = branch & ~stream
        leaves = (self._leaf(node) for i, node in enumerate(self.order) if bits >> i & 1)
        return list(dict.fromkeys(name for name in leaves if name is not None))

    def ends(self, branch: Node) -> list[str] | None:
        """The parameters in which a branch is linear; ``None`` when it is in none."""
        name = self._leaf(branch)
        if name is not None:
            return [name]
        operation = kind(branch)
        if operation in _UNARY:
            return self.ends(sources(branch)[0])
        if operation in _SUMS:
            return self._all(sources(branch))
        if operation in _PRODUCTS:
            return self._of_product(branch)
        return None

    def _ends_stream(self, one: Residual) -> bool:
        """Whether all that is computed from the stream goes through the total.

        Not so for a bias of attention logits that every layer adds to its own.
        """
        for node in self.order[self.place[one.stream] :]:
            if not self.depends(node, one.stream) or self.depends(node, one.total):
                continue
            uses = self.uses.get(node, [])
            if not uses or any(u is not one.total and self.depends(u, one.total) for u in uses):
                return False
        return True

    def _inside(self, one: Residual, other: Residual) -> bool:
        if one is other or self.depends(other.stream, one.branch):
            return False
        return self.depends(other.branch, one.branch) and self.depends(one.stream, other.stream)

    def _of_product(self, node: Node) -> list[str] | None:
        factor_places, added_places = _PRODUCTS[kind(node)]
        inputs = [source for source, _ in node.next_functions]
        factors = [inputs[i] for i in factor_places if i < len(inputs) and inputs[i] is not None]
        added = [inputs[i] for i in added_places if i < len(inputs) and inputs[i] is not None]
        direct = [name for name in map(self._leaf, factors) if name is not None]
        nonlinear = kind(node).endswith("Norm")
        made = [] if direct or nonlinear else [m for m in map(self.ends, factors) if m is not None]
        first = direct[:1] or next(iter(made), None)
        biases = self._all(added)
        return None if not first or biases is None else [*first, *biases]

    def _all(self, nodes: list[Node]) -> list[str] | None:
        found: list[str] = []
        for node in nodes:
            one = self.ends(node)
            if one is None:
                return None
            found += one
        return list(dict.fromkeys(found))

    def _leaf(self, node: Node) -> str | None:
        """The parameter that a node only views, casts or copies."""
        while kind(node) in _UNARY and len(sources(node)) == 1:
            node = sources(node)[0]
        return self.names.get(id(node.variable)) if node.name() == _LEAF else None


def sources(node: Node) -> list[Node]:
    """The nodes a node was computed from."""
    return [source for source, _ in node.next_functions if source is not None]


def kind(node: Node) -> str:
    """The operation of a node.

    Examples:
        >>> kind((torch.ones(1, requires_grad=True) * 2).grad_fn)
        'Mul'
    """
    return node.name().partition("Backward")[0]


def constant(branch: Node) -> float:
    """The product of the numbers that the forward pass multiplies a branch with at its end.

    Examples:
        >>> constant((torch.ones(2, requires_grad=True) * 0.5 / 2).grad_fn)
        0.25
    """
    node, factor = branch, 1.0
    while len(sources(node)) == 1:
        if kind(node) in ("Mul", "Div"):
            other = getattr(node, "_saved_other", None)
            if not isinstance(other, torch.Tensor) or other.numel() != 1:
                break
            factor *= float(other) if kind(node) == "Mul" else 1 / float(other)
        elif kind(node) not in _UNARY:
            break
        node = sources(node)[0]
    return factor
