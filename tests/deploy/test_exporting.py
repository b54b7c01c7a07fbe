"""`lntl export`: a file predicts like its run, describes its use, and is not written if its predictions differ."""

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
from test_loading import raw_test_images
from tiny_runs import lntl
from torch import Tensor, nn
from used_runs import DATA, elsewhere

from lntl import __version__
from lntl import config as configuration
from lntl.deploy import exporting
from lntl.deploy.exporting import Format, export
from lntl.deploy.loading import load
from lntl.errors import UserError
from lntl.experiment import start

Used = Callable[[str], Path]
KINDS: dict[Format, str] = {"safetensors": "m.safetensors", "torch_export": "m.pt2", "onnx": "m.onnx"}


def metadata_of(kind: Format, path: Path) -> dict[str, Any]:
    """Return the metadata of a file."""
    if kind == "torch_export":
        extra = {exporting.EXTRA_FILE: ""}
        torch.export.load(path, extra_files=extra)
        return dict(json.loads(extra[exporting.EXTRA_FILE]))
    if kind == "onnx":
        texts = {p.key: p.value for p in onnx.load(path).metadata_props}
    else:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata()
    return {key: json.loads(value) if value[0] in "[{" else value for key, value in texts.items()}


def run_alone(kind: Format, path: Path, images: Tensor) -> Tensor:
    """Return the probabilities that a file gives for images on the [0, 1] scale, without this package where it can."""
    if kind == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])
    if kind == "torch_export":
        out: Tensor = torch.export.load(path).module()(images)
        return out
    return load(path).predict(images)


QUICK = [(kind, "vectors") for kind in KINDS] + [("safetensors", "images")]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param(kind, data, marks=[] if (kind, data) in QUICK else [pytest.mark.full])
        for kind in KINDS
        for data in DATA
    ],
)
def test_a_file_predicts_like_the_run(used: Used, tmp_path: Path, kind: Format, data: str) -> None:
    path = tmp_path / KINDS[kind]
    check = export(used(data), kind, path)
    assert check.origin == "images of the test split"
    assert check.difference <= 1e-5
    original = load(used(data))
    images = torch.rand(5, *original.transform.shape, generator=torch.Generator().manual_seed(1))
    expected = original.predict(images)
    for n in (5, 1, 3):
        torch.testing.assert_close(run_alone(kind, path, images[:n]), expected[:n], atol=1e-5, rtol=0)
    says = metadata_of(kind, path)
    assert tuple(says["class_names"]) == original.class_names
    assert says["lntl_version"] == __version__
    assert says["transform"] == json.loads(json.dumps(original.transform.settings()))
    mean, std = original.transform.mean_and_std()
    assert says["normalisation"] == {
        "mean": mean.flatten().tolist(),
        "std": std.flatten().tolist(),
        "inside": kind != "safetensors",
    }
    assert original.transform.description in says["input"]
    assert not any(name.startswith("h.") for name in names_of_weights(kind, path))


def names_of_weights(kind: Format, path: Path) -> list[str]:
    if kind == "safetensors":
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    return [*torch.export.load(path).state_dict] if kind == "torch_export" else []


@pytest.mark.parametrize("data", first_is_fast(DATA))
def test_a_safetensors_file_is_loaded_again(used: Used, tmp_path: Path, data: str) -> None:
    path = tmp_path / "m.safetensors"
    export(used(data) / "checkpoints/best_model.pth", "safetensors", path)
    images = raw_test_images(used(data))
    again, original = load(path), load(used(data))
    assert torch.equal(again.predict(images), original.predict(images))
    assert torch.equal(again.features(images), original.features(images))
    assert again.class_names == original.class_names
    with pytest.raises(UserError, match=r"m\.safetensors: it is an export, which has no h and no data; name its run"):
        export(path, "onnx", tmp_path / "m.onnx")


@pytest.mark.full
def test_a_normalisation_that_differs_from_evaluation_is_noticed(
    used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    monkeypatch.setattr("lntl.data.eval_transform.ArrayTransform.mean_and_std", lambda self: other)
    for kind, name in KINDS.items():
        with pytest.raises(UserError, match=r"differs from the original by up to 0\.\d+ in a probability, over 64 im"):
            export(used("digits"), kind, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_nan_counts_as_a_difference(used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exporting._KINDS, "onnx", lambda *_: (b"", lambda x: torch.full((len(x), 10), torch.nan)))
    with pytest.raises(UserError, match="differs from the original by up to nan"):
        export(used("digits"), "onnx", tmp_path / "m.onnx")


def test_without_the_data_it_is_checked_on_random_images(used: Used, tmp_path: Path) -> None:
    run = elsewhere(used("vectors"), tmp_path)
    content = torch.load(run / "checkpoints/best_model.pth", weights_only=True)
    content["config"]["data"]["path"] = "gone.npz"
    torch.save(content, run / "checkpoints/best_model.pth")
    check = export(run, "torch_export", tmp_path / "m.pt2")
    assert check.origin.startswith("random images (the data cannot be read: gone.npz")
    assert check.difference < 1e-5


def test_the_command_prints_the_difference_to_torch(
    used: Used, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "m.safetensors")
    assert lntl("export", str(used("vectors")), "--format", "safetensors", "--out", out) == 0
    said = capsys.readouterr().out
    assert "probabilities differ from the original by at most" in said
    assert "over 12 images of the test split" in said
    assert said.splitlines()[-1].strip() == out


def test_one_image_in_the_test_split(tmp_path: Path, raw_config: Callable[..., dict[str, Any]]) -> None:
    """The graph takes any number of images, although it was checked on one."""
    x, y = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32), np.arange(60) % 2
    split = np.array(["train"] * 50 + ["val"] * 9 + ["test"])
    np.savez(tmp_path / "one.npz", x=x, y=y, bias=y, split=split)
    raw = raw_config() | {"data": {"name": "arrays", "path": str(tmp_path / "one.npz"), "split": "split"}}
    run = start(configuration.validate(raw | {"model": {"name": "mlp"}}, "test")).folder.path
    images = torch.from_numpy(x)
    for kind in ("safetensors", "torch_export"):
        path = tmp_path / KINDS[kind]
        assert export(run, kind, path).n == 1
        for n in (1, 5):
            expected = load(run).predict(images[:n])
            torch.testing.assert_close(run_alone(kind, path, images[:n]), expected, atol=1e-5, rtol=0)


def test_an_export_of_grey_images_takes_colored_ones(tmp_path: Path, raw_config: Callable[..., dict[str, Any]]) -> None:
    rows = ["image,label,bias,split"]
    for k in range(24):
        Image.new("RGB", (8, 8), (10 * k, 255 - 9 * k, 99)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{k % 2},{k // 2 % 2},{('train', 'val', 'test')[k // 4 % 3]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = {"name": "table", "path": str(tmp_path / "t.csv"), "bias": "bias", "size": 8, "grayscale": True}
    run = start(configuration.validate(raw_config() | {"data": data, "model": {"name": "mlp"}}, "test")).folder.path
    expected = load(run).predict([tmp_path / "3.png"])
    colored = torch.tensor([30, 228, 99]).view(1, 3, 1, 1).expand(1, 3, 8, 8) / 255
    for kind in ("safetensors", "torch_export"):
        export(run, kind, tmp_path / KINDS[kind])
        torch.testing.assert_close(run_alone(kind, tmp_path / KINDS[kind], colored), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", first_is_fast(KINDS))
def test_vectors_are_standardised_in_double(
    tmp_path: Path, raw_config: Callable[..., dict[str, Any]], kind: Format
) -> None:
    """Seconds since 1970 that determine the class; in float32 they would be equal."""
    random, y = np.random.default_rng(0), np.arange(120) % 2
    x = np.stack([1_700_000_000 + 60 * y + random.integers(0, 30, 120), random.normal(size=120)], axis=1)
    np.savez(tmp_path / "times.npz", x=x, y=y, bias=y)
    raw = raw_config({"method": "erm", "epochs": 20}) | {"model": {"name": "mlp"}}
    raw |= {"data": {"name": "arrays", "path": str(tmp_path / "times.npz")}}
    training = start(configuration.validate(raw, "test"))
    list(training.train())
    run = training.folder.path
    expected = load(run).predict(x)
    assert (expected.argmax(dim=1).numpy() == y).mean() > 0.95
    path = tmp_path / KINDS[kind]
    assert export(run, kind, path).difference <= 1e-5
    torch.testing.assert_close(run_alone(kind, path, torch.from_numpy(x)), expected, atol=1e-5, rtol=0)
    assert "images: float64 (N, 2) not normalised" in metadata_of(kind, path)["input"]
    (tmp_path / "times.npz").unlink()
    check = export(run, kind, path)
    assert check.origin.startswith("random images")
    assert check.difference <= 1e-5


def test_without_onnx_the_error_names_the_command(used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export(used("vectors"), "onnx", tmp_path / "m.onnx")


class Branching(nn.Module):
    """A layer whose code depends on the numbers it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_traced(used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load(used("vectors"))
    classifier.f = nn.Sequential(classifier.f, Branching())
    with pytest.raises(UserError, match=r"the model cannot be traced \(.+\); use --format safetensors"):
        exporting._traced(classifier, torch.zeros(2, 7))


@pytest.mark.parametrize(
    ("run", "kind", "out", "says"),
    [
        ("vectors", "onnx", "", "is a folder; name a file to write"),
        ("vectors", "onnx", "no/m.onnx", "there is no folder .*no; make it, or name another file"),
        ("vectors", "safetensors", "m.bin", r"m\.bin: give it the suffix \.safetensors"),
        (".", "onnx", "m.onnx", "its folder checkpoints/ has no checkpoint"),
    ],
)
def test_bad_arguments(used: Used, tmp_path: Path, run: str, kind: Format, out: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        export(used(run) if run != "." else tmp_path, kind, tmp_path / out)
    assert np.array_equal([*tmp_path.iterdir()], [])
