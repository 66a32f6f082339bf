"""The measured numbers: one file a law, each with its own generator and a fixed sample size."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
