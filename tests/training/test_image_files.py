"""Training on image files with augmentation: resume is exact, and neither threads nor the cache change a weight."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lanes import first_is_fast
from PIL import Image
from torch import Tensor

from lntl.data.colored_mnist import ColoredDigits, ColoredMNIST
from lntl.data.images import ImageSettings, ImageSource
from lntl.training.trainer import Trainer
from lntl.types import Batch, Split

MakeTrainer = Callable[..., Trainer]
PHASES = [{"method": "erm", "epochs": 2}, "lntl"]


@dataclass(frozen=True)
class DigitFiles(Split):
    """The labels of colored digits, and their pixels from files."""

    labels: ColoredDigits
    source: ImageSource
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row(self) -> Tensor:
        return self.labels.row

    @property
    def workers(self) -> int:
        return self.source.workers

    def to(self, device: torch.device) -> "DigitFiles":
        return self

    def augmented(self, seed: int) -> "DigitFiles":
        return replace(self, seed=seed)

    def batch(self, index: Tensor) -> Batch:
        return replace(self.labels.batch(index), x=self.source.load(index, self.seed))


@pytest.fixture
def make_split(digits: ColoredMNIST, tmp_path: Path) -> Callable[..., DigitFiles]:
    """A function that makes a split of the training images as PNG files with image settings."""
    train = digits.splits["train"]
    paths = [tmp_path / f"{number}.png" for number in range(len(train))]
    for path, image in zip(paths, train.pixels(torch.arange(len(train))), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)

    def make(**options: Any) -> DigitFiles:
        settings = ImageSettings(size=28, crop="shift", randaugment=1, cache_dir=str(tmp_path / "cache"), **options)
        return DigitFiles(train, ImageSource(paths, settings))

    return make


def flatten_weights(trainer: Trainer) -> Tensor:
    return torch.cat([value.flatten().double() for value in trainer.networks.state_dict().values()])


def test_a_run_resumed_in_the_middle_of_an_epoch_gives_the_same_weights(
    make_trainer: MakeTrainer, make_split: Callable[..., DigitFiles]
) -> None:
    uninterrupted_trainer = make_trainer(*PHASES, split=make_split())
    list(uninterrupted_trainer)
    for epochs, steps in [(0, 2), (1, 1), (2, 2)]:
        stopped_trainer, resumed_trainer = (
            make_trainer(*PHASES, split=make_split(workers=2, cache="memory")) for _ in range(2)
        )
        for _ in range(epochs):
            list(stopped_trainer.epoch())
        unfinished_epoch = stopped_trainer.epoch()
        for _ in range(steps):
            next(unfinished_epoch)
        resumed_trainer.load_state_dict(stopped_trainer.state_dict())
        unfinished_epoch.close()
        list(resumed_trainer)
        assert torch.equal(flatten_weights(resumed_trainer), flatten_weights(uninterrupted_trainer))


@pytest.mark.parametrize(
    "options", first_is_fast([{"workers": 3, "cache": "memory"}, {"workers": 1}, {"cache": "disk"}]), ids=str
)
def test_neither_threads_nor_the_cache_change_a_weight(
    make_trainer: MakeTrainer, make_split: Callable[..., DigitFiles], options: dict[str, Any]
) -> None:
    reference, trainer = make_trainer(*PHASES, split=make_split()), make_trainer(*PHASES, split=make_split(**options))
    assert [record.metrics for record in reference] == [record.metrics for record in trainer]
    assert torch.equal(flatten_weights(reference), flatten_weights(trainer))


def test_augmentation_changes_the_weights(make_trainer: MakeTrainer, make_split: Callable[..., DigitFiles]) -> None:
    files, index = make_split(), torch.arange(4)
    assert not torch.equal(files.augmented(1).batch(index).x, files.batch(index).x)
    unaugmented_trainer = make_trainer(
        "erm", split=replace(files, source=ImageSource(files.source.paths, ImageSettings(size=28)))
    )
    augmented_trainer = make_trainer("erm", split=files)
    list(unaugmented_trainer)
    list(augmented_trainer)
    assert not torch.equal(flatten_weights(unaugmented_trainer), flatten_weights(augmented_trainer))
