"""Finds the best rate of a size with fewer trainings than a grid.

Decided here: ``_plan`` (pure, no torch: which rates and seeds next). Acting here: ``_drive``
(trains what is asked, size by size, each size beginning where the one before ended).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
