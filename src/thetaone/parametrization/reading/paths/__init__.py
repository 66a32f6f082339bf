"""Paths of a program: what features are linear in, what is summed over them, where they rejoin.

- ``_linear``: the parameters in which features are linear; ``_factors``: numbers put on them.
- ``_folding``, ``_rows``: which parameters, or rows, can be multiplied in place of features.
- ``_products``, ``_reductions``: sums over features; ``_degrees``: those whose size cancels.
- ``_residuals``: residual connections.

Must not import: ``rules``, ``applying``, ``checking``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
