"""The page in a real browser: every figure drawn, no error, no sideways scrolling on a phone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from thetaone.records import TransferResult
from thetaone.report import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium runs this test"
)

PROBE = Path(__file__).with_name("probe.html")


def browse(folder: Path, width: int, profile: Path) -> dict[str, object]:
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
        "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r"<title>probe(.*?)end</title>", run.stdout, flags=re.DOTALL)
    assert found, f"the page never finished drawing; console: {console}"
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(text) | {"console": console}


@needs_browser
@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desktop"])
def test_the_page_draws_itself(width: int, result: TransferResult, tmp_path: Path) -> None:
    write_report(result, tmp_path / "out")
    seen = browse(tmp_path / "out", width, tmp_path / "profile")
    assert seen["console"] == []
    assert seen["errors"] == []
    assert seen["external"] == []
    assert seen["width"] == width
    assert seen["plots"] == seen["drawn"] == seen["fitting"] == 13
    assert seen["overflow"] == 0, seen["wide"]
    assert seen["pressed"] == "false"  # the legend's first entry hides its curve in both panels
    assert seen["hidden"] == 2
