"""The dynamic programme: the least time of every interval of a chain in every amount of memory.

``_costs`` and ``_intervals`` read the chain, ``_levels`` chooses the amounts of memory,
``_problem`` prices a disk if there is one, ``_fill`` fills the table, ``_table`` traces schedules
through it, ``_groups`` shortens long chains, ``_floor`` finds the least peak. No torch.

Must not import: the rest of ``planning``, which reads these tables.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
