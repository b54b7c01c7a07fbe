"""Predictions are in the order of the split for any batch size, and predicting changes no weight or buffer."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from predictions import make_predictions
from torch import Tensor, nn

from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.evaluation.predict import Predictions, group_by_one_bias, predict
from lntl.models.convnet import ConvNet
from lntl.types import IGNORE, Batch, BiasSpec, Networks, Split

CPU = torch.device("cpu")


@pytest.fixture
def networks(digits: ColoredMNIST, batch: Batch) -> Networks:
    """Networks with running statistics."""
    torch.manual_seed(0)
    networks = ConvNet(digits.spec, ConvNet.Config()).train()
    networks.h(networks.f(batch.x))
    return networks


def test_predictions_equal_a_loop_over_single_images(digits: ColoredMNIST, networks: Networks) -> None:
    split = digits.splits["val"]
    p = predict(networks, Loader(split, 4, CPU), digits.spec.num_groups)
    assert p.num_groups == 100
    for n in range(len(split)):
        batch = split.batch(torch.tensor([n]))
        z = networks.eval().f(batch.x)
        torch.testing.assert_close(p.logits[n], networks.g(z)[0])
        assert (p.y[n], p.group[n], p.row[n]) == (split.y[n], split.group[n], split.row[n])
        bias_logits, labels = networks.h(z)[0], batch.bias[0]
        positions = [position for position in torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist() if labels[tuple(position)] != IGNORE]  # fmt: skip # noqa: E501
        hits = [bias_logits[:, c, i, j].argmax() == labels[c, i, j] for c, i, j in positions]
        assert (p.bias_labels[n], p.bias_hits[n]) == (len(positions), sum(map(int, hits)))
    assert torch.equal(p.predicted, p.logits.argmax(dim=1))
    assert torch.equal(p.correct, p.predicted == p.y)
    assert (p.num_classes, p.num_bias_values) == (10, 10)
    assert torch.equal(p.bias, split.group - 10 * split.y)
    expected = torch.tensor([[math.exp(a) / sum(map(math.exp, row)) for a in row] for row in p.logits.tolist()])
    torch.testing.assert_close(p.probabilities, expected)


def test_the_aligned_bias_values_of_training_are_passed_on(digits: ColoredMNIST, networks: Networks) -> None:
    loader = Loader(digits.splits["val"], 4, CPU)
    assert predict(networks, loader, 100, digits.spec.aligned).aligned == tuple(range(10))
    assert predict(networks, loader, 100).aligned == ()


def test_a_split_without_images_is_an_error(digits: ColoredMNIST, networks: Networks) -> None:
    empty_split = digits.splits["val"].take(torch.arange(0))
    with pytest.raises(UserError, match="the split to evaluate has no image"):
        predict(networks, Loader(empty_split, 4, CPU), 100)


def test_predictions_do_not_depend_on_the_batch_size(digits: ColoredMNIST, networks: Networks) -> None:
    predictions, other_predictions = (
        predict(networks, Loader(digits.splits["test"], size, CPU), 100) for size in (7, 1000)
    )
    torch.testing.assert_close(predictions.logits, other_predictions.logits, rtol=1e-4, atol=1e-5)
    for column in ("y", "group", "row", "bias_labels"):
        assert torch.equal(getattr(predictions, column), getattr(other_predictions, column))


def test_predicting_changes_no_parameter_and_no_buffer(digits: ColoredMNIST, networks: Networks) -> None:
    initial_state = copy.deepcopy(networks.state_dict())
    predict(networks, Loader(digits.splits["val"], 4, CPU), 100)
    assert all(torch.equal(initial_state[key], value) for key, value in networks.state_dict().items())
    assert all(p.grad is None and not p.is_inference() for p in networks.parameters())


@dataclass
class OneLabelSplit(Split):
    """A split with one bias label per image; some labels are unknown."""

    digits: Any

    def __len__(self) -> int:
        return len(self.digits)

    def to(self, device: torch.device) -> "OneLabelSplit":
        return self

    def batch(self, index: Tensor) -> Batch:
        batch: Batch = self.digits.batch(index)
        return replace(batch, bias=torch.where(index % 3 == 0, IGNORE, batch.y))


def test_hits_are_counted_for_a_single_bias_label_per_image(digits: ColoredMNIST) -> None:
    networks = Networks()
    networks.f, networks.g = nn.Flatten(), nn.Linear(3 * 28 * 28, 10)
    networks.h = networks.g  # h predicts the same as g, so it is right if the class is right
    p: Predictions = predict(networks, Loader(OneLabelSplit(digits.splits["test"]), 32, CPU), 100)
    is_known = torch.arange(100) % 3 != 0
    assert torch.equal(p.bias_labels, is_known.long())
    assert torch.equal(p.bias_hits, (is_known & p.correct).long())


def test_group_by_one_bias_maps_joint_groups_to_the_groups_of_one_bias() -> None:
    """The joint values are (day, land), (day, sea), (night, land): their sky is (0, 0, 1), their place (0, 1, 0)."""
    p = replace(make_predictions([0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 2, 0], 2, 3), group=torch.tensor([0, 1, 5, IGNORE]))
    sky_predictions = group_by_one_bias(p, BiasSpec("sky", ("day", "night"), (0, 0, 1), aligned=(0, 1)))
    assert (sky_predictions.group.tolist(), sky_predictions.num_groups, sky_predictions.aligned) == (
        [0, 0, 3, IGNORE],
        4,
        (0, 1),
    )
    assert group_by_one_bias(p, BiasSpec("place", ("land", "sea"), (0, 1, 0))).group.tolist() == [0, 1, 2, IGNORE]
    assert sky_predictions.bias.tolist() == [0, 0, 1, IGNORE]
    # The sky of the last image is known, although its place is not.
    labels, all_groups = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 3])
    sky_predictions = group_by_one_bias(p, BiasSpec("sky", ("day", "night"), (0, 0, 1)), labels, all_groups)
    assert (sky_predictions.group.tolist(), sky_predictions.all_groups) == ([0, 0, 3, 3], all_groups)
