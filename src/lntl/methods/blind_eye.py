"""Turning a Blind Eye: make h's prediction uniform by a confusion loss (Alvi et al., ECCV Workshops 2018)."""

from collections.abc import Iterator

from pydantic import Field
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.methods.bias_head import HSmoothing
from lntl.ops import adversarial, bias_accuracy, bias_cross_entropy, entropy, uniform_cross_entropy
from lntl.plugins import Settings, Weight
from lntl.types import Batch

__all__ = ["BlindEye"]


class BlindEye(Method):
    """Alvi et al., 2018: min_{f,g} L_c(f, g) + alpha * L_conf(f, h) with h frozen, and min_h L_B(f, h) with f frozen.

    L_conf is the cross-entropy in nats between the uniform distribution and h's prediction q: mean of
    -(1/K) sum_k log q_k over h's K bins, at the labelled positions of z (N, C, ...); L_c and L_B are cross-entropies in
    nats, L_B summed over the bias channels.
    Source: "Turning a Blind Eye: Explicit Removal of Biases and Variation from Deep Neural Network Embeddings", ECCV
    Workshops 2018.

    Deviation: one step minimises both; the paper has an iteration for each.
    Deviation: L_conf is averaged over the bias channels; the paper sums it over its spurious variations.
    """

    trains = ("f", "g", "h")
    mean_over_images = True
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: blind_eye`."""

        alpha: Weight = Field(
            1.0,
            description="Weight of the confusion loss, no unit; 1 in the code of Wang et al., CVPR 2020, who compare "
            "with this method.",
        )
        h_steps: int = Field(1, ge=1, le=10_000, description="Updates of h per batch, so that it keeps up with f.")
        h_smoothing: HSmoothing = 0.0

    config: Config

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield `h_steps` - 1 updates of h, then one objective for all three networks."""
        z = self.f(batch.x)
        task = cross_entropy(self.g(z), batch.y)
        where = batch.labelled
        labels, smoothing = batch.bias_at(where), self.config.h_smoothing
        count, positions = batch.known_count, batch.position_count(where)
        for _ in range(self.config.h_steps - 1):
            yield minimise(bias_cross_entropy(self.h(z.detach(), where), labels, smoothing, count), over=(self.h,))
        reversed_logits, frozen_logits = adversarial(self.h, z, 0.0, where)  # both in one pass of h
        bias = bias_cross_entropy(reversed_logits, labels, smoothing, count)
        confusion = uniform_cross_entropy(frozen_logits, positions)
        loss = task + self.config.alpha * confusion + bias
        diagnostics = {
            "h_accuracy": bias_accuracy(reversed_logits, labels, count),
            "h_entropy": entropy(frozen_logits.detach(), positions),
        }
        yield minimise(loss, over=(self.f, self.g, self.h), task=task, confusion=confusion, bias=bias, **diagnostics)
