"""The data set `arrays`: vectors or images with labels in several forms, normalised by their training rows."""

import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lntl.data.arrays import Arrays
from lntl.data.eval_transform import restore
from lntl.errors import UserError
from lntl.types import IGNORE, ImageSplit

N = 90
WriteFile = Callable[..., Path]


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    """A function that writes own.npz: by default 90 vectors of length 4, with three classes and two bias values."""

    def make(**arrays: Any) -> Path:
        path, k = tmp_path / "own.npz", np.arange(N)
        x = np.random.default_rng(0).normal(3, 2, (N, 4))
        np.savez(path, **({"x": x, "y": k % 3, "bias": k // 3 % 2} | arrays))
        return path

    return make


def build_data(path: Path, **settings: Any) -> Arrays:
    return Arrays(Arrays.Config.model_validate({"path": str(path)} | settings))


def get_all_labels(data: Arrays) -> dict[str, torch.Tensor]:
    """Return y, bias and group of all rows, in their order."""
    row = torch.cat([split.row for split in data.splits.values()]).argsort()
    return {
        name: torch.cat([getattr(split, name) for split in data.splits.values()])[row]
        for name in ("y", "bias", "group")
    }


def test_vectors_are_normalised_by_their_training_rows(write_file: WriteFile) -> None:
    path = write_file()
    data = build_data(path)
    assert data.spec.input_shape == (4,)
    x = np.load(path)["x"]
    train = x[data.splits["train"].row.numpy()]
    for split in data.splits.values():
        expected = (x[split.row.numpy()] - train.mean(axis=0)) / train.std(axis=0)
        batch = split.batch(torch.arange(len(split)))
        np.testing.assert_allclose(batch.x, expected, rtol=1e-4, atol=1e-5)
        assert not isinstance(split, ImageSplit)
    unnormalised_split = build_data(path, normalise="none").splits["test"]
    np.testing.assert_allclose(
        unnormalised_split.batch(torch.arange(5)).x, x[unnormalised_split.row[:5].numpy()], rtol=1e-6
    )


def test_a_constant_feature_becomes_0(write_file: WriteFile) -> None:
    x = np.random.default_rng(0).normal(size=(N, 3))
    x[:, 1] = 5
    assert build_data(write_file(x=x)).splits["train"].batch(torch.arange(9)).x[:, 1].tolist() == [0.0] * 9


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW", "float"])
def test_images_in_any_layout_give_the_same_pixels(write_file: WriteFile, layout: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (N, 5, 6, 3), dtype=np.uint8)
    stored_images = {
        "NHWC": pixels,
        "NCHW": pixels.transpose(0, 3, 1, 2),
        "NHW": pixels[..., 0],
        "float": pixels.astype(np.float32) / 255,
    }[layout]
    split = build_data(write_file(x=stored_images)).splits["train"]
    channels = 1 if layout == "NHW" else 3
    expected = pixels[split.row.numpy()].transpose(0, 3, 1, 2)[:, :channels]
    assert split.batch(torch.arange(4)).x.shape == (4, channels, 5, 6)
    x = split.batch(torch.arange(len(split))).x.double()
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(channels).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.var(dim=(0, 2, 3), correction=0), torch.ones(channels).double(), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(
        split.pixels(torch.arange(len(split))), np.broadcast_to(expected, (len(split), 3, 5, 6))
    )


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["owl", "cat", "dog"])[np.arange(N) % 3], ("cat", "dog", "owl")),
        (np.arange(N) % 3 * 5, ("0", "5", "10")),
        ((np.arange(N) % 3).astype(np.float64), ("0", "1", "2")),
        (np.arange(N) % 2 == 0, ("False", "True")),
        ((np.arange(N) % 3)[:, None], ("0", "1", "2")),
    ],
)
def test_labels_may_be_texts_numbers_or_booleans(write_file: WriteFile, y: Any, names: tuple[str, ...]) -> None:
    data = build_data(write_file(y=y))
    assert data.spec.class_names == names
    labels = [data.spec.class_names[k] for k in get_all_labels(data)["y"].tolist()]
    assert labels == [f"{value:g}" if isinstance(value, float) else str(value) for value in y.reshape(-1).tolist()]


def test_names_of_integers_keep_their_order(write_file: WriteFile) -> None:
    path = write_file(y_names=np.array(["owl", "cat", "dog"]), bias_names=np.array(["wet", "dry"]))
    data = build_data(path)
    assert (data.spec.class_names, data.spec.bias_value_names) == (("owl", "cat", "dog"), ("wet", "dry"))
    assert get_all_labels(data)["y"].tolist() == [k % 3 for k in range(N)]
    with pytest.raises(UserError, match="y contains 2, for which y_names has no name"):
        build_data(write_file(y_names=np.array(["owl", "cat"])))


def test_minus_1_and_1_are_labels_if_there_are_no_other_values(write_file: WriteFile) -> None:
    """-1 means a missing value, except if the only values are -1 and 1."""
    data = build_data(write_file(y=np.where(np.arange(N) % 2, 1, -1), bias=np.where(np.arange(N) % 3, 1, -1)))
    assert (data.spec.class_names, data.spec.bias_value_names, data.notes) == (("-1", "1"), ("-1", "1"), [])


def test_the_notes_say_that_minus_1_means_a_missing_value(write_file: WriteFile) -> None:
    data = build_data(write_file(bias=np.arange(N) % 3 - 1))
    assert data.spec.bias_value_names == ("0", "1")
    note = "bias: -1 means a missing value (30 of 90 rows)"
    assert data.notes == ["33.3% of the rows have no bias", note]


@pytest.mark.parametrize("missing_text", ["", " ", "NA", "nan ", "NaN"])
def test_texts_are_read_as_in_tables(write_file: WriteFile, missing_text: str) -> None:
    texts = np.array(["s", "s ", "10", "9", missing_text])[np.arange(N) % 5]
    data = build_data(write_file(bias=texts))
    assert data.spec.bias_value_names == ("10", "9", "s")
    hint = f" ({missing_text.strip()!r} counts as missing; see data.missing)" if missing_text.strip() else ""
    assert data.notes == [f"20.0% of the rows have no bias{hint}"]
    number_data = build_data(write_file(bias=np.array(["10", "9"])[np.arange(N) % 2]))
    assert number_data.spec.bias_value_names == ("9", "10")


def test_missing_values_of_several_biases_are_ignored(write_file: WriteFile) -> None:
    k = np.arange(N)
    labels = np.stack([k // 3 % 2, np.where(k < 9, -1, k % 2)], axis=1)
    data = build_data(write_file(bias=labels))
    assert (data.spec.bias_shape, data.bias_kind) == ((2,), "bias 0 and bias 1")
    assert data.notes == ["10.0% of the rows have no bias 1", "bias 1: -1 means a missing value (9 of 90 rows)"]
    labels_read = get_all_labels(data)
    assert labels_read["bias"].tolist() == np.where(labels < 0, IGNORE, labels).tolist()
    assert (labels_read["group"] == IGNORE).nonzero()[:, 0].tolist() == list(range(9))


def test_numbers_are_put_into_bins(write_file: WriteFile) -> None:
    heat = np.linspace(-20, 30, N)
    heat[4] = np.nan
    data = build_data(write_file(heat=heat), bias=["bias", {"column": "heat", "edges": [-5, 10]}])
    expected = [IGNORE if v != v else int(v >= -5) + int(v >= 10) for v in heat]
    assert get_all_labels(data)["bias"][:, 1].tolist() == expected


def test_a_bias_can_be_measured_in_images(write_file: WriteFile) -> None:
    x = np.zeros((N, 4, 4), dtype=np.uint8) + np.arange(N, dtype=np.uint8)[:, None, None]
    data = build_data(write_file(x=x), bias={"from": "brightness", "bins": 2})
    assert get_all_labels(data)["bias"].tolist() == [int(k >= N // 2) for k in range(N)]


def test_splits_and_group_ids_are_read_from_the_file(write_file: WriteFile) -> None:
    split = np.array(["train", "val", "test"])[np.arange(N) // 10 % 3]
    data = build_data(write_file(part=split, home=np.arange(N) // 10), split="part", group_id="home")
    for name, data_split in data.splits.items():
        assert (split[data_split.row.numpy()] == name).all()
    with pytest.raises(UserError, match=r"rows in more than one split \(0, 1, 2"):
        build_data(write_file(part=split, home=np.arange(N) % 10), split="part", group_id="home")


def test_wrong_rows_are_listed_or_skipped(write_file: WriteFile) -> None:
    x = np.ones((N, 4)) * np.arange(N)[:, None]
    x[7, 2] = np.nan
    y = np.arange(N) % 3
    y[5] = -1
    path = write_file(x=x, y=y)
    with pytest.raises(UserError, match="2 of 90 rows are wrong") as error:
        build_data(path)
    assert str(error.value).splitlines()[1:] == [
        "  row 5: y is missing (-1, unless the values are only -1 and 1; -100; NaN)",
        "  row 7: x is not finite",
    ]
    data = build_data(path, on_error="skip", normalise="none")
    split = data.splits["train"]
    valid_rows = [k for k in range(N) if k not in (5, 7)]
    assert split.batch(torch.arange(len(split))).x[:, 0].tolist() == [valid_rows[row] for row in split.row.tolist()]


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({}, {"bias": "bais"}, "no array 'bais'; did you mean 'bias'?"),
        *(
            ({}, {key: "x"}, "x contains the inputs, so it cannot be a label")
            for key in ("label", "bias", "split", "group_id")
        ),
        ({"y": np.zeros(3)}, {}, r"y has the shape \(3,\), x \(90, 4\); every array needs one row for each example"),
        ({"x": np.zeros((N, 2, 3, 4, 5))}, {}, "x is float64"),
        ({"x": np.zeros((N, 7, 7, 2), np.uint8)}, {}, "with 1 or 3 channels"),
        ({"x": np.zeros((N, 0))}, {}, r"x has the shape \(90, 0\), so its rows are empty"),
        ({"x": np.zeros((N, 0, 5), np.uint8)}, {}, r"x has the shape \(90, 0, 5\), so its rows are empty"),
        ({"x": np.zeros((N, 7, 7), np.uint16)}, {}, "images are uint8 or float"),
        ({"x": np.full((N, 7, 7), 255.0)}, {}, "holds images from 255 to 255; give them as uint8"),
        ({"x": np.array(["a"] * N)}, {}, "must hold numbers"),
        ({"y": np.array([{}] * N, dtype=object)}, {}, "not a readable .npz file of plain arrays"),
        ({"y": np.zeros((N, 2))}, {}, "y has 2 columns and must have one"),
        (
            {"y": np.arange(N) % 3, "y_names": np.array(["\u00e9", "cat", "e\u0301"])},
            {},
            "y_names gives the name '\u00e9' to 2 values; give each value a name of its own",
        ),
        (
            {"bias": np.array(["1,5", "2,5"] * (N // 2))},
            {"bias": {"column": "bias", "bins": 2}},
            r"bias is not a number: '1,5' \(a decimal comma\? write a decimal point\)",
        ),
        (
            {},
            {"bias": {"from": "brightness", "bins": 2}},
            "there are no images from which the bias brightness could be computed",
        ),
    ],
)
def test_invalid_arrays_and_settings_are_an_error(
    write_file: WriteFile, arrays: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_data(write_file(**arrays), **settings)


def test_a_file_that_is_not_an_npz_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    np.save(tmp_path / "b.npy", np.zeros(3))
    for name, reason in (("a.npz", "not an .npz archive"), ("b.npy", ".*")):
        with pytest.raises(UserError, match=rf"not a readable .npz file of plain arrays \({reason}\)"):
            build_data(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.npz: there is no such file"):
        build_data(tmp_path / "none.npz")


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_numbers_that_float32_cannot_represent_are_standardised_in_double(write_file: WriteFile, dtype: Any) -> None:
    """Seconds since 1970, where adjacent float32 numbers are 128 seconds apart."""
    x = np.stack([1_700_000_000 + np.arange(N) % 7, np.arange(N)], axis=1).astype(dtype)
    data = build_data(write_file(x=x))
    train = x[data.splits["train"].row.numpy()].astype(np.float64)
    expected = (x - train.mean(axis=0)) / train.std(axis=0)
    assert data.transform is not None
    restored_transform = restore(json.loads(json.dumps(data.transform.settings())))
    for split in data.splits.values():
        row = split.row.numpy()
        x_read = split.batch(torch.arange(len(split))).x
        assert x_read.dtype == torch.float32
        np.testing.assert_allclose(x_read, expected[row], atol=1e-6)
        for transform in (data.transform, restored_transform):
            assert torch.equal(transform(x[row]), x_read)


def test_numbers_one_standard_deviation_from_a_large_mean_keep_their_digits(write_file: WriteFile) -> None:
    """A standard deviation of exactly 1 is no sign of a constant number."""
    x = 1_700_000_000 + np.where(np.arange(N) % 2, 1.0, -1.0)
    data = build_data(
        write_file(x=np.stack([x, x], axis=1), split=np.repeat(["train", "val", "test"], 30)), split="split"
    )
    for split in data.splits.values():
        expected = np.where(split.row.numpy() % 2, 1.0, -1.0)
        np.testing.assert_array_equal(split.batch(torch.arange(len(split))).x[:, 0], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e9])  # with the offset, float32 would lose digits of the second number
def test_a_number_that_is_constant_in_training_is_only_shifted(
    write_file: WriteFile, dtype: Any, offset: float
) -> None:
    """The rounding error of its mean must not be used as its standard deviation."""
    x = np.stack([np.full(N, 0.1), offset + np.arange(N)], axis=1).astype(dtype)
    x[60:, 0] = 0.6
    data = build_data(write_file(x=x, split=np.repeat(["train", "val", "test"], 30)), split="split")
    for name, expected in (("train", 0), ("test", 0.5)):
        split = data.splits[name]
        np.testing.assert_allclose(split.batch(torch.arange(len(split))).x[:, 0], expected, atol=1e-6)


def test_numbers_that_float32_cannot_hold_are_named_if_they_are_not_standardised(write_file: WriteFile) -> None:
    x = np.stack([np.arange(N), 1_700_000_000 + np.arange(N) % 7], axis=1).astype(np.float64)
    sentence = "loses digits of x[1]; with data.normalise: train, x is standardised in double precision first"
    assert sentence in build_data(write_file(x=x), normalise="none").source
    assert "digits of" not in build_data(write_file(x=x)).source
    assert "digits of" not in build_data(write_file(x=x[:, :1]), normalise="none").source


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_inputs_with_too_few_digits_give_a_warning(
    write_file: WriteFile, dtype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.stack([1_000 + np.arange(N) / 2**20, np.arange(N)], axis=1)
    transform = build_data(write_file(x=x)).transform
    assert transform is not None
    with caplog.at_level(logging.WARNING, "lntl"):
        transform(x)
        assert caplog.text == ""
        transform(x.astype(dtype))
    kind = np.dtype(dtype).name
    sentence = f"images: {kind} numbers, but the run was trained on float64 numbers, which lose digits in {kind}"
    assert f"{sentence}; pass float64" in caplog.text


def test_a_header_with_more_rows_than_the_file_contains_is_refused_at_once(write_file: WriteFile) -> None:
    path = write_file()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    shape, larger_shape = b"(90, 4), }", b"(1000000000000, 4), }"
    assert shape.ljust(len(larger_shape)) in members["x.npy"]
    members["x.npy"] = members["x.npy"].replace(shape.ljust(len(larger_shape)), larger_shape)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(
        UserError, match=r"own\.npz: not a readable .*\(x is damaged: its header says 32000000000000 bytes"
    ):
        build_data(path)


def test_the_texts_that_mean_missing_can_be_set(write_file: WriteFile) -> None:
    """NA is also the country code of Namibia."""
    country = np.array(["DE", "NA", "-"])[np.arange(N) % 3]
    assert build_data(write_file(bias=country)).spec.bias_value_names == ("-", "DE")
    assert build_data(write_file(bias=country), missing=["-"]).spec.bias_value_names == ("DE", "NA")
    assert build_data(write_file(bias=country), missing=[]).spec.bias_value_names == ("-", "DE", "NA")
