"""Print what the GPU check needs and a Python that has torch and its usual company lacks.

That is the closure of ``NEEDED`` without the closure of ``PRESENT``, at the versions installed
here.
"""

import re
from importlib.metadata import distribution

from packaging.requirements import Requirement

NEEDED = ("pydantic", "optuna", "plotly", "sybil", "lazy_loader")
PRESENT = (
    "torch",
    "numpy",
    "scipy",
    "jinja2",
    "rich",
    "pytest",
    "pytest-xdist",
    "hypothesis",
)


def closure(names: tuple[str, ...]) -> set[str]:
    """The packages and all that they require, by normalized name."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return seen


if __name__ == "__main__":
    for name in sorted(closure(NEEDED) - closure(PRESENT)):
        print(f"{name}=={distribution(name).version.partition('+')[0]}")
