"""Colors of all figures, fonts for names in any script, and names of a bounded length."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from functools import cache

from matplotlib import rcParams
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from lntl.text import one_line

log = logging.getLogger("lntl")

# Colors that color-blind readers can distinguish. Source: Okabe and Ito, "Color Universal Design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<X"  # lines differ in their markers, too
HEAT = "cividis"  # color map for color-blind readers; larger values are lighter
REFERENCE_GRAY = "0.4"  # gray of reference lines, such as chance, and of their names
MAX_NAME_LENGTH = 48  # largest number of characters of a name


class PlainFigure(Figure):
    """A figure without math mode ($1k_to_$2k is a name, not a formula) and with fallback fonts for any script."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; matplotlib calls this method when it saves or shows the figure."""
        texts = self.findobj(Text)
        fallback, missing = _find_fallback_fonts(_find_missing_characters("".join(text.get_text() for text in texts)))
        for text in texts:
            text.set_parse_math(False)
            if fallback:
                text.set_fontfamily([*rcParams["font.family"], *fallback])
        if missing and rcParams["svg.fonttype"] != "none":  # otherwise the browser uses its own fonts
            _warn_of_boxes(missing)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")
            super().draw(renderer)


def _find_missing_characters(text: str) -> frozenset[str]:
    """Return the visible characters of a text for which the default font has no glyph."""
    visible = {character for character in text if character.isprintable()}
    return frozenset(visible - _list_characters(findfont(FontProperties())))


@cache
def _list_characters(path: str) -> frozenset[str]:
    """Return the characters for which a font file has a glyph."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a damaged font
        return frozenset()


@cache
def _find_fallback_fonts(characters: frozenset[str]) -> tuple[tuple[str, ...], str]:
    """Return installed fonts that together cover the characters, and the characters that no font covers."""
    names, missing = [], characters
    for font in fontManager.ttflist:
        if not missing:
            break
        if not font.name.startswith("Last Resort") and missing & _list_characters(font.fname):
            names.append(font.name)
            missing -= _list_characters(font.fname)
    return tuple(dict.fromkeys(names)), "".join(sorted(missing))


@cache  # so that the warning is logged once
def _warn_of_boxes(missing: str) -> None:
    log.warning(
        "figures: no installed font has a glyph for %s, so names with them show boxes; install a font for their "
        "script, such as a Noto font",
        " ".join(missing[:10]) + (" ..." if len(missing) > 10 else ""),
    )


def empty_figure(width: float, height: float) -> PlainFigure:
    """Return a figure of width x height inches that pyplot does not know."""
    return PlainFigure(figsize=(width, height), dpi=100, layout="compressed")


def short(names: Iterable[object]) -> Sequence[str]:
    """Return each name on one line, cut after MAX_NAME_LENGTH characters."""
    lines = map(one_line, names)
    return [line if len(line) <= MAX_NAME_LENGTH else f"{line[: MAX_NAME_LENGTH - 1]}…" for line in lines]
