"""What a model's parameters are: shapes, fans and initial sizes, without the tensors."""

from functools import cached_property

from thetaone.records._base import Record

MATRIX = "matrix"  # sums over its input features
LOOKUP = "lookup"  # picks a row: an embedding
VECTOR = "vector"  # added to, or multiplied with, features one by one
RAW = "raw"  # a parameter of a module whose forward pass is not known


class Site(Record):
    """One parameter as its module uses it.

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
        trainable: Whether it requires a gradient.
        readout: Module of the tied readout, when an embedding is also a readout's weight.
        readout_fan_in: Input features of that readout [count].
        lookup_scale: Factor that the forward pass puts on the rows of an embedding.
        readout_scale: Factor that the forward pass puts on that readout's input.
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
    readout: str = ""
    readout_fan_in: int = 1
    lookup_scale: float = 1.0
    readout_scale: float = 1.0


class Attention(Record):
    """The size of an attention's heads, and where its query can be scaled.

    Attributes:
        name: Qualified name of the module.
        head_size: Features of a head [count].
        scale: Factor its forward pass puts on the logits.
        query: Parameters that scale the query; empty when query, key and value are one tensor.
    """

    name: str
    head_size: int
    scale: float
    query: tuple[str, ...] = ()


class Branch(Record):
    """A residual branch: what is added to a stream it was computed from.

    Attributes:
        ends: Parameters in which it is linear, one in every product; a factor on them is one on it.
        outputs: Modules whose output it is; when it has no ends, the first is hooked.
        inside: All parameters between the stream and the branch's output, the ends included;
            empty when it was named, not found: all of its block.
        scale: What the forward pass multiplies it with at its end.
    """

    ends: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    scale: float = 1.0


class Blueprint(Record):
    """The sites of a model, in the order of ``named_parameters()``.

    Attributes:
        model: Class of the model.
        sites: One a parameter.
        attentions: One an attention whose head size is known.
        branches: Residual branches; read only where depth differs.
    """

    model: str
    sites: tuple[Site, ...]
    attentions: tuple[Attention, ...] = ()
    branches: tuple[Branch, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Site]:
        """The sites by qualified name."""
        return {site.name: site for site in self.sites}
