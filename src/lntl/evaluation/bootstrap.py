"""Confidence intervals: percentiles of a statistic over samples of the images drawn with replacement."""

from collections.abc import Callable, Mapping

import numpy as np

from lntl.evaluation.metrics import Array, Tally
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import Counter

CONFIDENCE = 0.95  # of the intervals
RESAMPLES = 1000
SEED = 0
_AT_ONCE = 50  # samples that are counted together


def resample(p: Predictions, statistics: Mapping[str, Callable[[Tally], Array]]) -> dict[str, Array]:
    """Return each statistic of RESAMPLES samples of n out of the n images, (RESAMPLES, ...); all see the same samples.

    One sample draws the numbers of n images; what then is counted are the images' weights in it.
    """
    random, n, count = np.random.default_rng(SEED), len(p.y), Counter(p)
    parts = []
    for _ in range(RESAMPLES // _AT_ONCE):
        drawn = [np.bincount(random.integers(n, size=n), minlength=n) for _ in range(_AT_ONCE)]
        counts = count(np.stack(drawn).astype(np.float64))
        parts.append({name: statistic(counts) for name, statistic in statistics.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in statistics}


def interval(values: Array) -> tuple[float, float] | tuple[None, None]:
    """Return the percentile interval of a statistic's values (R,), over the samples in which it is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None, None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
