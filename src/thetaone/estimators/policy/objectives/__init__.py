"""Objectives of language-model policies: each loss names the objective that its gradient ascends.

- Decides (pure): ``_objective`` (names and formulas, from settings), ``_trl``, ``_verl`` and
  ``_torchrl`` (what their settings mean), ``_audit`` (both together, with what to change).
- Acts: ``_group_advantages``, ``_kl_terms``, ``_token_loss`` (tensors in, losses out),
  ``_gradient_noise`` (standard error of the policy gradient).
- Is judged by: ``_toy``, a policy so small that every group can be listed; E ĝ equals the gradient
  of the named objective to 1e-12.

Must not import: ``_environments`` and what stands on it, TRL, verl, TorchRL.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
