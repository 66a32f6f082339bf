"""Several optimizers stepped as one: Muon for hidden matrices, AdamW for the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from thetaone.errors import InputError, MismatchError

MEMBER = "optimizer"  # key of a group: the class that steps it


class MixedOptimizer(torch.optim.Optimizer):
    """Optimizers on disjoint parameters behind one ``torch.optim.Optimizer``.

    Its groups and its state are the members' own objects, each group marked with the class that
    steps it. The state dict is that of any torch optimizer, so distributed checkpoints,
    ``GradScaler``, schedulers, ``pickle`` and ``deepcopy`` work on it as on one.

    Attributes:
        members: The optimizers, stepped in order.

    Examples:
        >>> a, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
        >>> both = MixedOptimizer([torch.optim.SGD([a], lr=0.5), torch.optim.Adam([b], lr=0.1)])
        >>> [(group["optimizer"], group["lr"]) for group in both.param_groups]
        [('SGD', 0.5), ('Adam', 0.1)]
    """

    def __init__(self, members: Sequence[torch.optim.Optimizer]) -> None:
        names = [type(member).__name__ for member in members]
        if len(set(names)) < len(names) or not names:
            raise InputError(f"members={names}: pass at least one optimizer, each class once")
        groups = [group for member in members for group in member.param_groups]
        for name, member in zip(names, members, strict=True):
            for group in member.param_groups:
                group[MEMBER] = name
        super().__init__(groups, {})
        self.members, self.param_groups = list(members), groups
        for member in members:
            self.state.update(member.state)
        self._share()

    def _share(self) -> None:
        """Give every member its groups out of ``param_groups``, and the one state."""
        for member in self.members:
            name = type(member).__name__
            member.param_groups = [g for g in self.param_groups if g[MEMBER] == name]
            member.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step every member; the closure is evaluated once, before the first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the member that its ``"optimizer"`` names; to the last unless it does.

        Raises:
            InputError: No member has that name.
        """
        if not hasattr(self, "members"):  # torch's own constructor, on the members' groups
            super().add_param_group(param_group)
            return
        name = param_group.get(MEMBER, type(self.members[-1]).__name__)
        member = next((m for m in self.members if type(m).__name__ == name), None)
        if member is None:
            names = ", ".join(type(m).__name__ for m in self.members)
            raise InputError(f"a group names optimizer={name!r}: choose one of {names}")
        taken = {id(p) for group in self.param_groups for p in group["params"]}
        params = param_group["params"]
        listed = [params] if isinstance(params, torch.Tensor) else list(params)
        if any(id(p) in taken for p in listed):
            raise InputError("a parameter of the new group is already stepped: pass it once")
        member.add_param_group({**param_group, "params": listed, MEMBER: name})
        self.param_groups.append(member.param_groups[-1])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            MismatchError: Its groups belong to other optimizers.
        """
        names = [group.get(MEMBER) for group in state_dict["param_groups"]]
        expected = [group[MEMBER] for group in self.param_groups]
        if names != expected:
            raise MismatchError(
                f"the state's groups are of {names} and this optimizer's of {expected}: load it "
                "into an optimizer built by the same call"
            )
        super().load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "members": self.members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()
