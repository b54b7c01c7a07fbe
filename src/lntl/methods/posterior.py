"""p(y | bias), estimated by cross-fitting; the bias product and sample weights are computed from it."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FOLDS = 4  # folds of the cross-fitting
MIN_PROBABILITY = 1e-6  # lower bound of a probability, so that its logarithm is finite


class BiasPosterior(nn.Module):
    """log p(y | bias) in nats of every training row, from a model that was fitted without this row (cross-fitting)."""

    log_p: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.register_buffer("log_p", torch.zeros(spec.num_rows, spec.num_classes))

    def fit(self, batches: Iterable[Batch], seed: int) -> None:
        """Predict the y of each fold from its bias features, with a small network that is fitted on the other folds."""
        parts = [(batch.bias_features.cpu(), batch.y.cpu(), batch.row.cpu()) for batch in batches]
        features, y, row = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        p = np.full((len(y), self.log_p.shape[1]), MIN_PROBABILITY)
        for number, (train, held_out) in enumerate(_split_folds(len(y), seed)):
            if len(classes := np.unique(y[train])) == 1:  # all rows of a rare class may be in the held-out fold
                p[held_out, classes[0]] = 1
                continue
            model = _fit_model(features[train], y[train], seed + number)
            p[np.ix_(held_out, model[-1].classes_)] = model.predict_proba(features[held_out])
        log_p = torch.as_tensor(np.log(p.clip(MIN_PROBABILITY)), dtype=self.log_p.dtype, device=self.log_p.device)
        self.log_p[torch.as_tensor(row, device=self.log_p.device)] = log_p

    def smooth(self, share: float) -> None:
        """Add a share of the uniform distribution over the K classes: p <- (1 - share) p + share / K."""
        p = self.log_p.exp()
        self.log_p.copy_(((1 - share) * p + share / p.shape[1]).log())


def _split_folds(n: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import KFold  # imported here because it is slow to import

    yield from KFold(min(FOLDS, n), shuffle=True, random_state=seed % 2**32).split(range(n))


def _fit_model(features: np.ndarray, y: np.ndarray, seed: int) -> "Pipeline":
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier(
        (64,), learning_rate_init=0.01, batch_size=min(500, len(y)), max_iter=15, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 15 epochs are intended
        return make_pipeline(StandardScaler(), network).fit(features, y)


def balancing_weights(posterior: BiasPosterior, batches: Iterable[Batch], max_weight: float) -> Tensor:
    """Return weights (num_rows,): p(y) / p(y | bias), at most `max_weight`, scaled to mean 1; 0 for other rows."""
    parts = [(batch.row, batch.y) for batch in batches]
    row, y = (torch.cat(part) for part in zip(*parts, strict=True))
    p_y = torch.bincount(y, minlength=posterior.log_p.shape[1]) / len(y)
    ratio = (p_y[y] / posterior.log_p[row, y].exp()).clamp(max=max_weight)
    weights = torch.zeros_like(posterior.log_p[:, 0])
    weights[row] = ratio / ratio.mean()
    return weights


def effective_share(weights: Tensor) -> Tensor:
    """Return (sum w)^2 / (n sum w^2) over the n nonzero weights, in (0, 1]: Kish's effective sample size over n."""
    return weights.sum().square() / (weights.square().sum() * weights.count_nonzero())


Task = Literal["cross_entropy", "bias_product", "resample"]


_SMOOTHING = (
    "Share s of the uniform distribution mixed into p(y | bias): if the bias rules out a class, g still learns to rule "
    "it out, by a logit difference of up to about log(K / s) nats for K classes; `bias_product` only."
)
Smoothing = Annotated[float, Field(ge=0, le=1, description=_SMOOTHING)]
MaxWeight = Annotated[float, Field(gt=0, le=1e12, description="Largest p(y) / p(y | bias); no unit.")]


class TaskSettings(Settings):
    """Settings of a method whose task loss L_c can be chosen."""

    task: Task = Field(
        "cross_entropy",
        description="The task loss L_c. bias_product: cross-entropy on g's logits + log p(y | bias), so that g learns "
        "only what the bias does not already predict (see the method bias_product). resample: cross-entropy on rows "
        "that are drawn as if bias and label were independent (see the method resample); h is trained on them, too.",
    )
    smoothing: Smoothing = 0.01
    max_weight: MaxWeight = 100.0


class TaskLoss(nn.Module):
    """Task loss L_c of logits (N, num_classes) and y, in nats, and the weights with which rows are drawn for it."""

    weights: Tensor | None

    def __init__(self, config: TaskSettings, spec: DataSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.posterior = BiasPosterior(spec) if config.task == "bias_product" else None
        self.register_buffer("weights", torch.zeros(spec.num_rows) if config.task == "resample" else None)

    def fit(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Fit p(y | bias) if the loss needs it."""
        if self.posterior is not None:
            self.posterior.fit(batches(), seed)
            self.posterior.smooth(self.config.smoothing)
        if self.weights is not None:
            posterior = BiasPosterior(self.spec)
            posterior.fit(batches(), seed)
            self.weights.copy_(balancing_weights(posterior, batches(), self.config.max_weight))

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return CE(softmax(logits), y), or CE(softmax(logits + log p(y | bias)), y)."""
        if self.posterior is not None:
            logits = logits + self.posterior.log_p[batch.row]
        return cross_entropy(logits, batch.y)


class TaskMethod(Method):
    """Base class of methods whose task loss L_c can be chosen with `TaskSettings`."""

    sees_bias = True
    config: TaskSettings

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.task_loss = TaskLoss(self.config, spec)

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Fit p(y | bias) if the task loss needs it."""
        self.task_loss.fit(batches, seed)

    def sampling_weights(self) -> Tensor | None:
        """Return the weight of each row if the task is `resample`, otherwise None."""
        return self.task_loss.weights
