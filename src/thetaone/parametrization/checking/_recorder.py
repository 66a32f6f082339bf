"""Records one pass of a model and its loss: features, uses of weights, order. Changes nothing.

A feature is a tensor that depends on the batch and on trained weights: what a module puts out, and
what a nonlinear operation takes in (the softmax of an attention, the loss), for there its size
counts whatever factors come before. Both are seen below the model's code, whatever its spelling.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode

from thetaone.parametrization._names import canonical_module
from thetaone.parametrization.checking._operands import (
    ADDED,
    FACTORS,
    LOOKUPS,
    LOSSES,
    NONLINEAR,
    SCALED,
    SOFTMAX,
    apply_update,
    as_operand,
    attention_logits,
    entries_of,
    is_gain,
    memory_of,
    operation_name,
    replaced,
    tensors_of,
)
from thetaone.parametrization.checking._task_calls import check_hooks
from thetaone.parametrization.checking.verdict import LOSS
from thetaone.parametrization.reading import parameters_of, rms_of

GAIN, SHIFT = "gain", "shift"  # how a vector meets features: multiplied, or added
ROOT = "(model)"
_MATRIX_VECTOR = frozenset({"mv", "addmv"})  # with a constant: a step of the power iteration


@dataclass(frozen=True, slots=True)
class Origin:
    """What a tensor depends on: the batch, and trained parameters by name."""

    data: bool
    names: frozenset[str] = frozenset()


_CONSTANT, _BATCH = Origin(False), Origin(True)
_FEATURE = Origin(True, frozenset({"*"}))  # which parameters does not matter any more
UseKey = tuple[Any, ...]
Moment = tuple[str, bool]  # label, whether it is the last of several calls


@dataclass(slots=True)
class Use:
    """A weight, or its update since an earlier pass, in contractions with features.

    Attributes:
        names: The parameters it is made from.
        norm: Induced norm of the weight as used; of the update where one is known.
        aligned: The norm that its entries would have in rank one: their RMS × fan-in.
        fans: Features summed over, and put out [count].
        lookup: Whether rows are only picked.
        inputs: RMS of the features it meets, one a call; none for a lookup.
        outputs: RMS of what the update alone makes of them, one a call.
    """

    names: frozenset[str]
    norm: float
    aligned: float
    fans: tuple[int, int]
    lookup: bool
    inputs: list[float] = field(default_factory=list[float])
    outputs: list[float] = field(default_factory=list[float])


@dataclass(slots=True)
class Record:
    """What was seen in one pass.

    Attributes:
        features: Label to the tensors seen there, in order.
        uses: Label to the weights used there, by slice.
        weights: The same weights as the operations took them, to be compared with later.
        vectors: Parameter that meets features one by one to ``GAIN`` or ``SHIFT``.
        order: Labels in order of execution, with ``True`` at the last of several calls.
        makers: Label of features to that of the weight that makes them, up to what is added.
    """

    features: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    uses: dict[str, dict[UseKey, Use]] = field(default_factory=lambda: defaultdict(dict))
    weights: dict[UseKey, Tensor] = field(default_factory=dict[UseKey, Tensor])
    vectors: dict[str, str] = field(default_factory=dict[str, str])
    order: dict[Moment, None] = field(default_factory=dict[Moment, None])
    makers: dict[str, str] = field(default_factory=dict[str, str])

    def see(self, label: str) -> None:
        """Give a label its place, and one more to the features of a later call."""
        self.order.setdefault((label, False))
        if label in self.features:
            self.order.pop((label, True), None)
            self.order[label, True] = None


class Recorder(TorchDispatchMode):
    """A context in which a pass of the model and its loss is recorded.

    Args:
        model: Is called inside.
        before: Weights of an earlier pass: uses then hold the change since.
        effects: Whether uses hold what that change does, too.

    Attributes:
        record: What was seen.
    """

    def __init__(
        self, model: nn.Module, before: Mapping[UseKey, Tensor] | None = None, *,
        effects: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.record = Record()
        self._model, self._before, self._effects = model, before, effects
        self._origins: dict[int, Origin] = {}
        self._alive: list[Tensor] = []  # so that no storage's address is used twice in a pass
        self._features: set[tuple[Any, ...]] = set()
        self._derived: set[int] = set()  # storages of derivatives, no features themselves
        self._makers: dict[int, str] = {}  # storage -> label of the weight that made it
        self._calls: list[tuple[str, nn.Module]] = []
        self._counts: dict[str, int] = defaultdict(int)
        self._sizes: dict[str, int] = {}
        self._stored: set[int] = set()  # storages of parameters
        self._handles: list[Any] = []
        self._paused = False

    def __enter__(self) -> Self:
        check_hooks(self._model)
        for name, p in parameters_of(self._model).items():
            self._note(p, Origin(False, frozenset({name} if p.requires_grad else ())))
            self._sizes[name] = p.numel()
            self._stored.add(memory_of(p))
        for buffer in self._model.buffers():
            self._note(buffer, _CONSTANT)
        for name, module in self._model.named_modules():
            label = canonical_module(name)
            self._handles += [
                module.register_forward_pre_hook(self._entering(label)),
                module.register_forward_hook(self._leaving(label), always_call=True),
            ]
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        for handle in self._handles:
            handle.remove()
        self._alive, self._origins = [], {}

    def _entering(self, label: str) -> Any:
        def enter(module: nn.Module, inputs: Any) -> None:
            self._calls.append((label, module))

        return enter

    def _leaving(self, label: str) -> Any:
        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._calls.pop()
            if isinstance(module, ParametrizationList):
                return
            for number, tensor in enumerate(tensors_of(output)):
                name = label or f"{ROOT} output"
                self._feature(f"{name} [{number}]" if number else name, tensor)

        return leave

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, note what goes in, and what its outputs depend on."""
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        operation = operation_name(func)
        origin = self._merged(operation, args, kwargs)
        by_autograd = torch._C._current_graph_task_id() != -1  # a gradient that the loss takes
        maker = "" if by_autograd else self._watch(operation, func, args, kwargs)
        derived = by_autograd or operation.endswith("_backward") or self._is_derived(args)
        result = func(*args, **kwargs)
        for tensor in tensors_of(result):
            self._note(tensor, origin)
            if derived:
                self._derived.add(memory_of(tensor))
            if maker:
                self._makers[memory_of(tensor)] = maker
        return result

    def _watch(self, operation: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> str:
        """Enter what an operation takes in; label of the weight that makes its result."""
        maker = self._use(operation, func, args, kwargs) if operation in FACTORS else ""
        if maker:
            addends = [arg for i, arg in enumerate(args) if i not in FACTORS[operation]]
            self._vectors(operation, addends)
        elif operation in LOOKUPS or any(self._origin(t).data for t in tensors_of(args)):
            self._vectors(operation, args)
        features = NONLINEAR if self._calls else NONLINEAR | LOSSES
        if operation.startswith("_scaled_dot_product"):
            self._feature(f"{self._where()} logits", attention_logits(args, kwargs), fresh=args[:2])
        elif operation in features and (self._calls or not self._is_derived(args)):
            name = "logits" if operation in SOFTMAX else operation.strip("_")
            self._feature(f"{self._where()} {name}", args[0])
        elif operation in ADDED or (operation in SCALED and len([*tensors_of(args)]) == 1):
            makers = {self._maker(t) for t in tensors_of(args) if self._origin(t) == _FEATURE}
            maker = makers.pop() if len(makers) == 1 else ""
        return maker

    def _use(self, operation: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> str:
        """Enter a contraction of features with a weight; the weight's label, if it is one."""
        places = FACTORS[operation]
        origins = [self._origin(args[i]) for i in places]
        weights = [i for i, o in zip(places, origins, strict=True) if o.names and not o.data]
        if len(weights) != 1 or not self._meets_features(operation, origins):
            return ""
        index, weight = weights[0], args[weights[0]]
        names = self._origin(weight).names
        size = self._sizes[next(iter(names))] if len(names) == 1 else None
        label = self._label(names, lookup=operation in LOOKUPS)
        if label in self.record.uses and memory_of(weight) in self._stored:
            fans, first = as_operand(operation, args, index, size).fans, self.record.uses[label]
            turned = fans[0] != fans[1] and fans[::-1] == next(iter(first.values())).fans
            label += " transposed" if turned else ""
        key = self._key(label, weight)
        if self._before is not None and key not in self._before:
            return label  # a slice that the earlier pass did not use: an expert, say
        self.record.see(label)
        uses = self.record.uses[label]
        update = None if self._before is None else weight.detach() - self._before[key]
        if key not in uses:
            shown = weight if update is None else update
            operand = as_operand(operation, replaced(args, index, shown), index, size)
            rms = rms_of(operand.weight)
            norms = operand.norm(rms), operand.aligned_norm(rms)
            uses[key] = Use(names, *norms, operand.fans, operand.lookup)
            if self._before is None:
                self.record.weights[key] = weight.detach().clone()
        if update is not None and self._effects:
            moved = apply_update(operation, func, args, kwargs, index, update)
            uses[key].outputs.append(rms_of(moved))
            if operation not in LOOKUPS and len(places) == 2:
                met = args[places[1 - places.index(index)]]
                dense = met if met.layout == torch.strided else met.to_dense()
                uses[key].inputs.append(rms_of(dense))
        return label

    def _meets_features(self, operation: str, origins: list[Origin]) -> bool:
        if any(origin.data for origin in origins):
            return True
        if operation in LOOKUPS or operation in _MATRIX_VECTOR or self._parametrizing():
            return False
        return any(origin == _CONSTANT for origin in origins)  # a network on coordinates

    def _vectors(self, operation: str, args: Sequence[Any]) -> None:
        """Enter the parameters that meet features one by one."""
        for index, arg in enumerate(args):
            for origin in map(self._origin, tensors_of(arg)):
                for name in () if origin.data else origin.names:
                    self.record.see(name)
                    kind = GAIN if is_gain(operation, index) else SHIFT
                    self.record.vectors.setdefault(name, kind)

    def _feature(self, label: str, tensor: Any, fresh: tuple[Any, ...] = ()) -> None:
        """Enter a feature, once, under the first label it has."""
        sources = [self._origin(t) for t in (fresh or (tensor,))]
        tensor = entries_of(tensor)
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel()):
            return
        if not any(o.data for o in sources) or not any(o.names for o in sources):
            return
        key = (memory_of(tensor), tensor.storage_offset(), tensor.numel())
        if not fresh:  # one computed here is freed at once, and its address used again
            if key in self._features:
                return
            self._features.add(key)
        self.record.see(label)
        maker = self._maker(tensor)
        alike = self.record.makers.get(label, maker) == maker
        self.record.makers[label] = maker if alike else ""  # calls of several
        paused, self._paused = self._paused, True
        self.record.features[label].append(tensor.detach().clone())
        self._paused = paused

    def _merged(self, operation: str, args: tuple[Any, ...], kwargs: Any) -> Origin:
        """What the outputs of an operation depend on."""
        origins = [self._origin(t) for t in tensors_of((args, kwargs))]
        names = frozenset[str]().union(*(o.names for o in origins))
        data = any(o.data for o in origins)
        if operation in FACTORS and names and not data:
            data = self._meets_features(operation, origins)
        return (_FEATURE if names else _BATCH) if data else Origin(False, names)

    def _is_derived(self, args: tuple[Any, ...]) -> bool:
        """Whether a tensor is a derivative of features: by an input of the model, say."""
        return any(memory_of(tensor) in self._derived for tensor in tensors_of(args))

    def _origin(self, tensor: Any) -> Origin:
        if not isinstance(tensor, Tensor):
            return _CONSTANT
        return self._origins.get(memory_of(tensor), _BATCH)

    def _maker(self, tensor: Tensor) -> str:
        return self._makers.get(memory_of(tensor), "")

    def _note(self, tensor: Tensor, origin: Origin) -> None:
        self._origins[memory_of(tensor)] = origin
        self._alive.append(tensor)

    def _key(self, label: str, weight: Tensor) -> UseKey:
        """One key a slice of a parameter; one a call for what is computed from parameters."""
        self._counts[label] += 1
        if memory_of(weight) in self._stored:
            return (label, weight.storage_offset(), tuple(weight.shape), weight.stride())
        return (label, self._counts[label])

    def _label(self, names: frozenset[str], *, lookup: bool) -> str:
        """The module of a weight; of one that another module borrows, that module."""
        levels = zip(*(name.split(".") for name in sorted(names)), strict=False)
        shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels)]
        if "parametrizations" in shared:
            shared = shared[: shared.index("parametrizations")]
        label = ".".join(shared).removesuffix(".weight")
        caller = self._calls[-1][0] if self._calls else ""
        if not label or (caller and not label.startswith(caller)):
            return caller or LOSS
        if not lookup and self._looked_up(label):
            return f"{label} as readout"
        return label

    def _looked_up(self, label: str) -> bool:
        return any(use.lookup for use in self.record.uses.get(label, {}).values())

    def _parametrizing(self) -> bool:
        return any(isinstance(module, ParametrizationList) for _, module in self._calls)

    def _where(self) -> str:
        return (self._calls[-1][0] or ROOT) if self._calls else LOSS
