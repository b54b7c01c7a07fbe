"""Leakage: how well a fresh probe predicts the bias value from frozen features of held-out images.

If a probe predicts the bias, the features contain it, even if the run's own h is at chance. If a probe fails, another
probe might succeed. An accuracy is therefore a lower bound of the information in the features.

Probes use the test split, where the bias is independent of the class. On the training images of Colored MNIST the class
predicts the colour, so every network that knows the digit would seem to leak. Each seed splits the test images into two
halves. A probe is trained on one half and scored on the other. Chance is measured by the share of the most frequent
bias value, and by the accuracy of the same probe trained on permuted labels. `leakage` is the highest accuracy of
several probes; because the best probe is chosen on the scored images, it is slightly too high if they are few.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from statistics import fmean, stdev
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.errors import UserError
from lntl.evaluation.metrics import join_names
from lntl.probing.features import pooled
from lntl.runs.formats import ProbeRow
from lntl.seeding import derive, permutation

_FROM_CLASS = 0.1  # warn if the class predicts the bias better than a constant answer by more than this accuracy
_VALUES = 1024  # inputs of the linear probe and of the MLP: maps are averaged to at most this many numbers
_COMPONENTS = 256  # principal components to which inputs with more than _VALUES numbers are reduced
_HIDDEN, _CHANNELS = 128, 32  # units of the MLP, channels of the convolutional probe
_PENALTY = 1.0  # of the linear probe: half of it times |W|^2 is added to the summed cross-entropy
_ITERATIONS = 200  # of the linear probe, at most; it stops where _CHECK of them lower the loss by less than this share
_CHECK, _GAIN = 10, 1e-3
# The other probes are trained for _STEPS batches of _BATCH, at most _EPOCHS epochs, with this peak of OneCycleLR.
_BATCH, _STEPS, _EPOCHS, _RATE = 128, 240, 60, 0.01
_random = Lock()  # of torch's generator, from which a thread takes random numbers

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
            present = join_names([bias_value_names[value] for value in count.nonzero()[:, 0].tolist()])
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


@dataclass(frozen=True, slots=True)
class Layer:
    """Features z (n, ...) of the images whose labels are `halves`, under the name of their layer."""

    name: str
    z: Tensor
    halves: Halves


def probe_layer(layer: str, z: Tensor, halves: Halves, device: torch.device) -> list[ProbeRow]:
    """Return the held-out accuracy of each probe that can be used on these features.

    Args:
        layer: Name of the layer, or "pixels".
        z: Features of the images, (n, ...).
        halves: Labels of the images, and the seeds of their halves.
        device: Device on which probes are trained.
    """
    return probe_layers([Layer(layer, z, halves)], device)[0]


def probe_layers(layers: Sequence[Layer], device: torch.device) -> list[list[ProbeRow]]:
    """Return the rows of each layer, as `probe_layer`; all probes are trained at the same time."""
    names = [probe_names(layer.z) for layer in layers]
    fits = [
        (name, layer.z, layer.halves, seed)
        for layer, those in zip(layers, names, strict=True)
        for name in those
        for seed in layer.halves.seeds
    ]
    scores = iter(_scores(fits, device))
    return [
        [probe_row(layer.name, name, [next(scores) for _ in layer.halves.seeds]) for name in those]
        for layer, those in zip(layers, names, strict=True)
    ]


def probe_permuted(row: ProbeRow, z: Tensor, halves: Halves, device: torch.device) -> ProbeRow:
    """Return the accuracy of the probe of `row` on z if it is trained on permuted labels."""
    fits = [(row.probe, z, halves, seed) for seed in halves.seeds]
    return probe_row(row.layer, row.probe, _scores(fits, device, permute=True))


def _scores(
    fits: Sequence[tuple[str, Tensor, Halves, int]], device: torch.device, permute: bool = False
) -> list[float]:
    """Return the held-out accuracy of each fit: name of the probe, features, labels, seed.

    On a CPU each is trained by one thread, as many at a time as torch has threads: the networks are so small that
    threads of one operation would wait for each other, and results do not depend on their number.
    """

    def score(fit: tuple[str, Tensor, Halves, int]) -> float:
        return _score(*fit, device, permute)

    if device.type != "cpu":
        return [score(fit) for fit in fits]
    threads = torch.get_num_threads()
    costly_first = sorted(range(len(fits)), key=lambda i: -list(PROBES).index(fits[i][0]))
    try:
        with ThreadPoolExecutor(threads, "probe", torch.set_num_threads, (1,)) as pool:
            scores = dict(zip(costly_first, pool.map(score, [fits[i] for i in costly_first]), strict=True))
    finally:
        torch.set_num_threads(threads)
    return [scores[i] for i in range(len(fits))]


def _score(name: str, z: Tensor, halves: Halves, seed: int, device: torch.device, permute: bool) -> float:
    learn, unseen = halves(seed)
    labels = halves.bias[learn]
    if permute:
        labels = labels[permutation(len(labels), derive(seed, "permuted labels"))]
    predicted = PROBES[name](z.index_select(0, learn), labels, z.index_select(0, unseen), seed, device)
    return float((predicted == halves.bias[unseen]).double().mean())


def split_warnings(halves: Halves, class_names: tuple[str, ...], bias_value_names: tuple[str, ...]) -> list[str]:
    """Return warnings for values that do not occur, and for a bias that can be predicted from the class."""
    texts = []
    for kind, names, labels in (("class", class_names, halves.y), ("bias value", bias_value_names, halves.bias)):
        absent = [name for name, count in zip(names, labels.bincount(minlength=len(names)), strict=True) if not count]
        if absent:
            texts.append(f"no test image of {kind} {join_names(absent)}")
    if halves.from_class > halves.majority + _FROM_CLASS:
        texts.append(
            f"on these images the class alone predicts the bias with accuracy {halves.from_class:.3f} (a constant "
            f"answer: {halves.majority:.3f}), so a probe may predict it from features of the class"
        )
    return texts


# --- the probes: each is trained on one half and predicts the bias values of the other ---


def linear(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of multinomial logistic regression with an L2 penalty, as scikit-learn's with C = 1.

    train (n, ...) and test (m, ...) are standardised with the statistics of train. To save time, maps are averaged over
    a fixed grid to at most 1024 numbers, and wider features are projected on 256 principal components of train.

    The Hessian of the mean loss is at most (X^T X / 2 + penalty) / n for any weights (Boehning, 1992). Accelerated
    descent (Nesterov) in that metric needs no step size; it ends where the loss has settled.
    """
    x, unseen = _standardised(train, test, seed, device)
    values, labels = bias.unique(return_inverse=True)
    # as (values, n): products of a few wide rows take a third of the time of those of many narrow ones
    target = F.one_hot(labels, len(values)).T.to(device, x.dtype).contiguous()
    ridge = _PENALTY / len(x)
    metric = x.T @ x / (2 * len(x))
    metric.diagonal().add_(ridge + 1e-5 * metric.diagonal().mean())  # the second for what float32 rounds
    factor = torch.linalg.cholesky(metric)
    weight = before = x.new_zeros(len(values), x.shape[1])
    shift = shift_before = x.new_zeros(len(values), 1)
    settled = torch.inf
    for step in range(_ITERATIONS):
        momentum = step / (step + 3)
        ahead, shift_ahead = weight + momentum * (weight - before), shift + momentum * (shift - shift_before)
        log_p = F.log_softmax(ahead @ x.T + shift_ahead, dim=0)
        if step % _CHECK == 0:
            loss = float(-(log_p * target).sum() / len(x) + ridge / 2 * ahead.square().sum())
            if not settled - loss > _GAIN * loss:
                break
            settled = loss
        residual = (log_p.exp() - target) / len(x)
        before, shift_before = weight, shift
        weight = ahead - torch.cholesky_solve((residual @ x + ridge * ahead).T, factor).T
        shift = shift_ahead - 2 * residual.sum(dim=1, keepdim=True)
    predicted: Tensor = values[(weight @ unseen.T + shift).argmax(dim=0).cpu()]
    return predicted


def mlp(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a network with 128 hidden units, on the same inputs as `linear`."""
    x, unseen = _standardised(train, test, seed, device)

    def make(values: int) -> nn.Module:
        return nn.Sequential(nn.Linear(x.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, values))

    return _trained(make, x, bias, unseen, seed)


def conv(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a small convolutional network on maps (n, C, H, W), standardised by channel.

    Two 3 x 3 convolutions of stride 2 and 32 channels, each with ReLU, then a linear layer on mean and maximum of every
    channel.
    """
    train, test = train.to(device), test.to(device)
    std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0, keepdim=True)
    x, unseen = ((maps - mean) / std.clamp(min=1e-6) for maps in (train, test))
    return _trained(lambda values: _Conv(x.shape[1], values), x, bias, unseen, seed)


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


def _trained(make: Callable[[int], nn.Module], x: Tensor, bias: Tensor, unseen: Tensor, seed: int) -> Tensor:
    """Train the network that `make` returns for the number of bias values on x (n, ...); predict those of `unseen`.

    It is trained by cross-entropy for _STEPS batches: six epochs of 5,000 images, up to _EPOCHS of fewer.
    """
    values, labels = bias.unique(return_inverse=True)
    labels = labels.to(x.device)
    with _random, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "probe weights"))
        net = make(len(values)).to(x.device)
    optimizer = torch.optim.Adam(net.parameters())
    batches = ceil(len(x) / _BATCH)
    epochs = min(_EPOCHS, ceil(_STEPS / batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * batches)
    for epoch in range(epochs):
        for index in permutation(len(x), derive(seed, "probe order", epoch)).to(x.device).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(x.index_select(0, index)), labels[index]).backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        predicted: Tensor = values[torch.cat([net(part).argmax(dim=1) for part in unseen.split(1000)]).cpu()]
    return predicted


def _standardised(train: Tensor, test: Tensor, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return train and test as matrices at most _VALUES wide, standardised with the statistics of train."""
    train, test = (pooled(x, _VALUES).flatten(1).to(device) for x in (train, test))
    std, mean = torch.std_mean(train, dim=0, correction=0)
    std = std.masked_fill(std <= 1e-6 * mean.abs(), 1)  # constant but for rounding
    train, test = (train - mean) / std, (test - mean) / std
    if train.shape[1] > _VALUES:
        with _random, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive(seed, "probe components"))
            components = torch.svd_lowrank(train, min(_COMPONENTS, *train.shape), niter=4)[2]
        train, test = train @ components, test @ components
    return train, test


PROBES: dict[str, Probe] = {"linear": linear, "mlp": mlp, "conv": conv}


def probe_names(x: Tensor) -> list[str]:
    """Return the names of the probes for features (n, ...): the convolutional probe needs maps (n, C, H, W)."""
    return [name for name in PROBES if name != "conv" or (x.dim() == 4 and x[0, 0].numel() > 1)]
