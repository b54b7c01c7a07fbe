"""Heat maps by class and bias value, and grids of images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from lntl.figures.base import HEAT, PALETTE, empty_figure, short

LONG_NAME = 14  # bias values are rows instead of columns if a name has at least this number of characters
MAX_HORIZONTAL_CHARACTERS = 36  # column names are rotated if they have more characters than this in total
MAX_NUMBERS = 20  # largest number of rows or columns of a heat map with numbers in its cells
GAP, TITLE = 2, 8  # pixels between two images of a grid, and for a title above an image of at most 28 pixels
MAX_NAMES = 40  # largest number of rows or columns with names; more rows or columns get indices


def confusion_matrices(counts: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Figure:
    """Return confusion matrices (true class, predicted class) side by side, in per cent of each true class."""
    shares = {}
    for name, matrix in counts.items():
        table = np.asarray(matrix, dtype=np.float64)
        shares[name] = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return _draw_heat_maps(shares, class_names, class_names, "predicted", "true", "% of the true class")


def group_accuracies(
    accuracy: Mapping[str, ArrayLike],
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    bias_label: str = "color",
    counts: ArrayLike | None = None,
) -> Figure:
    """Return heat maps of accuracies (class, bias value) in [0, 1], in per cent; an empty group (NaN) is blank.

    counts (class, bias value): number of images of each group, written below its accuracy.
    """
    tables = {name: 100 * np.asarray(table, dtype=np.float64) for name, table in accuracy.items()}
    counts_by_name = None if counts is None else dict.fromkeys(tables, np.asarray(counts))
    return _draw_by_bias(tables, class_names, bias_value_names, "true", bias_label, "accuracy, %", counts_by_name)


def class_by_bias(
    counts: Mapping[str, ArrayLike], class_names: Sequence[str], bias_value_names: Sequence[str], bias_label: str
) -> Figure:
    """Return heat maps of the share of each class among the images of a bias value, in per cent.

    counts: number of images, (class, bias value), by name; written below the shares. A value without images is blank.
    """
    tables = {name: np.asarray(table) for name, table in counts.items()}
    shares = {}
    for name, table in tables.items():
        total = table.sum(axis=0, keepdims=True)
        shares[name] = np.divide(100 * table, total, out=np.full(table.shape, np.nan), where=total > 0)
    return _draw_by_bias(shares, class_names, bias_value_names, "class", bias_label, "% of the bias value", tables)


def _draw_by_bias(
    tables: dict[str, NDArray[np.float64]],
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    class_label: str,
    bias_label: str,
    unit: str,
    counts: dict[str, NDArray[Any]] | None,
) -> Figure:
    """Return heat maps of tables (class, bias value); bias values are the columns, or the rows if names are long."""
    if max(map(len, bias_value_names)) < LONG_NAME:
        return _draw_heat_maps(tables, class_names, bias_value_names, bias_label, class_label, unit, counts)
    tables = {name: table.T for name, table in tables.items()}
    counts = None if counts is None else {name: table.T for name, table in counts.items()}
    return _draw_heat_maps(tables, bias_value_names, class_names, class_label, bias_label, unit, counts)


def _draw_heat_maps(
    tables: Mapping[str, NDArray[np.float64]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    x_label: str,
    y_label: str,
    unit: str,
    counts: Mapping[str, NDArray[Any]] | None = None,
) -> Figure:
    """Return an annotated heat map for each table, from 0 to 100, with one color bar.

    counts: written below the values of the cells.
    """
    row_names, column_names, (x_label, y_label) = short(row_names), short(column_names), short([x_label, y_label])
    show_row_names, show_column_names = len(row_names) <= MAX_NAMES, len(column_names) <= MAX_NAMES
    rotate_names = show_column_names and max(map(len, column_names)) * len(column_names) > MAX_HORIZONTAL_CHARACTERS
    factor = 1 if counts is None else 1.12
    width, height = (min(2.0, max(1.0, len(names) / 10)) * factor for names in (column_names, row_names))
    margin = 0.08 * max(0, max(map(len, row_names)) - 8) if show_row_names else 0  # inches for the names of rows
    figure = empty_figure(4.3 * width * len(tables) + 0.8 + margin, (5.2 if rotate_names else 4.6) * height)
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        image = axes.imshow(table, cmap=HEAT, vmin=0, vmax=100, interpolation="none", aspect="auto")
        if max(table.shape) <= MAX_NUMBERS:
            _write_numbers(axes, table, None if counts is None else counts[name])
        axes.set_title(name)
        if show_column_names:
            axes.set_xticks(range(len(column_names)), column_names, rotation=90 if rotate_names else 0)
        if show_row_names:
            axes.set_yticks(range(len(row_names)), row_names)
        axes.set_xlabel(x_label if show_column_names else f"{x_label}: index from 0 to {len(column_names) - 1}")
    panels[0].set_ylabel(y_label if show_row_names else f"{y_label}: index from 0 to {len(row_names) - 1}")
    figure.colorbar(image, ax=panels, label=unit)
    return figure


def _write_numbers(axes: Axes, table: NDArray[np.float64], counts: NDArray[Any] | None) -> None:
    """Write the value of each cell and, below it, the count of the cell."""
    for (row, column), value in np.ndenumerate(table):
        if not math.isnan(value):
            text = f"{value:.0f}" if counts is None else f"{value:.0f}\n({counts[row, column]})"
            color = "k" if value > 55 else "w"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, linespacing=1.1)


# --- images ---


def sample_grid(
    pixels: ArrayLike, columns: int, titles: Sequence[str] | None = None, row_names: Sequence[str] | None = None
) -> Figure:
    """Return a grid of images, uint8 (N, 3, H, W); `titles` are above the images, `row_names` to the left of rows."""
    images = np.moveaxis(np.asarray(pixels), 1, -1)
    n, height, width = images.shape[:3]
    rows, top = -(-n // columns), GAP if titles is None else _compute_title_height(height)
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
    _hide_axes(axes)
    axes.set_yticks([r * (height + top) + top + height / 2 for r in range(len(names))], names)
    for title, (y, x) in zip(titles or (), corners, strict=titles is not None):
        axes.text(x + width / 2, y - 1, title, ha="center", va="bottom", fontsize=8)
    return figure


def _compute_title_height(height: int) -> int:
    """Return the number of pixels for a title above an image."""
    return max(TITLE, round(TITLE / 28 * height))


def color_clouds(color: ArrayLike, y: ArrayLike, class_names: Sequence[str], title: str = "") -> Figure:
    """Plot the red, green and blue values of colors (N, 3) uint8 by class y (N,); each point has its own color."""
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
    figure.axes[0].set_ylabel("value of the image's color")
    figure.suptitle(title)
    return figure


def bias_map(pixels: ArrayLike, bias: ArrayLike, bins: int) -> Figure:
    """Plot an image, uint8 (3, H, W), and its map of bias labels (3, H', W'); unknown positions are blank."""
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
    """Plot images x, uint8 (m, colors, 3, H, W): a row shows one image in all colors, with the predicted classes.

    predicted (m, colors) and y (m,) are indices of class_names; an image with a wrong prediction has a frame and a
    cross.
    """
    images, classes, labels = np.asarray(x), np.asarray(predicted), np.asarray(y)
    columns, (height, width) = classes.shape[1], images.shape[-2:]
    wrong = (classes != labels[:, None]).ravel()
    names = short(class_names)
    predictions = [
        f"✗ {names[c]}" if is_wrong else names[c] for c, is_wrong in zip(classes.ravel(), wrong, strict=True)
    ]
    titles = [_shorten(text, _STRIP_CHARACTERS) for text in predictions]
    figure = sample_grid(images.reshape(-1, *images.shape[2:]), columns, titles, [names[label] for label in labels])
    axes = figure.axes[0]
    for index in np.flatnonzero(wrong).tolist():
        axes.texts[index].set(color=PALETTE[1], fontweight="bold")
        top = _compute_title_height(height)
        corner = (index % columns * (width + GAP) - 0.5, index // columns * (height + top) + top - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, lw=2, ec=PALETTE[1], clip_on=False))
    color_names = short(color_names)
    rotate_names = max(len(name) for name in color_names) > 7
    axes.xaxis.tick_top()
    axes.set_xticks(
        [column * (width + GAP) + width / 2 for column in range(columns)],
        color_names,
        rotation=90 if rotate_names else 0,
        fontsize=8,
    )
    return figure


SALIENCY_COLORS = "inferno"  # color map of heat maps on images, from black over red to yellow
_GRAY_BRIGHTNESS = 0.55  # brightness of the gray image under a heat map
_TILE_INCHES = 1.15  # width of an image in saliency_grid
# Largest length of a title above an image in recoloring_strip, saliency_grid and saliency_row.
_STRIP_CHARACTERS, _GRID_CHARACTERS, _ROW_CHARACTERS = 7, 15, 40


def heat_on_images(pixels: ArrayLike, heat: ArrayLike) -> NDArray[np.uint8]:
    """Draw heat maps (n, H, W) in [0, 1] on darkened gray images (n, 3, H, W) uint8; return uint8 (n, 3, H, W)."""
    gray = np.tensordot((0.299, 0.587, 0.114), np.asarray(pixels, dtype=np.float64) / 255, (0, 1))
    share = np.asarray(heat, dtype=np.float64)[..., None]
    colors = colormaps[SALIENCY_COLORS](share[..., 0])[..., :3]
    mixed = _GRAY_BRIGHTNESS * gray[..., None] * (1 - share) + colors * share
    return np.moveaxis((255 * mixed).round().clip(0, 255).astype(np.uint8), -1, 1)


def saliency_grid(
    pixels: ArrayLike, heat: Mapping[str, ArrayLike], titles: Sequence[Sequence[str]], wrong: Sequence[Sequence[bool]]
) -> Figure:
    """Return a row of images (n, 3, H, W) uint8, and below it, for each name, a row of heat maps (n, H, W) in [0, 1].

    titles: for each row, the texts above its n images. wrong: for each row, whether an image is framed and marked with
    a cross.
    """
    images = np.asarray(pixels)
    rows = [images, *(heat_on_images(images, maps) for maps in heat.values())]
    n, _, height, width = images.shape
    gap, title = max(1, round(width / 28)), round(0.24 * height)
    canvas = np.zeros((len(rows) * (height + title), n * (width + gap) - gap, 4), dtype=np.uint8)  # transparent gaps
    names = short(["image", *heat])
    margin = 0.3 + 0.09 * max(map(len, names))  # inches for the names of rows
    figure = empty_figure(n * _TILE_INCHES + margin, len(rows) * _TILE_INCHES * (height + title) / width + 0.1)
    axes = figure.subplots()
    _hide_axes(axes)
    for row, row_images in enumerate(rows):
        for column, image in enumerate(row_images):
            y, x = row * (height + title) + title, column * (width + gap)
            opaque = np.full((height, width), 255)
            canvas[y : y + height, x : x + width] = np.dstack([np.moveaxis(image, 0, -1), opaque])
            is_wrong = wrong[row][column]
            text = _shorten(f"✗ {titles[row][column]}" if is_wrong else titles[row][column], _GRID_CHARACTERS)
            style: dict[str, Any] = {"color": PALETTE[1], "fontweight": "bold"} if is_wrong else {}
            axes.text(x + width / 2, y - title / 8, text, ha="center", va="bottom", fontsize=8, **style)
            if is_wrong:
                frame = Rectangle((x - 0.5, y - 0.5), width, height, fill=False, lw=2, ec=PALETTE[1], clip_on=False)
                axes.add_patch(frame)
    axes.imshow(canvas, interpolation="none")
    axes.set_yticks([r * (height + title) + title + height / 2 for r in range(len(rows))], names)
    return figure


def saliency_row(picture: ArrayLike, heat: Mapping[str, ArrayLike]) -> Figure:
    """Return an image (3, H, W) uint8 and, at its right, a heat map (H, W) in [0, 1] for each name, under that name."""
    image = np.asarray(picture)[None]
    tiles = {"image": image, **{name: heat_on_images(image, np.asarray(h)[None]) for name, h in heat.items()}}
    figure = empty_figure(2.9 * len(tiles), 2.9 * image.shape[2] / image.shape[3] + 0.4)
    for axes, (name, tile) in zip(figure.subplots(1, len(tiles), squeeze=False)[0], tiles.items(), strict=True):
        axes.imshow(np.moveaxis(tile[0], 0, -1))
        _hide_axes(axes)
        axes.set_title(_shorten(name, _ROW_CHARACTERS), fontsize=9)
    return figure


def _shorten(text: str, length: int) -> str:
    (line,) = short([text])
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _hide_axes(axes: Axes) -> None:
    """Hide the frame and the ticks."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_yticks([])
