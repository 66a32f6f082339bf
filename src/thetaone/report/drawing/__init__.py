"""What a figure is before anyone draws it, and its renderers, which decide nothing.

Must not import: ``figures``, ``page``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
