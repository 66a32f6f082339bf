"""The seven source problems as questions: a reader's own formula, measured.

Decided here: ``_verdict`` (holds, refuted or undecided, from the measured rows).

Acts here: ``problems`` (one file a problem: what is measured, the cases, and the readings that
tempt), ``_formula`` (the reader's function, called with the arguments that it names), ``_check``
(``check``).

A formula is compared with what is measured while its reader waits; a gradient estimator, whose
samples are themselves the measurement, with the closed form of its mean.

Must not import: the rooms beside it; of the laws, their measurements.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
