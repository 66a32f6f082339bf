"""Width and depth: initialization, learning rate, weight decay and ε of every parameter.

A rate tuned on a narrow model is then right for a wide or deep one.

- ``reading``: a model as a blueprint; its residual branches, attentions, sample inputs.
- ``rules`` (pure, no torch): roles, Table 3, depth, update families, decay; ``decide``.
- ``applying``: ``prescribe`` (read and decide), ``parametrize`` (acts: values in place, parameter
  groups), ``Parametrization``: ``(model, width, lr) -> optimizer``.
- ``checking``: the coordinate check and the live monitor.

Nothing is stored on parameters, no layer is replaced.

Must not import: other rooms than ``laws``, ``records``, ``errors``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
