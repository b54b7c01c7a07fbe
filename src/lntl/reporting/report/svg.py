"""Turn matplotlib figures into SVG that lives inside a page: its text is text, its colours follow the page's theme."""

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

_INK = "#010203"  # a colour that no figure uses: it stands for the page's own
# How a figure is drawn so that _themed finds its colours again; `none` keeps text as text and pictures as they are.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "image.composite_image": False,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "axes.titlepad": 8.0,
    "axes.titlesize": 11.0,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
# What each of a figure's own colours is called in style.css: bands of phases, grid, and what is quiet.
_NAMED = {"#f7f7f7": "band-1", "#e8e8e8": "band-2", "#b0b0b0": "grid", "#666666": "quiet"}
_NAMED |= {color.lower(): f"series-{number}" for number, color in enumerate(PALETTE[:6], 1)}
RASTER_DPI = 140  # of what is drawn in points by the thousand
LARGE = 60_000  # characters of a picture
PIXELS_PER_INCH = 100  # on a screen: 10 pt of the figure are then 14 px


@dataclass(frozen=True)
class Drawing:
    """A figure for the page: its SVG, what a screen reader says of it, and its width on a screen."""

    svg: Markup
    alt: str
    width: int


def draw(make: Callable[[], Figure], name: str, alt: str) -> Drawing:
    """Return the figure that `make` returns; `name` sets its ids apart from those of other figures."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = make()
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, dpi=RASTER_DPI, metadata={"Date": None})
    width = round(figure.get_figwidth() * PIXELS_PER_INCH)
    return Drawing(Markup(_inline(_themed(file.getvalue()), name, alt)), alt, width)


def _themed(svg: str) -> str:
    """Replace the colours that stand for those of the page."""
    svg = svg.replace(_INK, "currentColor")
    for color, name in _NAMED.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg


def _smaller(png: str) -> str:
    """Return a base64 PNG with a palette of its own where it is large: points in ten colours need no more."""
    if len(png) < LARGE:
        return "".join(png.split())
    with Image.open(BytesIO(b64decode(png))) as image:
        image.quantize(128).save(file := BytesIO(), "PNG", optimize=True)
    return b64encode(file.getvalue()).decode()


def _inline(svg: str, name: str, alt: str) -> str:
    """Return the svg element alone, without what HTML does not need, with ids of its own and a text for the blind."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href", "href")
    body = re.sub(r"\s*font-family: [^;\"]*;?", "", body)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r'\sid="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    body = re.sub(r'url\(#|href="#', lambda match: f"{match[0]}{name}-", body)
    body = re.sub(r"base64,\s*([^\"]*)", lambda match: f"base64,{_smaller(match[1])}", body)
    told = f'role="img" aria-label="{escape(alt)}"'
    body = re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', lambda match: f'<svg viewBox="{match[1]}" {told}>', body)
    return re.sub(r"\n\s*", "\n", body).strip()
