"""What a trial is known by: what it starts from, not the text of a few functions.

``_start`` builds what a width and seed start from and reads it, ``_check`` does so for every width
before anything is trained and refuses what cannot work or does not repeat.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
