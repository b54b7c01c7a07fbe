"""Plain PyTorch implementation of the authors' training step of *Learning Not to Learn* (CVPR 2019), for speed tests.

Written from the published facts: it loads single images, has three separate bias heads, and takes two steps per batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

# Source of the constants: the authors' repository, feidfoe/learning-not-to-learn at fad2ec8.
IGNORE = -100  # Deviation: the label that torch's cross-entropy ignores; the authors use 255.
CHANNELS = 3  # one bias head per color channel
NUM_CLASSES = 10  # digits
NUM_BINS = 8  # bins of the bias label per channel
BIN_WIDTH = 32  # gray levels of 0 to 255
BIAS_SIZE = 14  # side of the bias label map and of z
MEAN = (0.4914, 0.4822, 0.4465)  # mean of RGB on the [0, 1] scale
STD = (0.2023, 0.1994, 0.2010)  # standard deviation of RGB on the [0, 1] scale
LAM = 0.01  # weight of the mean of sum p log p
MU = 0.1  # scale of the reversed gradient, with the cross-entropies summed over channels
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4

Sample = tuple[Tensor, int, Tensor]
Batch = tuple[Tensor, Tensor, Tensor]


class Images(Dataset[Sample]):
    """Images and labels, prepared one at a time with PIL."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.integer[Any]]) -> None:
        """Take uint8 images of N x 28 x 28 x 3 and their N labels."""
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28, CHANNELS) or len(images) != len(labels):
            raise ValueError(f"need uint8 N x 28 x 28 x 3, N labels; got {images.dtype} {images.shape}, {labels.shape}")
        self.images, self.labels = images, labels
        self.mean, self.std = torch.tensor(MEAN).view(CHANNELS, 1, 1), torch.tensor(STD).view(CHANNELS, 1, 1)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Return the normalised image (3 x 28 x 28), its label and its bias label (3 x 14 x 14)."""
        image = Image.fromarray(self.images[index])
        x = (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - self.mean) / self.std
        small = image.resize((BIAS_SIZE, BIAS_SIZE), Image.Resampling.NEAREST)
        value = torch.from_numpy(np.array(small)).permute(2, 0, 1).long()
        bias = torch.where(value == 0, IGNORE, value // BIN_WIDTH)
        return x, int(self.labels[index]), bias


def build_f() -> nn.Sequential:
    """Build f: 3 x 28 x 28 to z of 32 x 14 x 14."""
    return nn.Sequential(
        nn.BatchNorm2d(CHANNELS),
        nn.Conv2d(CHANNELS, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
    )


def build_g() -> nn.Sequential:
    """Build g: z to the logits of the task."""
    return nn.Sequential(
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(7),
        nn.Flatten(),
        nn.Linear(64, NUM_CLASSES),
    )


def build_h() -> nn.Sequential:
    """Build h of one color channel: z to the logits of its bins at each position."""
    first, last = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, NUM_BINS, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(32), nn.ReLU(), last)


class Timing(NamedTuple):
    """Number of training images, and the seconds of waiting for the loader and of the training steps."""

    images: int
    loading: float
    stepping: float


class Reference:
    """The authors' procedure: networks, optimisers, loader and the two steps per batch."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer[Any]],
        batch_size: int = 128,
        lr: float = 0.001,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        """Build everything from the seed; torch's global random state does not change."""
        self.data = Images(images, labels)
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.f, self.g = build_f(), build_g()
            self.h = [build_h() for _ in range(CHANNELS)]
        self.optim_f, self.optim_g, *self.optim_h = (
            torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
            for net in (self.f, self.g, *self.h)
        )

    def make_loader(self) -> DataLoader[Sample]:
        """Make a shuffled loader of the images; the order depends only on the seed."""
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(self.data, self.batch_size, shuffle=True, num_workers=self.num_workers, generator=order)

    def take_step(self, batch: Batch) -> dict[str, Tensor]:
        """Take steps A and B on one batch and return their losses."""
        x, y, bias = batch
        return self._take_task_step(x, y) | self._take_bias_step(x, bias)

    def _take_task_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Take step A of f and g: the task loss plus LAM times the mean negative entropy of the predictions."""
        z = self.f(x)
        task = functional.cross_entropy(self.g(z), y)
        log_p = torch.stack([functional.log_softmax(h(z), dim=1) for h in self.h])
        mi = (log_p.exp() * log_p).sum(dim=2).mean()
        self._minimise(task + LAM * mi, (self.optim_f, self.optim_g))  # h gets gradients, too, but is not updated
        return {"task": task.detach(), "mi": mi.detach()}

    def _take_bias_step(self, x: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Take step B of f and the three h: the bias losses, summed over channels, with gradient reversal for f."""
        z = self.f(x)
        z.register_hook(lambda grad: -MU * grad)  # the gradient reversal (Ganin and Lempitsky, 2015)
        loss = sum((functional.cross_entropy(h(z), bias[:, c]) for c, h in enumerate(self.h)), torch.zeros(()))
        self._minimise(loss, (self.optim_f, *self.optim_h))
        return {"bias": loss.detach()}

    def _minimise(self, loss: Tensor, optims: tuple[torch.optim.Optimizer, ...]) -> None:
        """Minimise the loss with one step of each of these optimisers."""
        for optim in (self.optim_f, self.optim_g, *self.optim_h):
            optim.zero_grad()
        loss.backward()
        for optim in optims:
            optim.step()

    def _iterate_forever(self) -> Iterator[Batch]:
        """Yield batches, epoch after epoch, without end."""
        loader = self.make_loader()
        while True:
            yield from loader

    def measure_times(self, seconds: float) -> Timing:
        """Train for about this many seconds after a first batch; return the times of loading and of the steps."""
        batches = self._iterate_forever()
        self.take_step(next(batches))
        images, loading, stepping = 0, 0.0, 0.0
        while loading + stepping < seconds:
            start = time.perf_counter()
            batch = next(batches)
            step_start = time.perf_counter()
            self.take_step(batch)
            images, loading = images + len(batch[0]), loading + step_start - start
            stepping += time.perf_counter() - step_start
        return Timing(images, loading, stepping)

    def measure_speed(self, seconds: float) -> float:
        """Return the images per second over about this many seconds, loading included."""
        timing = self.measure_times(seconds)
        return timing.images / (timing.loading + timing.stepping)


# Layer: (input channels, output channels, kernel side, output side, copies); h is three heads as one grouped net.
LAYERS = {
    "f.conv1": (CHANNELS, 32, 5, 28, 1),
    "f.conv2": (32, 32, 3, 14, 1),
    "g.conv1": (32, 64, 3, 7, 1),
    "g.conv2": (64, 64, 3, 7, 1),
    "g.linear": (64, NUM_CLASSES, 1, 1, 1),
    "h.conv1": (32, 32, 3, BIAS_SIZE, CHANNELS),
    "h.conv2": (32, NUM_BINS, 3, BIAS_SIZE, CHANNELS),
}


def count_step_flops(batch_size: int) -> dict[str, int]:
    """Return the FLOPs (2 per multiply-add) of one joint step of eq. 9, by "layer/pass"."""
    flops = {}
    for layer, (inputs, outputs, kernel, side, copies) in LAYERS.items():
        passes = ("forward", "weight_grad") if layer == "f.conv1" else ("forward", "weight_grad", "input_grad")
        for name in passes:
            flops[f"{layer}/{name}"] = 2 * batch_size * copies * inputs * outputs * kernel**2 * side**2
    return flops


def measure_matmul_gflops(n: int = 2048, seconds: float = 1.0) -> float:
    """Return the GFLOP/s of the fastest float32 n x n product within this time."""
    a, b, out = torch.rand(n, n), torch.rand(n, n), torch.empty(n, n)
    torch.mm(a, b, out=out)
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9
