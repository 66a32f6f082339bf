"""Draws the picture of the README from a result that `thetaone transfer` wrote.

usage: make_readme_picture.py OUT/result.json docs/assets/figure1.svg
"""

import sys
from pathlib import Path

import matplotlib as mpl

from thetaone.records import TransferResult
from thetaone.report import headline
from thetaone.report.drawing import THEMES


def main(source: str, target: str) -> None:
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "figure 1"  # the same result gives the same bytes
    result = TransferResult.from_json(Path(source))
    drawn = result.plot(figsize=(9.2, 4.3))
    drawn.suptitle(headline(result), fontsize=11)
    file = Path(target)
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if target.endswith(".svg") else None
    drawn.savefig(target, dpi=160, metadata=metadata)
    if target.endswith(".svg"):
        file.write_text(in_both_themes(file.read_text(encoding="utf-8")), encoding="utf-8")


def in_both_themes(svg: str) -> str:
    """The picture with dark paper and light ink where the reader's system is dark."""
    light, dark = THEMES["light"], THEMES["dark"]
    rules = "".join(
        f'[style*="{kind}: {colour}"]{{{kind}:{dark[role]}!important}}'
        for role, colour in light.items()
        for kind in ("fill", "stroke")
        if f"{kind}: {colour}" in svg
    )
    return svg.replace("</style>", f"@media (prefers-color-scheme:dark){{{rules}}}</style>", 1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
