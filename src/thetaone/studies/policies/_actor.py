"""Networks of an actor and its critic: vectors in, a distribution or a value out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from thetaone.errors import InputError
from thetaone.studies.policies._flat_environments import choices, n_numbers, n_one_hot
from thetaone.sweeps import whole_numbers

MOST_WIDTH = 2**14  # a hidden layer of 1 GiB
_NEVER = -1e9  # logit of an option that a shorter choice does not have: its probability is 0


class Actor(nn.Module):
    """Observations to independent parts: choices, bits, and a Normal whose spread sees nothing.

    Args:
        n_observed: Numbers of an observation [count].
        leaves: Parts of the action space, as ``FlatEnvironments`` lists them.
        width: Of the hidden layers.
    """

    def __init__(self, n_observed: int, leaves: Sequence[Any], width: int) -> None:
        super().__init__()
        self.leaves = leaves
        self.sizes = [n_one_hot(leaf) for leaf in leaves]
        n_reals = sum(n_numbers(leaf) for leaf in leaves if hasattr(leaf, "low"))
        self.body = perceptron(n_observed, width, sum(self.sizes))
        self.log_scale = nn.Parameter(torch.full((n_reals,), -0.5))

    def forward(self, observations: Tensor) -> Distribution:
        """The distribution of actions ``[n, K]``, batch shape ``[n]``."""
        outputs = self.body(observations).split(self.sizes, -1)
        scales = iter(self.log_scale.exp().split(
            [n_numbers(leaf) for leaf in self.leaves if hasattr(leaf, "low")]
        ))  # fmt: skip
        parts: list[Distribution] = []
        for leaf, output in zip(self.leaves, outputs, strict=True):
            if choices(leaf):
                part = Categorical(logits=_padded(output, choices(leaf)), validate_args=False)
            elif hasattr(leaf, "low"):
                part = Normal(output, next(scales), validate_args=False)
            else:
                part = Bernoulli(logits=output, validate_args=False)
            parts.append(Independent(part, 1, validate_args=False))
        return parts[0] if len(parts) == 1 else SideBySide(parts)


class SideBySide(Distribution):
    """Independent vectors of one batch shape as one vector."""

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts = parts
        self.sizes = [part.event_shape[0] for part in parts]
        super().__init__(parts[0].batch_shape, torch.Size([sum(self.sizes)]), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """None: the parts hold the parameters."""
        return {}

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The parts' samples, ``[*sample_shape, *batch_shape, Σ sizes]``."""
        shape = torch.Size(sample_shape)
        return torch.cat([part.sample(shape).to(torch.float32) for part in self.parts], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Sum over the parts."""
        values = value.split(self.sizes, -1)
        terms = [part.log_prob(own) for part, own in zip(self.parts, values, strict=True)]
        return torch.stack(terms).sum(0)

    def entropy(self) -> Tensor:
        """Sum over the parts."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)


def require_width(width: int) -> int:
    """The width of a policy's hidden layers, as a whole number.

    Raises:
        InputError: It is none, is below 1, or its hidden layer would not fit a machine.
    """
    (width,) = whole_numbers("width", [width], least=1)
    if width > MOST_WIDTH:
        raise InputError(
            f"width={width}: the hidden layers of a policy have at most {MOST_WIDTH} features; "
            "64 are enough for classic control"
        )
    return width


def perceptron(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """Two hidden layers of tanh."""
    return nn.Sequential(
        nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, n_out),
    )  # fmt: skip


def _padded(logits: Tensor, options: Sequence[int]) -> Tensor:
    """Logits of each choice, ``[n, choices, most options]``."""
    most = max(options)
    rows = [
        nn.functional.pad(part, (0, most - part.shape[-1]), value=_NEVER)
        for part in logits.split(list(options), -1)
    ]
    return torch.stack(rows, -2)
