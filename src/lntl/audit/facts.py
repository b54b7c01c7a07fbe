"""An audit of the data of a configuration before any training: everything that is told of them, as plain values."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lntl import __version__
from lntl.audit import association
from lntl.audit.association import LEVEL, POWER, Ints, crosstab
from lntl.audit.duplicates import Everything, called, everything, pictures, twins
from lntl.audit.findings import findings
from lntl.audit.opening import Audited, Watch, read
from lntl.audit.recommendation import recommend
from lntl.config import Config
from lntl.data.rows import LabelSettings
from lntl.evaluation.summary import SMALL
from lntl.types import IGNORE, DataSpec, Split

Facts = dict[str, Any]

FORMAT = 1  # of check.json; raise it when the content changes its meaning
DIFFERENCE_MEANS = (
    f"d = z / sqrt(2 n + z^2), z = z(1 - {LEVEL} / 2) + z({POWER}): two proportions around one half, each over n rows"
)
NAMED = 12  # empty and small cells that are named


@dataclass(frozen=True)
class Audit:
    """What was found: facts without a NaN, ready for JSON; pictures (pairs, 2, 3, H, W) uint8 of alike examples."""

    facts: Facts
    pictures: NDArray[np.uint8] | None


def audit(config: Config, look: bool, watch: Watch) -> Audit:
    """Return what can be told of the data; look: open every image, to find equal and unreadable ones.

    Raises UserError where the data cannot be read at all.
    """
    audited = read(config.data, look, watch)
    every = everything(audited.data)
    facts = _facts(config, audited, every)
    shown = None
    if audited.looked is not None:
        facts["duplicates"], pairs = twins(audited.data, audited.looked, every)
        shown = pictures(audited.data, every, pairs)
    facts["findings"] = findings(facts)
    facts["trustworthy"] = not any(each["level"] == "problem" for each in facts["findings"])
    facts["recommendation"] = recommend(facts, pooled="bias_head" in type(config.model).model_fields)
    return Audit(facts, shown)


def _facts(config: Config, audited: Audited, every: Everything) -> Facts:
    data, spec, settings = audited.data, audited.data.spec, config.data
    joint = {name: every.value[every.split == place] for place, name in enumerate(every.names)}
    kind = data.bias_kind
    several = {
        one.name: (one.values, {name: _of_one(split, number) for name, split in data.splits.items()})
        for number, one in enumerate(spec.biases)
    }
    y = {name: every.y[every.split == place] for place, name in enumerate(every.names)}
    biases = [_bias(name, names, y, value, spec.class_names) for name, (names, value) in several.items()]
    biases.append(_bias(kind, spec.bias_value_names, y, joint, spec.class_names))
    looked = audited.looked
    return {
        "format": FORMAT,
        "lntl": __version__,
        "experiment": config.project.experiment_name,
        "data": settings.name,
        "source": data.source,
        "val_note": data.val_note,
        "best_model_metric": config.evaluation.best_model_metric,
        "bias": kind,
        "class_names": list(spec.class_names),
        "n": len(every.y),
        "splits": [_split(name, y[name], joint[name], spec) for name in every.names],
        "biases": biases,  # of several the last is their combination
        "cells": {name: _cells(biases[-1], name, spec.class_names) for name in every.names},
        "opened": looked is not None,
        "on_error": settings.on_error if isinstance(settings, LabelSettings) else None,
        "wrong_rows": list(data.skipped_rows),
        "unreadable": [f"{called(data, every, place)}: {why}" for place, why in looked.broken.items()]
        if looked
        else [],
        "leaking": None
        if audited.leaking is None
        else {"column": audited.leaking.column, "groups": audited.leaking.groups},
        "duplicates": None,
        "difference_means": DIFFERENCE_MEANS,
    }


def _of_one(split: Split, number: int) -> Ints:
    labels: Ints = split.bias_labels(torch.arange(len(split)))[:, number].cpu().numpy()
    return labels


def _split(name: str, y: Ints, value: Ints, spec: DataSpec) -> Facts:
    count = np.bincount(y, minlength=spec.num_classes)
    return {
        "name": name,
        "n": len(y),
        "classes": count.tolist(),
        "missing": float((value == IGNORE).mean()),
        "filled": int((crosstab(y, value, spec.num_classes, spec.num_bias_values) > 0).sum()),
        "cells": spec.num_groups,
    }


def _bias(
    name: str, names: tuple[str, ...], y: dict[str, Ints], value: dict[str, Ints], classes: tuple[str, ...]
) -> Facts:
    """Return the tables of a bias on each split, and how much it tells; its rule is that of the first split, train."""
    tables = {split: crosstab(y[split], value[split], len(classes), len(names)) for split in y}
    rule = association.best_rule(next(iter(tables.values())))
    return {
        "name": name,
        "values": list(names),
        "counts": {split: table.tolist() for split, table in tables.items()},
        "missing": {split: float((each == IGNORE).mean()) for split, each in value.items()},
        "association": {split: _association(table, rule) for split, table in tables.items()},
    }


def _association(table: Ints, rule: Ints) -> Facts:
    values = {
        "cramers_v": association.cramers_v(table),
        "mutual_information": association.normalised_mutual_information(table),
        "bias_only": association.rule_accuracy(table, rule),
        "majority": association.majority(table),
    }
    told: Facts = {name: None if math.isnan(value) else value for name, value in values.items()}
    why = "no row has a known value" if not table.any() else "only one class or one bias value occurs"
    return told | {"undefined": why if None in told.values() else None}


def _cells(bias: Facts, split: str, class_names: tuple[str, ...]) -> Facts:
    """Return which cells (class, bias value) of a split are empty or small, and what its smallest cell can show."""
    table = np.array(bias["counts"][split], dtype=np.int64)

    def named(places: NDArray[np.int64]) -> list[Facts]:
        return [
            {"class": class_names[k], "value": bias["values"][b], "n": int(table[k, b])} for k, b in places.tolist()
        ]

    there = np.argwhere(table > 0)
    there = there[np.argsort(table[tuple(there.T)], kind="stable")]
    empty, few = np.argwhere(table == 0), there[table[tuple(there.T)] < SMALL]
    smallest = next(iter(named(there[:1])), None)
    return {
        "empty": len(empty),
        "small": len(few),
        "few": SMALL,
        "empty_cells": named(empty[:NAMED]),
        "small_cells": named(few[:NAMED]),
        "smallest": smallest,
        "difference": association.detectable_difference(smallest["n"]) if smallest else None,
    }
