from ._html import describe as describe
from ._html import render as render
from ._summary import headline as headline
from ._write import ensure_writable as ensure_writable
from ._write import write_report as write_report
