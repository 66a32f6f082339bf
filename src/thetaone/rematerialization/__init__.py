"""Training in the memory one has: which activations to keep and which to recompute.

Proved by replay and by measurement.

- ``accounting``: which storages live, and the true peak of training steps.
- ``blocks``: what a chain is and how its model calls it; isolation, replay, placeholders.
- ``profiling``: seconds and bytes of each block; whether a profile still applies.
- ``planning`` (pure, no torch): tables, floors, policies, frontier, and the judge.
- ``execution``: nested regions of checkpointing that run a schedule.
- ``disk``: the tier below memory.

A schedule is a laminar family of regions: a stage in k regions runs k + 1 times. ``tier`` says
where the kept input of a region waits. Planner, judge and executor share nothing but that record.

Must not import: other rooms than ``laws``, ``records``, ``errors``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
