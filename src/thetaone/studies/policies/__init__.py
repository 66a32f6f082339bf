"""Trainings of policies: the bundled task without a critic, any environment with one.

Must not import: the other studies, ``cartpole`` apart.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
