"""The commands of `lntl`: their output and the files that they write."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from tiny_runs import RUN, TINY_CONFIG, lntl, read_metrics, read_tree

from lntl import __version__, plugins
from lntl import config as configuration
from lntl.cli import console
from lntl.data.colored_mnist import ColoredMNIST
from lntl.methods import load_method
from lntl.models import load_model
from lntl.runs import checkpoint

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def copy_of_trained_folder(trained_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which tiny.yaml was trained to the end."""
    return Path(shutil.copytree(trained_folder(), tmp_path_factory.mktemp("finished"), dirs_exist_ok=True))


@pytest.fixture
def finished_folder(copy_of_trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run's folder, as the working directory; do not change its files."""
    monkeypatch.chdir(copy_of_trained_folder)
    return copy_of_trained_folder


SLOW_MODULES = {"torch", "lightning_fabric", "sklearn", "tensorboard", "matplotlib"}
NOT_IMPORTED_BY_HELP = SLOW_MODULES | {"numpy", "rich", "markdown_it", "pygments", "ruamel", "jinja2", "PIL"}


@pytest.mark.parametrize(
    ("arguments", "absent_modules"),
    [
        (["--help"], NOT_IMPORTED_BY_HELP | {"pydantic", "logging"}),
        (["--version"], NOT_IMPORTED_BY_HELP),
        (["train", "--help"], NOT_IMPORTED_BY_HELP),
        (["configs", "copy", "--help"], NOT_IMPORTED_BY_HELP),
        (["configs"], SLOW_MODULES),
    ],
)
def test_help_and_the_list_of_configurations_do_not_import_slow_modules(
    arguments: list[str], absent_modules: set[str]
) -> None:
    code = (
        "import sys; from lntl.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"assert not {absent_modules} & sys.modules.keys(), {absent_modules} & sys.modules.keys()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout


@pytest.mark.full
def test_training_flushes_denormal_numbers_to_0_in_every_thread(folder: Path) -> None:
    code = (
        "import torch; from lntl import experiment; from lntl.cli import main\n"
        "conclude = experiment.conclude\n"
        "def checked(*run):\n"
        "    assert not torch.full((1 << 22,), 1e-20).mul(1e-20).any()\n"
        "    return conclude(*run)\n"
        "experiment.conclude = checked\n"
        "try: main(['train', 'tiny.yaml'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert torch.tensor(1e-20) * 1e-20 > 0"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_version_prints_the_version_of_the_package(capsys: Capture) -> None:
    assert lntl("--version") == 0
    assert capsys.readouterr().out == f"lntl {__version__}\n"


def test_python_m_lntl_is_the_command_line() -> None:
    process = subprocess.run([sys.executable, "-m", "lntl", "--version"], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, f"lntl {__version__}\n")


def test_help_lists_every_command(capsys: Capture) -> None:
    assert lntl("--help") == 0
    out = capsys.readouterr().out
    commands = (
        "init train eval probe report repair predict explain export card benchmark compare methods models configs data"
    )
    for command in commands.split():
        assert re.search(rf"^\W*{command}\s", out, re.MULTILINE), command
    assert "benchmark-run" not in out


def test_train_prints_the_table_of_results_and_the_files_written(folder: Path, capsys: Capture) -> None:
    assert lntl("train", "tiny.yaml", "evaluation.erm_epochs=1", "project.experiment_name=mine") == 0
    out = capsys.readouterr().out
    result = json.loads(Path("results/mine/result.json").read_text())
    accuracies = {
        "plain training (ERM)": result["erm"]["last"]["test"]["accuracy"],
        "lntl, last": result["last"]["test"]["accuracy"],
        "lntl, best on val": result["best"]["test"]["accuracy"],
        "paper: baseline": 0.5996,
        "paper: LNTL": 0.9137,
    }
    for name, accuracy in accuracies.items():
        assert re.search(rf"^ *{re.escape(name)} +\d+ +{accuracy:.4f}\b", out, re.MULTILINE), name
    assert result["selection"] in out
    for path in Path("results/mine").iterdir():
        assert re.search(rf"^ *{re.escape(str(path))}/?$", out, re.MULTILINE)


def test_train_accepts_overrides_epochs_and_device(folder: Path) -> None:
    assert (
        lntl("train", "tiny.yaml", "training.batch_size=45", "--epochs", "2", "--device", "cpu", "project.seed=7") == 0
    )
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    assert (config["training"]["batch_size"], config["project"]["seed"]) == (45, 7)
    assert [record["epoch"] for record in read_metrics(RUN)] == [1, 1, 2]  # --epochs sets only the last phase
    assert [record["step"] for record in read_metrics(RUN)] == [2, 4, 6]


def test_without_options_the_values_of_the_yaml_are_used(finished_folder: Path) -> None:
    assert len(read_metrics(RUN)) == 4
    assert yaml.safe_load((RUN / "config.yaml").read_text())["training"]["device"] == "cpu"


def test_overwrite_replaces_the_run(folder: Path) -> None:
    assert lntl("train", "tiny.yaml") == 0
    assert lntl("train", "tiny.yaml", "--epochs", "1", "project.seed=5", "--overwrite") == 0
    assert yaml.safe_load((RUN / "config.yaml").read_text())["project"]["seed"] == 5
    assert len(checkpoint.load(RUN / "checkpoints/last.pth").records) == 2


@pytest.mark.parametrize("target", [RUN, RUN / "checkpoints/best_model.pth", RUN / "checkpoints/last.pth"])
def test_eval_prints_and_stores_the_metrics(finished_folder: Path, capsys: Capture, target: Path) -> None:
    assert lntl("eval", str(target), "--device", "cpu") == 0
    out = " ".join(capsys.readouterr().out.split())
    result = json.loads((RUN / "result.json").read_text())["last" if target.name == "last.pth" else "best"]
    assert f"epoch {result['epoch']}, test set" in out
    evaluation_path = RUN / "evaluation" / ("test_last.json" if target.name == "last.pth" else "test.json")
    content = json.loads(evaluation_path.read_text())
    assert {name: row["value"] for name, row in content["metrics"].items()} == result["test"]
    for name, row in content["metrics"].items():
        value = (
            f"{row['value']:.4f} {row['low']:.4f} to {row['high']:.4f} {row['n']}"
            if not row["undefined"]
            else "undefined"
        )
        assert f"{name.replace('_', ' ')} {value}" in out, name
    for row in [*content["by_class"], *content["by_bias"]]:
        assert f"{row['name']} {row['value']:.4f} {row['low']:.4f} to {row['high']:.4f} {row['n']}*" in out
    assert content["warnings"]
    assert all(warning in out for warning in content["warnings"])
    assert f"{evaluation_path} {evaluation_path.with_suffix('.npz')}" in out


def test_eval_prints_the_metrics_of_the_configuration(folder: Path, capsys: Capture) -> None:
    override = "evaluation.metrics=[aligned_accuracy, accuracy]"
    assert lntl("train", "tiny.yaml", override) == 0
    capsys.readouterr()
    assert lntl("eval", str(RUN)) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^ *(\w+ accuracy|accuracy) ", out, re.MULTILINE) == ["aligned accuracy", "accuracy"]
    assert len(json.loads((RUN / "evaluation/test.json").read_text())["metrics"]) == 10


def test_eval_of_an_epoch_is_stored_under_the_name_of_its_checkpoint(folder: Path, capsys: Capture) -> None:
    assert lntl("train", "tiny.yaml") == 0
    assert lntl("eval", str(RUN / "checkpoints/checkpoint_epoch_01.pth")) == 0
    content = json.loads((RUN / "evaluation/test_checkpoint_epoch_01.json").read_text())
    assert (content["epoch"], content["split"]) == (1, "test")
    assert (RUN / "evaluation/test_checkpoint_epoch_01.npz").exists()


def test_eval_of_a_checkpoint_outside_of_a_run_writes_no_file(
    finished_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    checkpoint_copy = tmp_path / "copy.pth"
    checkpoint_copy.write_bytes((RUN / "checkpoints/last.pth").read_bytes())
    assert lntl("eval", str(checkpoint_copy)) == 0
    assert "No file was written" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["copy.pth"]


def test_a_second_eval_writes_the_same_files(finished_folder: Path) -> None:
    files_before = read_tree(finished_folder)
    assert lntl("eval", str(RUN)) == 0
    assert read_tree(finished_folder) == files_before


def test_configs_lists_every_ready_configuration(capsys: Capture) -> None:
    assert lntl("configs") == 0
    out = capsys.readouterr().out
    assert "colored_mnist_default" in configuration.ready_names()
    for name in configuration.ready_names():
        assert name in out


def test_configs_copy_refuses_to_replace_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    import jsonschema

    monkeypatch.chdir(tmp_path)
    assert lntl("configs", "copy", "colored_mnist_default") == 0
    assert capsys.readouterr().out.split() == ["colored_mnist_default.yaml", "lntl.schema.json"]
    copied_path = Path("colored_mnist_default.yaml")
    comment, text = copied_path.read_text(encoding="utf-8").split("\n", 1)
    assert comment == "# yaml-language-server: $schema=lntl.schema.json"  # editors find the schema by this line
    assert text == configuration.find("colored_mnist_default").read_text(encoding="utf-8")
    jsonschema.validate(yaml.safe_load(text), json.loads(Path("lntl.schema.json").read_text()))
    copied_path.write_text("existing")
    assert lntl("configs", "copy", "colored_mnist_default", ".") == 2
    assert "colored_mnist_default.yaml exists already" in capsys.readouterr().err
    assert copied_path.read_text() == "existing"


def test_configs_schema_describes_the_configuration(capsys: Capture) -> None:
    import jsonschema

    assert lntl("configs", "schema") == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(TINY_CONFIG, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(TINY_CONFIG | {"trainig": {}}, schema)


def test_methods_lists_every_method(capsys: Capture) -> None:
    assert lntl("methods") == 0
    out = capsys.readouterr().out
    assert plugins.names("lntl.methods")
    for name in plugins.names("lntl.methods"):
        assert re.search(rf"\b{name}\b", out)


@pytest.mark.parametrize("name", plugins.names("lntl.methods"))
def test_methods_shows_equation_and_every_setting(capsys: Capture, name: str) -> None:
    assert lntl("methods", name) == 0
    out = capsys.readouterr().out
    method = load_method(name)
    words = " ".join(out.split())
    assert " ".join((method.__doc__ or "").split()) in words
    assert (
        f"trains {', '.join(method.trains)}" in words
        or f"fits {', '.join(method.fits)} before the first step;" in words
    )
    assert all(f"needs model.{key}: {value}" in words for key, value in method.required_model_settings.items())
    for key, field in method.Config.model_fields.items():
        assert re.search(rf"\b{key}\b", out)
        assert str(field.default) in out
        assert all(word in out for word in field.description.split())


def test_data_info_describes_each_split(capsys: Capture, folder: Path) -> None:
    assert lntl("data", "info", "tiny.yaml", "data.val_split_ratio=0.2") == 0
    out = capsys.readouterr().out
    assert "rendered from the embedded MNIST strokes" in out
    assert "val: 20 held-out training images, random colors" in out
    data = ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", max_images=100, val_split_ratio=0.2))
    for name, split in data.splits.items():
        groups = Counter(split.group.tolist())
        num_correct = sum(max(groups[y * 10 + color] for y in range(10)) for color in range(10))
        row = f"{name} {len(split)} 10 {len(groups)} of 100 {num_correct / len(split):.1%}"
        assert row in " ".join(re.sub(r"[^\w.%]", " ", out).split())


def test_data_make_writes_images_labels_and_colors_once(capsys: Capture, folder: Path) -> None:
    assert lntl("data", "make", "colored_mnist", "digits.npz", "tiny.yaml") == 0
    data = ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", max_images=100))
    with np.load("digits.npz") as arrays:
        assert len(arrays.files) == 9
        for name, split in data.splits.items():
            assert arrays[f"{name}_image"].shape == (len(split), 28, 28, 3)
            assert np.array_equal(arrays[f"{name}_image"].max(axis=(1, 2)), split.color)
            assert np.array_equal(arrays[f"{name}_label"], split.y)
            assert np.array_equal(arrays[f"{name}_color"], split.color)
    files_before = read_tree(folder)
    assert lntl("data", "make", "colored_mnist", "digits.npz", "tiny.yaml") == 2
    assert "digits.npz exists already" in capsys.readouterr().err
    assert read_tree(folder) == files_before


def test_data_clear_cache_removes_the_cache(capsys: Capture, folder: Path) -> None:
    entry = Path("data/image_cache/ab") / ("ab" * 16)
    entry.parent.mkdir(parents=True)
    entry.write_bytes(bytes(3 * 2**20))
    assert lntl("data", "clear-cache") == 0
    assert capsys.readouterr().out == "data/image_cache: 1 decoded images removed, 3.0 MiB\n"
    assert not Path("data/image_cache").exists()
    assert lntl("data", "clear-cache") == 2
    message = "data/image_cache: there is no such folder; name the folder in data.cache_dir"
    assert message in capsys.readouterr().err


def test_output_is_plain_if_it_is_not_a_terminal(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LINE_INTERVAL", -1)  # so that each report is a line
    assert lntl("train", "tiny.yaml") == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\r" not in captured.out + captured.err
    lines = captured.err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \w", line) for line in lines)
    (line,) = [line for line in lines if re.search(r"lntl epoch 1/1 step 2/3\b", line)]
    assert re.search(r"\d+ img/s task=\d+\.\d+ mi=-?\d.* bias=\d.*, \d:\d\d:\d\d left$", line)
    assert sum(" epoch " in line for line in lines) >= 2 + 4  # two epochs, four reports
    assert (RUN / "run.log").read_text().count("\n") == len(lines)


def test_a_terminal_shows_live_progress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=160))
    assert lntl("train", "tiny.yaml") == 0
    output = screen.getvalue()
    assert "lntl epoch 1/1" in output
    assert re.search(r"\b6/6\b", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output))
    assert "img/s" in output


def test_usage_errors_have_no_traceback(capsys: Capture) -> None:
    for arguments in (
        ["train"],
        ["no_such_command"],
        ["eval", "x", "--no_such_option"],
        ["train", "x", "--epochs", "1.5"],
    ):
        assert lntl(*arguments) == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert captured.err.strip()


def test_models_lists_every_model(capsys: Capture) -> None:
    assert lntl("models") == 0
    out = capsys.readouterr().out
    for name in plugins.names("lntl.models"):
        assert re.search(rf"\b{name}\b", out)


@pytest.mark.parametrize("name", plugins.names("lntl.models"))
def test_models_shows_every_setting_and_the_architectures(capsys: Capture, name: str) -> None:
    assert lntl("models", name) == 0
    out = capsys.readouterr().out
    model = load_model(name)
    assert " ".join((model.__doc__ or "").split()) in " ".join(out.split())
    for key, field in model.Config.model_fields.items():
        assert re.search(rf"\b{key}\b", out)
        assert all(word in out for word in field.description.split())
    if hasattr(model, "architectures"):
        assert len(model.architectures()) > 50
        assert set(model.architectures()) <= set(out.split())


@pytest.mark.full
def test_models_shows_where_an_architecture_can_be_split(capsys: Capture) -> None:
    assert lntl("models", "torchvision/vit_b_16", "--size", "64") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "vit_b_16, images of 64 x 64" in words
    assert re.search(r"encoder\.dropout │ Dropout │ 768 x 17 │ 0\.\d%", words)
    assert "encoder.layers.encoder_layer_10" in words  # on one line, so that it can be copied
    assert lntl("models", "timm/test_resnet", "--size", "32") == 0
    assert re.search(r"layer2 │ Sequential │ 48 x \d x \d", " ".join(capsys.readouterr().out.split()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convnt"], r"'convnt' is not one of models; did you mean 'convnet'\?"),
        (["convnet/x"], r"convnet has only one architecture; timm and torchvision have several"),
        (["torchvision/resnet81"], r"torchvision has no classifier 'resnet81'; did you mean 'resnet18'\?"),
        (["torchvision/vgg11", "--size", "8"], r"vgg11 cannot be split for images of 8 x 8; try another --size"),
    ],
)
def test_invalid_arguments_of_models_are_explained(capsys: Capture, arguments: list[str], message: str) -> None:
    assert lntl("models", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
