"""The bias classifiers of FLAC and BAdd learn the bias and are then frozen; data with one bias value are refused."""

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


@pytest.mark.parametrize("two_biases", [False, True])
def test_a_network_for_each_bias_learns_its_values(two_biases: bool) -> None:
    """The data are FB-Biased-MNIST with two colors; a third of the images has no bias label."""
    data = BiasedMNIST(
        BiasedMNIST.Config(max_images=600, foreground_correlation=0.2 if two_biases else None, correlation=0.2)
    )
    split = data.splits["train"]
    torch.manual_seed(0)
    classifiers = BiasClassifiers(TinyNetworks(data.spec, TinyNetworks.Config()), data.spec)
    assert len(classifiers.bodies) == (2 if two_biases else 1)

    def make_batches(order_seed: int | None = None) -> Any:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(order_seed or 0))
        for index in order.split(50):
            batch = split.batch(index)
            bias, group = batch.bias.clone(), batch.group.clone()
            bias[index % 3 == 0], group[index % 3 == 0] = IGNORE, IGNORE
            yield replace(batch, bias=bias, group=group)

    with torch.no_grad():  # because the trainer calls `prepare` without gradients
        classifiers.fit(make_batches, BiasClassifierSettings(bias_epochs=10, bias_lr=0.003), seed=1)
        batch = data.splits["test"].batch(torch.arange(300))
        for bias_index, z in enumerate(classifiers(batch.x)):
            predicted = classifiers.heads[bias_index](z).argmax(dim=1)
            assert (predicted == labels_per_bias(batch, data.spec)[:, bias_index]).float().mean() > 0.8


@pytest.mark.parametrize("method", METHODS)
def test_bias_classifiers_are_frozen_and_depend_on_the_seed(make_trainer: MakeTrainer, method: str) -> None:
    def fit_classifiers(**project: int) -> tuple[Trainer, dict[str, Tensor]]:
        trainer = make_trainer(method, project=project)
        torch.manual_seed(99)
        trainer._prepare()
        return trainer, copy.deepcopy(trainer.method.bias_classifiers.state_dict())

    (trainer, first_state), (_, second_state), (_, other_seed_state) = (
        fit_classifiers(),
        fit_classifiers(),
        fit_classifiers(seed=1),
    )
    assert all(torch.equal(value, second_state[key]) for key, value in first_state.items())
    assert any(not torch.equal(value, other_seed_state[key]) for key, value in first_state.items())
    f_state, weight_name = trainer.networks.f.state_dict(), "bodies.0.first.weight"
    # The classifier does not start with the weights of f.
    assert not torch.equal(first_state[weight_name], f_state["first.weight"])
    fitted_state = copy.deepcopy(trainer.method.bias_classifiers.state_dict())
    for _ in trainer.epoch():
        assert not any(module.training for module in trainer.method.bias_classifiers.modules())
    final_state = trainer.method.bias_classifiers.state_dict()
    assert trainer.method.own_networks == {}
    assert all(torch.equal(value, final_state[key]) for key, value in fitted_state.items())


@pytest.mark.parametrize("method", METHODS)
def test_each_epoch_of_the_classifiers_has_another_order(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    trainer = make_trainer({"method": method, "bias_epochs": 3})
    passes: list[list[int]] = []
    batches = trainer.loader.batches

    def record_passes(order_seed: int | None = None, *arguments: Any) -> list[Batch]:
        all_batches = list(batches(order_seed, *arguments))
        if order_seed is not None:
            passes.append(torch.cat([batch.row for batch in all_batches]).tolist())
        return all_batches

    monkeypatch.setattr(trainer.loader, "batches", record_passes)
    trainer._prepare()
    assert len(passes) == 3
    assert len({tuple(rows) for rows in passes}) == 3
    assert len({tuple(sorted(rows)) for rows in passes}) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("bias_label", "message_part"), [(IGNORE, "no label"), (3, "one value")])
def test_training_images_with_less_than_two_bias_values_are_refused(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, method: str, bias_label: int, message_part: str
) -> None:
    trainer = make_trainer(method)
    split = trainer.loader.split
    equal_batches = [replace(split.batch(torch.arange(30)), group=torch.full((30,), bias_label))]
    monkeypatch.setattr(trainer.loader, "batches", lambda *order: iter(equal_batches))
    message = (
        f"method {method}: the bias has {message_part} in the training images, but the method needs two values; use erm"
    )
    with pytest.raises(UserError, match=message):
        list(trainer.epoch())
