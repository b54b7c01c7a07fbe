"""The templates of pages, and the filters that they use."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from lntl.reporting.report.verdict import duration, percent


def environment() -> Environment:
    """Return the templates; what stands in a page is escaped, and a name that is not there is an error."""
    templates = Environment(
        loader=PackageLoader("lntl.reporting"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": percent, "duration": duration, "span": _span, "cell": _cell, "code": _code}
    return templates


def own(templates: Environment, name: str) -> Markup:
    """Return one of our own files as it is."""
    assert templates.loader is not None
    return Markup(templates.loader.get_source(templates, name)[0])


def _span(estimate: dict[str, Any]) -> str:
    """Return the interval of an estimate, e.g. 80.4 to 83.8; nothing where it has none."""
    low, high = estimate["low"], estimate["high"]
    return "" if low is None or high is None else f"{100 * low:.1f}\u2013{100 * high:.1f}"


def _code(text: str) -> Markup:
    """Return text as HTML, what stands between backticks as code."""
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)))


def _cell(text: object) -> str:
    """Return text as it may stand in a table of Markdown."""
    return " ".join(str(text).replace("|", "\\|").split())
