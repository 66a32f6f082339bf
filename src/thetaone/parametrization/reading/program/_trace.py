"""Records the operations of one forward pass; no arithmetic is done and nothing is changed.

The pass runs under ``FakeTensorMode``: shapes alone are computed, whatever the model's size. What
the pass asks of values (``.item()``, ``nonzero``) is answered from constants where it depends on
nothing else, and otherwise assumed: only shapes are read from it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from thetaone.parametrization._names import canonical, canonical_module
from thetaone.parametrization._scaling import unscaled
from thetaone.parametrization.reading.program._anchors import settle_anchors
from thetaone.parametrization.reading.program._fused import is_fused_sum, terms_of
from thetaone.parametrization.reading.program._program import (
    ACTIVATION,
    CONTRACTIONS,
    DATA,
    GRADIENT,
    INPUT,
    PARAMETER,
    Operation,
    Program,
    Value,
    kind_of,
    kinds_of,
)
from thetaone.parametrization.reading.program._surroundings import (
    ANSWERS,
    SMALL,
    StandIns,
    Unpacked,
    assumed,
    attribute_tensors,
    bind,
    constant_of,
    decomposed,
    entries,
    flat,
    is_count,
    replaced,
    returned_tensors,
    spectral_hooks,
    tensors_in,
    undisturbed,
    written_tensors,
)

_LONGEST = 200_000  # operations; a loop until convergence never ends on assumed values
_SHAPE_ONLY = ("_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided")
_LOOKUPS = ("embedding", "_embedding_bag", "_embedding_bag_forward_only")
_RANDOM = torch.Tag.nondeterministic_seeded


def trace(model: nn.Module, run: Callable[[nn.Module], Any]) -> Program:
    """The program of ``run(model)``.

    Args:
        model: In evaluation mode while it runs; its state is afterwards what it was.
        run: Calls it; tensors that are neither parameters, buffers nor attributes of the model are
            inputs of the pass.

    Raises:
        Exception: Whatever the pass raises.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    recorder = _Recorder(model, fake)
    with (
        undisturbed(model), _module_calls(model, recorder), decomposed(), unscaled(),
        torch.random.fork_rng(), torch.enable_grad(), recorder, Unpacked(),
    ):  # fmt: skip
        output = run(model)
    outputs = tuple(recorder.value(tensor) for tensor in returned_tensors(output))
    settle_anchors(recorder.operations)
    return Program(recorder.operations, outputs, recorder.parameters, recorder.results)


class _Recorder(TorchDispatchMode):
    """Logs every operation that reaches it."""

    def __init__(self, model: nn.Module, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake
        self.operations: list[Operation] = []
        self.parameters: dict[str, Value] = {}
        self.results: dict[str, Value] = {}
        self.stack: list[str] = [""]
        self.weights = 0  # how many modules that compute weights are being called
        self._names = {id(p): canonical(name) for name, p in model.named_parameters()}
        self._data = attribute_tensors(model)
        self._entered: list[tuple[bool, dict[int, Value]]] = []
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []
        self._bases: dict[int, Tensor] = {}
        self._stand_ins = StandIns()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and write it down."""
        kwargs = kwargs or {}
        if func.namespace == "prim" or func.overloadpacket.__name__ == "embedding_renorm_":
            return func(*args, **kwargs)
        if len(self.operations) > _LONGEST:
            raise RuntimeError(f"more than {_LONGEST} operations in one pass")
        arguments = bind(func, args, kwargs)
        values = {name: replaced(entry, self.value) for name, entry in arguments.items()}
        inputs = tuple(leaf for leaf in flat(values.values()) if isinstance(leaf, Value))
        with self.fake if self._is_faked(arguments) else contextlib.nullcontext():
            output, constants = self._execute(func, args, kwargs, inputs)
        self._write_down(func, arguments, values, inputs, output, constants)
        return output

    def _is_faked(self, arguments: Mapping[str, Any]) -> bool:
        """Whether an operation is the model's: what prepares a batch is done in earnest."""
        return len(self.stack) > 1 or any(
            isinstance(a, (FakeTensor, nn.Parameter)) for a in flat(arguments.values())
        )

    def value(self, tensor: Tensor) -> Value:
        """The value that a tensor holds now."""
        value = self._values.get(id(tensor))
        return value if value is not None else self._add_leaf(tensor)

    def _add_leaf(self, tensor: Tensor) -> Value:
        name = self._names.get(id(tensor), "")
        kind = PARAMETER if name else DATA if id(tensor) in self._data else INPUT
        value = Value(tuple(tensor.shape), kind, name, constant=constant_of(tensor, kind))
        if name:
            self.parameters[name] = value
        self._remember(tensor, value)
        return value

    def _remember(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value
        self._alive.append(tensor)  # so that no other tensor gets its id

    def _execute(
        self, func: Any, args: Any, kwargs: Any, inputs: tuple[Value, ...]
    ) -> tuple[Any, Any]:
        """The operation's fake result, and its real one where that is known."""
        name = func.overloadpacket.__name__
        constant = all(value.constant is not None for value in inputs)
        if _RANDOM in func.tags or name.startswith(("empty", "new_empty")):
            constant = False
        if constant and (not inputs or name in ANSWERS):
            constant = name in ANSWERS or entries(args, kwargs) <= SMALL
        if name in ANSWERS:
            real = self._real(func, args, kwargs) if constant else assumed(name, args)
            return ANSWERS[name](args, real), real
        stand_in = functools.partial(self._stand_ins.of, written=func._schema.is_mutable)
        away = replaced(args, stand_in), replaced(kwargs, stand_in)
        output = func(*away[0], **away[1])
        if not constant or sum(t.numel() for t in tensors_in(output)) > SMALL:
            return output, None
        return output, self._real(func, args, kwargs)

    def _real(self, func: Any, args: Any, kwargs: Any) -> Any:
        def constant(tensor: Tensor) -> Tensor | None:
            number = self.value(tensor).constant
            return None if number is None else number.clone()

        kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")}
        with _disable_current_modes(), torch.no_grad():
            return func(*replaced(args, constant), **replaced(kwargs, constant))

    def _write_down(
        self,
        func: Any,
        arguments: Mapping[str, Any],
        values: dict[str, Any],
        inputs: tuple[Value, ...],
        output: Any,
        constants: Any,
    ) -> None:
        name = func.overloadpacket.__name__
        results = tensors_in(output)
        constants = tensors_in(constants) if constants is not None else []
        if len(constants) != len(results):
            constants = [None] * len(results)
        kind = kind_of(inputs, random=_RANDOM in func.tags)
        if torch._C._current_graph_task_id() != -1:  # autograd's, for a gradient in the loss
            name = GRADIENT + name
            kind = ACTIVATION if kind == PARAMETER else kind
        elif name.endswith(_SHAPE_ONLY):
            kind, inputs = ACTIVATION if _RANDOM in func.tags else DATA, ()
        elif name == "lift_fresh":
            kind = DATA  # torch.tensor(number)
        elif name in _LOOKUPS or (
            name in CONTRACTIONS and not self.weights and DATA in kinds_of(inputs)
        ):
            kind = ACTIVATION  # rows picked by data, or data of a buffer: features from here on
        outputs = tuple(
            Value(tuple(tensor.shape), kind, constant=constant, counts=is_count(tensor))
            for tensor, constant in zip(results, constants, strict=True)
        )
        if not outputs:
            return
        if is_fused_sum(name.rstrip("_"), values):
            self._append_in_steps(name.rstrip("_"), values, outputs[0])
        else:
            self._append(name, values, inputs, outputs, func)
        written = written_tensors(func, arguments)
        for tensor, value in zip(results, outputs, strict=True):
            self._remember(tensor, value)
            if func.is_view and inputs:
                base = next(leaf for leaf in flat(arguments.values()) if isinstance(leaf, Tensor))
                self._bases[id(tensor)] = base
        for tensor in written:
            self._remember(tensor, outputs[0])
            self._write_through(tensor, outputs[0])

    def _append(
        self,
        name: str,
        arguments: dict[str, Any],
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        call: Any,
    ) -> None:
        in_place = name.endswith("_") and not name.endswith("__")
        operation = Operation(
            len(self.operations), name.removesuffix("_") if in_place else name,
            arguments, inputs, outputs, self.stack[-1], call,
        )  # fmt: skip
        for value in outputs:
            value.source = operation
        for value in dict.fromkeys(inputs):
            value.users.append(operation)
        self.operations.append(operation)

    def _append_in_steps(self, name: str, arguments: Mapping[str, Any], out: Value) -> None:
        """A fused sum as its terms and their sum."""

        def step(name: str, **arguments: Any) -> Value:
            inputs = tuple(entry for entry in arguments.values() if isinstance(entry, Value))
            result = Value(out.shape, kind_of(inputs, random=False))
            self._append(name, arguments, inputs, (result,), None)
            return result

        first, second = terms_of(name, arguments, step)
        total = {"self": first, "other": second, "alpha": 1}
        self._append("add", total, (first, second), (out,), None)

    def enter(self, module: nn.Module, name: str | None, inputs: Any) -> None:
        """Begin a module's call: parameters among its inputs are features while it lasts."""
        computes_weights = isinstance(module, nn.utils.parametrize.ParametrizationList)
        self.weights += computes_weights
        self.stack.append(self.stack[-1] if name is None else name)
        restored: dict[int, Value] = {}
        for tensor in () if self.weights else tensors_in([tree_leaves(inputs)]):
            value = self.value(tensor)
            if value.kind == PARAMETER:
                feature = Value(value.shape, ACTIVATION)
                self._append("enter", {"self": value}, (value,), (feature,), None)
                self._remember(tensor, feature)
                restored[id(tensor)] = value
        self._entered.append((computes_weights, restored))

    def enter_weight(self, name: str) -> None:
        """Begin what a module's own hook does to its weight."""
        self.stack.append(name)
        self.weights += 1

    def leave_weight(self) -> None:
        """End it."""
        self.stack.pop()
        self.weights -= 1

    def leave(self) -> None:
        """End a module's call."""
        self.stack.pop()
        computes_weights, restored = self._entered.pop()
        self.weights -= computes_weights
        self._values.update(restored)

    def _write_through(self, view: Tensor, new: Value) -> None:
        """A write into a view is one into what it views."""
        while (base := self._bases.get(id(view))) is not None:
            old = self.value(base)
            kind = kind_of((old, new), random=False)
            whole = Value(old.shape, kind)
            self._append("write", {"self": old, "src": new}, (old, new), (whole,), None)
            self._remember(base, whole)
            view, new = base, whole


@contextlib.contextmanager
def _module_calls(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder in which module's forward pass it is."""
    names = {id(m): canonical_module(name) for name, m in model.named_modules()}

    def enter(module: nn.Module, inputs: Any) -> None:
        recorder.enter(module, names.get(id(module)), inputs)

    def leave(module: nn.Module, _inputs: Any, output: Any) -> None:
        recorder.leave()
        tensor = next(returned_tensors(output), None)
        if tensor is not None and id(module) in names:
            recorder.results[names[id(module)]] = recorder.value(tensor)

    register = nn.modules.module
    hooks = [
        register.register_module_forward_pre_hook(enter),
        register.register_module_forward_hook(leave, always_call=True),
    ]
    for name, module in spectral_hooks(model):
        begin = functools.partial(_begin_weight, recorder, name)
        end = functools.partial(_end_weight, recorder)
        hooks += [
            module.register_forward_pre_hook(begin, prepend=True),
            module.register_forward_pre_hook(end),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _begin_weight(recorder: _Recorder, name: str, _module: nn.Module, _inputs: Any) -> None:
    recorder.enter_weight(name)


def _end_weight(recorder: _Recorder, _module: nn.Module, _inputs: Any) -> None:
    recorder.leave_weight()
