"""A result as one HTML file that needs nothing else."""

import json
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thetaone.records import EstimatorBakeoff, TransferResult
from thetaone.report.drawing import THEMES, Figure, legend, plotly_spec
from thetaone.report.page._answer import levels_section, recipe_section
from thetaone.report.page._appendix import (
    definitions_section,
    laws_section,
    prescription_section,
    reproduction_section,
)
from thetaone.report.page._contents import Page, Section
from thetaone.report.page._gradients import describe_bakeoff
from thetaone.report.page._sections import (
    coordinates_section,
    drift_section,
    learning_rate_section,
    memory_section,
    target_section,
)
from thetaone.report.page._summary import duration, facts, headline, lead, verdicts
from thetaone.report.page._tables import figure_table
from thetaone.version import __version__


def describe(result: TransferResult | EstimatorBakeoff) -> Page:
    """The page of a result: words, tables and figure data; no HTML yet.

    Args:
        result: What a transfer, or a bake-off of gradient estimators, found.

    Returns:
        The page.
    """
    if isinstance(result, EstimatorBakeoff):
        return describe_bakeoff(result)
    sections = [
        learning_rate_section(result),
        drift_section(result),
        coordinates_section(result),
        memory_section(result),
        *([levels_section(result)] if result.levels else []),
        target_section(result),
        *([recipe_section(result.recipe)] if result.recipe else []),
        prescription_section(result),
        *([laws_section(result)] if result.laws else []),
        reproduction_section(result),
        definitions_section(),
    ]
    return Page(
        title=f"thetaone: {result.task}, width {result.base_width} → {result.target_width}",
        headline=headline(result),
        lead=lead(result),
        meta=f"thetaone transfer · {result.task} · {result.optimizer} · {duration(result)}",
        facts=facts(result),
        verdicts=verdicts(result),
        sections=tuple(sections),
        thetaone=__version__,
    )


def render(result: TransferResult | EstimatorBakeoff) -> str:
    """The report of a result as HTML: styles, data, figures and plotly.js inlined.

    Args:
        result: What a transfer, or a bake-off of gradient estimators, found.

    Returns:
        A page that loads nothing from anywhere.
    """
    from plotly.offline import get_plotlyjs

    page = describe(result)
    specifications: dict[str, Any] = {}
    sections = [_with_drawings(section, specifications) for section in page.sections]
    environment = Environment(
        loader=PackageLoader("thetaone.report.page"), autoescape=True, undefined=StrictUndefined
    )
    variables = {name: Markup(_variables(name)) for name in THEMES}
    css = environment.get_template("report.css").render(variables=variables)
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        page=page,
        sections=sections,
        css=Markup(css),
        js=Markup(script),
        plotly=Markup(inlined(get_plotlyjs())),
        themes=_data(THEMES),
        specifications=_data(_rounded(specifications)),
    )


def inlined(script: str) -> str:
    r"""A script that may stand inside a page: no string in it ends the script element.

    Examples:
        >>> inlined('"</script><!--"')
        '"<\\/script><\\!--"'
    """
    return re.sub(r"<(/script|!--)", r"<\\\1", script, flags=re.IGNORECASE)


def _data(value: Any) -> Markup:
    """JSON that may stand inside a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _with_drawings(section: Section, specifications: dict[str, Any]) -> dict[str, Any]:
    blocks = [
        _drawing(block, specifications) if isinstance(block, Figure) else block
        for block in section.blocks
    ]
    return {
        "key": section.key,
        "nav": section.nav,
        "title": section.title,
        "text": section.text,
        "blocks": blocks,
    }


def _drawing(figure: Figure, specifications: dict[str, Any]) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    for index, panel in enumerate(figure.panels):
        key = f"{figure.key}-{index}"
        specifications[key] = plotly_spec(panel)
        name = f"{figure.title}. {panel.title}" if panel.title else figure.title
        alt = f"{name}. {figure.alt}"
        panels.append({"title": panel.title, "spec": key, "height": panel.height, "alt": alt})
    return {
        "kind": "figure",
        "key": figure.key,
        "title": figure.title,
        "legend": legend(figure),
        "panels": panels,
        "table": figure_table(figure),
    }


def _variables(theme: str) -> str:
    return " ".join(f"--{role}: {colour};" for role, colour in THEMES[theme].items())


def _rounded(specifications: dict[str, Any]) -> Any:
    """Six significant digits: finer than a pixel, and half the size."""
    return json.loads(
        json.dumps(specifications), parse_float=lambda text: float(f"{float(text):.6g}")
    )
