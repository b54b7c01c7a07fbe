"""Turn matplotlib figures into SVG inside a page: text stays text, colours follow the page's theme."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from lntl.figures import PALETTE

_INK = "#010203"  # a colour that no figure uses; replaced by the page's text colour
# How a figure is drawn so that _themed finds its colours; `none` keeps text as text.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "image.composite_image": False,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "axes.titlepad": 8.0,
    "axes.titlesize": 11.0,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
# Colours of figures and their variables in style.css: bands of phases, grid, reference lines.
_VARIABLES = {"#f7f7f7": "band-1", "#e8e8e8": "band-2", "#b0b0b0": "grid", "#666666": "quiet"}
_VARIABLES |= {color.lower(): f"series-{number}" for number, color in enumerate(PALETTE[:6], 1)}
RASTER_DPI = 140  # of what is drawn as a picture, such as thousands of points
LARGE = 60_000  # characters of a picture
PIXELS_PER_INCH = 100  # on a screen: 10 pt of the figure are then 14 px


@dataclass(frozen=True)
class Drawing:
    """A figure for the page: its SVG, its description for a screen reader, and its width on a screen."""

    svg: Markup
    alt: str
    width: int


def draw(make: Callable[[], Figure], name: str, alt: str) -> Drawing:
    """Return the figure that `make` returns; `name` makes its ids differ from those of other figures."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = make()
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, dpi=RASTER_DPI, metadata={"Date": None})
    width = round(figure.get_figwidth() * PIXELS_PER_INCH)
    return Drawing(Markup(_inline(_themed(file.getvalue()), name, alt)), alt, width)


def _themed(svg: str) -> str:
    """Replace the figure's colours by the variables of the page."""
    svg = svg.replace(_INK, "currentColor")
    for color, name in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg


def _reduced(png: str) -> str:
    """Return a base64 PNG, reduced to 128 colours where it is large."""
    if len(png) < LARGE:
        return "".join(png.split())
    with Image.open(BytesIO(b64decode(png))) as image:
        image.quantize(128).save(file := BytesIO(), "PNG", optimize=True)
    return b64encode(file.getvalue()).decode()


def _inline(svg: str, name: str, alt: str) -> str:
    """Return the svg element alone, with unique ids and a description, without what HTML does not need."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href", "href")
    body = re.sub(r"\s*font-family: [^;\"]*;?", "", body)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r'\sid="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    body = re.sub(r'url\(#|href="#', lambda match: f"{match[0]}{name}-", body)
    body = re.sub(r"base64,\s*([^\"]*)", lambda match: f"base64,{_reduced(match[1])}", body)
    label = f'role="img" aria-label="{escape(alt)}"'
    body = re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', lambda match: f'<svg viewBox="{match[1]}" {label}>', body)
    return re.sub(r"\n\s*", "\n", body).strip()
