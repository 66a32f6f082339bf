"""Compares a stack with the real optimizers, parameter by parameter, before it is used."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thetaone.records import TrialSpec
from thetaone.sweeps._generators import seeded
from thetaone.sweeps._trials import Descent, Work, batches_of
from thetaone.sweeps.engines._stacked import Stack, stackable
from thetaone.sweeps.engines._stacked_update import NotStackableError

N_STEPS = 2
LOSS_AGREEMENT = 1e-3  # relative
MOVE_AGREEMENT = 0.02  # of the move of a parameter, entries of negligible gradient left out
NEGLIGIBLE = 1e-3  # of a tensor's largest gradient: below, an Adam step follows rounding noise
ROUNDING = 1e-6  # of a parameter's size: what its precision leaves of a move


def require_agreement(work: Work, specs: Sequence[TrialSpec]) -> None:
    """Train the first and the last member as they are and in the stack, for two steps.

    Raises:
        NotStackableError: A loss or a parameter differs, or the specs cannot be stacked.
    """
    with stackable(), Stack(work, specs) as stack:
        n_steps = min(N_STEPS, specs[0].n_planned)
        losses = torch.stack([stack.step() for _ in range(n_steps)])  # [steps, k]
        stacked = {index: stack.parameters(index) for index in {0, len(specs) - 1}}
    for index, parameters in stacked.items():
        _require_same(work, specs[index], parameters, losses[:, index].tolist())


def _require_same(
    work: Work, spec: TrialSpec, stacked: dict[str, Tensor], losses: list[float]
) -> None:
    with seeded(spec.seed):
        model, optimizer = work.build(spec)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        descent = Descent(work, model, optimizer, spec.n_steps)
        counted = {name: torch.ones_like(p, dtype=torch.bool) for name, p in before.items()}
        for expected, batch in zip(losses, batches_of(work.task, spec), strict=False):
            alone = descent.step(batch)
            if abs(expected - alone) > LOSS_AGREEMENT * max(1.0, abs(alone)):
                raise NotStackableError(
                    f"a stack's loss {expected:.6g} is not that of one model, {alone:.6g}"
                )
            _leave_out_noise(model, counted)
    for name, p in model.named_parameters():
        if p.requires_grad and not _same_move(
            before[name], p.detach(), stacked[name], counted[name]
        ):
            raise NotStackableError(
                f"parameter {name} of a stack is not that of one model after {len(losses)} steps "
                f"(lr {spec.lr:.3g}): something beside the optimizer's own update moves it"
            )


def _leave_out_noise(model: nn.Module, counted: dict[str, Tensor]) -> None:
    """Entries whose gradient is rounding noise (a bias before a softmax) are not compared."""
    gradients = {
        n: p.grad.detach().abs() for n, p in model.named_parameters() if p.grad is not None
    }
    largest = max((float(g.max()) for g in gradients.values() if g.numel()), default=0.0)
    for name, gradient in gradients.items():
        if gradient.numel():
            floor = NEGLIGIBLE * max(float(gradient.max()), NEGLIGIBLE * largest)
            counted[name] &= gradient > floor


def _same_move(before: Tensor, alone: Tensor, stacked: Tensor, counted: Tensor) -> bool:
    off = torch.where(counted, stacked - alone, 0.0).norm()
    move = torch.where(counted, alone - before, 0.0).norm()
    return bool(off <= MOVE_AGREEMENT * move + ROUNDING * alone.norm())
