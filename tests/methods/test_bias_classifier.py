"""The bias classifiers of FLAC and BAdd: they learn the bias, then they are frozen; what is refused."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_networks import TinyNetworks
from torch import Tensor

from lntl.data.biased_mnist import BiasedMNIST
from lntl.errors import UserError
from lntl.methods.bias_classifier import BiasClassifiers, BiasClassifierSettings
from lntl.methods.bias_labels import labels_per_bias
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]
METHODS = ["badd", "flac"]


@pytest.mark.parametrize("two", [False, True])
def test_a_network_for_each_bias_learns_its_values(two: bool) -> None:
    """Both colors of FB-Biased-MNIST, from images of which a third lack a label."""
    data = BiasedMNIST(BiasedMNIST.Config(max_images=600, foreground_correlation=0.2 if two else None, correlation=0.2))
    split = data.splits["train"]
    torch.manual_seed(0)
    classifiers = BiasClassifiers(TinyNetworks(data.spec, TinyNetworks.Config()), data.spec)
    assert len(classifiers.bodies) == (2 if two else 1)

    def batches(order_seed: int | None = None) -> Any:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(order_seed or 0))
        for index in order.split(50):
            batch = split.batch(index)
            bias, group = batch.bias.clone(), batch.group.clone()
            bias[index % 3 == 0], group[index % 3 == 0] = IGNORE, IGNORE
            yield replace(batch, bias=bias, group=group)

    with torch.no_grad():  # as `prepare` is called
        classifiers.fit(batches, BiasClassifierSettings(bias_epochs=10, bias_lr=0.003), seed=1)
        batch = data.splits["test"].batch(torch.arange(300))
        for number, z in enumerate(classifiers(batch.x)):
            predicted = classifiers.heads[number](z).argmax(dim=1)
            assert (predicted == labels_per_bias(batch, data.spec)[:, number]).float().mean() > 0.8


@pytest.mark.parametrize("method", METHODS)
def test_bias_classifiers_are_frozen_and_depend_on_the_seed(make_trainer: MakeTrainer, method: str) -> None:
    def fitted(**project: int) -> tuple[Trainer, dict[str, Tensor]]:
        trainer = make_trainer(method, project=project)
        torch.manual_seed(99)
        trainer._prepare()
        return trainer, copy.deepcopy(trainer.method.bias_classifiers.state_dict())

    (trainer, first), (_, again), (_, other) = fitted(), fitted(), fitted(seed=1)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())
    f, weight = trainer.networks.f.state_dict(), "bodies.0.first.weight"
    assert not torch.equal(first[weight], f["first.weight"])  # first weights of its own
    before = copy.deepcopy(trainer.method.bias_classifiers.state_dict())
    for _ in trainer.epoch():
        assert not any(part.training for part in trainer.method.bias_classifiers.modules())
    after = trainer.method.bias_classifiers.state_dict()
    assert trainer.method.own_networks == {}
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("method", METHODS)
def test_each_of_its_epochs_has_another_order(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    trainer = make_trainer({"method": method, "bias_epochs": 3})
    passes: list[list[int]] = []
    batches = trainer.loader.batches

    def counted(order_seed: int | None = None, *more: Any) -> list[Batch]:
        made = list(batches(order_seed, *more))
        if order_seed is not None:
            passes.append(torch.cat([batch.row for batch in made]).tolist())
        return made

    monkeypatch.setattr(trainer.loader, "batches", counted)
    trainer._prepare()
    assert len(passes) == 3
    assert len({tuple(rows) for rows in passes}) == 3
    assert len({tuple(sorted(rows)) for rows in passes}) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("known", "found"), [(IGNORE, "no label"), (3, "one value")])
def test_training_images_of_less_than_two_bias_values_are_refused(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, method: str, known: int, found: str
) -> None:
    trainer = make_trainer(method)
    split = trainer.loader.split
    alike = [replace(split.batch(torch.arange(30)), group=torch.full((30,), known))]
    monkeypatch.setattr(trainer.loader, "batches", lambda *order: iter(alike))
    message = f"method {method}: the bias has {found} in the training images, and it needs two values; use erm"
    with pytest.raises(UserError, match=message):
        list(trainer.epoch())
