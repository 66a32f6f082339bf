from ._coordinate_check import coordinate_check as coordinate_check
from ._monitor import SpectralMonitor as SpectralMonitor
