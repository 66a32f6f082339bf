"""Keeps the input of a region on disk: directory, quota, measured speeds, one background thread.

Must not import: ``planning``, ``profiling``, ``execution``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
