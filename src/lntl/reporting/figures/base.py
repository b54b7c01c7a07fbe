"""What all figures share."""

from matplotlib.figure import Figure

# Colours that stay apart for the colour-blind. Source: Okabe and Ito, "Color Universal Design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<X"  # lines differ by marker as well
HEAT = "cividis"  # made for the colour-blind; lighter is more
QUIET = "0.4"  # grey of what is there to compare with: chance lines, their names


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure of width x height inches without pyplot's state."""
    return Figure(figsize=(width, height), dpi=100, layout="compressed")
