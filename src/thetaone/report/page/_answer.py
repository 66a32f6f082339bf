"""The sections one acts on: the level of the loss, and the block to paste."""

from thetaone.records import LevelVerdict, Recipe, TransferResult
from thetaone.report.drawing import between, signed
from thetaone.report.figures import levels_figure
from thetaone.report.page._contents import Code, Paragraph, Section, Table, Verdict

TRAINERS = {
    "loop": "a plain loop", "transformers": "Hugging Face's Trainer", "lightning": "Lightning",
    "fsdp": "FSDP2",
}  # fmt: skip


def levels_section(result: TransferResult) -> Section:
    """Each comparison of two levels, with its interval and its verdict."""
    text = (
        "Losses are compared seed by seed, over the last fifth of the steps; the interval covers "
        "the mean difference with 95 %. A claim holds when all of its interval does, fails when "
        "none of it does."
    )
    rows = tuple(
        (
            level.claim, f"{level.what}: {level.loss:.4f}",
            f"{level.against}: {level.reference:.4f}", interval_words(level),
            level_verdict(level), level.advice,
        )
        for level in result.levels
    )  # fmt: skip
    columns = ("claim", "judged", "against", "difference", "verdict", "what to do")
    table = Table(caption="Levels of the loss", columns=columns, rows=rows, style="wide stack")
    return Section(
        key="level-of-the-loss", nav="Level", title=_title(result.levels),
        text=(Paragraph(text=text),), blocks=(levels_figure(result.levels), table),
    )  # fmt: skip


def recipe_section(recipe: Recipe) -> Section:
    """What to do with the answer: groups in absolute numbers, and code to paste."""
    kind = "plain PyTorch" if recipe.plain else "your model with the groups below"
    text = (
        f"At width {recipe.width} the target is {kind}. recipe.json beside this page carries "
        "everything that its training needs; thetaone train recipe.json trains it, and goes on "
        "where it was stopped."
    )
    groups = Table(
        caption="Parameter groups, in absolute numbers",
        columns=("optimizer", "learning rate", "entries", "options", "parameters"),
        rows=tuple(
            (
                group.optimizer, f"{group.lr:.5g}", f"{group.n_parameters:,}",
                ", ".join(f"{name} {value}" for name, value in group.options.items()),
                ", ".join(group.parameters),
            )
            for group in recipe.groups
        ),
        numeric=(False, True, True, False, False), show_caption=True, style="wide stack",
    )  # fmt: skip
    blocks = tuple(
        Code(text=f"# {name}\n{recipe.snippet(trainer, 'recipe.json')}")
        for trainer, name in TRAINERS.items()
    )
    return Section(
        key="recipe", nav="Recipe", title="Train it yourself", text=(Paragraph(text=text),),
        blocks=(groups, *blocks),
    )  # fmt: skip


def interval_words(level: LevelVerdict) -> str:
    """The difference and its interval, in the unit of the loss."""
    low, high = level.interval
    if low == float("-inf"):
        return f"{signed(level.difference, 4)} (one seed: no interval)"
    return f"{signed(level.difference, 4)} ({between(low, high, 4)})"


def level_verdict(level: LevelVerdict) -> Verdict:
    """The verdict as a word and a sign."""
    words = {"holds": "holds", "fails": "does not hold", "undecided": "undecided"}
    standing = "open" if level.verdict == "undecided" else level.verdict
    return Verdict(standing, words[level.verdict])


def _title(levels: tuple[LevelVerdict, ...]) -> str:
    failed = [level for level in levels if level.verdict == "fails"]
    if failed:
        return f"{len(failed)} of {len(levels)} claims on the level do not hold"
    if any(level.verdict == "undecided" for level in levels):
        return "The level of the loss is not decided everywhere"
    return "The level of the loss is right too"
