"""What one training is asked to be."""

from dataclasses import dataclass

AxisValues = tuple[tuple[str, float], ...]  # name and value of each further axis, by name


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TrialSpec:
    """One training to do; equal specs of one task and optimizer give equal losses.

    Attributes:
        width: Width of the model.
        lr: Learning rate at the base width.
        seed: Seed of initialization and batches.
        n_steps: Steps to train [count].
        rule: How the optimizer is made, in words that identify it: ``"sp"``, ``"mup from 32"``.
        depth: Depth of the model; None when the task's model takes none.
        axes: Values of further axes (``("weight_decay", 0.1)``), sorted by name: a mapping that can
            be hashed.
        stop: Steps after which a search stops it [count]; 0: it is trained to its end.
    """

    width: int
    lr: float
    seed: int
    n_steps: int
    rule: str
    depth: int | None = None
    axes: AxisValues = ()
    stop: int = 0

    @property
    def n_planned(self) -> int:
        """Steps that are trained unless it diverges [count]."""
        return self.stop or self.n_steps
