"""Frozen, versioned records that can be written to JSON: all that passes between rooms.

One folder a room that makes them. ``_base`` has the record itself, ``_units`` bytes and seconds as
people write them, ``_table`` the look of a printed record, ``_task`` what a user has to bring,
``_training`` what a step of training does beside the optimizer's update, ``_arguments`` which
options a call takes.

Must not import: anything but errors; no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
