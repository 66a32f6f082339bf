"""Reads what a model is: parameters, their uses, products of features, branches. Changes nothing.

- ``program``: one forward pass under fake tensors, and what follows from its operations.
- ``_blueprint``, ``_site``, ``_branches``: the pass as a record; ``_modules`` without one.

Must not import: ``rules``, ``applying``, ``checking``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
