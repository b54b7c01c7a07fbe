"""Leakage: how well a fresh probe predicts the bias value from frozen features of held-out images.

If a probe predicts the bias, the features contain it, even if the run's own h is at chance. If a probe fails, another
probe might succeed. An accuracy is therefore a lower bound of the information in the features.

Probes use the test split, where the bias is independent of the class. On the training images of Colored MNIST the class
predicts the color, so every network that knows the digit would seem to leak. Each seed splits the test images into two
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
from torch.optim.adam import adam

from lntl.errors import UserError
from lntl.evaluation.metrics import join_names
from lntl.probing.features import pool_maps
from lntl.runs.formats import ProbeRow
from lntl.seeding import derive, permutation
from lntl.training import Optimizer
from lntl.training.optim import learning_rate

_MAX_CLASS_GAIN = 0.1  # warn if accuracy_from_class exceeds majority by more than this
_MAX_INPUTS = 1024  # inputs of the linear probe and of the MLP; maps are averaged to at most this number of values
_COMPONENTS = 256  # principal components to which vectors with more than _MAX_INPUTS values are reduced
_HIDDEN, _CHANNELS = 128, 32  # units of the MLP, channels of the convolutional probe
_PENALTY = 1.0  # linear probe: _PENALTY / 2 * |W|^2 is added to the summed cross-entropy
# The linear probe stops after _MAX_ITERATIONS, or if _CHECK iterations lower the loss by less than the share _MIN_GAIN.
_MAX_ITERATIONS, _CHECK, _MIN_GAIN = 200, 10, 1e-3
# The other probes are trained by Adam for _STEPS batches, at most _MAX_EPOCHS epochs, with the one-cycle learning rate.
_BATCH_SIZE, _STEPS, _MAX_EPOCHS = 64, 240, 60
_OPTIMIZER = Optimizer(lr=0.01, schedule="one_cycle")
_generator_lock = Lock()  # held while a thread uses torch's global random generator

Probe = Callable[[Tensor, Tensor, Tensor, int, torch.device], Tensor]


@dataclass(frozen=True, slots=True)
class Halves:
    """Labels y (n,) and bias (n,) of images, int64 on the CPU, and the seeds that split the images into halves."""

    y: Tensor
    bias: Tensor
    seeds: tuple[int, ...]

    def __call__(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return the positions of the training half and of the held-out half: disjoint, each group split evenly.

        The halves depend only on the seed. Images are sorted by bias value and class, in random order within each
        group, and assigned to the halves alternately. A bias value with two or more images is therefore in both halves.
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
        return self._compute_accuracy_from(torch.zeros_like(self.y))

    @property
    def accuracy_from_class(self) -> float:
        """Accuracy of predicting the most frequent bias value of each class."""
        return self._compute_accuracy_from(self.y)

    def _compute_accuracy_from(self, key: Tensor) -> float:
        """Return the held-out accuracy of predicting, for each key, its most frequent bias value in the training half.

        key: An integer label of each image, (n,).
        """
        accuracies, shape = [], (int(key.max()) + 1, int(self.bias.max()) + 1)
        for train, held_out in map(self, self.seeds):
            cells = key[train] * shape[1] + self.bias[train]
            prediction = cells.bincount(minlength=shape[0] * shape[1]).view(shape).argmax(dim=1)
            accuracies.append(float((prediction[key[held_out]] == self.bias[held_out]).double().mean()))
        return fmean(accuracies)


def probe_row(layer: str, probe: str, accuracies: list[float]) -> ProbeRow:
    """Return the accuracies of a probe on a layer, one per seed, with their mean and standard deviation."""
    std = stdev(accuracies) if len(accuracies) > 1 else None
    return ProbeRow(layer=layer, probe=probe, mean=fmean(accuracies), std=std, values=accuracies)


@dataclass(frozen=True, slots=True)
class Layer:
    """Features z (n, ...) of a layer, the name of the layer, and the labels of the images."""

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
    """Return the results of `probe_layer` for each layer; the probes of all layers are trained in parallel."""
    probes_by_layer = [probe_names(layer.z) for layer in layers]
    pooled = {id(layer.z): pool_maps(layer.z, _MAX_INPUTS) for layer in layers}  # once, for all probes and seeds
    fits = [
        (probe, layer.z if probe == "conv" else pooled[id(layer.z)], layer.halves, seed)
        for layer, probes in zip(layers, probes_by_layer, strict=True)
        for probe in probes
        for seed in layer.halves.seeds
    ]
    accuracies = iter(_score_all(fits, device))
    return [
        [probe_row(layer.name, probe, [next(accuracies) for _ in layer.halves.seeds]) for probe in probes]
        for layer, probes in zip(layers, probes_by_layer, strict=True)
    ]


def probe_permuted(row: ProbeRow, z: Tensor, halves: Halves, device: torch.device) -> ProbeRow:
    """Return the accuracy on z of the probe named in `row`, trained on permuted labels."""
    fits = [(row.probe, z, halves, seed) for seed in halves.seeds]
    return probe_row(row.layer, row.probe, _score_all(fits, device, permute=True))


def _score_all(
    fits: Sequence[tuple[str, Tensor, Halves, int]], device: torch.device, permute: bool = False
) -> list[float]:
    """Return the held-out accuracy of each fit, a tuple (name of the probe, features, labels, seed).

    On a CPU, each probe is trained by one thread, and as many probes are trained in parallel as torch has threads.
    Threads within one operation would mostly wait for each other, because the networks are small. The results do not
    depend on the number of threads.
    """

    def score(fit: tuple[str, Tensor, Halves, int]) -> float:
        return _score(*fit, device, permute)

    if device.type != "cpu":
        return [score(fit) for fit in fits]
    threads = torch.get_num_threads()
    order = sorted(range(len(fits)), key=lambda i: -list(PROBES).index(fits[i][0]))  # slow probes first
    try:
        with ThreadPoolExecutor(threads, "probe", torch.set_num_threads, (1,)) as pool:
            accuracies = dict(zip(order, pool.map(score, [fits[i] for i in order]), strict=True))
    finally:
        torch.set_num_threads(threads)
    return [accuracies[i] for i in range(len(fits))]


def _score(name: str, z: Tensor, halves: Halves, seed: int, device: torch.device, permute: bool) -> float:
    train, held_out = halves(seed)
    labels = halves.bias[train]
    if permute:
        labels = labels[permutation(len(labels), derive(seed, "permuted labels"))]
    predicted = PROBES[name](z.index_select(0, train), labels, z.index_select(0, held_out), seed, device)
    return float((predicted == halves.bias[held_out]).double().mean())


def split_warnings(halves: Halves, class_names: tuple[str, ...], bias_value_names: tuple[str, ...]) -> list[str]:
    """Return warnings about classes and bias values without images, and about a bias that the class predicts."""
    texts = []
    for kind, names, labels in (("class", class_names, halves.y), ("bias value", bias_value_names, halves.bias)):
        absent = [name for name, count in zip(names, labels.bincount(minlength=len(names)), strict=True) if not count]
        if absent:
            texts.append(f"no test image of {kind} {join_names(absent)}")
    if halves.accuracy_from_class > halves.majority + _MAX_CLASS_GAIN:
        texts.append(
            f"on these images the class alone predicts the bias with accuracy {halves.accuracy_from_class:.3f} "
            f"(a constant answer: {halves.majority:.3f}), so a probe may predict it from features of the class"
        )
    return texts


# --- the probes: each is trained on one half and predicts the bias values of the other ---


def linear(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of multinomial logistic regression with an L2 penalty, as scikit-learn's with C = 1.

    train (n, ...) and test (m, ...) are standardised with the statistics of train. To save time, maps are averaged over
    a fixed grid to at most 1024 numbers, and wider features are projected on 256 principal components of train.

    The Hessian of the mean loss is at most (X^T X / 2 + penalty) / n for any weights (Boehning, 1992). Nesterov's
    accelerated descent, preconditioned with this bound, needs no step size. It stops when the loss hardly decreases.
    """
    x, x_test = _standardise(train, test, seed, device)
    values, labels = bias.unique(return_inverse=True)
    # The shape (values, n) is faster: products of few long rows take a third of the time of many short rows.
    target = F.one_hot(labels, len(values)).T.to(device, x.dtype).contiguous()
    ridge = _PENALTY / len(x)
    hessian_bound = x.T @ x / (2 * len(x))
    rounding = 1e-5 * hessian_bound.diagonal().mean()  # keeps the matrix positive definite in float32
    hessian_bound.diagonal().add_(ridge + rounding)
    factor = torch.linalg.cholesky(hessian_bound)
    weight = previous_weight = x.new_zeros(len(values), x.shape[1])
    offset = previous_offset = x.new_zeros(len(values), 1)
    checked_loss = torch.inf
    for step in range(_MAX_ITERATIONS):
        momentum = step / (step + 3)
        next_weight = weight + momentum * (weight - previous_weight)
        next_offset = offset + momentum * (offset - previous_offset)
        log_p = F.log_softmax(next_weight @ x.T + next_offset, dim=0)
        if step % _CHECK == 0:
            loss = float(-(log_p * target).sum() / len(x) + ridge / 2 * next_weight.square().sum())
            if not checked_loss - loss > _MIN_GAIN * loss:
                break
            checked_loss = loss
        residual = (log_p.exp() - target) / len(x)
        previous_weight, previous_offset = weight, offset
        weight = next_weight - torch.cholesky_solve((residual @ x + ridge * next_weight).T, factor).T
        offset = next_offset - 2 * residual.sum(dim=1, keepdim=True)
    predicted: Tensor = values[(weight @ x_test.T + offset).argmax(dim=0).cpu()]
    return predicted


def mlp(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a network with 128 hidden units, on the same inputs as `linear`."""
    x, x_test = _standardise(train, test, seed, device)

    def make_network(values: int) -> nn.Module:
        return nn.Sequential(nn.Linear(x.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, values))

    return _train_and_predict(make_network, x, bias, x_test, seed)


def conv(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a small convolutional network on maps (n, C, H, W), standardised by channel.

    Two 3 x 3 convolutions of stride 2 and 32 channels, each with ReLU, then a linear layer on mean and maximum of every
    channel.
    """
    train, test = train.to(device), test.to(device)
    std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0, keepdim=True)
    return _train_and_predict(lambda values: _Conv(mean, std.clamp(min=1e-6), values), train, bias, test, seed)


class _Conv(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor, values: int) -> None:
        super().__init__()
        self.mean, self.std = mean, std  # (1, C, 1, 1); batches are standardised when they are used, in the CPU cache
        self.body = nn.Sequential(
            nn.Conv2d(mean.shape[1], _CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.body.to(memory_format=torch.channels_last)  # a quarter less time
        self.last = nn.Linear(2 * _CHANNELS, values)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, values) for maps x (N, C, H, W)."""
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        z = self.body(x)
        logits: Tensor = self.last(torch.cat([z.mean(dim=(2, 3)), z.amax(dim=(2, 3))], dim=1))
        return logits


def _train_and_predict(
    make_network: Callable[[int], nn.Module], x: Tensor, bias: Tensor, x_test: Tensor, seed: int
) -> Tensor:
    """Train a network on x (n, ...) and bias (n,); return the predicted bias values of `x_test`.

    `make_network` returns the network for a number of bias values. It is trained with cross-entropy for _STEPS batches,
    which are four epochs of 5,000 images.
    """
    values, labels = bias.unique(return_inverse=True)
    labels = labels.to(x.device)
    with _generator_lock, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "probe weights"))
        net = make_network(len(values)).to(x.device)
    optimizer, batches = _Adam(list(net.parameters())), ceil(len(x) / _BATCH_SIZE)
    epochs = min(_MAX_EPOCHS, ceil(_STEPS / batches))
    for epoch in range(epochs):
        order = permutation(len(x), derive(seed, "probe order", epoch)).to(x.device)
        for step, index in enumerate(order.split(_BATCH_SIZE), epoch * batches):
            F.cross_entropy(net(x.index_select(0, index)), labels[index]).backward()
            optimizer.step(learning_rate(_OPTIMIZER, step, batches, epochs))
    with torch.inference_mode():
        predicted: Tensor = values[torch.cat([net(part).argmax(dim=1) for part in x_test.split(250)]).cpu()]
    return predicted


class _Adam:
    """Adam in one operation, without the class of torch: that imports the compiler, which takes longer than a probe."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.means, self.squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the parameters with their gradients, and delete the gradients."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        beta1 = 0.95 - 0.1 * lr / _OPTIMIZER.lr  # momentum is low where the learning rate is high, as in OneCycleLR
        adam(
            self.parameters, gradients, self.means, self.squares, [], self.steps, fused=True, amsgrad=False,
            beta1=beta1, beta2=0.999, lr=lr, weight_decay=0, eps=1e-8, maximize=False,
        )  # fmt: skip
        for p in self.parameters:
            p.grad = None


def _standardise(train: Tensor, test: Tensor, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return train and test as matrices with at most _MAX_INPUTS columns, standardised with the statistics of train."""
    train, test = (pool_maps(x, _MAX_INPUTS).flatten(1).to(device) for x in (train, test))
    std, mean = torch.std_mean(train, dim=0, correction=0)
    std = std.masked_fill(std <= 1e-6 * mean.abs(), 1)  # constant up to rounding errors
    train, test = (train - mean) / std, (test - mean) / std
    if train.shape[1] > _MAX_INPUTS:
        with _generator_lock, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive(seed, "probe components"))
            components = torch.svd_lowrank(train, min(_COMPONENTS, *train.shape), niter=4)[2]
        train, test = train @ components, test @ components
    return train, test


PROBES: dict[str, Probe] = {"linear": linear, "mlp": mlp, "conv": conv}


def probe_names(x: Tensor) -> list[str]:
    """Return the names of the probes for features (n, ...); the convolutional probe needs maps (n, C, H, W)."""
    return [name for name in PROBES if name != "conv" or (x.dim() == 4 and x[0, 0].numel() > 1)]
