"""`lntl export`: a file predicts like its run, has metadata, and is not written if its predictions differ."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lanes import first_is_fast
from PIL import Image
from safetensors import safe_open
from test_loading import get_raw_test_images
from tiny_runs import lntl
from torch import Tensor, nn
from trained_runs import DATA, copy_without_data

from lntl import __version__
from lntl import config as configuration
from lntl.deploy import exporting
from lntl.deploy.exporting import Format, export
from lntl.deploy.loading import load
from lntl.errors import UserError
from lntl.experiment import start

TrainedRun = Callable[[str], Path]
FILE_NAMES: dict[Format, str] = {"safetensors": "m.safetensors", "torch_export": "m.pt2", "onnx": "m.onnx"}


def read_metadata(kind: Format, path: Path) -> dict[str, Any]:
    """Return the metadata of an exported file."""
    if kind == "torch_export":
        extra_files = {exporting.EXTRA_FILE: ""}
        torch.export.load(path, extra_files=extra_files)
        return dict(json.loads(extra_files[exporting.EXTRA_FILE]))
    if kind == "onnx":
        texts = {p.key: p.value for p in onnx.load(path).metadata_props}
    else:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata()
    return {key: json.loads(value) if value[0] in "[{" else value for key, value in texts.items()}


def predict_with_file(kind: Format, path: Path, images: Tensor) -> Tensor:
    """Return the probabilities of a file for images on the [0, 1] scale, if possible without this package."""
    if kind == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])
    if kind == "torch_export":
        probabilities: Tensor = torch.export.load(path).module()(images)
        return probabilities
    return load(path).predict(images)


FAST_CASES = [(kind, "vectors") for kind in FILE_NAMES] + [("safetensors", "images")]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param(kind, data, marks=[] if (kind, data) in FAST_CASES else [pytest.mark.full])
        for kind in FILE_NAMES
        for data in DATA
    ],
)
def test_a_file_predicts_like_the_run(trained_run: TrainedRun, tmp_path: Path, kind: Format, data: str) -> None:
    path = tmp_path / FILE_NAMES[kind]
    check = export(trained_run(data), kind, path)
    assert check.origin == "images of the test split"
    assert check.difference <= 1e-5
    classifier = load(trained_run(data))
    images = torch.rand(5, *classifier.transform.shape, generator=torch.Generator().manual_seed(1))
    expected = classifier.predict(images)
    for n in (5, 1, 3):
        torch.testing.assert_close(predict_with_file(kind, path, images[:n]), expected[:n], atol=1e-5, rtol=0)
    metadata = read_metadata(kind, path)
    assert tuple(metadata["class_names"]) == classifier.class_names
    assert metadata["lntl_version"] == __version__
    assert metadata["transform"] == json.loads(json.dumps(classifier.transform.settings()))
    mean, std = classifier.transform.mean_and_std()
    assert metadata["normalisation"] == {
        "mean": mean.flatten().tolist(),
        "std": std.flatten().tolist(),
        "inside": kind != "safetensors",
    }
    assert classifier.transform.description in metadata["input"]
    assert not any(name.startswith("h.") for name in get_weight_names(kind, path))


def get_weight_names(kind: Format, path: Path) -> list[str]:
    if kind == "safetensors":
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    return [*torch.export.load(path).state_dict] if kind == "torch_export" else []


@pytest.mark.parametrize("data", first_is_fast(DATA))
def test_a_loaded_safetensors_file_predicts_like_the_run(trained_run: TrainedRun, tmp_path: Path, data: str) -> None:
    path = tmp_path / "m.safetensors"
    export(trained_run(data) / "checkpoints/best_model.pth", "safetensors", path)
    images = get_raw_test_images(trained_run(data))
    export_classifier, run_classifier = load(path), load(trained_run(data))
    assert torch.equal(export_classifier.predict(images), run_classifier.predict(images))
    assert torch.equal(export_classifier.features(images), run_classifier.features(images))
    assert export_classifier.class_names == run_classifier.class_names
    with pytest.raises(UserError, match=r"m\.safetensors: it is an export, which has no h and no data; name its run"):
        export(path, "onnx", tmp_path / "m.onnx")


@pytest.mark.full
def test_an_export_with_another_normalisation_is_refused(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_statistics = (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    monkeypatch.setattr("lntl.data.eval_transform.ArrayTransform.mean_and_std", lambda self: other_statistics)
    for kind, name in FILE_NAMES.items():
        with pytest.raises(UserError, match=r"differs from the original by up to 0\.\d+ in a probability, over 64 im"):
            export(trained_run("digits"), kind, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_nan_counts_as_a_difference(trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exporting._EXPORTERS, "onnx", lambda *_: (b"", lambda x: torch.full((len(x), 10), torch.nan)))
    with pytest.raises(UserError, match="differs from the original by up to nan"):
        export(trained_run("digits"), "onnx", tmp_path / "m.onnx")


def test_without_the_data_an_export_is_checked_on_random_images(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = copy_without_data(trained_run("vectors"), tmp_path)
    content = torch.load(run / "checkpoints/best_model.pth", weights_only=True)
    content["config"]["data"]["path"] = "gone.npz"
    torch.save(content, run / "checkpoints/best_model.pth")
    check = export(run, "torch_export", tmp_path / "m.pt2")
    assert check.origin.startswith("random images (the data cannot be read: gone.npz")
    assert check.difference < 1e-5


def test_the_command_prints_the_difference_from_the_original(
    trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "m.safetensors")
    assert lntl("export", str(trained_run("vectors")), "--format", "safetensors", "--out", out) == 0
    message = capsys.readouterr().out
    assert "probabilities differ from the original by at most" in message
    assert "over 12 images of the test split" in message
    assert message.splitlines()[-1].strip() == out


def test_an_export_checked_on_one_image_accepts_several_images(
    tmp_path: Path, raw_config: Callable[..., dict[str, Any]]
) -> None:
    """The test split has one image, and the exported graph accepts any number of images."""
    x, y = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32), np.arange(60) % 2
    split = np.array(["train"] * 50 + ["val"] * 9 + ["test"])
    np.savez(tmp_path / "one.npz", x=x, y=y, bias=y, split=split)
    raw = raw_config() | {"data": {"name": "arrays", "path": str(tmp_path / "one.npz"), "split": "split"}}
    run = start(configuration.validate(raw | {"model": {"name": "mlp"}}, "test")).folder.path
    images = torch.from_numpy(x)
    for kind in ("safetensors", "torch_export"):
        path = tmp_path / FILE_NAMES[kind]
        assert export(run, kind, path).n == 1
        for n in (1, 5):
            expected = load(run).predict(images[:n])
            torch.testing.assert_close(predict_with_file(kind, path, images[:n]), expected, atol=1e-5, rtol=0)


def test_an_export_for_gray_images_accepts_colored_images(
    tmp_path: Path, raw_config: Callable[..., dict[str, Any]]
) -> None:
    rows = ["image,label,bias,split"]
    for k in range(24):
        Image.new("RGB", (8, 8), (10 * k, 255 - 9 * k, 99)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{k % 2},{k // 2 % 2},{('train', 'val', 'test')[k // 4 % 3]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = {"name": "table", "path": str(tmp_path / "t.csv"), "bias": "bias", "size": 8, "grayscale": True}
    run = start(configuration.validate(raw_config() | {"data": data, "model": {"name": "mlp"}}, "test")).folder.path
    expected = load(run).predict([tmp_path / "3.png"])
    colored_image = torch.tensor([30, 228, 99]).view(1, 3, 1, 1).expand(1, 3, 8, 8) / 255
    for kind in ("safetensors", "torch_export"):
        export(run, kind, tmp_path / FILE_NAMES[kind])
        torch.testing.assert_close(
            predict_with_file(kind, tmp_path / FILE_NAMES[kind], colored_image), expected, atol=0.01, rtol=0
        )


@pytest.mark.parametrize("kind", first_is_fast(FILE_NAMES))
def test_vectors_are_standardised_in_double(
    tmp_path: Path, raw_config: Callable[..., dict[str, Any]], kind: Format
) -> None:
    """Seconds since 1970 determine the class; in float32 they would be equal."""
    rng, y = np.random.default_rng(0), np.arange(120) % 2
    x = np.stack([1_700_000_000 + 60 * y + rng.integers(0, 30, 120), rng.normal(size=120)], axis=1)
    np.savez(tmp_path / "times.npz", x=x, y=y, bias=y)
    raw = raw_config({"method": "erm", "epochs": 20}) | {"model": {"name": "mlp"}}
    raw |= {"data": {"name": "arrays", "path": str(tmp_path / "times.npz")}}
    new_run = start(configuration.validate(raw, "test"))
    list(new_run.train())
    run = new_run.folder.path
    expected = load(run).predict(x)
    assert (expected.argmax(dim=1).numpy() == y).mean() > 0.95
    path = tmp_path / FILE_NAMES[kind]
    assert export(run, kind, path).difference <= 1e-5
    torch.testing.assert_close(predict_with_file(kind, path, torch.from_numpy(x)), expected, atol=1e-5, rtol=0)
    assert "images: float64 (N, 2) not normalised" in read_metadata(kind, path)["input"]
    (tmp_path / "times.npz").unlink()
    check = export(run, kind, path)
    assert check.origin.startswith("random images")
    assert check.difference <= 1e-5


def test_without_onnx_the_error_names_the_command_to_install_it(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export(trained_run("vectors"), "onnx", tmp_path / "m.onnx")


class BranchingLayer(nn.Module):
    """A layer with a branch that depends on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_traced_is_refused(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load(trained_run("vectors"))
    classifier.f = nn.Sequential(classifier.f, BranchingLayer())
    with pytest.raises(UserError, match=r"the model cannot be traced \(.+\); use --format safetensors"):
        exporting._trace(classifier, torch.zeros(2, 7))


@pytest.mark.parametrize(
    ("run", "kind", "out", "message"),
    [
        ("vectors", "onnx", "", "is a folder; name a file to write"),
        ("vectors", "onnx", "no/m.onnx", "there is no folder .*no; make it, or name another file"),
        ("vectors", "safetensors", "m.bin", r"m\.bin: give it the suffix \.safetensors"),
        (".", "onnx", "m.onnx", "its folder checkpoints/ has no checkpoint"),
    ],
)
def test_bad_arguments_are_refused_and_no_file_is_written(
    trained_run: TrainedRun, tmp_path: Path, run: str, kind: Format, out: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(trained_run(run) if run != "." else tmp_path, kind, tmp_path / out)
    assert np.array_equal([*tmp_path.iterdir()], [])
