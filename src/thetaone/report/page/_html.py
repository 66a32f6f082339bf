"""A page as one HTML file that needs nothing else and allows itself nothing else."""

import base64
import hashlib
import json
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thetaone.report.drawing import SYMBOLS, THEMES, Figure, legend, plotly_spec, svg_panel
from thetaone.report.page._contents import Folded, Section
from thetaone.report.page._pages import Result, describe
from thetaone.report.page._tables import figure_table


def render(result: Result, *, interactive: bool = False) -> str:
    """The report of a result as HTML: styles, figures and data inlined.

    Args:
        result: Whatever ``describe`` takes.
        interactive: Draw with plotly.js, which is put into the page and makes it 5 MB larger.

    Returns:
        A page that loads nothing from anywhere.
    """
    page = describe(result)
    specifications: dict[str, Any] | None = {} if interactive else None
    sections = [_with_drawings(section, specifications) for section in page.sections]
    environment = Environment(
        loader=PackageLoader("thetaone.report.page"), autoescape=True, undefined=StrictUndefined
    )
    variables = {name: Markup(_variables(name)) for name in THEMES}
    css = environment.get_template("report.css").render(variables=variables)
    names = ("interactive.js",) if interactive else ("static.js",)
    scripts = [environment.get_template(name).render() for name in names]
    if interactive:
        scripts.insert(0, _plotly())
    return environment.get_template("report.html.j2").render(
        page=page,
        sections=sections,
        css=Markup(css),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(css, scripts, interactive=interactive),
        interactive=interactive,
        symbols=SYMBOLS,
        themes=_data(THEMES),
        specifications=_data(_rounded(specifications or {})),
    )


def inlined(script: str) -> str:
    r"""A script that may stand inside a page: no string in it ends the script element.

    Examples:
        >>> inlined('"</script><!--"')
        '"<\\/script><\\!--"'
    """
    return re.sub(r"<(/script|!--)", r"<\\\1", script, flags=re.IGNORECASE)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return inlined(get_plotlyjs())


def _policy(css: str, scripts: list[str], *, interactive: bool) -> Markup:
    """What the page may do: run its own scripts and styles, known by their digests; no more.

    plotly.js writes styles of its own while it draws, so that these cannot be named beforehand.
    """
    style = "'unsafe-inline'" if interactive else _digest(css)
    script = " ".join(map(_digest, scripts))
    images = "data: blob:" if interactive else "data:"
    return Markup(
        f"default-src 'none'; style-src {style}; script-src {script}; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _data(value: Any) -> Markup:
    """JSON that may stand inside a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _with_drawings(section: Section, specifications: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "key": section.key,
        "nav": section.nav,
        "title": section.title,
        "text": section.text,
        "blocks": [_shown(block, specifications) for block in section.blocks],
    }


def _shown(block: Any, specifications: dict[str, Any] | None) -> Any:
    if isinstance(block, Figure):
        return _drawing(block, specifications)
    if isinstance(block, Folded):
        blocks = [_shown(inner, specifications) for inner in block.blocks]
        return {"kind": block.kind, "summary": block.summary, "blocks": blocks}
    return block


def _drawing(figure: Figure, specifications: dict[str, Any] | None) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    for index, panel in enumerate(figure.panels):
        key = f"{figure.key}-{index}"
        name = f"{figure.title}. {panel.title}" if panel.title else figure.title
        shown = {"title": panel.title, "alt": f"{name}. {figure.alt}", "y": panel.y.label}
        if specifications is None:
            shown |= {"spec": "", "picture": svg_panel(panel, key)}
        else:
            specifications[key] = plotly_spec(panel)
            shown |= {"spec": key, "picture": ""}
        panels.append(shown)
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
