"""What a layer does to its input with a weight of its own shape: ``W ↦ W h``."""

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def through(module: nn.Module, weight: Tensor, inputs: Tensor) -> Tensor | None:
    """``W h`` without the bias; ``None`` for a layer whose use of its weight is not known.

    Args:
        module: ``Linear``, a convolution, Hugging Face's ``Conv1D``, or a router of experts.
        weight: As (out, in, …), whatever the layer's own order is.
        inputs: Of the layer.

    Examples:
        >>> import torch
        >>> through(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]))
        tensor([11.])
    """
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return _TRANSPOSED[len(module.kernel_size)](
            inputs,
            weight.transpose(0, 1),
            None,
            module.stride,
            cast(Any, module.padding),  # a tuple: text is for plain convolutions only
            module.output_padding,
            module.groups,
            module.dilation,
        )
    if isinstance(module, nn.modules.conv._ConvNd):
        return module._conv_forward(inputs, weight, None)
    name = type(module).__name__
    if isinstance(module, nn.Linear) or name == "Conv1D" or name.endswith("Router"):
        return F.linear(inputs, weight)
    return None
