"""The program of a model: the operations of one forward pass, and its parameters' uses.

- ``_trace``: runs the pass under fake tensors and writes down every operation.
- ``_uses``: follows each parameter to the operations in which it meets features.
- ``_contractions``, ``_axes``: what operations do to the axes of their inputs.

Must not import: ``paths``, ``rules``, ``applying``, ``checking``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
