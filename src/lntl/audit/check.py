"""Audit the data of a configuration: count groups, measure the association of bias and label, find duplicates."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lntl import __version__
from lntl.audit import association, fingerprints
from lntl.audit.association import POWER, SIGNIFICANCE, Ints, Table, crosstab
from lntl.audit.examples import Examples, OpenedExamples, ShowProgress, read
from lntl.audit.findings import findings
from lntl.audit.recommendation import recommend
from lntl.config import Config
from lntl.data.rows import LabelSettings, groups_in_several_parts
from lntl.data.transforms import thumbnails
from lntl.evaluation.metrics import MAX_DENSE_GROUPS, CellNames, bias_name
from lntl.evaluation.summary import SMALL_GROUP_SIZE
from lntl.runs.formats import (
    AlikeImages,
    Association,
    BiasCounts,
    CellCount,
    CellCounts,
    Check,
    Duplicates,
    EqualExamples,
    Example,
    LeakingGroups,
    SharedExamples,
    SplitCounts,
)
from lntl.types import IGNORE, ImageSplit, Split

FORMAT = 2  # of check.json; raise it when the meaning of the content changes
DIFFERENCE_MEANING = (
    f"d = z / sqrt(2 n + z^2), z = z(1 - {SIGNIFICANCE} / 2) + z({POWER}): d is the smallest difference "
    "that a test of two proportions near one half, each over n rows, detects"
)
MAX_LISTED_GROUPS = 12  # largest length of each list of groups: empty, absent and small ones
MAX_LISTED_SETS = 20  # largest length of the lists of sets of equal examples and of pairs of similar images
MAX_DRAWN_PAIRS = 8  # largest number of pairs of similar images that are drawn
SIMILAR_MEANING = (
    f"at most {fingerprints.MAX_DIFFERENT_BITS} of 64 bits of a perceptual hash differ, and the correlation of "
    f"the gray thumbnails is at least {fingerprints.MIN_CORRELATION}"
)
BRIGHTNESS_BINS = 10  # bins of equal counts for the brightness of training images


@dataclass(frozen=True)
class Audit:
    """The result of an audit, and pairs of similar images, uint8 (pairs, 2, 3, H, W), or None if there is no pair."""

    check: Check
    similar_images: NDArray[np.uint8] | None


def audit(config: Config, images: bool, show_progress: ShowProgress) -> Audit:
    """Audit the data of a configuration before training.

    Args:
        config: The configuration.
        images: Whether to open every image, to find equal, similar and unreadable images.
        show_progress: Function that yields the items of a sequence and shows the progress.

    Raises:
        UserError: If the data cannot be read.
    """
    examples = read(config.data, images, show_progress)
    check, similar_images = _make_check(config, examples), None
    if examples.opened_examples is not None:
        check.duplicates, pairs = find_duplicates(examples, examples.opened_examples)
        similar_images = load_pairs(examples, pairs)
    check.findings = findings(check)
    data = config.data.model_dump()
    check.recommendation = recommend(
        check,
        config.training.batch_size,
        pooled="bias_head" in type(config.model).model_fields,
        random_colors=data.get("random_colors") == 0 and not data.get("grayscale"),
    )

    return Audit(check, similar_images)


def _make_check(config: Config, examples: Examples) -> Check:
    data, spec, opened_examples = examples.data, examples.data.spec, examples.opened_examples
    masks = {name: examples.split == index for index, name in enumerate(examples.splits)}
    y = {name: examples.y[mask] for name, mask in masks.items()}
    joint = {name: examples.value[mask] for name, mask in masks.items()}
    tables = {name: crosstab(y[name], joint[name], spec.num_classes, spec.num_bias_values) for name in examples.splits}
    biases = []
    for index, bias_spec in enumerate(spec.biases):
        labels = {name: _labels(split, index) for name, split in data.splits.items()}
        counts = _count_bias(bias_spec.name, bias_spec.values, y, labels, spec.num_classes)
        biases.append(_with_image_accuracies(counts, examples, np.concatenate(list(labels.values()))))
    bias = bias_name(data.bias_kind, spec.biases)
    joint_counts = _count_bias(bias, spec.bias_value_names, y, joint, spec.num_classes)
    biases.append(_with_image_accuracies(joint_counts, examples, examples.value))
    names = CellNames(spec.class_names, spec.bias_value_names, data.label_kind, bias, spec.biases)
    occurring_cells = np.unique(np.concatenate([table.cells for table in tables.values()]))
    leak_error = examples.leak_error
    return Check(
        format=FORMAT,
        lntl=__version__,
        experiment=config.project.experiment_name,
        data=config.data.name,
        source=data.source,
        val_note=data.val_note,
        best_model_metric=config.evaluation.best_model_metric,
        label=data.label_kind,
        bias=bias,
        annotated=len(occurring_cells) > 0,
        class_names=list(spec.class_names),
        n=len(examples.y),
        splits=[
            SplitCounts(
                name=name,
                n=len(y[name]),
                classes=np.bincount(y[name], minlength=spec.num_classes).tolist(),
                missing=float((joint[name] == IGNORE).mean()),
                filled=len(table.cells),
                cells=spec.num_groups,
            )
            for name, table in tables.items()
        ],
        biases=biases,
        cells={name: _count_cells(table, occurring_cells, names) for name, table in tables.items()},
        brightness_only=_brightness_accuracy(examples, slice(None)),
        center_brightness_only=_brightness_accuracy(
            examples, slice(fingerprints.THUMB_SIDE // 4, -fingerprints.THUMB_SIDE // 4)
        ),
        opened=opened_examples is not None,
        on_error=config.data.on_error if isinstance(config.data, LabelSettings) else None,
        wrong_rows=list(data.skipped_rows),
        unreadable=[f"{examples.name(n)}: {reason}" for n, reason in opened_examples.unreadable.items()]
        if opened_examples
        else [],
        leaking=None if leak_error is None else LeakingGroups(column=leak_error.column, groups=leak_error.groups),
        duplicates=None,
        difference_means=DIFFERENCE_MEANING,
    )


def _labels(split: Split, bias_index: int) -> Ints:
    labels: Ints = split.bias_labels(torch.arange(len(split)))[:, bias_index].cpu().numpy()
    return labels


def _count_bias(
    name: str, values: tuple[str, ...], y: dict[str, Ints], value: dict[str, Ints], num_classes: int
) -> BiasCounts:
    """Return the counts and the association of a bias on each split; the best rule is learned on train."""
    tables = {split: crosstab(y[split], value[split], num_classes, len(values)) for split in y}
    rule = association.best_rule(next(iter(tables.values())))
    few_cells = num_classes * len(values) <= MAX_DENSE_GROUPS
    return BiasCounts(
        name=name,
        values=list(values),
        counts={split: table.dense().tolist() if few_cells else [] for split, table in tables.items()},
        missing={split: float((labels == IGNORE).mean()) for split, labels in value.items()},
        association={split: _measure_association(table, rule) for split, table in tables.items()},
    )


def _measure_association(table: Table, rule: Ints) -> Association:
    values = {
        "cramers_v": association.cramers_v(table),
        "mutual_information": association.normalised_mutual_information(table),
        "bias_only": association.rule_accuracy(table, rule),
        "majority": association.majority_share(table),
    }
    defined = {name: None if math.isnan(value) else value for name, value in values.items()}
    reason = None
    if not table.num_examples:
        reason = "no row has a known value"
    elif defined["mutual_information"] is None:
        reason = "only one class or one bias value occurs"
    elif defined["cramers_v"] is None:
        reason = "there are too many classes and bias values for Cramér's V"
    return Association(**defined, undefined=reason)


def _count_cells(table: Table, occurring_cells: Ints, names: CellNames) -> CellCounts:
    """Return the empty, absent and small groups of a split, and the difference detectable in its smallest group.

    An empty group has no example in this split; an absent group is an empty one with examples in another split.
    occurring_cells: indices of the groups with examples in any split, ascending.
    """

    def cell_counts(cells: Ints, count: Ints) -> list[CellCount]:
        pairs = zip(cells[:MAX_LISTED_GROUPS].tolist(), count[:MAX_LISTED_GROUPS].tolist(), strict=True)
        return [
            CellCount(
                name=names[cell],
                label=names.classes[cell // table.num_values],
                value=names.values[cell % table.num_values],
                n=n,
            )
            for cell, n in pairs
        ]

    num_cells = table.num_classes * table.num_values
    # The range holds at least MAX_LISTED_GROUPS empty groups, or all groups.
    empty_cells = np.setdiff1d(np.arange(min(num_cells, len(table.cells) + MAX_LISTED_GROUPS)), table.cells)
    absent_cells = np.setdiff1d(occurring_cells, table.cells)
    order = np.argsort(table.count, kind="stable")
    cells, count = table.cells[order], table.count[order]
    smallest = next(iter(cell_counts(cells, count)), None)
    return CellCounts(
        empty=num_cells - len(cells),
        absent=len(absent_cells),
        small=int((count < SMALL_GROUP_SIZE).sum()),
        few=SMALL_GROUP_SIZE,
        empty_cells=cell_counts(empty_cells, np.zeros_like(empty_cells)),
        absent_cells=cell_counts(absent_cells, np.zeros_like(absent_cells)),
        small_cells=cell_counts(cells[count < SMALL_GROUP_SIZE], count[count < SMALL_GROUP_SIZE]),
        smallest=smallest,
        difference=association.detectable_difference(smallest.n) if smallest else None,
    )


def _brightness_accuracy(examples: Examples, crop: slice) -> float | None:
    """Return the accuracy on training images of the best rule from brightness to class; None without images.

    crop: Rows and columns of the gray thumbnails in which brightness is measured.
    """
    opened_examples = examples.opened_examples
    if opened_examples is None or opened_examples.prints.thumb is None:
        return None
    train = examples.split[opened_examples.position] == 0
    brightness = (
        opened_examples.prints.thumb[train]
        .reshape(-1, fingerprints.THUMB_SIDE, fingerprints.THUMB_SIDE)[:, crop, crop]
        .mean(axis=(1, 2))
    )
    if not len(brightness):
        return None
    edges = np.unique(np.quantile(brightness, np.linspace(0, 1, BRIGHTNESS_BINS + 1)[1:-1]))
    y = examples.y[opened_examples.position][train]
    bins = np.searchsorted(edges, brightness, side="right")
    table = crosstab(y, bins, examples.data.spec.num_classes, len(edges) + 1)
    return association.rule_accuracy(table, association.best_rule(table))


def _with_image_accuracies(counts: BiasCounts, examples: Examples, value: Ints) -> BiasCounts:
    """Return the counts of a bias with the accuracies of its prediction from images; value: (n,) of all examples."""
    if (opened := examples.opened_examples) is None or opened.prints.color is None or opened.prints.contrast is None:
        return counts
    split, value = examples.split[opened.position], value[opened.position]
    in_train, in_val = (split == examples.splits.index(name) for name in ("train", "val"))

    def accuracy(x: NDArray[np.float32]) -> float | None:
        share = association.neighbour_accuracy(x[in_train], value[in_train], x[in_val], value[in_val])
        return None if math.isnan(share) else share

    color = association.color_features(opened.prints.color)
    contrast = association.contrast_features(opened.prints.contrast)
    return counts.model_copy(update={"color_accuracy": accuracy(color), "contrast_accuracy": accuracy(contrast)})


# --- duplicates ---


def find_duplicates(examples: Examples, opened_examples: OpenedExamples) -> tuple[Duplicates, Ints]:
    """Return equal examples and similar images, and the positions (pairs, 2) of the similar pairs that are listed."""
    split, y = examples.split[opened_examples.position], examples.y[opened_examples.position]
    set_index = fingerprints.equal_sets(opened_examples.prints.digest)
    sets_across_splits, sets_of_two_classes = (
        groups_in_several_parts(set_index, split),
        groups_in_several_parts(set_index, y),
    )
    sets = np.unique(
        np.concatenate(
            [
                sets_across_splits[:MAX_LISTED_SETS],
                sets_of_two_classes[:MAX_LISTED_SETS],
                np.arange(set_index.max(initial=-1) + 1)[:MAX_LISTED_SETS],
            ]
        )
    )
    listed_sets = sorted(
        sets.tolist(), key=lambda index: (index not in sets_across_splits, index not in sets_of_two_classes, index)
    )[:MAX_LISTED_SETS]
    pairs = fingerprints.near_pairs(opened_examples.prints)
    splits_differ, labels_differ = (labels[pairs[:, 0]] != labels[pairs[:, 1]] for labels in (split, y))
    # Pairs across splits first, then pairs with different labels.
    pairs = pairs[np.lexsort((~labels_differ, ~splits_differ))]

    def examples_at(positions: Ints) -> list[Example]:
        return [_make_example(examples, int(position)) for position in opened_examples.position[positions]]

    has_images = opened_examples.prints.phash is not None
    duplicates = Duplicates(
        of="images" if has_images else "vectors",
        n=len(opened_examples.position),
        equal=EqualExamples(
            sets=int(set_index.max(initial=-1)) + 1,
            examples=int((set_index != IGNORE).sum()),
            across=len(sets_across_splits),
            disagree=len(sets_of_two_classes),
            shared=_count_shared(set_index, split, examples.splits),
            listed=[examples_at(np.flatnonzero(set_index == index)[:4]) for index in listed_sets],
        ),
        alike=AlikeImages(
            means=SIMILAR_MEANING,
            pairs=len(pairs),
            across=int(splits_differ.sum()),
            disagree=int(labels_differ.sum()),
            listed=[examples_at(pair) for pair in pairs[:MAX_LISTED_SETS]],
        )
        if has_images
        else None,
    )
    return duplicates, opened_examples.position[pairs[:MAX_LISTED_SETS]]


def _count_shared(set_index: Ints, split: Ints, names: tuple[str, ...]) -> list[SharedExamples]:
    """Count the examples of each later split that equal an example of an earlier split."""
    known = set_index != IGNORE
    count = crosstab(split[known], set_index[known], len(names), int(set_index.max(initial=0)) + 1).dense()
    return [
        SharedExamples(of=names[later], within=names[earlier], n=int(count[later][count[earlier] > 0].sum()))
        for earlier in range(len(names))
        for later in range(earlier + 1, len(names))
    ]


def _make_example(examples: Examples, position: int) -> Example:
    spec, value = examples.data.spec, int(examples.value[position])
    return Example(
        name=examples.name(position),
        split=examples.splits[examples.split[position]],
        label=spec.class_names[examples.y[position]],
        value=None if value == IGNORE else spec.bias_value_names[value],
    )


def load_pairs(examples: Examples, pairs: Ints) -> NDArray[np.uint8] | None:
    """Return the images of the first MAX_DRAWN_PAIRS pairs, uint8 (pairs, 2, 3, H, W); None if there is no pair."""
    if not len(pairs):
        return None
    splits = [split for split in examples.data.splits.values() if isinstance(split, ImageSplit)]

    def load_image(position: int) -> NDArray[np.uint8]:
        split_index = int(examples.split[position])
        pixels = splits[split_index].pixels(torch.tensor([position - int(examples.offset[split_index])]))
        thumbnail: NDArray[np.uint8] = thumbnails(pixels)[0].numpy()
        return thumbnail

    return np.stack([[load_image(int(position)) for position in pair] for pair in pairs[:MAX_DRAWN_PAIRS]])
