"""Leakage: how well a fresh probe predicts the bias value from frozen features of held-out images.

If a probe predicts the bias, the features contain it, even if the run's own h is at chance. If a probe fails, another
probe might succeed. An accuracy is therefore a lower bound of the information in the features.

Probes use the test split, where the bias is independent of the class. On the training images of Colored MNIST the class
predicts the colour, so every network that knows the digit would seem to leak. Each seed splits the test images into two
halves. A probe is trained on one half and scored on the other. Chance is measured by the share of the most frequent
bias value, and by the accuracy of the same probe trained on permuted labels. `leakage` is the highest accuracy of
several probes; because the best probe is chosen on the scored images, it is slightly too high if they are few.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.errors import UserError
from lntl.evaluation.metrics import listed
from lntl.probing.features import pooled
from lntl.runs.formats import ProbeRow
from lntl.seeding import derive, permutation

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

_FROM_CLASS = 0.1  # warn if the class predicts the bias better than a constant answer by more than this accuracy
_VALUES = 1024  # inputs of the linear probe and of the MLP: maps are averaged to at most this many numbers
_COMPONENTS = 256  # principal components to which inputs with more than _VALUES numbers are reduced
_HIDDEN, _CHANNELS = 128, 32  # units of the MLP, channels of the convolutional probe
_BATCH = 128
# The convolutional probe: number of batches, maximum number of epochs, and maximum learning rate of OneCycleLR.
_STEPS, _EPOCHS, _RATE = 240, 60, 0.01

Probe = Callable[[Tensor, Tensor, Tensor, int, torch.device], Tensor]


@dataclass(frozen=True, slots=True)
class Halves:
    """Labels y (n,) and bias (n,) of images, int64 on the CPU, and the seeds that split the images into halves."""

    y: Tensor
    bias: Tensor
    seeds: tuple[int, ...]

    def __call__(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return the positions of the training half and of the held-out half: disjoint, each group split evenly.

        They depend only on the seed. Images are ordered by bias value and class, in random order within each group, and
        assigned to the halves alternately: a bias value with two or more images is in both halves.
        """
        order = permutation(len(self.bias), derive(seed, "halves"))
        group = self.bias * (int(self.y.max()) + 1) + self.y
        order = order[group[order].argsort(stable=True)]
        return order[::2], order[1::2]

    def check(self, bias_value_names: tuple[str, ...]) -> None:
        """Raise UserError unless at least two bias values have at least two images each."""
        if not len(self.bias):
            raise UserError("no test image has a bias label, so no probe can be trained; annotate the test split")
        count = self.bias.bincount(minlength=len(bias_value_names))
        if int((count > 1).sum()) < 2:
            present = listed([bias_value_names[value] for value in count.nonzero()[:, 0].tolist()])
            raise UserError(
                f"the bias does not vary in the test set (its values: {present}), so probes cannot be trained; "
                "use test images with at least two bias values, and at least two images of each"
            )

    @property
    def majority(self) -> float:
        """Accuracy of a constant prediction: the share of the most frequent bias value."""
        return self._predicted_from(torch.zeros_like(self.y))

    @property
    def from_class(self) -> float:
        """Accuracy of predicting the most frequent bias value of each class."""
        return self._predicted_from(self.y)

    def _predicted_from(self, key: Tensor) -> float:
        """Return the held-out accuracy of predicting the bias value most frequent for each key in the training half."""
        shares, shape = [], (int(key.max()) + 1, int(self.bias.max()) + 1)
        for learn, unseen in map(self, self.seeds):
            cells = key[learn] * shape[1] + self.bias[learn]
            answer = cells.bincount(minlength=shape[0] * shape[1]).view(shape).argmax(dim=1)
            shares.append(float((answer[key[unseen]] == self.bias[unseen]).double().mean()))
        return fmean(shares)


def probe_row(layer: str, probe: str, accuracies: list[float]) -> ProbeRow:
    """Return the accuracies of a probe on a layer, one per seed, with their mean and standard deviation."""
    std = stdev(accuracies) if len(accuracies) > 1 else None
    return ProbeRow(layer=layer, probe=probe, mean=fmean(accuracies), std=std, values=accuracies)


def probe_layer(layer: str, z: Tensor, halves: Halves, device: torch.device) -> list[ProbeRow]:
    """Return the held-out accuracy of each probe that can be used on these features.

    Args:
        layer: Name of the layer, or "pixels".
        z: Features of the images, (n, ...).
        halves: Labels of the images, and the seeds of their halves.
        device: Device on which convolutional probes are trained.
    """
    return [
        probe_row(layer, name, [_score(name, z, halves, seed, device) for seed in halves.seeds])
        for name in probe_names(z)
    ]


def probe_permuted(row: ProbeRow, z: Tensor, halves: Halves, device: torch.device) -> ProbeRow:
    """Return the accuracy of the probe of `row` on z if it is trained on permuted labels."""
    accuracies = [_score(row.probe, z, halves, seed, device, permute=True) for seed in halves.seeds]
    return probe_row(row.layer, row.probe, accuracies)


def _score(name: str, z: Tensor, halves: Halves, seed: int, device: torch.device, permute: bool = False) -> float:
    learn, unseen = halves(seed)
    labels = halves.bias[learn]
    if permute:
        labels = labels[permutation(len(labels), derive(seed, "permuted labels"))]
    predicted = PROBES[name](z[learn], labels, z[unseen], seed, device)
    return float((predicted == halves.bias[unseen]).double().mean())


def split_warnings(halves: Halves, class_names: tuple[str, ...], bias_value_names: tuple[str, ...]) -> list[str]:
    """Return warnings for values that do not occur, and for a bias that can be predicted from the class."""
    texts = []
    for kind, names, labels in (("class", class_names, halves.y), ("bias value", bias_value_names, halves.bias)):
        absent = [name for name, count in zip(names, labels.bincount(minlength=len(names)), strict=True) if not count]
        if absent:
            texts.append(f"no test image of {kind} {listed(absent)}")
    if halves.from_class > halves.majority + _FROM_CLASS:
        texts.append(
            f"on these images the class alone predicts the bias with accuracy {halves.from_class:.3f} (a constant "
            f"answer: {halves.majority:.3f}), so a probe may predict it from features of the class"
        )
    return texts


# --- the probes: each is trained on one half and predicts the bias values of the other ---


def linear(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of multinomial logistic regression (scikit-learn, L2 with C = 1) on the CPU.

    train (n, ...) and test (m, ...) are standardised with the statistics of train. To save time, maps are averaged over
    a fixed grid to at most 1024 numbers, and wider features are projected on 256 principal components of train.
    """
    from sklearn.linear_model import LogisticRegression  # imported here because it is slow to import

    return _sklearn(LogisticRegression(max_iter=200), train, bias, test, seed)


def mlp(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a network with 128 hidden units (scikit-learn), on the same inputs as `linear`."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((_HIDDEN,), batch_size=min(_BATCH, len(train)), max_iter=20, random_state=seed % 2**32)
    return _sklearn(model, train, bias, test, seed)


def conv(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a small convolutional network on maps (n, C, H, W), standardised by channel.

    Two 3 x 3 convolutions of stride 2 and 32 channels, each with ReLU, then a linear layer on mean and maximum of every
    channel. Trained on `device` by cross-entropy for 240 batches: six epochs of 5,000 images, up to 60 of fewer.
    """
    std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0, keepdim=True)
    train, test = (
        ((x - mean) / std.clamp(min=1e-6)).to(device, memory_format=torch.channels_last) for x in (train, test)
    )
    bias = bias.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "probe weights"))
        net = _Conv(train.shape[1], int(bias.max()) + 1).to(device)
    optimizer = torch.optim.Adam(net.parameters())
    batches = ceil(len(train) / _BATCH)
    epochs = min(_EPOCHS, ceil(_STEPS / batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * batches)
    for epoch in range(epochs):
        for index in permutation(len(train), derive(seed, "probe order", epoch)).to(device).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(train[index]), bias[index]).backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        return torch.cat([net(x).argmax(dim=1) for x in test.split(1000)]).cpu()


class _Conv(nn.Module):
    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, _CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.last = nn.Linear(2 * _CHANNELS, values)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, values)."""
        z = self.body(x)
        logits: Tensor = self.last(torch.cat([z.mean(dim=(2, 3)), z.amax(dim=(2, 3))], dim=1))
        return logits


def _sklearn(model: "ClassifierMixin", train: Tensor, bias: Tensor, test: Tensor, seed: int) -> Tensor:
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    train, test = (pooled(x, _VALUES).flatten(1) for x in (train, test))
    steps = [StandardScaler()]
    if train.shape[1] > _VALUES:
        steps.append(PCA(min(_COMPONENTS, len(train)), svd_solver="randomized", random_state=seed % 2**32))
    pipeline = make_pipeline(*steps, model)
    # On such narrow matrices, two BLAS threads wait for each other and take five times as long as one.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed budget is enough for a lower bound
        warnings.filterwarnings(
            "ignore", "The number of unique classes", UserWarning
        )  # rare bias values are classes, too
        pipeline.fit(train.numpy(), bias.numpy())
    return torch.from_numpy(pipeline.predict(test.numpy()))


PROBES: dict[str, Probe] = {"linear": linear, "mlp": mlp, "conv": conv}


def probe_names(x: Tensor) -> list[str]:
    """Return the names of the probes for features (n, ...): the convolutional probe needs maps (n, C, H, W)."""
    return [name for name in PROBES if name != "conv" or (x.dim() == 4 and x[0, 0].numel() > 1)]
