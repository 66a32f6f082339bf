"""What a newcomer waits for and gets: the command line's start, the demo's page. JSON lines.

``--help``: wall seconds of a process, median of the repeats. ``demo``: wall seconds of the command
of `make demo` and size of the page that it writes.

Run: ``python benchmarks/bench_front.py`` (about two minutes on two quiet cores).
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from origin import record

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def seconds(*arguments: str) -> float:
    """Wall seconds of a command that ends well."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "thetaone", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def demo() -> list[str]:
    """The arguments of `make demo`, without its folder."""
    (line,) = re.findall(
        r"thetaone (transfer .*) --report out/$", MAKEFILE.read_text("utf-8"), re.M
    )
    return line.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    seconds("--help")  # byte code
    times = [seconds("--help") for _ in range(repeats)]
    record("front", {"what": "--help"}, {"seconds": round(statistics.median(times), 3)})
    with tempfile.TemporaryDirectory() as folder:
        took = seconds(*demo(), "--report", folder)
        size = (Path(folder) / "index.html").stat().st_size
    record("front", {"what": "demo"}, {"seconds": round(took, 1), "kilobytes": round(size / 1e3)})


if __name__ == "__main__":
    main()
