"""``thetaone plan`` on the source problem: ten layers, activations kept after layers 5 and 10."""

import re

import pytest

from thetaone.cli.main import main


def test_the_source_problem(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "--length", "10", "--keep-every", "5", "--forward", "20ns", "--load", "10ns"])
    rows = {
        line.strip().split("   ")[0]: line
        for line in capsys.readouterr().out.splitlines()
        if "kept" in line or "every" in line
    }
    periodic = rows["every 5th, loaded for every layer"]
    assert re.search(r"\b2\b.*20 forwards.*10 loads.*500 ns.*50 ns", periodic)
    optimal = rows["optimal with 2 kept, loaded for every layer"]
    # six recomputations: t(10, 3) = 15 advances of a step (the input is the third slot), less the
    # nine of its first sweep
    assert re.search(r"\b2\b.* 6 forwards.*10 loads.*220 ns", optimal)
