"""What all figures share."""

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

# Colours that stay apart for the colour-blind. Source: Okabe and Ito, "Color Universal Design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<X"  # lines differ by marker as well
HEAT = "cividis"  # made for the colour-blind; lighter is more
QUIET = "0.4"  # grey of what is there to compare with: chance lines, their names


class PlainFigure(Figure):
    """A figure that draws every text as it is: a class may be called $1k_to_$2k, which is no formula."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; whatever saves or shows it comes through here."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)


def empty_figure(width: float, height: float) -> PlainFigure:
    """Return a figure of width x height inches without pyplot's state."""
    return PlainFigure(figsize=(width, height), dpi=100, layout="compressed")
