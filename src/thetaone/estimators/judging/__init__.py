"""Judges estimators against truths: comparison, closed forms, conformance.

Must not import: ``policy``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
