"""Several optimizers stepped as one: Muon for hidden matrices, AdamW for the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from thetaone.errors import MismatchError


class MixedOptimizer(torch.optim.Optimizer):
    """Optimizers on disjoint parameters behind one ``torch.optim.Optimizer``.

    ``param_groups`` are the members' own groups, so any scheduler acts on all of them, and
    ``state`` is theirs, so whoever counts its bytes finds it. The state dict is the list of theirs.

    Attributes:
        members: The optimizers, stepped in order.

    Examples:
        >>> a, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
        >>> both = MixedOptimizer([torch.optim.SGD([a], lr=0.5), torch.optim.Adam([b], lr=0.1)])
        >>> [group["lr"] for group in both.param_groups]
        [0.5, 0.1]
    """

    def __init__(self, members: Sequence[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        super().__init__([group for m in members for group in m.param_groups], {})
        self._share()

    def _share(self) -> None:
        self.param_groups = [group for member in self.members for group in member.param_groups]
        self.state.clear()
        for member in self.members:
            self.state.update(member.state)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step every member; the closure is evaluated once, before the first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        if len(self.state) != sum(len(member.state) for member in self.members):
            self._share()  # the first step makes the state
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of every member."""
        for member in self.members:
            member.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """``{"members": [...]}``, one state dict a member."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            MismatchError: Another number of members.
        """
        states = state_dict.get("members", [])
        if len(states) != len(self.members):
            raise MismatchError(
                f"the state is of {len(states)} optimizers and this one has {len(self.members)}: "
                "load it into an optimizer built by the same call"
            )
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)
        self._share()
