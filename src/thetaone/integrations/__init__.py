"""Where other people's training loops meet the parametrization, and how a model leaves it.

Nothing is decided here; each file is thin and is the only place that imports its library, which an
extra brings (``MissingExtraError`` when it is absent).

- ``lightning``: ``SpectralCallback``; ``configure_optimizers`` returns what ``t1.parametrize``
  returns, no more is needed.
- ``transformers``: ``trainer_optimizers`` for ``Trainer(optimizers=…)``, ``SpectralCallback``.
- ``trackers``: TensorBoard, W&B and MLflow as callbacks of a sweep.
- ``export``: the same function with plain weights, for whoever has no thetaone.
- ``_readings``: a monitor's readings as metrics and as warnings, for both.

``torchrun`` with DDP or FSDP2 needs nothing of this: ``examples/fsdp2.py``.
May import ``parametrization``, ``rematerialization``, ``records``, ``errors``; not ``studies``, its
sibling.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
