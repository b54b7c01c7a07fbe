"""Bias product: g learns only what the bias does not already predict (Clark et al. and He et al., 2019)."""

from collections.abc import Callable, Iterable, Iterator

from lntl.methods.base import Method, Objective, minimise
from lntl.methods.posterior import Smoothing, TaskLoss, TaskSettings
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["BiasProduct"]


class BiasProduct(Method):
    """min_{f,g} CE(softmax(g(f(x)) + log p(y | b)), y): a product of experts; at test, only g is used.

    log p(y | b), in nats, is computed before the phase, for each row by a model that was fitted without this row
    (`BiasPosterior`).
    Sources: Clark, Yatskar and Zettlemoyer, EMNLP 2019; He, Zha and Wang, DeepLo 2019; Hong and Yang, NeurIPS 2021.
    Deviation: these papers fit p(y | b) on the training data itself; here it is cross-fitted, so that it does not
    overfit. A share of the uniform distribution is added to p(y | b): if b ruled out a class with certainty, g would
    not learn to rule it out.
    """

    trains = ("f", "g")
    mean_over_images = True
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: bias_product`."""

        smoothing: Smoothing = 0.01

    config: Config

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.task_loss = TaskLoss(TaskSettings(task="bias_product", smoothing=self.config.smoothing), spec)

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Fit p(y | b)."""
        self.task_loss.fit(batches, seed)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the loss of the product over f and g."""
        task = self.task_loss(self.g(self.f(batch.x)), batch)
        yield minimise(task, over=(self.f, self.g), task=task)
