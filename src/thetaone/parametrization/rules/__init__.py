"""Decides, in plain numbers, what each parameter gets. One file an axis; no torch.

Must not import: ``reading``, ``applying``, ``checking``, torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
