"""`lntl.load` loads a classifier from a run, a checkpoint or an export; it predicts like `lntl eval`."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from trained_runs import DATA, copy_without_data

import lntl
from lntl import config as configuration
from lntl import data as data_sets
from lntl import plugins
from lntl.data.arrays import ArraySplit
from lntl.deploy import exporting, loading
from lntl.deploy.loading import load
from lntl.errors import UserError
from lntl.experiment import load_networks, open_checkpoint
from lntl.experiment.run import start
from lntl.runs import checkpoint
from lntl.types import Dataset

TrainedRun = Callable[[str], Path]


def get_raw_test_images(run: Path) -> Any:
    """Return the test images of a run as paths or arrays, in the order of the evaluation."""
    config = configuration.read(run / "config.yaml")
    data = data_sets.load(config.data.name, config.data)
    split = data.splits["test"]
    if config.data.name == "table":
        return [split.source.paths[row] for row in split.row.tolist()]
    return split.values if isinstance(split, ArraySplit) else split.pixels(torch.arange(len(split)))


@pytest.mark.parametrize("kind", DATA)
def test_the_classifier_predicts_like_the_stored_evaluation(trained_run: TrainedRun, kind: str, tmp_path: Path) -> None:
    images = get_raw_test_images(trained_run(kind))
    classifier = lntl.load(copy_without_data(trained_run(kind), tmp_path))
    evaluation = np.load(trained_run(kind) / "evaluation/test.npz")
    probabilities = classifier.predict(images)
    assert probabilities.dtype == torch.float32
    assert np.abs(probabilities.numpy() - evaluation["probabilities"]).max() <= 1e-6
    assert np.abs(classifier.predict(images, batch_size=5).numpy() - evaluation["probabilities"]).max() <= 1e-6
    names = tuple("0123456789") if kind == "digits" else ("cat", "dog", "eel")
    assert classifier.class_names == names
    assert not classifier.training
    assert not hasattr(classifier, "h")
    assert not any(p.requires_grad for p in classifier.parameters())
    torch.testing.assert_close(classifier(classifier.transform(images)).softmax(dim=1), probabilities)


def test_features_are_the_output_of_f(trained_run: TrainedRun) -> None:
    experiment, checkpoint_content = open_checkpoint(trained_run("digits") / "checkpoints/best_model.pth")
    networks = load_networks(experiment, checkpoint_content, trained_run("digits")).eval()
    batch = experiment.data.splits["test"].batch(torch.arange(4))
    expected = networks.f(batch.x)
    z = lntl.load(trained_run("digits")).features(experiment.data.splits["test"].pixels(torch.arange(4)))
    assert z.shape == (4, 32, 14, 14)
    torch.testing.assert_close(z, expected)


def test_a_checkpoint_is_loaded_by_path_and_a_run_by_its_best_checkpoint(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    run = copy_without_data(trained_run("vectors"), tmp_path)
    x = np.random.default_rng(1).normal(5, 3, (9, 7))
    last_path = run / "checkpoints/last.pth"
    content = torch.load(last_path, weights_only=True)
    for value in content["trainer"]["average"].values():
        value.mul_(0)
    torch.save(content, last_path)
    torch.testing.assert_close(load(last_path).predict(x), torch.full((9, 3), 1 / 3))
    expected = load(run).predict(x)
    assert not torch.allclose(expected, torch.full((9, 3), 1 / 3))
    moved_path = shutil.move(run / "checkpoints/best_model.pth", tmp_path / "moved.pth")
    assert torch.equal(load(moved_path).predict(x), expected)
    # Without best_model.pth, last.pth is loaded.
    torch.testing.assert_close(load(run).predict(x), torch.full((9, 3), 1 / 3))


def test_importing_the_package_imports_no_slow_library() -> None:
    code = "import sys, lntl; lntl.load; assert not {'torch', 'numpy', 'pydantic'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


class DatasetWithoutTransform(Dataset):
    """A user's data set without `transform`."""

    def __init__(self, config: Any) -> None:
        base_class = plugins.load("lntl.data", "colored_mnist", Dataset)
        data = base_class(base_class.Config(path="/nonexistent", max_images=100))
        self.splits, self.spec, self.source, self.val_note = data.splits, data.spec, "hidden", "hidden"

    class Config(plugins.Settings):
        """No settings."""


def test_without_a_transform_predict_uses_x_unchanged(raw_config: Callable[..., dict[str, Any]]) -> None:
    config = configuration.validate(
        raw_config("erm") | {"data": {"name": "test_loading.DatasetWithoutTransform"}}, "test"
    )
    run = start(config)
    list(run.train())
    split = run.experiment.data.splits["test"]
    x = split.batch(torch.arange(len(split))).x
    expected = run.experiment.predict(run.experiment.trainer.evaluated, "test").probabilities
    torch.testing.assert_close(load(run.folder.path, trust="test_loading").predict(x), expected)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: there is no such checkpoint"),
        (".", r"its folder checkpoints/ has no checkpoint; is it a run folder"),
        ("gone.safetensors", r"gone\.safetensors: there is no such checkpoint or run folder"),
        ("noise.safetensors", r"noise\.safetensors: not a readable \.safetensors file"),
        ("bare.safetensors", r"its metadata lack class_names, model, spec, transform; write one"),
        ("old.pth", r"old\.pth: written by an old version of lntl, whose checkpoints do not describe their data"),
        ("other.pth", r"other\.pth: its section model is not valid: flavour: Extra inputs are not permitted"),
        ("wrong.pth", r"wrong\.pth: its weights do not fit the configured networks"),
        ("strange.pth", r"strange\.pth: its weights do not fit the configured networks.*f\.9"),
    ],
)
def test_files_that_cannot_be_loaded_are_refused(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    content = torch.load(trained_run("vectors") / "checkpoints/last.pth", weights_only=True)
    Path("noise.safetensors").write_bytes(b"noise")
    save_file({"f.1.weight": torch.zeros(2)}, "bare.safetensors")
    torch.save({k: v for k, v in content.items() if k != "data"}, "old.pth")
    config = content["config"] | {"model": content["config"]["model"] | {"flavour": "sweet"}}
    torch.save(content | {"config": config}, "other.pth")
    weights = {k: v for k, v in content["trainer"]["average"].items() if "f.1." not in k}
    torch.save(content | {"trainer": content["trainer"] | {"average": weights}}, "wrong.pth")
    weights = content["trainer"]["average"] | {"module.f.9": torch.zeros(2)}
    torch.save(content | {"trainer": content["trainer"] | {"average": weights}}, "strange.pth")
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def remove_key(name: str) -> Callable[[Any], Any]:
    return lambda content: {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize(
    ("kind", "name", "change", "message"),
    [
        ("vectors", "class_names", lambda _: "no JSON", "its metadata lack class_names; write one"),
        ("vectors", "model", lambda _: ["mlp"], "its metadata lack model; write one"),
        ("vectors", "model", lambda model: model | {"name": ["mlp"]}, r"m\.safetensors: .* is not one of models; "),
        ("vectors", "model", remove_key("name"), r"m\.safetensors: .* is not one of models; "),
        ("vectors", "spec", remove_key("num_bins"), "its description of the data is damaged"),
        ("vectors", "class_names", lambda names: names[:1], r"is damaged \(1 names of 3 classes\); export or train"),
        (
            "vectors",
            "transform",
            remove_key("std"),
            r"its description of the data is damaged \('std'\); export or train",
        ),
        ("images", "transform", lambda t: t | {"mean": [1, 2]}, "its description of the data is damaged"),
        ("images", "transform", lambda t: t | {"mean": [1, 2, 3]}, r"damaged \(mean and std do not fit the images\)"),
        ("images", "transform", lambda t: t | {"shape": [1, 9, 9]}, r"damaged \(images: .* do not fit the network"),
        ("table", "transform", remove_key("normalise"), r"its description of the data is damaged \('normalise'\)"),
        ("table", "transform", lambda t: t | {"size": "16"}, "its description of the data is damaged"),
    ],
)
def test_a_damaged_export_is_an_error(
    trained_run: TrainedRun, tmp_path: Path, kind: str, name: str, change: Callable[[Any], Any], message: str
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / "m.safetensors"
    exporting.export(trained_run(kind), "safetensors", path)
    with safe_open(path, framework="pt") as file:
        texts = file.metadata()
    changed_value = change(json.loads(texts[name]))
    texts |= {name: changed_value if isinstance(changed_value, str) else json.dumps(changed_value)}
    texts.pop(loading.DIGEST_KEY)
    weights = load_file(path)
    save_file(weights, path, texts | {loading.DIGEST_KEY: loading.digest(weights, texts)})
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert "m.safetensors: " in str(error.value)


def test_an_export_with_a_flipped_bit_is_refused(trained_run: TrainedRun, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    exporting.export(trained_run("vectors"), "safetensors", path)
    content, rng = bytearray(path.read_bytes()), random.Random(0)
    for _ in range(100):
        position, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        content[position] ^= bit
        path.write_bytes(content)
        content[position] ^= bit
        with pytest.raises(UserError, match=r"m\.safetensors: "):
            load(path)
    path.write_bytes(content)
    load(path)


def test_weights_and_outputs_that_are_not_finite_are_refused(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = copy_without_data(trained_run("vectors"), tmp_path)
    for name in ("best_model.pth", "last.pth"):
        content = torch.load(run / "checkpoints" / name, weights_only=True)
        next(iter(content["trainer"]["average"].values())).fill_(0)
        for key, value in content["trainer"]["average"].items():
            if key.startswith("module.g"):
                value.fill_(3e38 if name == "best_model.pth" else torch.nan)
        torch.save(content, run / "checkpoints" / name)
    with pytest.raises(UserError, match=r"last\.pth: the weight module\.g.* is not finite: training diverged"):
        load(run / "checkpoints/last.pth")
    np.savez(tmp_path / "v.npz", x=np.full((3, 7), 1e30))
    classifier = load(run)
    with pytest.raises(UserError, match="the networks' outputs are not finite"):
        classifier.predict(np.full((3, 7), 1e30))
    assert tiny_runs.lntl("predict", str(run), str(tmp_path / "v.npz"), "--out", str(tmp_path / "p.csv")) == 2
    assert not (tmp_path / "p.csv").exists()


@pytest.fixture
def untrusted_checkpoint(trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in foreign/ whose model, method and bias come from a module that writes the file `ran` on import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "boom", raising=False)
    Path("boom.py").write_text("from pathlib import Path\nPath('ran').touch()\nfrom lntl.models.mlp import MLP as M\n")
    shutil.copytree(trained_run("vectors"), "foreign")
    path = Path("foreign/checkpoints/best_model.pth")
    content = torch.load(path, weights_only=True)
    content["config"]["model"]["name"] = "boom.M"
    content["config"]["data"]["bias"] = [{"from": "boom.tone", "bins": 2}]
    content["config"]["training"]["phases"][0]["method"] = "boom.Method"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["run", "checkpoint", "export"])
def test_a_file_runs_no_code_that_is_not_trusted(
    untrusted_checkpoint: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = {
        "run": untrusted_checkpoint.parents[1],
        "checkpoint": untrusted_checkpoint,
        "export": Path("m.safetensors"),
    }[kind]
    x = np.zeros((3, 7))
    np.savez("v.npz", x=x)
    predict = ("predict", str(path), "v.npz", "--out", "p.csv")
    command = ("export", str(untrusted_checkpoint), "--format", "safetensors", "--out", "m.safetensors")
    if kind == "export":
        assert tiny_runs.lntl(*command, "--trust", "boom") == 0
        del sys.modules["boom"]
        Path("ran").unlink()
    with pytest.raises(
        UserError,
        match=r"it names boom\.M, and importing boom runs its code.*--trust boom.*trust='boom'.*LNTL_TRUST=boom",
    ):
        lntl.load(path)
    with pytest.raises(UserError, match="importing boom"):
        lntl.load(path, trust="boomerang")
    assert tiny_runs.lntl(*predict) == 2
    assert tiny_runs.lntl(*command) == 2
    assert not Path("ran").exists()
    assert tiny_runs.lntl(*predict, "--trust", "boom") == 0
    assert Path("ran").exists()
    del sys.modules["boom"]
    expected = lntl.load(path, trust=["boom"]).predict(x)
    assert "boom" in sys.modules
    # The module is already imported, but it is still not trusted.
    with pytest.raises(UserError, match="importing boom"):
        lntl.load(path)
    monkeypatch.setenv("LNTL_TRUST", "other, boom")
    assert torch.equal(lntl.load(path).predict(x), expected)


def test_the_data_section_of_a_file_runs_no_code_that_is_not_trusted(untrusted_checkpoint: Path) -> None:
    content = torch.load(untrusted_checkpoint, weights_only=True)
    content["config"]["model"]["name"] = "mlp"
    content["config"]["training"]["phases"][0]["method"] = "erm"
    bias = content["config"]["data"]["bias"]
    for bias_setting in (bias, bias[0]):
        content["config"]["data"]["bias"] = bias_setting
        torch.save(content, untrusted_checkpoint)
        with pytest.raises(UserError, match=r"best_model\.pth: it names boom\.tone, and importing boom runs its code"):
            exporting.export(untrusted_checkpoint, "safetensors", Path("m.safetensors"))
    content["config"]["data"]["name"] = "boom.Data"
    torch.save(content, untrusted_checkpoint)
    with pytest.raises(UserError, match=r"it names boom\.Data"):
        exporting.export(untrusted_checkpoint, "safetensors", Path("m.safetensors"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("section", ["model", "data", "training"])
def test_a_checkpoint_without_a_run_runs_no_code_that_is_not_trusted(
    untrusted_checkpoint: Path, trained_run: TrainedRun, section: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(untrusted_checkpoint, weights_only=True)
    trusted_config = checkpoint.load(trained_run("vectors") / "checkpoints/best_model.pth").config
    content["config"] = trusted_config | {section: content["config"][section]}
    checkpoint_path = Path("single/checkpoints/best_model.pth")
    checkpoint_path.parent.mkdir(parents=True)
    torch.save(content, checkpoint_path)
    for command in ("eval", "probe"):
        assert tiny_runs.lntl(command, str(checkpoint_path)) == 2
        assert "importing boom runs its code" in " ".join(capsys.readouterr().err.split())
    assert not Path("ran").exists()
    if section == "model":
        assert tiny_runs.lntl("eval", str(checkpoint_path), "--trust", "boom") == 0
        assert tiny_runs.lntl("probe", str(checkpoint_path), "--seeds", "1", "--trust", "boom") == 0


def test_an_unknown_device_is_refused(trained_run: TrainedRun) -> None:
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        load(trained_run("vectors"), "tpu")
    assert next(load(trained_run("vectors"), "auto").parameters()).dtype == torch.float32


def test_the_stored_description_of_the_data_can_be_read(trained_run: TrainedRun) -> None:
    description = checkpoint.load(trained_run("vectors") / "checkpoints/last.pth").data
    assert description is not None
    assert description.spec.class_names == ("cat", "dog", "eel")
    assert description.spec.input_shape == (7,)
    assert description.transform["white"] is None
    assert len(description.transform["mean"]) == 7


def test_a_batch_size_below_1_is_refused(trained_run: TrainedRun) -> None:
    with pytest.raises(UserError, match="batch_size is 0 and must be at least 1"):
        lntl.load(trained_run("vectors")).predict(np.zeros((2, 7)), batch_size=0)
