"""Published test accuracies on Colored MNIST, for comparison with the results of lntl."""

from typing import Annotated

from pydantic import Field

from lntl.plugins import Settings

# Scores by value of the key whose values are the columns of a table.
Scores = dict[float | str, Annotated[float, Field(ge=-1e6, le=1e6)]]


def _by_variance(*accuracies: float) -> Scores:
    return dict(zip((0.020, 0.025, 0.030, 0.035, 0.040, 0.045, 0.050), accuracies, strict=True))


# Accuracy by color variance sigma^2. Source: README of the authors' repository (one run for each value).
BASELINE = _by_variance(0.4055, 0.4813, 0.5996, 0.6626, 0.7333, 0.7973, 0.8450)
BLIND_EYE = _by_variance(0.6741, 0.7123, 0.7883, 0.8203, 0.8638, 0.8927, 0.9159)
GRAY = _by_variance(0.8374, 0.8751, 0.8996, 0.9166, 0.9325, 0.9472, 0.9596)
LNTL = _by_variance(0.8185, 0.8854, 0.9137, 0.9306, 0.9406, 0.9555, 0.9618)
EPOCHS = 100  # length of each run of the authors
# Source: a public student report on the paper.
RAMPED_LNTL = _by_variance(0.8393, 0.8956, 0.9197, 0.9324, 0.9388, 0.9469, 0.9512)
# From memory, not confirmed. Only CSAD's value at 0.020 was seen in print, as "around 0.943".
CSAD = _by_variance(0.943, 0.961, 0.970, 0.980, 0.981, 0.982, 0.985)
MI = _by_variance(0.864, 0.925, 0.959, 0.973, 0.975, 0.980, 0.982)


class PublishedResult(Settings):
    """Published scores of one method, a row of a table."""

    name: str = Field(min_length=1, max_length=200, description="Name of the row.")
    scores: Scores = Field(min_length=1, description="Scores by value of the key whose values are the columns.")
    source: str = Field(min_length=1, max_length=200, description="Where the scores were published.")
    confirmed: bool = Field(
        True, description="Whether the scores were compared with the source; if not, the figure leaves them out."
    )


_AUTHORS = "the authors' README, one run each"
PUBLISHED_RESULTS = (
    PublishedResult(name="paper: baseline", scores=BASELINE, source=_AUTHORS),
    PublishedResult(name="paper: BlindEye", scores=BLIND_EYE, source=_AUTHORS),
    PublishedResult(name="paper: gray", scores=GRAY, source=_AUTHORS),
    PublishedResult(name="paper: LNTL", scores=LNTL, source=_AUTHORS),
    PublishedResult(name="LNTL, ramped reversal", scores=RAMPED_LNTL, source="a student report"),
    PublishedResult(
        name="CSAD, from memory, unconfirmed", scores=CSAD, source="Zhu et al., ICCV 2021", confirmed=False
    ),
    PublishedResult(
        name="MI back-propagation, from memory, unconfirmed",
        scores=MI,
        source="Ragonesi et al., CVPRW 2021",
        confirmed=False,
    ),
)
