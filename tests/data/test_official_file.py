"""The authors' files are Python 2 pickles; reading them does not run code that a pickle may contain."""

import os
import pickle
import struct
from io import BytesIO
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from lntl.data.colored_mnist import ColoredMNIST, read_official
from lntl.errors import UserError

FILE_NAME = "mnist_10color_jitter_var_0.030.npy"


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes the format of Python 2's cPickle at protocol 2: byte strings, and the old names of NumPy's modules."""

    dispatch = pickle._Pickler.dispatch.copy()  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    def save_global(self, function: Any, name: str | None = None) -> None:
        module = "numpy.core.multiarray" if function.__module__ == "numpy._core.multiarray" else function.__module__
        self.write(f"c{module}\n{function.__name__}\n".encode())
        self.memoize(function)

    dispatch[str] = dispatch[bytes] = save_string
    dispatch[FunctionType] = save_global


def encode_as_python2(content: Any) -> bytes:
    """Return the bytes that np.save wrote in Python 2: a header, and the pickle of a 0-d array with the object."""
    array = np.empty((), dtype=object)
    array[()] = content
    file = BytesIO()
    npy.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    Python2Pickler(file, protocol=2).dump(array)
    return file.getvalue()


def make_arrays(train: int = 120, test: int = 110) -> dict[str, np.ndarray]:
    """Return images with strokes of one random color per image, on black."""
    rng, content = np.random.default_rng(0), {}
    for split, n in (("train", train), ("test", test)):
        strokes = rng.random((n, 28, 28, 1)) < 0.3
        content[f"{split}_image"] = (strokes * rng.integers(1, 255, (n, 1, 1, 3))).astype(np.uint8)
        content[f"{split}_label"] = rng.integers(0, 10, n)
    return content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / FILE_NAME
    path.write_bytes(encode_as_python2(make_arrays()))
    return path


def test_the_test_file_has_the_format_of_python_2(path: Path) -> None:
    content = path.read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    pickle_bytes = content[content.index(b"\n") + 1 :]
    with pytest.raises(UnicodeDecodeError):  # the bytes of an array are not ASCII, as in the authors' files
        pickle.loads(pickle_bytes.replace(b"numpy.core", b"numpy._core"))


def test_read_official_returns_the_arrays(path: Path) -> None:
    content, expected = read_official(path), make_arrays()
    assert set(content) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(content[name], array)
        assert content[name].dtype == (np.uint8 if name.endswith("image") else np.int64)


def test_extra_keys_and_labels_of_shape_n_1_are_accepted(tmp_path: Path) -> None:
    content = make_arrays() | {"test_gray": np.zeros((110, 28, 28), np.uint8)}
    content["train_label"] = content["train_label"].astype(np.uint8)[:, None]
    (tmp_path / FILE_NAME).write_bytes(encode_as_python2(content))
    assert read_official(tmp_path / FILE_NAME)["train_label"].shape == (120,)


def test_a_file_saved_with_python_3_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / FILE_NAME, make_arrays())  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_official(tmp_path / FILE_NAME)["test_image"], make_arrays()["test_image"])


# --- use as a data set ---


def test_the_file_in_data_path_is_used_and_is_the_source(path: Path) -> None:
    data, expected = ColoredMNIST(ColoredMNIST.Config(path=str(path.parent), val_coloring="biased")), make_arrays()
    assert data.source == f"official file {path}"
    for name in ("train", "val", "test"):
        split = data.splits[name]
        source = "test" if name == "test" else "train"
        pixels = torch.from_numpy(expected[f"{source}_image"])[split.row].permute(0, 3, 1, 2)
        assert torch.equal(split.pixels(torch.arange(len(split))), pixels)
        assert torch.equal(split.color, pixels.amax(dim=(2, 3)))
        assert torch.equal(split.y, torch.from_numpy(expected[f"{source}_label"])[split.row])


def test_val_with_random_colors_has_the_strokes_of_the_file(path: Path) -> None:
    config = ColoredMNIST.Config(path=str(path.parent), color_var=0.030)
    val = ColoredMNIST(config).splits["val"]
    images = torch.from_numpy(make_arrays()["train_image"])[val.row].permute(0, 3, 1, 2)
    pixels = val.pixels(torch.arange(len(val)))
    assert torch.equal(pixels > 0, images > 0)
    assert not torch.equal(pixels, images)


def test_the_file_of_another_variance_is_not_used(path: Path) -> None:
    data = ColoredMNIST(ColoredMNIST.Config(path=str(path.parent), color_var=0.020, max_images=100))
    assert (
        data.source
        == f"rendered from the embedded MNIST strokes (no {path.parent / FILE_NAME.replace('0.030', '0.020')})"
    )


# --- invalid files ---


def read_and_get_error(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        ColoredMNIST(ColoredMNIST.Config(path=str(path.parent)))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


class PickledCall:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "wrap",
    [lambda call: call, lambda call: make_arrays() | {"more": call}],
    ids=["only a call", "a call beside arrays"],
)
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, wrap: Any) -> None:
    created_file = tmp_path / "victim"
    header = encode_as_python2(None)[: encode_as_python2(None).index(b"\n") + 1]
    message = read_and_get_error(
        tmp_path / FILE_NAME, header + pickle.dumps(wrap(PickledCall(os.system, f"touch {created_file}")), protocol=2)
    )
    assert "system" in message
    assert not created_file.exists()


@pytest.mark.parametrize("call", [(eval, "1"), (getattr, {}, "get"), (np.load, "x"), (np.fromfile, "x")])
def test_a_pickle_may_contain_only_arrays(tmp_path: Path, call: tuple[Any, ...]) -> None:
    header = encode_as_python2(None)[: encode_as_python2(None).index(b"\n") + 1]
    assert "not an array" in read_and_get_error(
        tmp_path / FILE_NAME, header + pickle.dumps(PickledCall(*call), protocol=2)
    )


@pytest.mark.parametrize("share", [0.0, 1e-5, 1e-4, 0.001, 0.1, 0.5, 0.99, 0.999999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    read_and_get_error(path, content[: int(share * len(content))])


def make_torch_file() -> bytes:
    file = BytesIO()
    torch.save({"a": torch.zeros(3)}, file)
    return file.getvalue()


def make_npy_file(array: Any) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Google Drive: quota exceeded</html>",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x03\x00" + bytes(100),
        make_torch_file(),
        make_npy_file(np.arange(1000)),
        make_npy_file(np.zeros((5, 28, 28, 3), np.uint8)),
        make_npy_file([1, 2, {}]),
        encode_as_python2(None),
        encode_as_python2([1, 2, 3]),
        encode_as_python2({"train_image": 1}),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "not a readable Colored MNIST file" in read_and_get_error(tmp_path / FILE_NAME, content)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_image", np.zeros((120, 3, 28, 28), np.uint8)),
        ("train_image", np.zeros((120, 28, 28, 3), np.float32)),
        ("train_image", np.zeros((119, 28, 28, 3), np.uint8)),
        ("train_image", np.zeros(0, np.uint8)),
        ("test_label", np.array(["x"] * 110)),
        ("test_label", np.full(110, 10)),
        ("test_label", np.full(110, -1)),
        ("test_label", None),
    ],
)
def test_wrong_shapes_types_and_labels_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    read_and_get_error(tmp_path / FILE_NAME, encode_as_python2(make_arrays() | {key: value}))


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    read_and_get_error(tmp_path / FILE_NAME, encode_as_python2(make_arrays(train=0)))
