"""The sections one looks things up in: prescription, laws, environment, definitions."""

from thetaone.records import LawResult, Prescription, Rule, TransferResult, counted
from thetaone.report.drawing import clock, signed
from thetaone.report.figures import laws_figure, z_score
from thetaone.report.page._contents import (
    Cell,
    Code,
    Folded,
    Paragraph,
    Section,
    Table,
    Verdict,
    Words,
)

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "Octave",
        "A factor of two in the learning rate. A drift of −1 halves the best rate.",
    ),
    (
        "Standard parametrization (SP)",
        "The model as written: the optimizer's one learning rate for every parameter.",
    ),
    (
        "Maximal update parametrization (µP)",
        "Initialization and learning rate of each parameter scaled with its width so that every "
        "layer's features move by Θ(1): Tensor Programs V, arXiv 2203.03466, Table 3.",
    ),
    (
        "Θ(1)",
        "Neither growing nor shrinking with width: the fitted exponent of size against width is "
        "zero, within the band.",
    ),
    (
        "RMS",
        "Root of the mean square of the entries: ‖v‖ / √dim.",
    ),
    (
        "Drift",
        "log₂ of the best rate at the largest width over the best rate at the smallest; the best "
        "rate is the vertex of a curve fitted to loss against log₂ rate.",
    ),
    (
        "Transfer penalty",
        "Loss at the base's best rate over the loss at that width's own best rate, minus one.",
    ),
    (
        "Store-all",
        "A training step that keeps every activation its backward needs; PyTorch's own default.",
    ),
    (
        "Budget of the blocks",
        "What remains of the memory after weights, gradients, optimizer state and all that is "
        "outside the chain of blocks.",
    ),
)


def prescription_section(result: TransferResult) -> Section:
    """What every parameter gets that is not plain PyTorch."""
    prescription = result.prescription
    base, target = result.base_width, result.target_width
    whose = f"width {target}" if base != target else f"width {min(result.mup.widths)}"
    if result.mup.axis == "depth":
        whose = f"depth {min(result.mup.sizes)}" if base == target else f"width {target}"
    plain = "The target is plain PyTorch. " if base == target else ""
    text = (
        f"{plain}Every factor is relative to width {base}, where all are 1; multiply the learning "
        f"rate by the factor to get what {prescription.optimizer} uses at {whose}. Parameters "
        "of one kind in several blocks share a row."
    )
    return Section(
        key="prescription",
        nav="Prescription",
        title="What each parameter gets",
        text=(Paragraph(text=text),),
        blocks=(prescription_table(prescription),),
    )


def prescription_table(prescription: Prescription) -> Table:
    """One row a rule; equal rules of numbered blocks are merged."""
    rows = [
        (row[0], str(count), *row[1:])
        for row, count in ((_rule_row(rule), count) for rule, count in prescription.kinds())
    ]
    columns = ("parameter", "tensors", "role", "shape", "init σ", "learning rate", "decay", "ε")
    columns = (*columns, "forward", "why")
    words = ("parameter", "role", "shape", "why")
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    return Table(
        caption=f"Prescription for {prescription.optimizer}",
        columns=tuple(columns[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in rows),
        numeric=tuple(columns[index] not in words for index in kept),
    )


def laws_section(laws: tuple[LawResult, ...]) -> Section:
    """The laws that the rest stands on: those that fail, and on demand all."""
    title, text = laws_words(laws)
    failed = tuple(law for law in laws if not law.passed)
    every = Folded(
        summary=f"All {len(laws)} measurements", blocks=(laws_figure(laws), laws_table(laws))
    )
    return Section(
        key="the-laws", nav="Laws", title=title, text=(Paragraph(text=text),),
        blocks=(laws_table(failed), every) if failed else (every,),
    )  # fmt: skip


def laws_words(laws: tuple[LawResult, ...]) -> tuple[str, str]:
    """The finding in a line, and what it rests on."""
    held = sum(law.passed for law in laws)
    title = "The laws hold on this machine" if held == len(laws) else "Some laws do not hold here"
    text = (
        f"{counted(len(laws), 'prediction')} were measured here; {held} hold. A true law lands "
        "outside the strip of ±4.5 standard errors once in 150,000 measurements; a formula wrong "
        "by 2 % is made to land outside by the number of samples."
    )
    return title, text


def laws_table(laws: tuple[LawResult, ...]) -> Table:
    """Predicted beside measured."""
    rows = tuple(
        (
            law.name,
            law.quantity,
            f"{law.relation} {law.predicted:.5g}",
            f"{law.measured:.5g}",
            f"{law.stderr:.2g}" if law.stderr else "exact",
            signed(z_score(law), 1) if law.stderr and law.relation == "=" else "",
            Verdict("holds", "holds") if law.passed else Verdict("fails", "does not hold"),
        )
        for law in laws
    )
    columns = ("law", "quantity", "predicted", "measured", "std. error", "z", "verdict")
    numeric = (False, False, True, True, True, True, False)
    return Table(caption="Laws", columns=columns, rows=rows, numeric=numeric)


def reproduction_section(result: TransferResult) -> Section:
    """Command, machine, engine."""
    engine = result.mup.engine
    trained = result.mup.n_trained + result.sp.n_trained
    reused = result.mup.n_reused + result.sp.n_reused
    text = (
        f"{trained} trainings were run for this report and {reused} found in the sweep's storage, "
        f"in {clock(result.wall_seconds)} altogether. Engine: {engine.engine}, "
        f"{engine.reason}"
    )
    environment = Table(
        caption="Environment",
        columns=("what", "value"),
        rows=tuple((key, value) for key, value in result.environment.items()),
        style="",
    )
    blocks = (Code(text=result.command), environment)
    return Section(
        key="reproduce",
        nav="Reproduce",
        title="How to get this report again",
        text=(Paragraph(text=text.rstrip(". ") + "."),),
        blocks=blocks if result.environment else blocks[:1],
    )


def definitions_section() -> Section:
    """What the words mean."""
    blocks = (Words(entries=DEFINITIONS),)
    return Section(key="words", nav="Definitions", title="What the words mean", blocks=blocks)


def _rule_row(rule: Rule) -> tuple[Cell, ...]:
    return (
        rule.name,
        rule.role,
        "×".join(map(str, rule.shape)) or "scalar",
        "as is" if rule.init_std is None else f"{rule.init_std:.3g}",
        *(f"×{factor:.4g}" for factor in (rule.lr_factor, rule.decay_factor, rule.eps_factor)),
        "" if rule.multiplier == 1.0 else f"×{rule.multiplier:.4g}",
        rule.why,
    )
