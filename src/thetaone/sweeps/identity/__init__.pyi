from ._check import Starts as Starts
from ._check import check_task as check_task
from ._start import Place as Place
from ._start import Start as Start
from ._start import place_of as place_of
from ._start import start_of as start_of
