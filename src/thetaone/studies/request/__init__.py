"""What a study is asked: the caller's words, the task's, and defaults, settled.

``_request`` settles sizes, rates, seeds and the loop, ``_optimizer`` the optimizer and its options,
``_run_file`` writes it all as ``run.toml``. Decides nothing that a room decides; trains nothing.

Must not import: a study that calls it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
