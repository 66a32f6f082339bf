"""Where trials run: worker processes, stacked models, a Ray cluster.

``_local`` measures and chooses; ``_work`` is what a worker does; ``_processes`` a pool that
survives a dead worker; ``_stacked`` and ``_stacked_update`` train k models as one, under vmap.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
