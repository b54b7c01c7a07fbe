"""Spectral decoupling: a penalty on logits, so that an easy feature does not stop others (Pezeshki et al., 2021)."""

from collections.abc import Iterator

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.plugins import Settings
from lntl.types import Batch

__all__ = ["SpectralDecoupling"]


class SpectralDecoupling(Method):
    """Pezeshki et al., NeurIPS 2021: min_{f,g} L_c(f, g) + lam / 2 * mean over x of |g(f(x))|^2; no bias label.

    |.|^2 is the sum of the squares of an image's logits. With only the cross-entropy, a feature that is learned early
    leaves little gradient for the others. The penalty, in place of weight decay, decouples the features. L_c is the
    cross-entropy in nats. Source: "Gradient Starvation: A Learning Proclivity in Neural Networks", NeurIPS 2021.

    Deviation: the paper has one logit for two classes; here each class has a logit, and their squares are summed.
    Deviation: the authors' code for colored digits divides the loss by 5e4 after 450 of 2001 steps; here lam is
    constant.
    """

    trains = ("f", "g")
    mean_over_images = True

    class Config(Settings):
        """Settings of a phase with `method: spectral_decoupling`."""

        lam: float = Field(
            0.1,
            ge=0,
            le=1e9,
            description="Weight of the penalty, nats per squared logit. The authors' code uses 2e-5 on colored digits "
            "and 0.1 on CelebA, without the factor 1/2.",
        )

    config: Config

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss and the penalty over f and g."""
        logits = self.g(self.f(batch.x))
        task, penalty = cross_entropy(logits, batch.y), logit_penalty(logits)
        yield minimise(task + self.config.lam * penalty, over=(self.f, self.g), task=task, penalty=penalty)


def logit_penalty(logits: Tensor) -> Tensor:
    """Return the mean over the images of half the sum of squares of the logits (N, K), a scalar in squared logits."""
    return logits.square().sum(dim=1).mean() / 2
