"""Gradients of expectations, ∇θ E_{x∼pθ} f(x): one estimator a file, one code path for all.

- ``distributions``: what a torch distribution is made of; sampling with a generator, log ratios.
- ``methods``: one estimator a file. Each puts all randomness in ``draw`` and is deterministic in
  ``surrogate``: tests inject every possible draw.
- ``_expectation`` (``expectation``), ``_gradient_samples``: draw, evaluate, hand back.
- ``judging``: ``compare_estimators``, closed forms, the z-test of the conformance suite.
- ``policy``: gradients of a policy's expected return.
- ``graphs``: several dependent sampling steps in one expectation.

To add an estimator: write its file, add it to ``judging/_catalogue.py``; the conformance suite then
runs it on every problem that it does not refuse.

Must not import: other rooms, pyro, storchastic.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
