"""One estimator a file, and the baselines that they share.

Must not import: ``judging``, ``policy``, the driver ``_expectation``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
