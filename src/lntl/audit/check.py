"""The audit of a configuration's data before any training."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lntl import __version__
from lntl.audit import association, fingerprints
from lntl.audit.association import POWER, SIGNIFICANCE, Ints, Table, crosstab
from lntl.audit.examples import Examples, OpenedExamples, Watch, read
from lntl.audit.findings import findings, recommend
from lntl.config import Config
from lntl.data.rows import LabelSettings, straddling
from lntl.data.transforms import thumbnails
from lntl.evaluation.metrics import DENSE, CellNames, bias_name
from lntl.evaluation.summary import SMALL
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
    f"d = z / sqrt(2 n + z^2), z = z(1 - {SIGNIFICANCE} / 2) + z({POWER}): two proportions around one half, each over "
    "n rows"
)
MAX_LISTED_GROUPS = 12  # number of empty, of absent and of small groups that are listed
MAX_LISTED = 20  # number of sets of equal examples, and of pairs of similar images, that are listed
MAX_PICTURES = 8  # number of pairs of similar images that are drawn
SIMILAR_MEANING = (
    f"at most {fingerprints.BITS} of 64 bits of a perceptual hash differ, and small grey versions correlate by at "
    f"least {fingerprints.ALIKE}"
)
BRIGHTNESS_BINS = 10  # bins of equal counts for the brightness of training images


@dataclass(frozen=True)
class Audit:
    """The result of an audit, and pairs of similar images, uint8 (pairs, 2, 3, H, W); None without a pair."""

    check: Check
    pictures: NDArray[np.uint8] | None


def audit(config: Config, images: bool, watch: Watch) -> Audit:
    """Audit the data of a configuration before training.

    Args:
        config: The configuration.
        images: Whether to open every image, to find equal, similar and unreadable images.
        watch: Shows progress.

    Raises:
        UserError: If the data cannot be read at all.
    """
    examples = read(config.data, images, watch)
    check, similar_images = _check(config, examples), None
    if examples.opened_examples is not None:
        check.duplicates, pairs = find_duplicates(examples, examples.opened_examples)
        similar_images = pictures(examples, pairs)
    check.findings = findings(check)
    check.recommendation = recommend(check, pooled="bias_head" in type(config.model).model_fields)

    return Audit(check, similar_images)


def _check(config: Config, examples: Examples) -> Check:
    data, spec, opened = examples.data, examples.data.spec, examples.opened_examples
    parts = {name: examples.split == number for number, name in enumerate(examples.splits)}
    y = {name: examples.y[part] for name, part in parts.items()}
    joint = {name: examples.value[part] for name, part in parts.items()}
    tables = {name: crosstab(y[name], joint[name], spec.num_classes, spec.num_bias_values) for name in examples.splits}
    biases = [
        _bias(
            single.name,
            single.values,
            y,
            {n: _labels(split, number) for n, split in data.splits.items()},
            spec.num_classes,
        )
        for number, single in enumerate(spec.biases)
    ]
    bias = bias_name(data.bias_kind, spec.biases)
    biases.append(_bias(bias, spec.bias_value_names, y, joint, spec.num_classes))
    names = CellNames(spec.class_names, spec.bias_value_names, data.label_kind, bias, spec.biases)
    occurring = np.unique(np.concatenate([table.cells for table in tables.values()]))
    leaking = examples.leaking
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
        annotated=len(occurring) > 0,
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
        cells={name: _cells(table, occurring, names) for name, table in tables.items()},
        brightness_only=_brightness_only(examples, slice(None)),
        center_brightness_only=_brightness_only(examples, slice(fingerprints.THUMB // 4, -fingerprints.THUMB // 4)),
        opened=opened is not None,
        on_error=config.data.on_error if isinstance(config.data, LabelSettings) else None,
        wrong_rows=list(data.skipped_rows),
        unreadable=[f"{examples.name(n)}: {reason}" for n, reason in opened.unreadable.items()] if opened else [],
        leaking=None if leaking is None else LeakingGroups(column=leaking.column, groups=leaking.groups),
        duplicates=None,
        difference_means=DIFFERENCE_MEANING,
    )


def _labels(split: Split, bias_index: int) -> Ints:
    labels: Ints = split.bias_labels(torch.arange(len(split)))[:, bias_index].cpu().numpy()
    return labels


def _bias(
    name: str, values: tuple[str, ...], y: dict[str, Ints], value: dict[str, Ints], num_classes: int
) -> BiasCounts:
    """Return the counts and the association of a bias on each split; the best rule is learned on train."""
    tables = {split: crosstab(y[split], value[split], num_classes, len(values)) for split in y}
    rule = association.best_rule(next(iter(tables.values())))
    few_cells = num_classes * len(values) <= DENSE
    return BiasCounts(
        name=name,
        values=list(values),
        counts={split: table.dense().tolist() if few_cells else [] for split, table in tables.items()},
        missing={split: float((labels == IGNORE).mean()) for split, labels in value.items()},
        association={split: _association(table, rule) for split, table in tables.items()},
    )


def _association(table: Table, rule: Ints) -> Association:
    values = {
        "cramers_v": association.cramers_v(table),
        "mutual_information": association.normalised_mutual_information(table),
        "bias_only": association.rule_accuracy(table, rule),
        "majority": association.majority_share(table),
    }
    defined = {name: None if math.isnan(value) else value for name, value in values.items()}
    reason = None
    if not table.rows:
        reason = "no row has a known value"
    elif defined["mutual_information"] is None:
        reason = "only one class or one bias value occurs"
    elif defined["cramers_v"] is None:
        reason = "there are too many classes and bias values for Cramér's V"
    return Association(**defined, undefined=reason)


def _cells(table: Table, occurring: Ints, names: CellNames) -> CellCounts:
    """Return the empty, absent and small groups of a split, and the difference detectable in its smallest group.

    An empty group has no example in this split; an absent group is an empty one with examples in another split.
    occurring: indices of the groups with examples in any split, ascending.
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

    total = table.num_classes * table.num_values
    # There are at least MAX_LISTED_GROUPS empty groups below this limit, or all of them.
    empty = np.setdiff1d(np.arange(min(total, len(table.cells) + MAX_LISTED_GROUPS)), table.cells)
    absent = np.setdiff1d(occurring, table.cells)
    order = np.argsort(table.count, kind="stable")
    cells, count = table.cells[order], table.count[order]
    smallest = next(iter(cell_counts(cells, count)), None)
    return CellCounts(
        empty=total - len(cells),
        absent=len(absent),
        small=int((count < SMALL).sum()),
        few=SMALL,
        empty_cells=cell_counts(empty, np.zeros_like(empty)),
        absent_cells=cell_counts(absent, np.zeros_like(absent)),
        small_cells=cell_counts(cells[count < SMALL], count[count < SMALL]),
        smallest=smallest,
        difference=association.detectable_difference(smallest.n) if smallest else None,
    )


def _brightness_only(examples: Examples, part: slice) -> float | None:
    """Return the accuracy on training images of the best rule from brightness to class; None without images.

    part: Rows and columns of the grey thumbnails in which brightness is measured.
    """
    opened = examples.opened_examples
    if opened is None or opened.prints.thumb is None:
        return None
    train = examples.split[opened.position] == 0
    brightness = (
        opened.prints.thumb[train].reshape(-1, fingerprints.THUMB, fingerprints.THUMB)[:, part, part].mean(axis=(1, 2))
    )
    if not len(brightness):
        return None
    edges = np.unique(np.quantile(brightness, np.linspace(0, 1, BRIGHTNESS_BINS + 1)[1:-1]))
    y = examples.y[opened.position][train]
    bins = np.searchsorted(edges, brightness, side="right")
    table = crosstab(y, bins, examples.data.spec.num_classes, len(edges) + 1)
    return association.rule_accuracy(table, association.best_rule(table))


# --- duplicates ---


def find_duplicates(examples: Examples, opened: OpenedExamples) -> tuple[Duplicates, Ints]:
    """Return equal examples and similar images, and the positions (pairs, 2) of the similar pairs that are listed."""
    split, y = examples.split[opened.position], examples.y[opened.position]
    set_index = fingerprints.equal_sets(opened.prints.digest)
    across, disagree = straddling(set_index, split), straddling(set_index, y)
    sets = np.unique(
        np.concatenate(
            [across[:MAX_LISTED], disagree[:MAX_LISTED], np.arange(set_index.max(initial=-1) + 1)[:MAX_LISTED]]
        )
    )
    order = sorted(sets.tolist(), key=lambda equal: (equal not in across, equal not in disagree, equal))[:MAX_LISTED]
    pairs = fingerprints.near_pairs(opened.prints)
    splits_differ, labels_differ = (labels[pairs[:, 0]] != labels[pairs[:, 1]] for labels in (split, y))
    pairs = pairs[
        np.lexsort((~labels_differ, ~splits_differ))
    ]  # pairs across splits first, then pairs with different labels

    def examples_at(positions: Ints) -> list[Example]:
        return [_example(examples, int(position)) for position in opened.position[positions]]

    has_pictures = opened.prints.phash is not None
    duplicates = Duplicates(
        of="images" if has_pictures else "vectors",
        n=len(opened.position),
        equal=EqualExamples(
            sets=int(set_index.max(initial=-1)) + 1,
            examples=int((set_index != IGNORE).sum()),
            across=len(across),
            disagree=len(disagree),
            shared=_shared(set_index, split, examples.splits),
            listed=[examples_at(np.flatnonzero(set_index == equal)[:4]) for equal in order],
        ),
        alike=AlikeImages(
            means=SIMILAR_MEANING,
            pairs=len(pairs),
            across=int(splits_differ.sum()),
            disagree=int(labels_differ.sum()),
            listed=[examples_at(pair) for pair in pairs[:MAX_LISTED]],
        )
        if has_pictures
        else None,
    )
    return duplicates, opened.position[pairs[:MAX_LISTED]]


def _shared(set_index: Ints, split: Ints, names: tuple[str, ...]) -> list[SharedExamples]:
    """Count the examples of each later split that equal an example of an earlier split."""
    known = set_index != IGNORE
    count = crosstab(split[known], set_index[known], len(names), int(set_index.max(initial=0)) + 1).dense()
    return [
        SharedExamples(of=names[late], within=names[early], n=int(count[late][count[early] > 0].sum()))
        for early in range(len(names))
        for late in range(early + 1, len(names))
    ]


def _example(examples: Examples, position: int) -> Example:
    spec, value = examples.data.spec, int(examples.value[position])
    return Example(
        name=examples.name(position),
        split=examples.splits[examples.split[position]],
        label=spec.class_names[examples.y[position]],
        value=None if value == IGNORE else spec.bias_value_names[value],
    )


def pictures(examples: Examples, pairs: Ints) -> NDArray[np.uint8] | None:
    """Return the images of the first MAX_PICTURES pairs, uint8 (pairs, 2, 3, H, W); None if there is no pair."""
    if not len(pairs):
        return None
    splits = [split for split in examples.data.splits.values() if isinstance(split, ImageSplit)]

    def picture(position: int) -> NDArray[np.uint8]:
        split_index = int(examples.split[position])
        pixels = splits[split_index].pixels(torch.tensor([position - int(examples.begin[split_index])]))
        thumbnail: NDArray[np.uint8] = thumbnails(pixels)[0].numpy()
        return thumbnail

    return np.stack([[picture(int(position)) for position in pair] for pair in pairs[:MAX_PICTURES]])
