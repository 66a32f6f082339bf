"""What a model's parameters are and what its forward pass does with them, without the tensors."""

from functools import cached_property

from thetaone.records._base import Record

MATRIX = "matrix"  # sums over its input features
LOOKUP = "lookup"  # picks a row: an embedding
VECTOR = "vector"  # added to, or multiplied with, features one by one
FACTOR, TERMS = "factor", "terms"  # reductions: a number put on features; a sum term by term
UNIT = "unit norm"  # of features, met by what is of one size at every width
RAW = "raw"  # used in a way that is not understood, or in a pass that could not be read


class Use(Record):
    """One operation in which a parameter meets features.

    Attributes:
        kind: ``matrix``, ``lookup``, ``vector`` or ``raw``.
        operation: Name of the operation.
        where: The module in whose forward pass it runs.
        order: Its place in the order of execution.
        fan_in: Entries of the parameter that one feature of the result sums over [count].
        fan_out: Features of the result that have entries of their own [count].
        fan_one: Features of the wider input of a product of two (``Bilinear``) [count]; 0 for one.
        copies: Matrices side by side, each with results of its own, as of heads or experts [count].
        factor: What the forward pass multiplies the parameter with.
        how: ``linear``, ``normalized``, ``spectral``, ``nonlinear`` or ``shifted``, a constant
            added: how it gets there.
        after: Orders of the uses that feed this one directly.
    """

    kind: str
    operation: str = ""
    where: str = ""
    order: int = 0
    fan_in: int = 1
    fan_out: int = 1
    fan_one: int = 0
    copies: int = 1
    factor: float = 1.0
    how: str = "linear"
    after: tuple[int, ...] = ()


class Span(Record):
    """Rows ``start`` to ``stop`` of a parameter, the last excluded."""

    start: int
    stop: int


class FoldTarget(Record):
    """A parameter that can be multiplied in place of some features.

    Attributes:
        parameter: Qualified name.
        axis: Along which the rows are counted.
        spans: The rows; empty for all of them.
    """

    parameter: str
    axis: int = 0
    spans: tuple[Span, ...] = ()


class Site(Record):
    """One parameter and its uses.

    Attributes:
        name: Qualified name.
        aliases: Other names of the same tensor (weight sharing).
        kind: ``matrix``, ``lookup``, ``vector`` or ``raw``.
        module: Class of the module that owns it.
        shape: Its shape.
        fan_in: Input features that one output sums over [count]; 1 unless a matrix.
        fan_out: Output features [count].
        fan_one: Features of the wider input of a product of two (``Bilinear``) [count]; 0 for one.
        rms: Root mean square of the values; ``None`` when not measured.
        constant: Whether all values are one number, as far as measured.
        trainable: Whether it requires a gradient.
        factor: What the forward pass multiplies it with.
        uses: Those of its kind in the order of execution; empty when no pass was read.
        readout: Of an embedding that is also a readout's weight: the first such use.
        readouts: Further ones, as of early exits.
        readout_module: The module whose own weight that is; empty when it is used by a function.
        readout_folds: What can be multiplied in place of all readouts' inputs; empty when nothing.
        turned: Of a matrix that is used transposed too: the same with that use as the first. Which
            of them makes features and which reads them out is told by what grows.
        normed: Whether what it makes is divided by its own size before anything else is done.
        norm_of: The parameter whose norms this one sets (``weight_norm``).
        norm_count: Entries under each of these norms [count].
        problem: Why its uses are not understood; empty when they are.
    """

    name: str
    aliases: tuple[str, ...] = ()
    kind: str
    module: str
    shape: tuple[int, ...]
    fan_in: int = 1
    fan_out: int = 1
    fan_one: int = 0
    rms: float | None = None
    trainable: bool = True
    factor: float = 1.0
    constant: bool = False
    uses: tuple[Use, ...] = ()
    readout: Use | None = None
    readouts: tuple[Use, ...] = ()
    readout_module: str = ""
    readout_folds: tuple[FoldTarget, ...] = ()
    normed: bool = False
    norm_of: str = ""
    norm_count: int = 1
    problem: str = ""
    turned: "Site | None" = None

    @property
    def all_uses(self) -> tuple[Use, ...]:
        """Those of its kind, and those as the weight of a readout."""
        return (*self.uses, *([self.readout] if self.readout else []), *self.readouts)


class FeatureProduct(Record):
    """A sum over products of two features: attention logits, scores, interactions.

    Attributes:
        where: The module in whose forward pass it runs.
        operation: Name of the operation.
        order: Its place in the order of execution.
        size: Features summed over [count].
        factor: What the forward pass multiplies the sum with.
        sides: What can be multiplied in place of either factor, if anything.
        same: Whether both sides are made by the same parameters.
        shared: Order of the first of the products whose sides are the same rows of the same
            parameters, as of a layer that is called several times; ``None`` for one by itself.
        cancels: Whether its size is of no effect, as of a sum that is divided by one like it.
        behind: Parameters that reach the pass's result through its factors alone.
        attention: Whether a softmax takes it, as the logits q·k of an attention.
        spread: Of a matrix that a layer makes for each sample, the side to be multiplied: how many
            rows of independent entries it has [count]; 1 for features.
    """

    where: str
    operation: str
    order: int
    size: int
    factor: float = 1.0
    sides: tuple[tuple[FoldTarget, ...], ...] = ()
    same: bool = False
    shared: int | None = None
    cancels: bool = False
    behind: tuple[str, ...] = ()
    attention: bool = False
    spread: int = 1


class Reduction(Record):
    """A sum or its like over features as they are, which no rule covers where they grow.

    Attributes:
        where: The module in whose forward pass it runs.
        operation: Name of the operation; ``terms`` of a sum written term by term; ``factor`` of a
            number put on features, which is no sum; ``unit norm`` of features that were divided by
            their norm.
        order: Its place in the order of execution.
        size: Features reduced [count].
        power: The result grows as size^power: 1 of a sum, 1/2 of a norm.
        factor: What the forward pass multiplies the result with.
    """

    where: str
    operation: str
    order: int
    size: int
    power: float = 1.0
    factor: float = 1.0


class Branch(Record):
    """A residual branch: what is added to a stream it was computed from.

    Attributes:
        ends: Parameters in which it is linear, one in every product; a factor on them is one on it.
        outputs: Modules whose output it is; when it has no ends, the first is multiplied.
        inside: All parameters between the stream and the branch's output, the ends included;
            empty when it was named, not found: all of its block.
        scale: What the forward pass multiplies it with at its end.
        within: What ends the branches that it lies in, as of a long skip over several blocks.
        problem: Why a factor on it is not what depth asks for; empty when it is.
    """

    ends: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    scale: float = 1.0
    within: tuple[str, ...] = ()
    problem: str = ""


class Blueprint(Record):
    """A model's parameters in the order of ``named_parameters()``, and what its pass shows.

    Attributes:
        model: Class of the model.
        sites: One a parameter.
        products: Sums over products of two features.
        reductions: Sums over features as they are.
        branches: Residual branches.
        joined: Of each concatenation of features, the parameters that make each part alone.
        unread: Why no forward pass was read; empty when one was.
    """

    model: str
    sites: tuple[Site, ...]
    products: tuple[FeatureProduct, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    branches: tuple[Branch, ...] = ()
    joined: tuple[tuple[tuple[str, ...], ...], ...] = ()
    unread: str = ""

    @cached_property
    def by_name(self) -> dict[str, Site]:
        """The sites by qualified name."""
        return {site.name: site for site in self.sites}
