"""The program of a model: the operations of one forward pass, and what follows from them.

- ``_trace``: runs the pass under fake tensors and writes down every operation.
- ``_uses``: follows each parameter to the operations in which it meets features.
- ``_linear``: where a factor on features can be moved to.
- ``_products``, ``_residuals``: products of features, reductions, residual connections.

Must not import: ``rules``, ``applying``, ``checking``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
