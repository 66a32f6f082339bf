"""Finds and watches the state that a block can reach: what it holds, what it draws from.

``_reachable`` searches objects and code, ``_holders`` read and write what was found, ``_in_place``
notes what changes without being bound anew, ``_watch`` compares, restores and replays.

Must not import: the rest of ``blocks``, which replays regions by these watches.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
