"""The commit that a benchmark ran at."""

import subprocess


def commit() -> str:
    """Short hash of HEAD; ``unknown`` outside a checkout."""
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"
