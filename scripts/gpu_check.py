"""Everything that only a GPU can say, as one JSON: the suite's ``gpu`` tests, then each row.

A row is a program of ``benchmarks/gpu/`` that prints one JSON line; each runs in a process of its
own, so that its peak memory and its failures are its own. Ends non-zero if a row failed or did not
get its turn within the minutes.

Run: ``bash scripts/gpu_check.sh --out out/gpu_check.json`` (``--dry-run`` on the CPU, toy sizes).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import thetaone

ROOT = Path(__file__).parents[1]
ROWS = ("memory_and_steps", "parametrized_step", "stacked_sweep", "estimators")
MINUTES = 8.0


def commands(device: str, *, toy: bool) -> dict[str, list[str]]:
    files = [str(path) for path in sorted(ROOT.glob("tests/*/test_device.py"))]
    tests = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-W", "default", *files]
    rows = {
        name: [str(ROOT / "benchmarks" / "gpu" / f"{name}.py"), "--device", device]
        + ["--toy"] * toy
        for name in ROWS
    }
    return {"tests": tests} | rows


def run_row(arguments: list[str], device: str, seconds: float) -> dict[str, Any]:
    """One row's result: its figures (the tests' last line), or what went wrong."""
    environment = os.environ | {
        "THETAONE_TEST_DEVICE": device, "THETAONE_TEST_EXTRAS": "none",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it deterministic products are refused
    }  # fmt: skip
    started = time.monotonic()
    try:
        run = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment, timeout=seconds,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"passed": False, "error": f"not done after {seconds:.0f} s"}
    result: dict[str, Any] = {
        "passed": run.returncode == 0, "seconds": round(time.monotonic() - started, 1)
    }  # fmt: skip
    last = (run.stdout.strip().splitlines() or [""])[-1]
    if run.returncode:
        return result | {"error": (run.stdout + run.stderr)[-4000:]}
    return result | {"figures": json.loads(last) if last.startswith("{") else last}


def surroundings(device: str) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "thetaone": thetaone.__version__, "commit": commit.stdout.strip() or "unknown",
        "python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu_check.json"))
    parser.add_argument("--dry-run", action="store_true", help="toy sizes, the CPU as the device")
    options = parser.parse_args()
    device = "cpu" if options.dry_run else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here; --dry-run takes the CPU in its place")
    deadline = time.monotonic() + 60 * MINUTES
    rows: dict[str, Any] = {}
    report = surroundings(device) | {"dry_run": options.dry_run, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, arguments in commands(device, toy=options.dry_run).items():
        left = deadline - time.monotonic()
        rows[name] = (
            run_row(arguments, device, left)
            if left > 5
            else {"passed": False, "error": f"no time left of {MINUTES:g} minutes"}
        )
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(name, "passed" if rows[name]["passed"] else rows[name]["error"], flush=True)
    print(f"written: {options.out}")
    return int(not all(row["passed"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
