"""Build what a configuration stands for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from lntl import config as configuration
from lntl import plugins
from lntl.config import Config
from lntl.data import load as load_data
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.evaluation.predict import Predictions, predict
from lntl.experiment import pretrained
from lntl.seeding import derive
from lntl.training.trainer import Plan, Trainer
from lntl.types import Dataset, DataSpec, Networks


@dataclass(frozen=True)
class Experiment:
    """What a configuration stands for: the data, the networks, and the trainer that joins them."""

    config: Config
    fabric: Fabric
    data: Dataset
    networks: Networks
    trainer: Trainer

    def loader(self, split: str) -> Loader:
        """Return a split in evaluation batches."""
        return Loader(self.data.splits[split], self.config.evaluation.batch_size, self.fabric.device)

    def predict(self, networks: Networks, split: str) -> Predictions:
        """Return the predictions of the networks on a split."""
        return predict(networks, self.loader(split), self.data.spec.num_groups, self.data.spec.aligned)


def build(config: Config, trained: bool = False, data: Dataset | None = None) -> Experiment:
    """Return the experiment, ready to train; raises UserError where the device or the data are not to be had.

    trained: a checkpoint's weights are going to be read, so that no first weights from elsewhere are wanted.
    data: a data set that is made already, in place of the one that the configuration names.
    """
    fabric = Fabric(**device_arguments(config.training.device), precision=config.training.precision)
    if data is None:
        data = load_data(config.data.name, config.data)
    torch.manual_seed(derive(config.project.seed, "weights"))
    networks = plugins.load("lntl.models", config.model.name)(data.spec, config.model)
    if not trained:
        pretrained.begin(networks, config.model, data.spec)
    networks.to(fabric.device, memory_format=torch.channels_last)
    plans = [Plan(p, partial(_method, config=p, spec=data.spec)) for p in config.training.phases]
    loader = Loader(data.splits["train"], config.training.batch_size, fabric.device)
    trainer = Trainer(fabric, networks, loader, plans, config.project.seed, config.logging.log_interval_batches)
    return Experiment(config, fabric, data, networks, trainer)


def _method(networks: Networks, config: configuration.Phase, spec: DataSpec) -> Any:
    return plugins.load("lntl.methods", config.method)(networks, config, spec)


def device_arguments(name: str) -> dict[str, Any]:
    """Return Fabric's arguments for a device name of the configuration."""
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise UserError(f"training.device: unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    available = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind in available and int(number or 0) >= available[kind]:
        raise UserError(f"training.device: {name} is not available here (found {available[kind]}); use cpu or auto")
    return {"accelerator": kind, "devices": [int(number)] if number else 1}


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turn torch's complaint about weights that do not fit into a sentence."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: its weights do not fit the configured networks and optimisers: {reason}") from error
