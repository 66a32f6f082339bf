"""Shows what the other rooms measured: records in, one self-contained page out.

- ``drawing`` (pure but for its renderers): what a figure is, axes, palette; SVG for the page,
  plotly for one to explore, matplotlib for papers.
- ``figures`` (pure): one file a figure, record → figure data; ``_plots``: ``record.plot()``.
- ``page``: the words and tables (pure), ``render`` (everything inlined), ``write_report``,
  ``load_result``.

Colours are roles, resolved in the browser, so light, dark and paper show the same figures. Nothing
is told apart by colour alone. To add a figure: a pure function in ``figures``, a line in a section,
a test on its numbers.

Must not import: any other room but ``laws`` and ``records``; plotly only in ``page/_html``,
matplotlib only in its renderer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
