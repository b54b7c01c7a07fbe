"""Run the networks on a split once and keep what every metric needs; embed features z in two dimensions."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lntl import ranks
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.seeding import derive, permutation
from lntl.types import IGNORE, BiasSpec, Networks

MAX_EMBEDDED_IMAGES = 1000  # largest number of embedded images
_COMPONENTS, _PERPLEXITY = 30, 30.0  # scikit-learn's default perplexity
# t-SNE: half of scikit-learn's default of 1,000 iterations, and the largest angle to which the result is not sensitive,
# according to its documentation.
_ITERATIONS, _ANGLE = 500, 0.8


@dataclass(frozen=True, slots=True)
class Predictions:
    """For n images, on the CPU: y, group, row (n,), logits (n, classes), counts of correct and known bias labels."""

    y: Tensor
    group: Tensor
    row: Tensor
    logits: Tensor
    bias_hits: Tensor  # number of bias labels that h predicts correctly
    bias_labels: Tensor  # number of known bias labels, 0 if h is not trained
    num_groups: int
    aligned: tuple[int, ...] = ()  # as DataSpec.aligned
    all_groups: Tensor | None = None  # groups that occur in any split, (E,) int64; None: the groups of these images
    h_is_trained: bool = True

    @property
    def predicted(self) -> Tensor:
        """The predicted class of each image."""
        return self.logits.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """Whether each prediction is correct."""
        return self.predicted == self.y

    @property
    def probabilities(self) -> Tensor:
        """The probability of each class, float32 (n, classes): softmax of the logits."""
        return self.logits.float().softmax(dim=1)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[1]

    @property
    def num_bias_values(self) -> int:
        """Number of bias values that, with the classes, form the groups."""
        return self.num_groups // self.num_classes

    @property
    def bias(self) -> Tensor:
        """The bias value of each image, IGNORE if unknown."""
        return torch.where(self.group == IGNORE, IGNORE, self.group - self.y * self.num_bias_values)


def group_by_one_bias(
    p: Predictions, spec: BiasSpec, labels: Tensor | None = None, all_groups: Tensor | None = None
) -> Predictions:
    """Return the predictions with groups that are formed with only one of several biases.

    Args:
        p: Predictions with groups of the combinations of all biases.
        spec: The bias.
        labels: Label of this bias for each image, (n,), IGNORE if unknown; None: only images of which all biases are
            known have a group.
        all_groups: Groups of this bias that occur in any split; None: those of images of which all biases are known.
    """
    if labels is None:
        labels = torch.where(p.group == IGNORE, IGNORE, spec.labels(p.bias.clamp(min=0)))
    group = torch.where(labels == IGNORE, IGNORE, p.y * len(spec.values) + labels)
    if all_groups is None and p.all_groups is not None:
        y, joint = p.all_groups // p.num_bias_values, p.all_groups % p.num_bias_values
        all_groups = (y * len(spec.values) + spec.labels(joint)).unique()
    num_groups = p.num_classes * len(spec.values)
    return replace(p, group=group, num_groups=num_groups, aligned=spec.aligned, all_groups=all_groups)


@torch.inference_mode()
def predict(
    networks: Networks,
    loader: Loader,
    num_groups: int,
    aligned: tuple[int, ...] = (),
    all_groups: Tensor | None = None,
    h_is_trained: bool = True,
) -> Predictions:
    """Return the predictions of f, g and h on a split, in its order; leaves the networks in eval mode.

    If h is not trained, its bias labels are not counted.
    With n processes, each predicts every n-th batch of the same batches, and all return the same predictions.
    """
    if len(loader.split) == 0:
        raise UserError("the split to evaluate has no image; add images to it")
    networks.eval()
    columns: list[tuple[Tensor, ...]] = []
    for batch in loader.batches(turns=(ranks.rank(), ranks.world_size())):
        z = networks.f(batch.x)
        known = (batch.bias != IGNORE) & h_is_trained
        hits = (networks.h(z).argmax(dim=1) == batch.bias) & known
        counts = (labels.reshape(len(labels), -1).sum(1) for labels in (hits, known))
        rows = (batch.y, batch.group, batch.row, networks.g(z), *counts)
        columns.append(tuple(column.cpu() for column in rows))
    iterators = [iter(rank_columns) for rank_columns in ranks.gather_objects(columns)]
    columns = [next(iterators[index % len(iterators)]) for index in range(len(loader))]
    y, group, row, logits, bias_hits, bias_labels = (torch.cat(column) for column in zip(*columns, strict=True))
    columns_of_images = y, group, row, logits, bias_hits, bias_labels
    return Predictions(*columns_of_images, num_groups, aligned, all_groups, h_is_trained)


def draw_embedded_images(n: int, seed: int, limit: int = MAX_EMBEDDED_IMAGES) -> Tensor:
    """Return ascending positions of at most `limit` of n images, drawn by the seed."""
    return permutation(n, derive(seed, "embedding"))[:limit].sort().values


def embed(z: Tensor, seed: int) -> Tensor:
    """Return z (n, ...) in two dimensions, float32 (n, 2): PCA to 30, then t-SNE; zeros if all rows are equal."""
    from sklearn.manifold import TSNE  # imported here because it is slow to import

    flat = z.flatten(1).float()
    if not bool((flat != flat[:1]).any()):
        return torch.zeros(len(flat), 2)
    state = derive(seed, "t-SNE") % 2**32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)
        u, s, _ = torch.pca_lowrank(flat, min(_COMPONENTS, *flat.shape), niter=4)
    parts = (u * s).numpy()
    perplexity = min(_PERPLEXITY, (len(flat) - 1) / 3)
    start = "pca" if parts.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=start, max_iter=_ITERATIONS, angle=_ANGLE, random_state=state)
    return torch.from_numpy(tsne.fit_transform(parts)).float()
