"""What each parameter of a model gets: initialization, learning rate, decay, and why."""

import math
from collections import defaultdict

from pydantic import Field

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._words import any_block, block_kinds


class RowFactor(Record):
    """A factor that the forward pass puts on some rows of a parameter.

    Attributes:
        axis: Along which the rows are counted.
        start: The first of them.
        stop: The first past them.
        factor: The factor.
    """

    axis: int
    start: int
    stop: int
    factor: float


class Rule(Record):
    """What one parameter gets, and why.

    Every factor is relative to the base width; at the base width all of them are exactly 1.

    Attributes:
        name: Qualified name of the parameter in the target model.
        role: ``input``, ``hidden``, ``output``, ``bottleneck``, ``vector``, ``fixed`` or ``matrix``
            (no base).
        shape: Shape in the target.
        base_shape: Shape in the base; ``None`` without a base.
        fan_in: Input features a unit of the output sums over [count]; 1 for vectors, embeddings.
        fan_out: Output features [count].
        base_fan_in: Same as ``fan_in`` in the base.
        base_fan_out: Same as ``fan_out`` in the base.
        init_std: RMS of the initial values; ``None``: left as the user made it.
        init_factor: ``init_std`` over the RMS in the base.
        lr_factor: On the learning rate.
        decay_factor: On the weight decay.
        eps_factor: On Adam's ε (Adagrad's initial value gets its square).
        fold: Factor of the forward pass (of width and depth) that is folded into this parameter.
        update_factor: On the size of an entry's update at which features change by Θ(1); ``fold``
            included.
        early_factor: On that size in the first steps, 1 where they are like the rest. What is felt
            through growing logits, gates or a latent alone has a gradient that starts 1/√r smaller.
        early_input: On the size of what it takes in, in the first steps: behind a latent 1/√r.
        rows: Factors on some rows alone, as of the query in a fused projection. One tensor has one
            learning rate, so these stay in the forward pass, in buffers of the model's state.
        readout: Module of the readout that an embedding is tied to.
        multiplier: On the input of that readout; it stays in the forward pass, in a buffer.
        optimizer: Class that steps this parameter, e.g. ``AdamW``.
        why: The rule in words.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    base_shape: tuple[int, ...] | None = None
    fan_in: int
    fan_out: int
    base_fan_in: int = 1
    base_fan_out: int = 1
    init_std: float | None = None
    init_factor: float = 1.0
    lr_factor: float = 1.0
    decay_factor: float = 1.0
    eps_factor: float = 1.0
    fold: float = 1.0
    update_factor: float = 1.0
    early_factor: float = 1.0
    early_input: float = 1.0
    rows: tuple[RowFactor, ...] = ()
    readout: str = ""
    multiplier: float = 1.0
    optimizer: str = ""
    why: str = ""


class Prescription(Record):
    """Initialization, learning rate, decay and ε of every parameter of one model.

    Attributes:
        optimizer: The optimizer it is made for, e.g. ``AdamW``.
        rules: One rule a parameter, in the order of ``model.named_parameters()``.
        decay_policy: Name of the weight-decay policy the decay factors follow.
        spectral: ``True`` when made from each layer's own fans, without a base.
        outputs: Factor on the output of the modules that end a residual branch which is linear in
            no parameter; ``*`` stands for a block's number. Empty at the base depth.
        early_logits: By module: factor on the first changes of the attention logits that it
            computes, where they are sums over more features than the base's.

    Examples:
        >>> import torch, thetaone as t1
        >>> wide, narrow = torch.nn.Linear(64, 64), torch.nn.Linear(16, 16)
        >>> t1.prescribe(wide, base=narrow, optimizer=torch.optim.Adam)["weight"].lr_factor
        0.25
    """

    optimizer: str
    rules: tuple[Rule, ...]
    decay_policy: str = "shrinkage"
    spectral: bool = False
    outputs: dict[str, float] = Field(default_factory=dict[str, float])
    early_logits: dict[str, float] = Field(default_factory=dict[str, float])

    def __getitem__(self, name: str) -> Rule:
        """The rule of one parameter, by its qualified name."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(name)

    def kinds(self) -> list[tuple[Rule, int]]:
        """One rule for all parameters alike, and how many they are.

        Alike are parameters whose names differ in block numbers only and that get the same; a
        kind's initial size is the root mean square of theirs, since one draw differs from another.
        """
        names = block_kinds(rule.name for rule in self.rules)
        treated = {rule.name: _without_draw(rule) for rule in self.rules}
        kinds_of: dict[str, set[Rule]] = defaultdict(set)
        for name, kind in names.items():
            kinds_of[kind].add(treated[name])
        alike: dict[tuple[str, Rule], list[Rule]] = {}
        for rule in self.rules:  # numbered stages that get different things keep their numbers
            kind = names[rule.name]
            label = kind if len(kinds_of[kind]) == 1 else any_block(rule.name)
            alike.setdefault((label, treated[rule.name]), []).append(rule)
        return [(_pooled(label, rules), len(rules)) for (label, _), rules in alike.items()]

    def __str__(self) -> str:
        columns = ("parameter", "tensors", "role", "shape", "init", "learning rate", "decay", "ε")
        columns = (*columns, "why")
        title = f"Prescription for {self.optimizer} (decay policy: {self.decay_policy})"
        table = text_table(columns, [_row(*kind) for kind in self.kinds()], title=title, width=200)
        lines = [f"output of {name}: ×{factor:.4g}" for name, factor in self.outputs.items()]
        return "\n".join([table, *lines])


def _without_draw(rule: Rule) -> Rule:
    """What a parameter gets, whatever it is called and its initial values were drawn as."""
    return rule.unchecked_copy(name="", init_std=None if rule.init_std is None else 0.0)


def _pooled(label: str, rules: list[Rule]) -> Rule:
    if len(rules) == 1:
        return rules[0]
    sizes = [rule.init_std for rule in rules if rule.init_std is not None]
    init = math.sqrt(sum(size**2 for size in sizes) / len(sizes)) if sizes else None
    return rules[0].model_copy(update={"name": label, "init_std": init})


def _row(rule: Rule, count: int) -> tuple[str, ...]:
    shape = "×".join(map(str, rule.shape)) or "scalar"
    if rule.base_shape is not None and rule.base_shape != rule.shape:
        shape = f"{'×'.join(map(str, rule.base_shape))} → {shape}"
    factors = (rule.lr_factor, rule.decay_factor, rule.eps_factor)
    init = "as is" if rule.init_std is None else f"σ = {rule.init_std:.3g}"
    return (
        rule.name,
        str(count),
        rule.role,
        shape,
        init,
        *(f"×{f:.4g}" for f in factors),
        rule.why,
    )
