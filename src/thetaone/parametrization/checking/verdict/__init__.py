"""What a check expects of every row, how it judges them, and what lies behind a failure. No torch.

``_expected`` gives sizes from the prescription, ``_verdict`` judges exponents in three answers,
``_causes`` names the likely cause of a failure. Decides; measures nothing. Must not import torch,
nor what observes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
