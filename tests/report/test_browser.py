"""The page in a real browser: drawn, nothing refused, nothing too wide, in the right theme."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import cast

import pytest

from thetaone.records import TransferResult
from thetaone.report import write_report
from thetaone.report.drawing import THEMES

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium runs this test"
)

PROBE = Path(__file__).with_name("probe.html")


def browse(folder: Path, width: int, profile: Path, theme: str) -> dict[str, object]:
    probe = folder / "probe.html"
    probe.write_text(
        PROBE.read_text(encoding="utf-8").replace("WIDTH", str(width)), encoding="utf-8"
    )
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={profile}", "--allow-file-access-from-files",
        "--enable-logging=stderr", "--hide-scrollbars", "--window-size=1400,900",
        "--virtual-time-budget=20000",
        f"--blink-settings=preferredColorScheme={('dark', 'light').index(theme)}",
        "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r"<title>probe(.*?)end</title>", run.stdout, flags=re.DOTALL)
    assert found, f"the page never finished drawing; console: {console}"
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(text) | {"console": console}


@needs_browser
@pytest.mark.parametrize("width", [360, 500, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_has_its_pictures(
    theme: str, width: int, result: TransferResult, tmp_path: Path
) -> None:
    write_report(result, tmp_path / "out")
    seen = browse(tmp_path / "out", width, tmp_path / "profile", theme)
    assert seen["console"] == []  # what a policy refuses is told here
    assert seen["errors"] == []
    assert seen["external"] == []
    assert seen["width"] == width
    assert seen["plots"] == seen["drawn"] == 13
    assert cast(float, seen["share"]) > 0.35  # of the page's width; the names of rows take the rest
    assert seen["overflow"] == 0, seen["wide"]
    assert seen["words"] == []
    assert seen["pressed"] == "false"  # the legend's first entry hides its curve in both panels
    assert seen["hidden"] == 2
    colours = THEMES[theme]
    assert seen["paper"] == rgb(colours["paper"])
    assert seen["pictures"] in {rgb(colours[role]) for role in ("w6", "mup", "sp")}


@needs_browser
def test_a_page_to_explore_draws_itself(result: TransferResult, tmp_path: Path) -> None:
    write_report(result, tmp_path / "out", interactive=True)
    seen = browse(tmp_path / "out", 1280, tmp_path / "profile", "light")
    assert (seen["console"], seen["errors"], seen["external"]) == ([], [], [])
    assert seen["plots"] == seen["drawn"] == 13
    assert (seen["overflow"], seen["pressed"], seen["hidden"]) == (0, "false", 2)


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
