"""For a user's own pytest: fail, in plain words, when features depend on the width."""

from collections.abc import Sequence
from typing import Any


def assert_width_invariant(task: Any, *, widths: Sequence[int], lr: float, **options: Any) -> None:
    """Fail when a layer's features move more, or less, in a wide model than in a narrow one.

    Args:
        task: As ``t1.coordinate_check`` takes it.
        widths: At least two [features].
        lr: Learning rate at the smallest width.
        **options: Of ``t1.coordinate_check``; ``parametrization=`` takes your own callable, and
            ``depths=`` compares depths at one width.

    Raises:
        AssertionError: Names each layer, what it does, and the likely cause.

    Examples:
        >>> assert_width_invariant("lm", widths=[32, 64, 128], lr=2**-7, seeds=2, steps=[1])
    """
    from thetaone.studies import coordinate_check

    check = coordinate_check(task, widths=widths, lr=lr, **options)
    if check.passed:
        return
    lines = [
        f"From {check.axis} {check.sizes[0]} to {check.sizes[-1]} these layers do not keep their "
        "size:"
    ]
    for row in (row for row in check.rows if not row.passed):
        law = row.law
        how = "is zero or not finite"
        if law is not None:
            change = (check.sizes[-1] / check.sizes[0]) ** law.exponent
            how = f"changes {change:.3g}-fold (exponent {law.exponent:+.2f})"
        why = row.cause or f"undecided after {check.seeds} seeds: pass a larger max_seeds"
        lines.append(f"  {row.layer}: its {row.quantity} at step {row.step} {how}. {why}")
    raise AssertionError("\n".join(lines))
