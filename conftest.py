"""Runs the Python blocks of README and docs where they stand, and the doctests of the package.

Three variables change what the suite runs in; each is a target of the Makefile:

- ``THETAONE_TEST_DTYPE=float64``: torch's default dtype in every test.
- ``THETAONE_TEST_DEVICE=cuda``: what the fixture ``device`` returns.
- ``THETAONE_TEST_EXTRAS=none``: extras and peer libraries may be absent, and the tests that need
  one are skipped. Without it an absent one stops the run: nothing is skipped in silence.
"""

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

# One thread a process: the processes share the cores, and spinning OpenMP threads would fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DEVICE = torch.device(os.environ.get("THETAONE_TEST_DEVICE", "cpu"))
DTYPE: torch.dtype = getattr(torch, os.environ.get("THETAONE_TEST_DTYPE", "float32"))
# What the tests need beside the extra ``test``, and the files that are about nothing else.
PEERS: dict[str, list[str]] = {
    "accelerate": [],
    "checkpoint_schedules": [],
    "gymnasium": [
        "tests/estimators/policy",
        "tests/studies/test_policy.py",
        "tests/studies/test_policy_spaces.py",
        "docs/guide/policy.md",
        "tests/studies/test_cartpole.py",
    ],
    "lightning": [
        "tests/integrations/test_lightning.py",
        "tests/integrations/test_recipe.py",
        "docs/guide/trainers.md",
        "docs/howto/lightning.md",
    ],
    "matplotlib": [
        "docs/guide/report.md",
        "tests/report/test_renderers.py",
        "tests/estimators/test_examples.py",
    ],
    "peft": [],
    "pandas": [],
    "ray": ["tests/sweeps/test_ray.py"],
    "transformers": [
        "docs/coming-from.md",
        "docs/guide/trainers.md",
        "tests/integrations/test_recipe.py",
        "tests/integrations/test_transformers.py",
        "tests/rematerialization/test_transformers.py",
    ],
    "trl": [],
}
ABSENT = [name for name in PEERS if importlib.util.find_spec(name) is None]
collect_ignore = [path for name in ABSENT for path in PEERS[name]]
torch.set_default_dtype(DTYPE)  # also for the tensors that test modules make when imported

DOCUMENTS = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/course/[!i]*.md"],  # all but its index: tests/course runs them as notebooks
)
pytest_collect_file = DOCUMENTS.pytest()


def pytest_configure() -> None:
    """Refuse to run without a library that tests would then skip in silence."""
    if ABSENT and os.environ.get("THETAONE_TEST_EXTRAS") != "none":
        raise pytest.UsageError(
            f"the tests need {', '.join(ABSENT)}: pip install -e '.[test,peers,ray]', or set "
            "THETAONE_TEST_EXTRAS=none to skip what needs them"
        )


def pytest_report_header() -> list[str]:
    """Say what varies in this run."""
    lines = [f"device: {DEVICE}, default dtype: {DTYPE}"]
    if ABSENT:
        lines.append(f"absent: {', '.join(ABSENT)}; left out: {', '.join(collect_ignore)}")
    return lines


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    yield
    torch.set_default_dtype(DTYPE)  # whatever a test made of it


@pytest.fixture
def device() -> torch.device:
    """The device under test; torch's default stays the CPU, as where people train."""
    return DEVICE


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A page's blocks build on one another, so one worker runs them all."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
        if "float32" in item.keywords and torch.float32 != DTYPE:
            item.add_marker(pytest.mark.skip(reason=f"is about float32; the dtype is {DTYPE}"))
