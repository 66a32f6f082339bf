"""Tune small. Train large. In the memory you have.

Four things stay Θ(1) while a network grows: the best learning rate (``parametrize``), the memory of
training (``rematerialize``), the trust in a gradient of an expectation (``expectation``) and the
cost of finding the learning rate (``sweep``). ``transfer`` is the whole job.

Names are loaded on first use: ``import thetaone`` loads no torch. They stand in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
