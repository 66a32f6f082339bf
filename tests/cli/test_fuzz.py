"""A small part of ``make fuzz``."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="uses an alarm")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlalchemy's pools close with the process
def test_no_input_raises_hangs_or_leaves_anything_behind() -> None:
    script = Path(__file__).parents[2] / "scripts" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", script)
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = fuzz
    spec.loader.exec_module(fuzz)
    assert list(fuzz.fuzz(60, seed=7)) == []
    assert fuzz.run(["sweep", "task.py", "--debug"], "1 / 0\n", b"") != ""  # it can see a traceback
