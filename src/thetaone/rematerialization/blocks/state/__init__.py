"""Finds and watches the state that a block can reach: what it holds, what it draws from.

``_reachable`` searches objects, ``_code`` and ``_named`` what code names, ``_generators`` and
``_foreign`` what lies outside of objects (random state; environment, context variables, caches),
``_opaque`` what hides a state in C and is refused. ``_holders`` and ``_reached`` read and write
what was found, ``_in_place`` and ``_overwritten`` note what changes without being bound anew,
``_watch`` compares, restores and replays.

Must not import: the rest of ``blocks``, which replays regions by these watches.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
