"""The large model of a transfer: its memory, its recipe, its training.

``_memory`` plans what every byte goes to, ``_recipe`` writes the answer and acts by it, ``_train``
trains and keeps the weights, ``_checkpoints`` are written on the way, with what no state dict holds
(``_plain_state``), ``_observe`` looks at it, ``_levels`` judges the level of the loss, ``_resume``
trains from a recipe's file, on one process or several (``_replicas``).

Must not import: the study that calls it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
