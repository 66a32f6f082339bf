"""What a trainer's settings ascend."""

from math import isnan

from pydantic import Field

from thetaone.records._base import Record
from thetaone.records._table import text_table


class SettingChange(Record):
    """A setting that keeps the objective from being the intended one.

    Attributes:
        setting: Its name in the trainer's configuration.
        value: What it is.
        to: What it should be.
        why: What it does to the objective.
    """

    setting: str
    value: str
    to: str
    why: str


class ObjectiveAudit(Record):
    """The objective that a trainer's settings ascend, and what would make it the intended one.

    Attributes:
        trainer: Whose settings they are.
        settings: Those that decide the objective.
        name: The objective in words.
        formula: In symbols.
        exact: Whether the expected gradient is the formula's at any batch size.
        caveats: What keeps it from being so, or from being what was meant.
        changes: Settings that would give E[R] − β·KL(π‖ρ).
        toy_group_size: Group size at which it was checked on a toy policy [count].
        toy_error: Largest |E ĝ − gradient of the formula| there; NaN when not exact.
        toy_cosine: Of E ĝ with the gradient of E[R] − β·KL(π‖ρ) there.
    """

    trainer: str
    settings: dict[str, str] = Field(default_factory=dict[str, str])
    name: str
    formula: str
    exact: bool
    caveats: tuple[str, ...] = ()
    changes: tuple[SettingChange, ...] = ()
    toy_group_size: int
    toy_error: float
    toy_cosine: float

    @property
    def intended(self) -> bool:
        """Whether nothing has to be changed to ascend E[R] − β·KL(π‖ρ)."""
        return not self.changes

    def __str__(self) -> str:
        shown = "  ".join(f"{name}={value}" for name, value in self.settings.items())
        lines = [f"{self.trainer}: {shown}", f"ascends {self.name}:", f"  {self.formula}"]
        lines += [f"- {caveat}" for caveat in self.caveats]
        size = f"groups of {self.toy_group_size} of a toy policy"
        if isnan(self.toy_error):
            lines.append(f"checked on all {size}: no multiple of the formula's gradient")
        else:
            lines.append(f"checked on all {size}: E ĝ is its gradient to {self.toy_error:.0e}")
        lines.append(f"cosine with the gradient of E[R] − β·KL(π‖ρ) there: {self.toy_cosine:.3f}")
        if self.changes:
            rows = [[c.setting, c.value, c.to, c.why] for c in self.changes]
            title = "for E[R] − β·KL(π‖ρ) set"
            lines.append(text_table(["setting", "is", "should be", "why"], rows, title=title))
        else:
            lines.append("nothing to change for E[R] − β·KL(π‖ρ)")
        return "\n".join(lines)
