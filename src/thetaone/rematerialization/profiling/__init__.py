"""Measures a model: its chain of blocks with seconds and bytes, and whether that still applies.

Must not import: ``planning``, ``execution``, ``disk``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
