"""Records of parametrization: what a model's parameters are, what they get, what a check read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
