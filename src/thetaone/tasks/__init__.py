"""Tasks: the only thing that a user has to bring.

A task has ``model(width)``, ``batches(seed)`` and ``loss(model, batch)``; optionally
``evaluate(model)``, a second argument ``depth`` of ``model``, and ``defaults``.

- ``_load`` finds a task by name, path, dotted module or object, checks its parts, and gives it a
  fingerprint.
- ``lm`` and ``digits`` are tasks themselves: the module is the object.

Nothing here trains. Data comes with Python or with scikit-learn; nothing is downloaded, and nothing
is read before the first batch is asked for. Models draw from torch's global RNG as every
``nn.Module`` does; batches draw from a generator of their own. Imports records and errors only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
