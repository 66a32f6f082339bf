"""Takes torch distributions apart: structure, sampling, paths, log ratios.

Must not import: ``methods``, ``judging``, ``policy``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
