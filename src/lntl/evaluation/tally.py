"""Count predictions into the tally that metrics are computed from."""

from collections.abc import Sequence

import numpy as np

from lntl.evaluation.metrics import METRICS, Array, Tally
from lntl.evaluation.predict import Predictions
from lntl.types import IGNORE

BINS = 15  # equal-width bins of the confidence; source: Guo et al., ICML 2017


def tally(p: Predictions, weights: Array | None = None) -> Tally:
    """Return the counts of the images, each weighted by `weights` (R, n); without them each counts once (R = 1)."""
    if weights is None:
        weights = np.ones((1, len(p.y)))
    shape = (p.num_classes, p.num_bias_values + 1, p.num_classes)  # one bias value more: unknown
    bias = p.bias.where(p.bias != IGNORE, p.num_bias_values)
    cell = np.ravel_multi_index((p.y.numpy(), bias.numpy(), p.predicted.numpy()), shape)
    confidence = p.probabilities.double().amax(dim=1).numpy()
    gap = confidence - p.correct.double().numpy()
    # (low, high] as in Guo et al.; a confidence that is no number falls into the last bin and makes it none as well
    place = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    aligned = np.zeros((p.num_classes, p.num_bias_values), dtype=np.bool_)
    if p.aligned:
        aligned[np.arange(p.num_classes), list(p.aligned)] = True
    flat = np.stack([np.bincount(cell, row, int(np.prod(shape))) for row in weights], dtype=np.float64)
    cells = flat.reshape(-1, *shape)
    return Tally(
        cells=cells[:, :, :-1],
        unknown=cells[:, :, -1],
        gaps=np.stack([np.bincount(place, row * gap, BINS) for row in weights]),
        bias_hits=weights @ p.bias_hits.double().numpy(),
        bias_labels=weights @ p.bias_labels.double().numpy(),
        bias_images=weights @ (p.bias_labels > 0).double().numpy(),
        aligned=aligned,
    )


def compute(p: Predictions, names: Sequence[str]) -> dict[str, float | None]:
    """Return the named metrics of the predictions, None for those that are undefined."""
    counts = tally(p)
    values = {name: float(METRICS[name].function(counts)[0]) for name in names}
    return {name: None if np.isnan(value) else value for name, value in values.items()}
