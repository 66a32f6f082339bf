"""Where trials are kept and found again, and where sweeps agree who trains which.

``_store`` keeps trials in Optuna's storage and knows them by what they trained, ``_journal`` is the
append-only file that survives torn lines, ``_leases`` share the work among sweeps, ``_boards`` are
where leases are written, ``_open`` opens a path or a URL.

Optuna and SQLAlchemy are imported here only, when a storage is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
