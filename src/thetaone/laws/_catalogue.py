"""Every law of the library, measured on this machine."""

from collections.abc import Callable, Sequence
from types import ModuleType

from thetaone.errors import InputError
from thetaone.laws._verdict import Law
from thetaone.laws.measurements import _adam_table as adam_table
from thetaone.laws.measurements import _estimators as estimators
from thetaone.laws.measurements import _features as features
from thetaone.laws.measurements import _figure_one as figure_one
from thetaone.laws.measurements import _rematerialization as rematerialization
from thetaone.laws.measurements import _sign_step as sign_step
from thetaone.laws.measurements import _spectral as spectral
from thetaone.records import LawResult, did_you_mean

_MEASUREMENTS: tuple[ModuleType, ...] = (
    features, sign_step, figure_one, adam_table, spectral, estimators, rematerialization,
)  # fmt: skip


def laws() -> dict[str, tuple[Law, Callable[[], list[LawResult]]]]:
    """Name of each law, with its title and its measurement."""
    return {module.LAW.name: (module.LAW, module.measure) for module in _MEASUREMENTS}


def verify_laws(names: Sequence[str] | None = None) -> list[LawResult]:
    """Measure the laws and compare each with its formula.

    Sample sizes and seeds are fixed; the global generator is not touched. A statistical law passes
    within 4.5 standard errors, and only if 2 % of the prediction is at least ten of them.

    Args:
        names: Laws to measure, all when ``None``.

    Returns:
        One result a measured quantity, several for most laws, in the order asked for.

    Raises:
        InputError: A name that is not a law; the message lists the names.

    Examples:
        >>> [result.measured for result in verify_laws(["rematerialization"])][:4]
        [20.0, 10.0, 500.0, 50.0]
    """
    catalogue = laws()
    chosen = list(catalogue) if names is None else list(names)
    unknown = [name for name in chosen if name not in catalogue]
    if unknown:
        raise InputError(
            f"unknown law {unknown[0]!r}: the laws are {', '.join(catalogue)}"
            f"{did_you_mean(unknown[0], catalogue)}"
        )
    return [result for name in chosen for result in catalogue[name][1]()]
