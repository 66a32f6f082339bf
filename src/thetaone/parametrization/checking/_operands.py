"""Weights as operations take them: which operand of an operation is a weight, and its size.

Norms are of what the program multiplies with, so ``einsum`` over a raw (d, heads, size) tensor, a
stack of experts, a slice of a fused projection and ``weight_norm`` are each read as they are used.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.utils._pytree import tree_leaves

from thetaone.laws import rms_operator_norm

NORM_TOLERANCE = 0.1  # of the operator norms, which err downwards alike at every width

# operation -> where its factors are among its arguments; one of them may be a weight
FACTORS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "mm": (0, 1),
        "bmm": (0, 1),
        "mv": (0, 1),
        "_grouped_mm": (0, 1),
        "addmm": (1, 2),
        "baddbmm": (1, 2),
        "addmv": (1, 2),
        "convolution": (0, 1),
        "_trilinear": (0, 1, 2),
        "embedding": (0, 1),
        "_embedding_bag": (0, 1),
    }
)
LOOKUPS = frozenset({"embedding", "_embedding_bag"})
# operation -> where a gain and a shift are among its arguments
GAINS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "native_layer_norm": (2, 3),
        "native_group_norm": (1, 2),
        "native_batch_norm": (1, 2),
        "_native_batch_norm_legit": (1, 2),
        "cudnn_batch_norm": (1, 2),
        "_fused_rms_norm": (2, -1),
    }
)
# operations whose input is a feature of its own, for its size counts there
SOFTMAX = frozenset({"_softmax", "_safe_softmax"})
NONLINEAR = SOFTMAX | frozenset(
    """_log_softmax logsumexp sigmoid log_sigmoid_forward tanh exp softplus gelu silu relu elu
    leaky_relu hardtanh mish""".split()  # noqa: SIM905
)
LOSSES = frozenset(
    """pow abs log clamp clamp_min mse_loss smooth_l1_loss huber_loss binary_cross_entropy
    binary_cross_entropy_with_logits""".split()  # noqa: SIM905
)
# what adds to features or scales them, and leaves them one matrix's otherwise
ADDED, SCALED = frozenset({"add", "sub"}), frozenset({"mul", "div", "_to_copy"})
_PRODUCTS = frozenset({"mul", "div"})
_WITHOUT_ADDEND = {"addmm": torch.mm, "baddbmm": torch.bmm, "addmv": torch.mv}


@dataclass(frozen=True, slots=True)
class Operand:
    """A weight as one operation takes it.

    Attributes:
        weight: (out, in, …); a stack of blocks is (blocks, out, in).
        stacked: Whether the first axis counts blocks, each with inputs of its own.
        lookup: Whether rows are only picked: the input is one-hot.
    """

    weight: Tensor
    stacked: bool = False
    lookup: bool = False

    @property
    def fans(self) -> tuple[int, int]:
        """Features summed over, and put out [count]; a lookup sums over one."""
        if self.lookup:
            return 1, self.weight.shape[-1]
        shape = self.weight.shape[1:] if self.stacked else self.weight.shape
        return math.prod(shape[1:]), shape[0]

    def norm(self, size: float) -> float:
        """Induced RMS→RMS norm; the largest of the blocks; of a lookup, the RMS of its rows.

        Args:
            size: RMS of the weight.
        """
        if self.lookup or not math.isfinite(size) or size == 0:
            return size
        weight = self.weight.detach().float()
        return float(rms_operator_norm(weight, NORM_TOLERANCE, batched=self.stacked).max())

    def aligned_norm(self, size: float) -> float:
        """The induced norm that entries of the same RMS would have in rank one."""
        return size * self.fans[0]


def as_operand(operation: str, args: Sequence[Any], index: int, size: int | None) -> Operand:
    """The weight among an operation's arguments as outputs × inputs.

    Blocks of a batched product that see the same input are one matrix with all their outputs;
    copies made by broadcasting count once.

    Args:
        operation: Name of the operation, of ``FACTORS``.
        args: Its arguments.
        index: Which of them is the weight.
        size: Entries of the parameter that it comes from [count]; ``None`` when of several.
    """
    weight: Tensor = args[index]
    if operation in LOOKUPS:
        return Operand(weight, lookup=True)
    if operation == "convolution":
        return Operand(weight.transpose(0, 1) if args[6] else weight)
    if operation == "_trilinear":
        return Operand(weight.flatten(1))
    left = index == FACTORS[operation][0]
    if weight.dim() == 1:
        return Operand(weight[None] if not left else weight[:, None])
    if weight.dim() == 2:
        return Operand(weight if left else weight.t())
    blocks = weight if left else weight.transpose(1, 2)
    inputs: Tensor = args[FACTORS[operation][1 if left else 0]]
    per_block = blocks[0].numel()
    if size is not None and blocks.numel() > size and size % per_block == 0:
        blocks = blocks[: size // per_block]
    shared = inputs.dim() == 3 and all(
        torch.equal(inputs[0], inputs[i]) for i in range(1, min(len(inputs), len(blocks)))
    )
    return Operand(blocks.flatten(0, 1)) if shared else Operand(blocks, stacked=True)


def apply_update(
    operation: str, function: Any, args: Sequence[Any], kwargs: Any, index: int, update: Tensor
) -> Tensor:
    """``ΔW h``: the operation with the update in the weight's place, without what it adds.

    Args:
        operation: Name of the operation, of ``FACTORS``.
        function: The operation.
        args: Its arguments; the others are as they are.
        kwargs: Its keywords.
        index: Which argument is the weight.
        update: Of the weight's own shape there.
    """
    changed = [*replaced(args, index, update)]
    if operation in _WITHOUT_ADDEND:
        return _WITHOUT_ADDEND[operation](*changed[1:3])
    if operation == "convolution":
        changed[2] = None
    result = function(*changed, **kwargs)
    return result[0] if isinstance(result, tuple) else result


def is_gain(operation: str, index: int) -> bool:
    """Whether the argument multiplies features one by one, rather than being added to them."""
    return operation in _PRODUCTS or GAINS.get(operation, (-1, -1))[0] == index


def attention_logits(args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """``scale · q kᵀ`` of a fused attention."""
    query, key = args[0], args[1]
    if key.shape[1] != query.shape[1]:  # heads that share a key
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scale = kwargs.get("scale") or 1 / math.sqrt(query.shape[-1])
    return query @ key.transpose(-2, -1) * scale


def replaced(args: Sequence[Any], index: int, tensor: Tensor) -> tuple[Any, ...]:
    """Arguments with another tensor in one place."""
    return (*args[:index], tensor, *args[index + 1 :])


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of arguments or of an output, also of an object's attributes.

    Inside ``vmap`` and its like, those below: all samples at once.
    """
    if isinstance(value, Tensor):
        while is_functorch_wrapped_tensor(value):
            value = get_unwrapped(value)
        yield value
    elif type(value) in (tuple, list):
        for entry in value:
            yield from tensors_of(entry)
    elif not isinstance(value, (int, float, str)) and value is not None:
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor):
                yield from tensors_of(leaf)
            elif hasattr(leaf, "__dataclass_fields__"):
                yield from (v for v in vars(leaf).values() if isinstance(v, Tensor))


def entries_of(tensor: Any) -> Any:
    """What a tensor holds: of a nested one the rows of all its parts, one after another."""
    return tensor.values() if getattr(tensor, "layout", None) is torch.jagged else tensor


def memory_of(tensor: Tensor) -> int:
    """What is the same for all views of a tensor; a sparse one has none."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def operation_name(func: Any) -> str:
    """The name of an operation, in place or not."""
    name: str = func.overloadpacket.__name__
    return name.removesuffix("_")
