"""Joins reading and rules to a prescription, and carries it out on a model and its optimizer.

Must not import: ``checking``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
