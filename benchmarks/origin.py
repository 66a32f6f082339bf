"""Where a benchmark's result comes from, and where it goes: a line on screen and in the history."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

HISTORY = Path(__file__).parent / "history"


def commit() -> str:
    """Short hash of HEAD; ``unknown`` outside a checkout."""
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"


def machine() -> str:
    """Cores and processor, or the name of the CUDA device; what timings compare within."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores, {platform.machine()}, {processor()}"


def processor() -> str:
    """The processor's model as Linux names it; else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def record(benchmark: str, case: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Print a result as one JSON line and append it to ``history/<benchmark>.jsonl``.

    Args:
        benchmark: Name of the file in the history.
        case: What was measured: scheme, sizes, repeats. Equal cases are compared over commits.
        figures: What came out. Numbers are compared; the rest is kept beside them.
    """
    line = json.dumps(
        {
            "benchmark": benchmark, "case": case, "figures": figures, "commit": commit(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "torch": torch.__version__, "machine": machine(),
        },
        ensure_ascii=False,
    )  # fmt: skip
    print(line, flush=True)
    HISTORY.mkdir(exist_ok=True)
    with (HISTORY / f"{benchmark}.jsonl").open("a", encoding="utf-8") as history:
        history.write(line + "\n")
