"""Records of gradient estimators: a comparison, and how a policy learned."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
