"""Published test accuracies on Colored MNIST, for comparison with the results of lntl."""

from dataclasses import dataclass

# Accuracy by color variance sigma^2. Source: README of the authors' repository (one run for each value).
BASELINE = {0.020: 0.4055, 0.025: 0.4813, 0.030: 0.5996, 0.035: 0.6626, 0.040: 0.7333, 0.045: 0.7973, 0.050: 0.8450}
BLIND_EYE = {0.020: 0.6741, 0.025: 0.7123, 0.030: 0.7883, 0.035: 0.8203, 0.040: 0.8638, 0.045: 0.8927, 0.050: 0.9159}
GRAY = {0.020: 0.8374, 0.025: 0.8751, 0.030: 0.8996, 0.035: 0.9166, 0.040: 0.9325, 0.045: 0.9472, 0.050: 0.9596}
LNTL = {0.020: 0.8185, 0.025: 0.8854, 0.030: 0.9137, 0.035: 0.9306, 0.040: 0.9406, 0.045: 0.9555, 0.050: 0.9618}
EPOCHS = 100  # length of each run of the authors
# Source: a public student report on the paper.
RAMPED_LNTL = {0.020: 0.8393, 0.025: 0.8956, 0.030: 0.9197, 0.035: 0.9324, 0.040: 0.9388, 0.045: 0.9469, 0.050: 0.9512}
# From memory, not confirmed. Only CSAD's value at 0.020 was seen in print, as "around 0.943".
CSAD = {0.020: 0.943, 0.025: 0.961, 0.030: 0.970, 0.035: 0.980, 0.040: 0.981, 0.045: 0.982, 0.050: 0.985}
MI = {0.020: 0.864, 0.025: 0.925, 0.030: 0.959, 0.035: 0.973, 0.040: 0.975, 0.045: 0.980, 0.050: 0.982}


@dataclass(frozen=True)
class PublishedResult:
    """Published accuracies of one method, by sigma^2; `confirmed`: the values were compared with the source."""

    name: str
    accuracy: dict[float, float]
    source: str
    confirmed: bool = True


_AUTHORS = "the authors' README, one run each"
PUBLISHED_RESULTS = (
    PublishedResult("paper: baseline", BASELINE, _AUTHORS),
    PublishedResult("paper: BlindEye", BLIND_EYE, _AUTHORS),
    PublishedResult("paper: gray", GRAY, _AUTHORS),
    PublishedResult("paper: LNTL", LNTL, _AUTHORS),
    PublishedResult("LNTL, ramped reversal", RAMPED_LNTL, "a student report"),
    PublishedResult("CSAD, from memory, unconfirmed", CSAD, "Zhu et al., ICCV 2021", confirmed=False),
    PublishedResult(
        "MI back-propagation, from memory, unconfirmed", MI, "Ragonesi et al., CVPRW 2021", confirmed=False
    ),
)
