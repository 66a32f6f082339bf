"""Many small trainings side by side, kept, and read: the best rate of each width, and its drift.

Decided here, without torch: ``_space`` (the grid and each trial's key), ``engines/_makespan``
(makespan, stack sizes), ``_optima`` (vertex, drift, penalty), ``search/_plan`` (where a search
looks next).

Acting here: ``_trials`` (one training in plain PyTorch), ``engines`` (where trials run),
``search`` (fewer trainings than a grid), ``identity`` (what a trial starts from), ``storage``
(Optuna's journal or database, leases), ``_run`` (only what is not yet stored).

Takes any task and any callable ``(model, width, lr) -> optimizer``; imports neither ``tasks`` nor
``parametrization``. Optuna is imported in ``storage`` only, Ray in ``engines/_ray`` only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
