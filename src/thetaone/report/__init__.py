"""Records in, one self-contained page out; the same figure data for matplotlib."""

from thetaone.report.html import describe, render
from thetaone.report.write import ensure_writable, write_report

__all__ = ["describe", "ensure_writable", "render", "write_report"]
