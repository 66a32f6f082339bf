"""The laws on this machine: how far each measurement lies from its formula."""

import math
from collections.abc import Sequence

from thetaone.records import Z_LIMIT, LawResult
from thetaone.report.drawing import Figure, Panel, Reference, Series, category_axis, linear_axis


def laws_figure(results: Sequence[LawResult]) -> Figure:
    """(measured − predicted) in standard errors, one row a statistical law.

    Exact laws (counts and identities) have no standard error: they are in the table only. So are
    bounds (≤, ≥), which are meant to be away from their limit.

    Args:
        results: What ``verify_laws`` returned.

    Returns:
        The figure.
    """
    shown = [law for law in results if law.stderr > 0 and law.relation == "="]
    z = [z_score(law) for law in shown]
    rows = [float(len(shown) - 1 - index) for index in range(len(shown))]
    series = tuple(
        Series(
            name="holds" if passed else "fails",
            x=tuple(v for v, law in zip(z, shown, strict=True) if law.passed == passed),
            y=tuple(row for row, law in zip(rows, shown, strict=True) if law.passed == passed),
            colour="good" if passed else "bad",
            symbol="circle" if passed else "cross",
            dash="none",
            notes=tuple(
                f"{law.name}: {law.quantity}: predicted {law.predicted:.5g}, measured "
                f"{law.measured:.5g} ± {law.stderr:.2g}"
                for law in shown
                if law.passed == passed
            ),
        )
        for passed in (True, False)
        if any(law.passed == passed for law in shown)
    )
    edge = max([Z_LIMIT, *(abs(value) for value in z if math.isfinite(value))])
    strip = Reference(axis="x", value=-Z_LIMIT, upper=Z_LIMIT, colour="strip")
    zero = Reference(axis="x", value=0.0, dash="solid")
    panel = Panel(
        title="",
        x=linear_axis("(measured − predicted) / standard error", [-edge, edge]),
        y=category_axis([_short(law.quantity) for law in shown]),
        series=series,
        references=(strip, zero),
        height=max(220, 24 * len(shown) + 90),
    )
    failed = [law.name for law in results if not law.passed]
    verdict = f"these fail: {', '.join(failed)}." if failed else "all hold."
    alt = f"{len(results)} laws measured on this machine: {verdict}"
    return Figure(key="laws", title="Laws: measured against predicted", alt=alt, panels=(panel,))


def _short(quantity: str, most: int = 44) -> str:
    return quantity if len(quantity) <= most else quantity[: most - 1] + "…"


def z_score(law: LawResult) -> float:
    """Distance of the measurement from the formula in standard errors; NaN for an exact law.

    Examples:
        >>> z_score(LawResult(name="n", title="", quantity="", predicted=2.0, measured=2.5,
        ...                   stderr=0.25, passed=True))
        2.0
    """
    return (law.measured - law.predicted) / law.stderr if law.stderr > 0 else math.nan
