"""Records of rematerialization: a chain, a schedule, what it costs, and the frontier."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
