"""Gradients of a policy's expected return: an expectation over whole episodes.

- Decides: ``_returns`` (what follows a truncation), ``_baselines`` (per-time leave-one-out),
  ``_loss`` (the surrogate).
- Acts: ``_environments``, the only place that knows gymnasium: one whole episode in each
  environment, every autoreset mode.
- Data: ``_episodes``, K episodes side by side, padded.
- Is judged by: a two-state MDP solved by hand; the expectation over *every* group of episodes is
  exact to 1e-12.

Must not import: other rooms. The bundled task ``cartpole`` joins it with a model in ``studies``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
