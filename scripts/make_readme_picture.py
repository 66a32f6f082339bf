"""Draws the picture of the README from a result that `thetaone transfer` wrote.

usage: make_readme_picture.py OUT/result.json docs/assets/figure1.svg
"""

import sys
from pathlib import Path

import matplotlib as mpl

from thetaone.records import TransferResult
from thetaone.report import headline


def main(source: str, target: str) -> None:
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "figure 1"  # the same result gives the same bytes
    result = TransferResult.from_json(Path(source))
    drawn = result.plot(figsize=(9.2, 4.3))
    drawn.suptitle(headline(result), fontsize=11)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if target.endswith(".svg") else None
    drawn.savefig(target, dpi=160, metadata=metadata)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
