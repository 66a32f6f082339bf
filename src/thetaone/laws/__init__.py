"""The formulas that the other rooms stand on, and the proof that they hold on this machine.

Decided here, pure (no torch): ``formulas`` (one file a law: the predicted number), ``_fits`` (a
power law) and ``_vertex`` (the lowest point of a loss curve), each with an interval that covers.

Acts here: ``_norms`` (RMS and the induced RMS→RMS norm of matrices and convolution kernels),
``measurements`` (Monte Carlo or exact measurement of each law, with its own generator and a fixed
sample size), ``_catalogue`` (``verify_laws``: predicted beside measured, with a verdict).

A verdict is |measured − predicted| ≤ 4.5 standard errors, after asserting that 2 % of the
prediction is at least 5 of them (exact quantities: equality). A law that could not see a wrong
formula is an error, not a pass.

Must not import: the rooms above. What a law needs of them is written out by hand here, as an
independent witness.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
