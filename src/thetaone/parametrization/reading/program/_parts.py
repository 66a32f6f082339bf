"""Parameters on their way through a program: what values hold of them, where they are used."""

from dataclasses import dataclass, field

from thetaone.parametrization.reading.program._axes import Axes
from thetaone.parametrization.reading.program._program import Operation, Value

LINEAR, NORMALIZED, SPECTRAL, NONLINEAR = "linear", "normalized", "spectral", "nonlinear"
SHIFTED = "shifted"  # a constant is added to it, as in a gain 1 + g
PRODUCT = "product"  # entry by entry with another parameter of the same axes
AFTERWARDS = "nonlinear afterwards"  # of a sum over its products with another parameter
LOSS = "loss"  # in a number that the whole loss is multiplied with
STATISTIC = "norm"  # a sum, norm or the like of its entries


@dataclass(slots=True, eq=False)
class ParameterUse:
    """One operation in which a parameter meets features.

    Attributes:
        parameter: Qualified name.
        kind: ``matrix``, ``lookup``, ``vector``, or ``raw``: not understood.
        operation: Where.
        fan_in: Entries of the parameter that one feature of the result sums over [count].
        fan_out: Features of the result that have entries of their own [count].
        fan_one: Features of the wider input of a product of two [count]; 0 for one.
        copies: Matrices side by side, each with results of its own, as of heads or experts [count].
        factor: Numbers that the parameter is multiplied with on its way.
        how: Whether it arrives as it is, normalized, or through a function of its entries.
    """

    parameter: str
    kind: str
    operation: Operation
    fan_in: int = 1
    fan_out: int = 1
    fan_one: int = 0
    copies: int = 1
    factor: float = 1.0
    how: str = LINEAR


@dataclass(frozen=True, slots=True)
class Part:
    """How a value made of parameters alone holds one of them."""

    axes: Axes
    how: str = LINEAR
    factor: float = 1.0
    inner: int = 1  # entries summed over in a product with another parameter
    mates: frozenset[str] = frozenset()  # the parameters of that product
    gain: bool = False  # one entry for each row, or column, of another parameter


@dataclass(frozen=True, slots=True)
class Gain:
    """A parameter that sets the norm of another one, as in ``weight_norm``.

    Attributes:
        of: The parameter whose direction alone counts.
        count: Entries under each norm [count].
    """

    of: str
    count: int


@dataclass(slots=True, eq=False)
class Uses:
    """What a program does with its parameters.

    Attributes:
        all: The uses, in order of execution.
        gains: Parameters that set norms of others.
        weights: Values that hold parameters, and how.
        by_operation: The uses by the index of their operation.
        summed: Indices of sums that belong to a parameter's fan-in.
        penalized: The parameters whose size a penalty of the loss holds down.
    """

    all: list[ParameterUse] = field(default_factory=list[ParameterUse])
    gains: dict[str, Gain] = field(default_factory=dict[str, Gain])
    weights: dict[Value, dict[str, Part]] = field(default_factory=dict[Value, dict[str, Part]])
    by_operation: dict[int, list[ParameterUse]] = field(
        default_factory=dict[int, list[ParameterUse]]
    )
    summed: set[int] = field(default_factory=set[int])
    penalized: set[str] = field(default_factory=set[str])
