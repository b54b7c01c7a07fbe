"""Networks that are trained to predict the bias and then frozen; FLAC and BAdd use their features."""

import copy
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.methods.base import TrainingBatches
from lntl.methods.bias_labels import labels_per_bias, values_per_bias
from lntl.methods.weights import restart, unwrap
from lntl.ops import mean_over_positions
from lntl.plugins import Settings
from lntl.seeding import derive
from lntl.types import IGNORE, DataSpec, Networks


class BiasClassifierSettings(Settings):
    """Settings of a method with bias classifiers."""

    bias_epochs: int = Field(
        2,
        ge=1,
        le=1_000_000,
        description="Number of epochs in which the bias classifiers are trained before the phase. A phase costs "
        "epochs + bias_epochs passes over the data; compare it with `erm` for the same number of passes.",
    )
    bias_lr: float = Field(
        0.001, gt=0, le=1e30, description="Learning rate of the bias classifiers (Adam), constant; the default is ours."
    )


class BiasClassifiers(nn.Module):
    """For each bias k a network b_k with the architecture of f, and a linear layer on it that predicts bias k.

    They are trained only in `fit`, all in the same passes over the data, with the cross-entropy in nats on the images
    with a known label. Otherwise they are frozen and in evaluation mode.
    """

    def __init__(self, networks: Networks, spec: DataSpec) -> None:
        super().__init__()
        self._networks, self.spec = (networks,), spec  # in a tuple: f belongs to the trainer, not to this module
        f, values = unwrap(networks.f), values_per_bias(spec)
        self.bodies = nn.ModuleList([copy.deepcopy(f) for _ in values])
        self.heads = nn.ModuleList([nn.Linear(networks.num_features, number) for number in values])
        self.heads.to(next((p.dtype for p in f.parameters()), torch.get_default_dtype()))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, so that BatchNorm and dropout of the frozen networks do not change."""
        return super().train(False)

    @torch.enable_grad()
    def fit(self, batches: TrainingBatches, config: BiasClassifierSettings, seed: int) -> None:
        """Initialise the classifiers and train them on the biases."""
        networks, parameters = self._networks[0], [*unwrap(self._networks[0].f).parameters()]
        for number, (body, head) in enumerate(zip(self.bodies, self.heads, strict=True)):
            for copied, original in zip(body.parameters(), parameters, strict=True):
                copied.requires_grad_(original.requires_grad)  # layers that are frozen in f are frozen here
            restart(networks, body, nn.Identity(), derive(seed, "weights", number))
            head.requires_grad_(True).reset_parameters()  # type: ignore[operator]
            body.train()
        optimizer = torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=config.bias_lr)
        for epoch in range(config.bias_epochs):
            for batch in batches(derive(seed, "order", epoch)):
                loss = self._compute_loss(batch.x, labels_per_bias(batch, self.spec))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.requires_grad_(False).eval()

    def _compute_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the labels (N, B) in nats: the mean over known labels, summed over biases."""
        losses = []
        for body, head, label in zip(self.bodies, self.heads, labels.T, strict=True):
            logits = head(mean_over_positions(body(self._cast(x))))
            total = cross_entropy(logits, label, ignore_index=IGNORE, reduction="sum")
            losses.append(total / (label != IGNORE).sum().clamp(min=1))
        return torch.stack(losses).sum()

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(next(self.heads.parameters()).dtype)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """Return b_k(x) of each bias k, in the shape of f(x), without gradient."""
        return [body(self._cast(x)) for body in self.bodies]
