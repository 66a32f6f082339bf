from .figures import schedule_figure as schedule_figure
from .page import describe as describe
from .page import ensure_writable as ensure_writable
from .page import headline as headline
from .page import load_result as load_result
from .page import render as render
from .page import write_report as write_report
