"""All renderers draw the same figure data: SVG places it, Plotly accepts it, matplotlib has it."""

import importlib
import json
import math
import pkgutil
import sys
from itertools import pairwise
from xml.etree.ElementTree import Element, fromstring

import matplotlib as mpl
import pytest

import thetaone.records
from thetaone.errors import MissingExtraError
from thetaone.records import Record, TransferResult
from thetaone.report import describe
from thetaone.report.drawing import (
    Figure,
    Panel,
    Series,
    category_axis,
    linear_axis,
    plotly_spec,
    size_axis,
    svg_panel,
)
from thetaone.report.drawing._palette import DARK, LIGHT
from thetaone.report.drawing._places import fitting, share
from thetaone.report.drawing._plotly import resolve
from thetaone.report.figures._plots import plot_memory_plan
from thetaone.report.page._contents import Folded

mpl.use("Agg")


def figures(result: TransferResult) -> list[Figure]:
    blocks = [block for section in describe(result).sections for block in section.blocks]
    inner = [
        one for block in blocks for one in (block.blocks if isinstance(block, Folded) else [block])
    ]
    return [block for block in inner if isinstance(block, Figure)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plotly_validates_every_specification(theme: str, result: TransferResult) -> None:
    import plotly.graph_objects as go

    drawn = figures(result)
    assert len(drawn) == 10
    for figure in drawn:
        for panel in figure.panels:
            spec = plotly_spec(panel)
            assert "@" not in json.dumps(resolve(spec, theme)).replace("@media", "")
            go.Figure(resolve(spec, theme))  # raises on an unknown property or a bad value


def elements(panel: Panel) -> list[Element]:
    """Every element of a panel's picture; raises where it is not well-formed."""
    return list(fromstring(f"<all>{svg_panel(panel, 'key')}</all>").iter())


def test_svg_points_stand_where_their_values_are(result: TransferResult) -> None:
    for figure in figures(result):
        for panel in figure.panels:
            points = [e for e in elements(panel) if e.tag == "use" and "x" in e.attrib]
            places = [(float(e.attrib["x"][:-1]), float(e.attrib["y"][:-1])) for e in points]
            expected = [
                (100 * share(x, panel.x), 100 - 100 * share(y, panel.y))
                for series in panel.series
                if series.symbol != "none"
                for x, y in zip(series.x, series.y, strict=True)
            ]
            inside = [(x, y) for x, y in expected if 0 <= x <= 100 and 0 <= y <= 100]
            assert places == [pytest.approx(place, abs=0.01) for place in inside]


def test_svg_bars_span_their_values(result: TransferResult) -> None:
    (figure,) = (figure for figure in figures(result) if figure.key == "account")
    (panel,) = figure.panels
    drawn = [e for e in elements(panel) if e.tag == "rect" and "fill" not in e.attrib]
    widths = {round(float(e.attrib["width"][:-1]), 1) for e in drawn}
    assert widths == {
        round(100 * (share(right, panel.x) - share(left, panel.x)), 1)
        for bars in panel.bars
        for left, right in zip(bars.left, bars.right, strict=True)
    }


def test_svg_has_no_style_of_its_own_and_only_colours_by_role(result: TransferResult) -> None:
    for figure in figures(result):
        for element in (e for panel in figure.panels for e in elements(panel)):
            assert "style" not in element.attrib
            for paint in (element.attrib.get("fill"), element.attrib.get("stroke")):
                assert paint is None or paint == "none" or paint.startswith(("var(--", "url(#"))


def test_svg_breaks_a_line_where_a_value_is_missing() -> None:
    x = linear_axis("x", [0.0, 3.0])
    line = Series(name="a", x=(0.0, 1.0, 2.0, 3.0), y=(1.0, math.nan, 2.0, 3.0), symbol="none")
    panel = Panel(title="", x=x, y=linear_axis("y", [1.0, 3.0]), series=(line,))
    (path,) = (e for e in elements(panel) if e.tag == "path" and e.attrib.get("class") == "line")
    assert path.attrib["d"].count("M") == 2


def test_svg_words_are_escaped() -> None:
    axis = category_axis(["<b>&"])
    panel = Panel(title="", x=linear_axis("<i>", [0.0, 1.0]), y=axis)
    words = [e.text for e in elements(panel) if e.tag == "text"]
    assert {"<b>&", "<i>"} <= set(words)


def test_tick_labels_that_would_collide_are_left_out() -> None:
    axis = size_axis("width", [32, 33, 64, 128])
    shown = sorted(fitting(axis, 250))
    ends = [250 * share(value, axis) for value in shown]
    assert len(shown) >= 2
    assert 33 not in shown
    assert all(right - left > 20 for left, right in pairwise(ends))


def test_plotly_data_are_the_figures_data(result: TransferResult) -> None:
    panel = figures(result)[0].panels[1]
    spec = plotly_spec(panel)
    for series, trace in zip(panel.series, spec["data"], strict=True):
        assert trace["name"] == series.name
        assert tuple(trace["x"]) == series.x
        assert tuple(trace["y"]) == series.y


def test_matplotlib_lines_are_the_figures_data(result: TransferResult) -> None:
    import matplotlib.pyplot as plt

    drawn = result.plot()
    panel = figures(result)[0].panels[1]
    lines = [line for line in drawn.axes[1].get_lines() if line.get_label().startswith("_child")]
    expected = [list(series.x) for series in panel.series]
    found = [list(line.get_xdata()) for line in drawn.axes[1].get_lines()]
    assert all(x in found for x in expected), lines
    assert drawn.axes[0].get_ylim() == drawn.axes[1].get_ylim() == panel.y.range
    plt.close(drawn)


@pytest.mark.parametrize(
    "record", ["mup", "check_sp", "memory.frontier", "memory.schedule", "memory.cost"]
)
def test_every_record_with_a_renderer_plots(record: str, result: TransferResult) -> None:
    import matplotlib.pyplot as plt

    value = result
    for part in record.split("."):
        value = getattr(value, part)
    drawn = value.plot(theme="dark", figsize=(6.0, 4.0))
    assert list(drawn.get_size_inches()) == [6.0, 4.0]
    drawn.canvas.draw()  # layout and text are only resolved here
    plt.close(drawn)


def test_a_memory_plan_draws_its_frontier_beside_its_timeline(result: TransferResult) -> None:
    import matplotlib.pyplot as plt

    assert result.memory is not None
    drawn = plot_memory_plan(result.memory)
    assert len(drawn.axes) == 3
    plt.close(drawn)


def test_plot_without_matplotlib_says_what_to_install(
    result: TransferResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[plot\]'"):
        result.mup.plot()


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colours: dict[str, str], role: str) -> float:
    low, high = sorted((luminance(colours[role]), luminance(colours["paper"])))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_lines_have_contrast(colours: dict[str, str]) -> None:
    for role in ("ink", "muted", "good", "bad", "mup"):  # words: WCAG AA
        assert contrast(colours, role) >= 4.5, role
    for role in ("sp", "budget", *(f"w{i}" for i in range(8))):  # graphics
        assert contrast(colours, role) >= 3.0, role


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_the_ramp_of_widths_is_ordered_without_colour(colours: dict[str, str]) -> None:
    steps = [contrast(colours, f"w{i}") for i in range(8)]
    assert steps == sorted(steps)


def subclasses(kind: type[Record]) -> list[type[Record]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


def test_every_renderer_that_a_record_names_exists() -> None:
    for module in pkgutil.iter_modules(thetaone.records.__path__, "thetaone.records."):
        importlib.import_module(module.name)
    named = {record.__name__: record.renderer for record in subclasses(Record) if record.renderer}
    assert named.keys() >= {"SweepResult", "CoordinateCheck", "Frontier", "EstimatorComparison"}
    for renderer in named.values():
        module, _, function = renderer.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
