"""Decides schedules and judges them, in plain numbers. No torch.

The judge (``_simulator``) is independent of the planners.

Must not import: ``profiling``, ``execution``, ``disk``, torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
