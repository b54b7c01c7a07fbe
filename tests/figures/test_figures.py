"""Every figure has the expected axes, labels and numbers, no empty axes and no pyplot state."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from lanes import first_is_fast
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lntl import figures
from lntl.figures import base
from lntl.reporting.drawings import draw

CLASSES = ["0", "1", "2"]
COLORS = ["crimson", "teal"]


def make_record(total_epoch: int, phase: int, method: str, **metrics: float) -> dict[str, Any]:
    return {"total_epoch": total_epoch, "phase": phase, "method": method} | {
        name.replace("__", "/"): value for name, value in metrics.items()
    }


RECORDS = [
    make_record(1, 1, "erm", train__task=2.0, val__accuracy=0.2, val__bias_accuracy=0.1),
    make_record(2, 2, "bias_head", train__bias=4.0, val__accuracy=0.2, val__bias_accuracy=0.6),
    make_record(3, 3, "lntl", train__task=1.0, train__bias=3.0, val__accuracy=0.5, val__bias_accuracy=0.5),
    make_record(4, 3, "lntl", train__task=0.5, train__bias=3.5, val__accuracy=0.8, val__bias_accuracy=0.4),
]
NAMES = ["train/task", "train/bias", "val/accuracy", "val/bias_accuracy"]
LONG_RECORDS = [RECORDS[0], RECORDS[1]] + [RECORDS[2] | {"total_epoch": epoch} for epoch in range(3, 101)]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 3, 28, 28), dtype=np.uint8)
TITLES = [f"title {i}" for i in range(7)]
BIAS = np.where(RNG.random((3, 14, 14)) < 0.5, RNG.integers(0, 8, (3, 14, 14)), -100)
COUNTS = {"ERM": np.array([[8, 2, 0], [5, 5, 0], [0, 0, 0]]), "LNTL": 9 * np.eye(3) + 1}
GROUP_ACCURACIES = {"ERM": np.array([[1.0, 0.0], [math.nan, 0.25], [0.5, 0.5]]), "LNTL": np.full((3, 2), 0.9)}
PETS = ["cat", "dog", "eel"]
TEXTURES = ["stripes", "dots", "checks", "waves", "blank paper", "brushed steel"]
JOINT_NAMES = [f"texture {texture}, {stroke}" for texture in TEXTURES for stroke in ("thick", "thin")]
JOINT_GROUPS = np.where(np.eye(3, 12) > 0, math.nan, np.linspace(0, 1, 36).reshape(3, 12))
STRIP = RNG.integers(0, 256, (2, 2, 3, 28, 28), dtype=np.uint8)
PREDICTIONS = np.array([[0, 1], [2, 2]])
LARGE_STRIP = RNG.integers(0, 256, (2, 2, 3, 64, 64), dtype=np.uint8)
LONG_CLASSES = ["blond hair", "not blond hair", "bald"]
HEAT_MAPS = RNG.random((7, 28, 28))
MISTAKES = [[False] * 7, [True] * 7, [False] * 7]
PROBES = {
    "unlearned": [
        {"layer": "f", "probe": "linear", "mean": 0.5, "std": 0.01},
        {"layer": "f", "probe": "mlp", "mean": 0.6, "std": 0.02},
    ],
    "ERM": [{"layer": "f", "probe": "linear", "mean": 0.9, "std": 0.01}],
    "pixels": [{"layer": "pixels", "probe": "linear", "mean": 1.0, "std": 0.0}],
}
ACCURACY_AND_LEAKAGE = {"a": 0.7, "b": 0.8, "c": 0.75}, {"a": 0.2, "b": 0.6, "c": 0.9}

FIGURES: dict[str, Callable[[], Figure]] = {
    "sample_grid": lambda: figures.sample_grid(PIXELS, columns=3),
    "sample_grid_titles": lambda: figures.sample_grid(PIXELS, 7, titles=TITLES),
    "sample_grid_rows": lambda: figures.sample_grid(PIXELS, 3, row_names=CLASSES),
    "color_clouds": lambda: figures.color_clouds(RNG.integers(0, 256, (90, 3)), np.arange(90) % 3, CLASSES, "train"),
    "learning_curves": lambda: figures.learning_curves(RECORDS, NAMES),
    "learning_curves_losses": lambda: figures.learning_curves(RECORDS, NAMES[:2]),
    "learning_curves_long": lambda: figures.learning_curves(LONG_RECORDS, NAMES),
    "confusion_matrices": lambda: figures.confusion_matrices(COUNTS, CLASSES),
    "group_accuracies": lambda: figures.group_accuracies(GROUP_ACCURACIES, CLASSES, COLORS),
    "bias_predictiveness": lambda: figures.bias_predictiveness([0.02, 0.03], {"a": [0.8, 0.7], "b": [0.1, 0.1]}, 0.1),
    "group_counts": lambda: figures.group_accuracies(
        GROUP_ACCURACIES, CLASSES, COLORS, counts=[[900, 1], [0, 4], [8, 1200]]
    ),
    "recoloring_strip": lambda: figures.recoloring_strip(STRIP, PREDICTIONS, [0, 2], COLORS, CLASSES),
    "recoloring_strip_long": lambda: figures.recoloring_strip(
        STRIP, PREDICTIONS, [0, 2], ["background land", "sea"], CLASSES
    ),
    "probe_bars": lambda: figures.probe_bars(PROBES, {"majority": 0.1, "permutation": 0.12}),
    "embedding": lambda: figures.embedding(RNG.random((60, 2)), np.arange(60) % 3, np.arange(60) % 2, CLASSES, COLORS),
    "embedding_names": lambda: figures.embedding(
        RNG.random((60, 2)), np.arange(60) % 3, np.arange(60) % 2, CLASSES, ["land", "water"]
    ),
    "embedding_joint": lambda: figures.embedding(
        RNG.random((60, 2)), np.arange(60) % 3, np.arange(60) % 12, PETS, JOINT_NAMES, "texture and stroke"
    ),
    "group_accuracies_joint": lambda: figures.group_accuracies(
        {"plain training (ERM)": JOINT_GROUPS, "this run": JOINT_GROUPS / 2},
        PETS,
        JOINT_NAMES,
        "texture and stroke",
        counts=np.full((3, 12), 1200),
    ),
    "pareto": lambda: figures.pareto(*ACCURACY_AND_LEAKAGE, chance=0.1),
    "saliency_grid": lambda: figures.saliency_grid(
        PIXELS,
        {"this run": HEAT_MAPS, "ERM": HEAT_MAPS},
        [TITLES, TITLES, ["a very long name of a class"] * 7],
        MISTAKES,
    ),
    "saliency_row": lambda: figures.saliency_row(
        PIXELS[0], {"this run: cat 90%": HEAT_MAPS[0], "ERM: dog 51%": HEAT_MAPS[1]}
    ),
    "saliency_bars": lambda: figures.saliency_bars(
        {"this run": RNG.normal(size=40), "plain training (ERM)": RNG.normal(size=40)}, "attribution"
    ),
    "shift_curves": lambda: figures.shift_curves(
        [-0.1, 0, 0.1], {"this run": [(0.2, 0.1, 0.3), (0, 0, 0), (0.3, 0.2, 0.4)]}, "change of the brightness"
    ),
    "recoloring_strip_large": lambda: figures.recoloring_strip(
        LARGE_STRIP, PREDICTIONS, [0, 2], ["-0.1", "as it is"], LONG_CLASSES
    ),
    "bias_map": lambda: figures.bias_map(PIXELS[0], BIAS, bins=8),
}


def find_texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def find_text_boxes(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Draw the figure; return its visible texts, without ticks outside of the axes, and their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden_ticks = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden_ticks |= {t.label1 for t in axis.get_major_ticks() if not low - 1e-9 <= t.get_loc() <= high + 1e-9}
    visible_texts = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and text not in hidden_ticks
    ]
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in visible_texts]


@pytest.mark.parametrize("name", first_is_fast(FIGURES))
def test_figures_have_no_empty_axes_and_readable_unchanged_texts(name: str) -> None:
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert figure.axes
    assert all(axes.has_data() for axes in figure.axes)
    check_texts(figure)
    figure.axes[0].set_title("$1k_to_$2k")  # must not be parsed as a formula
    figure.savefig(file := BytesIO())
    assert len(file.getvalue()) > 1000


def check_texts(figure: Figure) -> None:
    """Assert that every text of a figure is large enough, within the figure, and overlaps no other text."""
    texts_and_boxes = find_text_boxes(figure)
    width, height = figure.bbox.size
    for i, (text, box) in enumerate(texts_and_boxes):
        assert text.get_fontsize() >= 8, text
        assert box.x0 > -1, text
        assert box.y0 > -1, text
        assert box.x1 < width + 1, text
        assert box.y1 < height + 1, text
        assert not [other_text for other_text, other_box in texts_and_boxes[:i] if box.overlaps(other_box)], text


NAMES_IN_OTHER_SCRIPTS = ["猫", "कुत्ता"]


@pytest.fixture
def clear_font_caches() -> Iterator[None]:
    """Clear the caches of fonts and of warnings about missing characters."""
    base._find_fallback_fonts.cache_clear()
    base._warn_of_boxes.cache_clear()
    yield
    base._find_fallback_fonts.cache_clear()


@pytest.mark.usefixtures("clear_font_caches")
def test_names_without_a_glyph_give_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are errors in tests, so a warning of matplotlib for each character would fail this test."""
    for _ in range(2):
        figures.confusion_matrices({"val": np.eye(2)}, NAMES_IN_OTHER_SCRIPTS).savefig(BytesIO())
    missing_characters = base._find_fallback_fonts(base._find_missing_characters("".join(NAMES_IN_OTHER_SCRIPTS)))[1]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * bool(missing_characters)
    if missing_characters:
        assert caplog.messages[0].startswith("figures: no installed font has a glyph for ")
        assert "install a font for their script" in caplog.messages[0]


@pytest.mark.usefixtures("clear_font_caches")
def test_an_installed_font_with_the_glyphs_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "_list_characters", lambda path: frozenset("猫犬" if "cmr10" in path else "abc"))
    figure = figures.confusion_matrices({"val": np.eye(2)}, ["猫", "犬"])
    figure.savefig(BytesIO())
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["猫", "犬"]
    assert all(label.get_fontfamily()[-1] == "cmr10" for label in labels)
    assert not any("猫" in message for message in caplog.messages)


def test_a_page_shows_text_in_the_fonts_of_the_browser(caplog: pytest.LogCaptureFixture) -> None:
    assert "猫" in draw(lambda: figures.confusion_matrices({"val": np.eye(2)}, ["猫", "犬"]), "id", "alt").svg
    assert caplog.messages == []


@pytest.mark.parametrize("n", [300, 3])
def test_figures_with_many_and_long_names_have_a_limited_size(n: int) -> None:
    names = [f"a\nvery long name {i} " * 200 for i in range(n)]
    labels = np.arange(600) % n
    for figure in (
        figures.confusion_matrices({"run": np.eye(n), "ERM": np.eye(n)}, names),
        figures.group_accuracies({"run": np.eye(n)}, names, names, names[0], np.eye(n)),
        figures.embedding(RNG.random((600, 2)), labels, labels, names, names, names[0]),
        figures.pareto({names[0]: 0.5}, {names[0]: 0.5}),
        figures.sample_grid(PIXELS[:3], 1, row_names=names[:3]),
    ):
        figure.savefig(file := BytesIO())
        assert len(file.getvalue()) < 1_000_000
        assert max(figure.get_size_inches()) < 25
        for text in figure.findobj(Text):
            assert len(text.get_text()) <= 70
            assert "a\nvery" not in text.get_text()


def test_importing_lntl_figures_does_not_import_pyplot() -> None:
    code = "import sys, lntl.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sample_grid_shows_every_image_in_its_cell() -> None:
    figure = figures.sample_grid(PIXELS, columns=3, row_names=CLASSES)
    (axes,) = figure.axes
    canvas = axes.images[0].get_array()
    step = 28 + figures.GAP
    for i, image in enumerate(PIXELS):
        top, left = i // 3 * step + figures.GAP, i % 3 * step
        np.testing.assert_array_equal(canvas[top : top + 28, left : left + 28, :3], image.transpose(1, 2, 0))
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES


def test_sample_grid_shows_a_title_for_each_image() -> None:
    assert find_texts(figures.sample_grid(PIXELS, 4, titles=TITLES).axes[0]) == TITLES
    with pytest.raises(ValueError, match="zip"):
        figures.sample_grid(PIXELS, 4, titles=TITLES[:-1])


def test_color_clouds_draw_each_point_in_its_color() -> None:
    color = np.array([[250, 0, 10], [0, 100, 200]])
    figure = figures.color_clouds(color, [0, 2], CLASSES, "train")
    assert figure.get_suptitle() == "train"
    assert [axes.get_title() for axes in figure.axes] == ["red", "green", "blue"]
    for channel, axes in enumerate(figure.axes):
        points = axes.collections[0]
        offsets = np.asarray(points.get_offsets())
        np.testing.assert_array_equal(offsets[:, 1], color[:, channel])
        np.testing.assert_array_equal(offsets[:, 0].round(), [0, 2])
        np.testing.assert_allclose(points.get_facecolor()[:, :3], color / 255)
        assert axes.get_xlabel() == "class"
        assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES


def test_learning_curves_separate_losses_from_accuracies_and_mark_the_phases() -> None:
    losses, accuracies = figures.learning_curves(RECORDS, NAMES).axes
    assert losses.get_ylabel() == "loss (nats)"
    assert accuracies.get_ylabel() == "on validation images"
    assert accuracies.get_xlabel() == "epoch"
    assert [line.get_label() for line in losses.lines] == NAMES[:2]
    assert [line.get_label() for line in accuracies.lines] == NAMES[2:]
    np.testing.assert_array_equal(losses.lines[0].get_xydata(), [[1, 2.0], [2, math.nan], [3, 1.0], [4, 0.5]])
    assert find_texts(losses) == ["erm", "bias_head", "lntl"]
    assert [(band.get_x(), band.get_x() + band.get_width()) for band in losses.patches] == [
        (0.5, 1.5),
        (1.5, 2.5),
        (2.5, 4.5),
    ]


def test_learning_curves_of_only_losses_have_one_axes() -> None:
    (axes,) = figures.learning_curves(RECORDS, NAMES[:2]).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss (nats)")


def test_confusion_matrices_are_per_cent_of_the_true_class_side_by_side() -> None:
    erm, lntl, bar = figures.confusion_matrices(COUNTS, CLASSES).axes
    assert (erm.get_title(), lntl.get_title()) == ("ERM", "LNTL")
    assert (erm.get_xlabel(), erm.get_ylabel(), bar.get_ylabel()) == ("predicted", "true", "% of the true class")
    np.testing.assert_allclose(erm.images[0].get_array(), [[80, 20, 0], [50, 50, 0], [0, 0, 0]])
    assert find_texts(erm) == ["80", "20", "0", "50", "50", "0", "0", "0", "0"]
    assert [label.get_text() for label in lntl.get_xticklabels()] == CLASSES
    assert erm.images[0].get_clim() == lntl.images[0].get_clim() == (0, 100)


def test_group_accuracies_leave_an_empty_group_blank() -> None:
    erm, _, bar = figures.group_accuracies(GROUP_ACCURACIES, CLASSES, COLORS).axes
    assert (erm.get_xlabel(), erm.get_ylabel(), bar.get_ylabel()) == ("color", "true", "accuracy, %")
    assert find_texts(erm) == ["100", "0", "25", "50", "50"]
    assert [label.get_text() for label in erm.get_xticklabels()] == COLORS


def test_long_names_of_bias_values_are_the_rows() -> None:
    figure = figures.group_accuracies({"LNTL": JOINT_GROUPS}, PETS, JOINT_NAMES, counts=np.arange(36).reshape(3, 12))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == JOINT_NAMES
    assert [label.get_text() for label in axes.get_xticklabels()] == PETS
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true", "color")
    np.testing.assert_allclose(axes.images[0].get_array(), 100 * JOINT_GROUPS.T)
    assert find_texts(axes)[:2] == ["34\n(12)", "69\n(24)"]  # the first cell of the first row is empty


def test_group_accuracies_show_their_counts() -> None:
    figure = figures.group_accuracies(GROUP_ACCURACIES, CLASSES, COLORS, counts=[[9, 1], [0, 4], [8, 12]])
    assert find_texts(figure.axes[0]) == ["100\n(9)", "0\n(1)", "25\n(4)", "50\n(8)", "50\n(12)"]


def test_class_by_bias_shows_the_share_of_each_class_for_each_bias_value() -> None:
    counts = {"train": [[9, 0], [1, 0], [0, 0]], "test": [[1, 3], [1, 1], [2, 0]]}
    train, test, bar = figures.class_by_bias(counts, CLASSES, COLORS, "sky").axes
    assert (train.get_title(), test.get_title(), train.get_xlabel()) == ("train", "test", "sky")
    assert bar.get_ylabel() == "% of the bias value"
    # Cells of the second value are blank, because it has no images.
    assert find_texts(train) == ["90\n(9)", "10\n(1)", "0\n(0)"]
    assert find_texts(test) == ["25\n(1)", "75\n(3)", "25\n(1)", "25\n(1)", "50\n(2)", "0\n(0)"]


def test_a_large_heat_map_shows_no_numbers() -> None:
    names = [str(i) for i in range(30)]
    assert find_texts(figures.confusion_matrices({"ERM": np.eye(30)}, names).axes[0]) == []


def test_recoloring_strip_marks_only_wrong_predictions() -> None:
    (axes,) = figures.recoloring_strip(STRIP, PREDICTIONS, [0, 2], COLORS, CLASSES).axes
    assert find_texts(axes) == ["0", "✗ 1", "2", "2"]
    (frame,) = axes.patches
    assert frame.get_xy() == (28 + figures.GAP - 0.5, figures.TITLE - 0.5)
    assert [label.get_text() for label in axes.get_xticklabels()] == COLORS
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2"]
    canvas = axes.images[0].get_array()
    for row, column in np.ndindex(2, 2):
        top, left = row * (28 + figures.TITLE) + figures.TITLE, column * (28 + figures.GAP)
        np.testing.assert_array_equal(
            canvas[top : top + 28, left : left + 28, :3], STRIP[row, column].transpose(1, 2, 0)
        )


def test_probe_bars_are_grouped_by_layer_and_show_chance() -> None:
    figure = figures.probe_bars(PROBES, {"majority": 0.1})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [50, 90, 60, 100]
    assert find_texts(axes) == ["50", "90", "60", "100"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["f, linear", "f, mlp", "pixels, linear"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*PROBES, "chance: majority"]
    np.testing.assert_allclose(axes.lines[-1].get_xdata(), [10, 10])


def test_a_probe_of_one_seed_has_no_error_bar() -> None:
    rows = [{"layer": "f", "probe": "linear", "mean": 0.5, "std": std} for std in (None, 0.02)]
    one_seed_axes, several_seeds_axes = (figures.probe_bars({"run": [row]}, {}).axes[0] for row in rows)
    assert (len(one_seed_axes.containers), len(several_seeds_axes.containers)) == (1, 2)
    assert find_texts(one_seed_axes) == ["50"]


def test_embedding_shows_every_point_twice() -> None:
    y, bias = np.arange(60) % 3, np.arange(60) % 2
    for axes, names, labels in zip(
        figures.embedding(RNG.random((60, 2)), y, bias, CLASSES, COLORS).axes, (CLASSES, COLORS), (y, bias), strict=True
    ):
        assert [len(points.get_offsets()) for points in axes.collections] == np.bincount(labels).tolist()
        assert [points.get_label() for points in axes.collections] == names


def test_embedding_draws_each_bias_value_in_another_color() -> None:
    y, bias, colors = np.arange(60) % 3, np.arange(60) % 2, np.array([[1, 0, 0], [0, 0.5, 1]])
    bias_axes = figures.embedding(RNG.random((60, 2)), y, bias, CLASSES, ["a", "b"], "color", colors).axes[1]
    np.testing.assert_allclose([points.get_facecolor()[0, :3] for points in bias_axes.collections], colors)


def test_pareto_connects_the_points_that_are_not_dominated() -> None:
    (axes,) = figures.pareto(*ACCURACY_AND_LEAKAGE, chance=0.1).axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[20, 70], [60, 80]])
    assert [points.get_label() for points in axes.collections] == ["a", "b", "c"]


def test_bias_predictiveness_has_a_line_for_each_name_and_for_chance() -> None:
    (axes,) = figures.bias_predictiveness([0.02, 0.05], {"train": [0.9, 0.6], "test": [0.1, 0.1]}, chance=0.1).axes
    assert [line.get_label() for line in axes.lines] == ["train", "test", "chance"]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[0.02, 0.9], [0.05, 0.6]])
    assert "σ²" in axes.get_xlabel()
    assert "accuracy" in axes.get_ylabel()
    assert axes.get_ylim() == (0, 1)


def test_bias_map_leaves_positions_without_a_label_blank() -> None:
    image, *maps, bar = figures.bias_map(PIXELS[0], BIAS, bins=8).axes
    assert [axes.get_title() for axes in (image, *maps)] == ["image", "label: red", "label: green", "label: blue"]
    assert bar.get_ylabel() == "bin"
    for axes, channel in zip(maps, BIAS, strict=True):
        labels = axes.images[0].get_array()
        np.testing.assert_array_equal(np.ma.getmaskarray(labels), channel < 0)
        np.testing.assert_array_equal(labels.compressed(), channel[channel >= 0])


def test_saliency_grid_shows_the_images_above_their_heat_maps() -> None:
    (axes,) = figures.saliency_grid(PIXELS, {"run": HEAT_MAPS}, [TITLES, TITLES], MISTAKES[:2]).axes
    canvas, title = axes.images[0].get_array(), round(0.24 * 28)
    np.testing.assert_array_equal(canvas[title : title + 28, 29:57, :3], PIXELS[1].transpose(1, 2, 0))
    heat_image = figures.heat_on_images(PIXELS, HEAT_MAPS)[1].transpose(1, 2, 0)
    np.testing.assert_array_equal(canvas[2 * title + 28 : 2 * title + 56, 29:57, :3], heat_image)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["image", "run"]
    assert find_texts(axes) == [*TITLES, *(f"✗ {title}" for title in TITLES)]
    assert len(axes.patches) == 7


def test_heat_on_images_is_a_dark_gray_image_without_heat_and_yellow_with_heat() -> None:
    image = np.full((1, 3, 2, 2), 200, dtype=np.uint8)
    color_without_heat, color_with_heat = (
        figures.heat_on_images(image, np.full((1, 2, 2), heat))[0, :, 0, 0] for heat in (0, 1)
    )
    assert color_without_heat.tolist() == [110, 110, 110]
    assert color_with_heat.tolist() == [252, 255, 164]


def test_saliency_bars_are_sorted_by_the_values_of_the_first_name() -> None:
    (axes,) = figures.saliency_bars({"run": [0.1, -3, 2], "ERM": [5, 0, 1]}, "attribution").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x[1]", "x[2]", "x[0]"]
    assert [bar.get_width() for bar in axes.patches] == [-3, 2, 0.1, 0, 1, 5]
