"""Fixtures for all tests: one thread per process, a tiny Colored MNIST, small configurations and trainers."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import threadpoolctl
import torch
import trained_runs
from filelock import FileLock
from lightning_fabric import Fabric
from synthetic_runs import make_run
from tiny_runs import run, write_config

from lntl import config as configuration
from lntl.config import Config
from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.loader import Loader
from lntl.methods import load_method
from lntl.models import append_eraser, load_model
from lntl.training.trainer import Trainer, TrainingPhase
from lntl.types import Batch, Split

if TYPE_CHECKING:
    from lntl.reporting.drawings import Drawing

os.environ["LNTL_TRUST"] = "tiny_networks"  # lets tests load their own model, like the model of a user
torch.set_num_threads(1)  # the workers of pytest-xdist share the cores
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # for processes that a test starts
threadpoolctl.threadpool_limits(1)
# With the package rfc3987_syntax, jsonschema builds a grammar of IRIs, which takes five seconds. If the package
# cannot be imported, jsonschema skips this step.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
# Examples depend only on the source code, so that a failure is the same on all machines.
hypothesis.settings.register_profile("lntl", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("lntl")

SharedFolder = Callable[[str, Callable[[Path], object]], Path]
NO_FILES = "/nonexistent"  # there is no such folder, so Colored MNIST uses the packaged digits


@pytest.fixture(scope="session")
def digits() -> ColoredMNIST:
    """Colored MNIST of 100 training images, of which 10 are val, and 100 test images."""
    return ColoredMNIST(ColoredMNIST.Config(path=NO_FILES, max_images=100))


@pytest.fixture
def batch(digits: ColoredMNIST) -> Batch:
    """24 training images."""
    return digits.splits["train"].batch(torch.arange(24))


@pytest.fixture
def raw_config(tmp_path: Any) -> Callable[..., dict[str, Any]]:
    """A function that makes a small raw configuration from phases and sections.

    A phase is a method's name (one epoch) or a dict; each section is merged into the section of `raw` below.
    """

    def make(*phases: str | dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
        phase_dicts = [{"method": p, "epochs": 1} if isinstance(p, str) else {"epochs": 1} | p for p in phases]
        raw: dict[str, dict[str, Any]] = {
            "project": {"experiment_name": "tiny"},
            "data": {"name": "colored_mnist", "path": NO_FILES, "max_images": 100},
            "model": {"name": "convnet"},
            "training": {"device": "cpu", "batch_size": 32, "phases": phase_dicts or [{"method": "erm", "epochs": 1}]},
            "logging": {
                "output_dir": str(tmp_path / "results"),
                "log_interval_batches": 2,
                "use_tensorboard": False,  # its pictures take as long as the training
            },
            "evaluation": {},
        }
        return {key: raw.get(key, {}) | sections.get(key, {}) for key in raw | sections}

    return make


@pytest.fixture
def make_config(raw_config: Callable[..., dict[str, Any]]) -> Callable[..., Config]:
    """Like raw_config, but the function returns the checked configuration."""
    return lambda *phases, **sections: configuration.validate(raw_config(*phases, **sections), "test")


@pytest.fixture
def make_trainer(make_config: Callable[..., Config], digits: ColoredMNIST) -> Callable[..., Trainer]:
    """A function that makes a trainer from phases and sections: three steps an epoch on 90 images (or on `split`)."""

    def make(
        *phases: str | dict[str, Any],
        split: Split = digits.splits["train"],
        precision: Any = "32-true",
        **sections: dict[str, Any],
    ) -> Trainer:
        config = make_config(*phases, **sections)
        torch.manual_seed(config.project.seed)
        networks = load_model(config.model.name)(digits.spec, config.model)
        if config.model.eraser == "leace":
            append_eraser(networks, digits.spec)
        networks.to(memory_format=torch.channels_last)
        phases = [
            TrainingPhase(phase, partial(load_method(phase.method), config=phase, spec=digits.spec))
            for phase in config.training.phases
        ]
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        loader = Loader(split, config.training.batch_size, fabric.device)
        interval = config.logging.log_interval_batches
        return Trainer(fabric, networks, loader, phases, config.project.seed, interval, held_out=loader)

    return make


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """A function that returns the shared folder of a name and fills it at the first call; do not change the files.

    The workers of pytest-xdist share the folder: one worker fills it, the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    base.mkdir(exist_ok=True)

    def fill_once(name: str, fill: Callable[[Path], object]) -> Path:
        path, done_file = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done_file.exists():
                path.mkdir()
                fill(path)
                done_file.touch()
        return path

    return fill_once


@pytest.fixture(scope="session")
def synthetic_runs(shared_folder: SharedFolder) -> Path:
    """A folder with two runs of invented numbers, `lntl` and `plain` (only ERM); do not change the files."""

    def fill(folder: Path) -> None:
        make_run(folder / "lntl")
        make_run(folder / "plain", method="erm", accuracy=0.5, leakage=0.97, flips=0.93, erm=False)

    return shared_folder("synthetic_runs", fill)


@pytest.fixture(scope="session")
def trained_folder(shared_folder: SharedFolder) -> Callable[..., Path]:
    """A function that trains tiny.yaml with changed sections; returns its folder, whose files must not change."""

    def train_once(**sections: dict[str, Any]) -> Path:
        def fill(folder: Path) -> None:
            write_config(folder, **sections)
            assert run("train", "tiny.yaml", folder=folder) == 0

        digest = hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()
        return shared_folder(f"trained-{digest[:12]}", fill)

    return train_once


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny.yaml, as the working directory."""
    write_config(tmp_path, training={"phases": [{"method": "erm", "epochs": 1}, {"method": "lntl", "epochs": 1}]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_run(shared_folder: SharedFolder) -> Callable[[str], Path]:
    """A function that returns a finished run on trained_runs.DATA[key]; do not change the files."""
    return lambda kind: shared_folder(f"trained_run-{kind}", partial(trained_runs.train, kind=kind)) / "results" / kind


@pytest.fixture
def skip_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the figures of pages without drawing them, because drawing takes seconds per page."""

    def draw(make: Callable[[], object], name: str, alt: str) -> "Drawing":
        make()
        return make_empty_drawing(alt)

    monkeypatch.setattr("lntl.reporting.drawings.draw", draw)


@pytest.fixture
def skip_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the figures of pages by empty drawings, for tests that do not check figures."""
    monkeypatch.setattr("lntl.reporting.drawings.draw", lambda make, name, alt: make_empty_drawing(alt))


def make_empty_drawing(alt: str) -> "Drawing":
    from markupsafe import Markup

    from lntl.reporting.drawings import Drawing

    return Drawing(Markup('<svg role="img" aria-label="{}"></svg>').format(alt), alt, 100)
