"""How well a step's update meets a layer's inputs, read from hooks around single modules.

Linear layers, convolutions and recurrent layers are known by class; of any other module that owns
matrices (a stack of experts) the products with them are recorded while it runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from thetaone.parametrization.checking._operands import FACTORS, LOOKUPS, apply_update, as_operand
from thetaone.parametrization.reading import rms_of

ROWS = 256  # of a layer's input that alignment is measured on
_SAMPLES = 8  # images or sequences
_CALLS = 8  # uses of one parameter in a pass
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True, slots=True)
class Product:
    """One use of a parameter: the operation, its arguments, and which view of it was used."""

    operation: str
    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    index: int
    view: tuple[Any, ...]  # size, stride, offset

    def alignment(self, update: Tensor) -> tuple[float, float]:
        """``‖ΔW h‖_RMS`` and ``‖ΔW‖ ‖h‖_RMS`` for the update of the whole parameter."""
        used = update.contiguous().as_strided(*self.view)
        other = next(i for i in FACTORS[self.operation] if i != self.index)
        inputs = self.args[other].to(used.dtype)
        args = tuple(inputs if i == other else arg for i, arg in enumerate(self.args))
        moved = apply_update(self.operation, self.function, args, self.kwargs, self.index, used)
        shown = tuple(used if i == self.index else arg for i, arg in enumerate(args))
        operand = as_operand(self.operation, shown, self.index, None)
        return rms_of(moved), operand.norm(rms_of(operand.weight)) * rms_of(inputs)


class Products(TorchDispatchMode):
    """Records the products with a module's own matrices while it runs.

    Args:
        module: Whose parameters are looked for.

    Attributes:
        uses: Parameter's local name to its uses.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.uses: dict[str, list[Product]] = {}
        self._views: dict[int, tuple[str, int]] = {}  # storage -> parameter, its offset there
        self._alive: list[Tensor] = []
        for local, parameter in _matrices_used(module):
            place = (local, int(parameter.storage_offset()))
            self._views[parameter.untyped_storage()._cdata] = place

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and keep its arguments when one is a matrix looked for."""
        kwargs = kwargs or {}
        operation = func.overloadpacket.__name__
        result = func(*args, **kwargs)
        if operation == "_to_copy" and isinstance(result, Tensor):  # autocast's copy of a weight
            source = self._views.get(args[0].untyped_storage()._cdata)
            if source is not None and args[0].stride() == result.stride():
                offset = source[1] - int(args[0].storage_offset())
                self._views[result.untyped_storage()._cdata] = (source[0], offset)
                self._alive.append(result)
        if len(FACTORS.get(operation, ())) == 2 and operation not in LOOKUPS:
            self._keep(operation, func, args, kwargs)
        return result

    def _keep(self, operation: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        for index in FACTORS[operation]:
            weight = args[index]
            place = self._views.get(weight.untyped_storage()._cdata)
            if place is None or len(self.uses.get(place[0], ())) >= _CALLS:
                continue
            view = (tuple(weight.shape), weight.stride(), weight.storage_offset() - place[1])
            kept = [
                arg.detach().clone() if isinstance(arg, Tensor) and i != index else arg
                for i, arg in enumerate(args)
            ]
            kept[index] = None
            if operation in ("mm", "addmm") and index == FACTORS[operation][1]:
                kept[FACTORS[operation][0]] = kept[FACTORS[operation][0]][:ROWS]
            use = Product(operation, func, tuple(kept), kwargs, index, view)
            self.uses.setdefault(place[0], []).append(use)


@dataclass(slots=True)
class Listener:
    """Keeps what the matrices of one module meet in its next pass, while it is asked to.

    Attributes:
        module: The watched module.
        inputs: What it was called with, where its class says what it computes.
        products: What its matrices met, for any other class.
    """

    module: nn.Module
    inputs: Tensor | None = None
    products: dict[str, list[Product]] = field(default_factory=dict[str, list[Product]])
    _mode: Products | None = None

    def attach(self, listening: Callable[[], bool]) -> list[Any]:
        """Register hooks that act while ``listening()``; they stay, so that nothing recompiles."""

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            if torch.compiler.is_compiling() or not listening():
                return
            if not _has_formula(module):
                self._mode = mode = Products(module)
                mode.__enter__()
            elif args and isinstance(args[0], Tensor):
                self.inputs = _some(module, args[0].detach()).clone()

        def after(module: nn.Module, args: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or self._mode is None:
                return
            self._mode.__exit__(None, None, None)
            self.products, self._mode = self._mode.uses, None

        return [
            self.module.register_forward_pre_hook(before),
            self.module.register_forward_hook(after, always_call=True),
        ]

    def clear(self) -> None:
        """Forget the last pass."""
        self.inputs, self.products = None, {}

    @torch.no_grad()
    def alignment(self, local: str, update: Tensor, norm: float) -> float:
        """``‖ΔW h‖_RMS / (‖ΔW‖_RMS→RMS ‖h‖_RMS)``; NaN where the inputs were not seen.

        Args:
            local: The parameter's name in the module.
            update: ΔW, of its shape.
            norm: Its induced norm.
        """
        update = update if update.dtype == torch.float64 else update.float()
        with torch.autocast(update.device.type, enabled=False):
            if local in self.products:
                pairs = [use.alignment(update) for use in self.products[local]]
                moved, bound = (sum(side) for side in zip(*pairs, strict=True))
                return moved / bound if bound else float("nan")
            if self.inputs is None:
                return float("nan")
            inputs = self.inputs.to(update.dtype)
            if isinstance(self.module, nn.RNNBase):
                inputs = _recurrent_inputs(self.module, inputs).get(local, inputs)
            moved = through(self.module, outputs_first(self.module, update), inputs)
        bound = norm * rms_of(inputs)
        return rms_of(moved) / bound if moved is not None and bound else float("nan")


def through(module: nn.Module, weight: Tensor, inputs: Tensor) -> Tensor | None:
    """``W h`` without the bias; ``None`` for a layer whose use of its weight is not known.

    Args:
        module: ``Linear``, a convolution, a recurrent layer, or Hugging Face's ``Conv1D``.
        weight: As (out, in, …), whatever the layer's own order is.
        inputs: Of the layer.

    Examples:
        >>> through(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]))
        tensor([11.])
    """
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return _TRANSPOSED[len(module.kernel_size)](
            inputs, weight.transpose(0, 1), None, module.stride,
            cast(Any, module.padding),  # a tuple: text is for plain convolutions only
            module.output_padding, module.groups, module.dilation,
        )  # fmt: skip
    if isinstance(module, nn.modules.conv._ConvNd):
        return module._conv_forward(inputs, weight, None)
    return F.linear(inputs, weight) if _has_formula(module) else None


def outputs_first(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight of a module as (out, in, …)."""
    turned = getattr(module, "transposed", False) or type(module).__name__ == "Conv1D"
    return weight.transpose(0, 1) if turned else weight


def _matrices_used(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The matrices of a module, and of a part that it does not call but reads."""
    parameters = module.named_parameters(recurse=False)
    matrices: list[tuple[str, Tensor]] = [(local, p) for local, p in parameters if p.dim() > 1]
    if isinstance(module, nn.MultiheadAttention):
        matrices.append(("out_proj.weight", module.out_proj.weight))
    return matrices


def _has_formula(module: nn.Module) -> bool:
    classes = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
    return isinstance(module, classes) or type(module).__name__ == "Conv1D"


def _some(module: nn.Module, inputs: Tensor) -> Tensor:
    """Part of a layer's input: rows, images or sequences."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return inputs[:_SAMPLES]
    if isinstance(module, nn.RNNBase):
        batch = 0 if module.batch_first or inputs.dim() < 3 else 1
        some = min(_SAMPLES, inputs.shape[batch])
        return inputs if inputs.dim() < 3 else inputs.narrow(batch, 0, some)
    return inputs.reshape(-1, inputs.shape[-1])[:ROWS]


def _recurrent_inputs(module: nn.RNNBase, inputs: Tensor) -> dict[str, Tensor]:
    """What each weight of a recurrent stack meets: a layer's input, or the states before.

    One layer is run at a time, from zero states.
    """
    met: dict[str, Tensor] = {}
    options: dict[str, Any] = {"bias": module.bias, "bidirectional": module.bidirectional}
    if module.mode.startswith("RNN"):
        options["nonlinearity"] = module.mode.removeprefix("RNN_").lower()
    if getattr(module, "proj_size", 0):
        options["proj_size"] = module.proj_size
    kind: Any = nn.RNN if module.mode.startswith("RNN") else type(module)
    h = inputs.transpose(0, 1) if module.batch_first and inputs.dim() == 3 else inputs
    for layer in range(module.num_layers):
        single = kind(h.shape[-1], module.hidden_size, 1, **options).to(h)
        for name, parameter in single.named_parameters():
            parameter.copy_(getattr(module, name.replace("_l0", f"_l{layer}")).detach())
        out = single(h)[0]
        directions = out.chunk(1 + module.bidirectional, -1)
        for side, states in zip(("", "_reverse"), directions, strict=False):
            zero = torch.zeros_like(states[:1])
            late = torch.cat([states[1:], zero]) if side else torch.cat([zero, states[:-1]])
            met[f"weight_ih_l{layer}{side}"], met[f"weight_hh_l{layer}{side}"] = h, late
        h = out
    return met
