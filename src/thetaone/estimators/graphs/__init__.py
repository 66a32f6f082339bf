"""Stochastic computation graphs: several sampling steps that depend on each other, one expectation.

- Acts: ``_graph_expectation`` draws a program's nodes in order and builds one surrogate.
- Is judged by: every joint outcome of small discrete graphs; value, gradient and Hessian are exact
  to 1e-12.

Must not import: ``judging``, ``policy``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
