"""Fresh probes: each learns bias values from features of one half of the images and predicts those of the other."""

import warnings
from collections.abc import Callable
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.probing.features import pooled
from lntl.seeding import derive, permutation

_VALUES = 1024  # inputs of the linear probe and of the MLP: maps are averaged to at most that many numbers,
_COMPONENTS = 256  # and what is still wider is reduced to its principal components
_HIDDEN, _CHANNELS = 128, 32  # units of the MLP, channels of the convolutional probe
_BATCH = 128
# Of the convolutional probe: batches to learn from, epochs at most, and Adam's rate, up to this and down (OneCycleLR).
_STEPS, _EPOCHS, _RATE = 240, 60, 0.01

Probe = Callable[[Tensor, Tensor, Tensor, int, torch.device], Tensor]


def linear(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of multinomial logistic regression (scikit-learn, L2 with C = 1) on the CPU.

    train (n, ...) and test (m, ...) are standardised by train. Maps are first averaged over a fixed grid to at most
    1024 numbers, and what is still wider is projected on 256 principal components of train, so that it stays fast.
    """
    from sklearn.linear_model import LogisticRegression  # here, for it is slow to import

    return _sklearn(LogisticRegression(max_iter=200), train, bias, test, seed)


def mlp(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
    """Return the predictions (m,) of a network with 128 hidden units (scikit-learn), on inputs as for `linear`."""
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


def _sklearn(model: Any, train: Tensor, bias: Tensor, test: Tensor, seed: int) -> Tensor:
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
    # On matrices as narrow as these, threads of BLAS wait for each other: with two, five times as long as with one.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed budget: whatever it reaches is a lower bound
        warnings.filterwarnings(
            "ignore", "The number of unique classes", UserWarning
        )  # rare bias values are classes, too
        pipeline.fit(train.numpy(), bias.numpy())
    return torch.from_numpy(pipeline.predict(test.numpy()))


PROBES: dict[str, Probe] = {"linear": linear, "mlp": mlp, "conv": conv}


def suited(x: Tensor) -> list[str]:
    """Return the names of the probes for features (n, ...): the convolutional one reads maps alone."""
    return [name for name in PROBES if name != "conv" or (x.dim() == 4 and x[0, 0].numel() > 1)]
