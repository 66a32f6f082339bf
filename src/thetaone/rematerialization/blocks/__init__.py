"""Knows what a chain of blocks is, how a model calls it, and how to run a block again.

Must not import: ``profiling``, ``planning``, ``execution``, ``disk``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
