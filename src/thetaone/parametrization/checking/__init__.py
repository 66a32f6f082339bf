"""Observes small trainings and a live one, and judges whether layers keep their size.

The judgement (``_verdict``) is pure; ``_observe`` and ``_monitor`` watch a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
