from ._html import render as render
from ._pages import Result as Result
from ._pages import describe as describe
from ._summary import headline as headline
from ._write import ensure_writable as ensure_writable
from ._write import load_result as load_result
from ._write import write_report as write_report
