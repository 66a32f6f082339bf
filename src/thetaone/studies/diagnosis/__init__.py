"""What an installation can do on this machine: versions, cores, disk, extras, and small trials.

Acts: measures the disk, trains two steps, plans a small model, starts a worker. Decides nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
