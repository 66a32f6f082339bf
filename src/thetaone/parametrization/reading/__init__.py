"""Reads what a model is: parameters, sites, branches, attentions. Changes nothing.

Must not import: ``rules``, ``applying``, ``checking``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
