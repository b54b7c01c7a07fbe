"""Pictures of the data, and of the predictions for them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from lntl.figures.base import HEAT, PALETTE, empty_figure, short

GAP, TITLE = 2, 8  # pixels between two images of a grid, and for a title above each


def sample_grid(
    pixels: ArrayLike, columns: int, titles: Sequence[str] | None = None, row_names: Sequence[str] | None = None
) -> Figure:
    """Return the images, uint8 (N, 3, H, W), in rows of `columns`, with a title above each or names of the rows."""
    images = np.moveaxis(np.asarray(pixels), 1, -1)
    n, height, width = images.shape[:3]
    rows, top = -(-n // columns), GAP if titles is None else TITLE
    canvas = np.zeros((rows * (height + top), columns * (width + GAP) - GAP, 4), dtype=np.uint8)  # transparent gaps
    corners = [(i // columns * (height + top) + top, i % columns * (width + GAP)) for i in range(n)]
    for image, (y, x) in zip(images, corners, strict=True):
        canvas[y : y + height, x : x + width] = np.dstack([image, np.full((height, width), 255)])
    inches = 0.62
    names = short(row_names or ())
    margin = max(0.8, 0.3 + 0.09 * max(map(len, names))) if names else 0.1  # inches for the names of rows
    figure = empty_figure(columns * inches + margin, rows * inches * (height + top) / height + 0.1)
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="none")
    _bare(axes)
    axes.set_yticks([r * (height + top) + top + height / 2 for r in range(len(names))], names)
    for title, (y, x) in zip(titles or (), corners, strict=titles is not None):
        axes.text(x + width / 2, y - 1, title, ha="center", va="bottom", fontsize=8)
    return figure


def color_clouds(color: ArrayLike, y: ArrayLike, class_names: Sequence[str], title: str = "") -> Figure:
    """Return red, green and blue of the images, color (N, 3) uint8, by class y (N,); each point has its colour."""
    values, labels = np.asarray(color), np.asarray(y)
    spread = np.random.default_rng(0).uniform(-0.38, 0.38, len(labels))  # points of a class lie side by side
    figure = empty_figure(10, 3.4)
    for axes, channel in zip(figure.subplots(1, 3, sharey=True), range(3), strict=True):
        axes.scatter(labels + spread, values[:, channel], s=5, c=values / 255, linewidths=0)
        axes.set_facecolor("0.25")
        axes.set_title(("red", "green", "blue")[channel])
        axes.set_xticks(range(len(class_names)), class_names)
        axes.set_xlabel("class")
        axes.set_ylim(-3, 258)
        axes.set_yticks((0, 64, 128, 192, 255))
    figure.axes[0].set_ylabel("value of the image's colour")
    figure.suptitle(title)
    return figure


def bias_map(pixels: ArrayLike, bias: ArrayLike, bins: int) -> Figure:
    """Return an image, uint8 (3, H, W), and its map of bias labels (3, H', W'); unknown positions are blank."""
    figure = empty_figure(10, 2.5)
    panels = figure.subplots(1, 4)
    panels[0].imshow(np.moveaxis(np.asarray(pixels), 0, -1))
    panels[0].set_title("image")
    for axes, channel, name in zip(panels[1:], np.asarray(bias), ("red", "green", "blue"), strict=True):
        image = axes.imshow(np.ma.masked_less(channel, 0), cmap=HEAT, vmin=-0.5, vmax=bins - 0.5)
        axes.set_title(f"label: {name}")
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=panels, label="bin", ticks=range(bins))
    return figure


def recoloring_strip(
    x: ArrayLike, predicted: ArrayLike, y: ArrayLike, color_names: Sequence[str], class_names: Sequence[str]
) -> Figure:
    """Return images x (m, colors, 3, H, W) uint8, an image a row in all colours, with the predicted class of each.

    predicted (m, colors) and y (m,) are indices of class_names; a wrong prediction is framed and marked with a cross.
    """
    pictures, classes, labels = np.asarray(x), np.asarray(predicted), np.asarray(y)
    columns, (height, width) = classes.shape[1], pictures.shape[-2:]
    wrong = (classes != labels[:, None]).ravel()
    names = short(class_names)
    titles = [f"✗ {names[c]}" if bad else names[c] for c, bad in zip(classes.ravel(), wrong, strict=True)]
    figure = sample_grid(pictures.reshape(-1, *pictures.shape[2:]), columns, titles, [names[label] for label in labels])
    axes = figure.axes[0]
    for index in np.flatnonzero(wrong).tolist():
        axes.texts[index].set(color=PALETTE[1], fontweight="bold")
        corner = (index % columns * (width + GAP) - 0.5, index // columns * (height + TITLE) + TITLE - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, lw=2, ec=PALETTE[1], clip_on=False))
    color_names = short(color_names)
    rotated = max(len(name) for name in color_names) > 7
    axes.xaxis.tick_top()
    axes.set_xticks(
        [column * (width + GAP) + width / 2 for column in range(columns)],
        color_names,
        rotation=90 if rotated else 0,
        fontsize=8,
    )
    return figure


def _bare(axes: Axes) -> None:
    """Remove the frame and the ticks."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_yticks([])
