"""What a search cost against the grid that it stands for."""

from thetaone.records._base import Record


class SearchCost(Record):
    """Compute of a search and of the grid in whose place it was run.

    The grid is charged what its trainings would run: one at a rate where another diverged, or
    above it, stops at the same step.

    Attributes:
        flops: Counted operations of the search's trainings [FLOP].
        grid_flops: The same of every rate, seed, size and combination of the grid [FLOP].
        n_trials: Trainings of the search, stopped ones included [count].
        n_grid: Trainings of the grid [count].
    """

    flops: float
    grid_flops: float
    n_trials: int
    n_grid: int

    @property
    def share(self) -> float:
        """Compute of the search over that of the grid; above 1 when it cost more."""
        return self.flops / self.grid_flops if self.grid_flops else float("nan")

    def __str__(self) -> str:
        return (
            f"search: {100 * self.share:.0f} % of the grid's compute, {self.flops:.2g} of "
            f"{self.grid_flops:.2g} FLOP ({self.n_trials} trainings, stopped ones included, in "
            f"place of {self.n_grid})"
        )
