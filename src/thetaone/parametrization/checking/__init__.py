"""Observes small trainings and a live one, and judges whether layers keep their size.

- ``_recorder``, ``_operands``: one pass below the model's code: features, uses of weights, order.
- ``_observe``, ``_sizes``, ``_study``: the trainings of a check.
- ``_expected``, ``_verdict``, ``_causes`` (pure, no torch): expected sizes from the prescription,
  three answers, the likely cause.
- ``_monitor``, ``_alignment``: a training that goes on as if nobody watched.

Must not import: other rooms than ``laws``, ``records``, ``errors``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
