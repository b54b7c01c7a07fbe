"""How much bias is left in a run: the table of its probes, and sentences that say it."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

from rich import box
from rich.table import Table

# Shares of what there is to read above chance, (accuracy - chance) / (1 - chance), up to which a word holds.
_NONE, _WORDS = 0.05, ((0.25, "little"), (0.6, "part"), (1.0, "most"))


def probe_table(found: dict[str, Any]) -> Table:
    """Return layer x probe: accuracy on unseen images, mean ± std over seeds, beside ERM (if any), pixels, chance."""
    seeds = len(found["seeds"])
    table = Table(
        title=f"{found['bias']}: share of {found['n_test']} unseen test images whose value fresh probes read "
        f"({seeds} seed{'s' if seeds > 1 else ''})",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("layer", "probe"):
        table.add_column(name, no_wrap=True)
    erm = {(row["layer"], row["probe"]): row for row in found["reference"]["erm"] or []}
    pixels = {row["probe"]: row for row in found["reference"]["pixels"]}
    for name in ("accuracy", *(["ERM"] if erm else []), "pixels"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["probes"]:
        plain = [erm.get((row["layer"], row["probe"]))] if erm else []
        beside = (row, *plain, pixels.get(row["probe"]))
        table.add_row(row["layer"], row["probe"], *map(_accuracy, beside))
    table.add_section()
    table.add_row("chance", "most frequent", f"{found['chance']['majority']:.3f}")
    table.add_row("chance", "permuted", f"{found['chance']['permutation']:.3f}")
    if found["h_accuracy"] is not None:
        table.add_section()
        table.add_row("f", "h, own labels", f"{found['h_accuracy']:.3f}")
        table.add_row("chance", "most frequent", f"{found['h_chance']:.3f}")
    return table


def _accuracy(row: dict[str, Any] | None) -> str:
    """Return mean ± std of a row of probe.json, the mean alone of one seed."""
    if row is None:
        return ""
    return f"{row['mean']:.3f}" if row["std"] is None else f"{row['mean']:.3f} ± {row['std']:.3f}"


def per_bias(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what was found of each of several biases, in the form of what was found of all together."""
    for name, one in found.get("per_bias", {}).items():
        yield found | {"h_accuracy": None, "per_bias": {}} | one | {"bias": name}


def verdict(found: dict[str, Any]) -> Iterator[str]:
    """Yield in plain sentences how much bias is left, what recolouring did, and what to keep in mind."""
    chance = max(found["chance"].values())
    best = max(found["probes"], key=lambda row: row["mean"])
    erm = max((row["mean"] for row in found["reference"]["erm"] or []), default=None)
    beside = "" if erm is None else f"; plain training: {erm:.1%}"
    yield (
        f"{_left(best['mean'], chance, found['n_test'])}: the best fresh probe ({best['probe']} at {best['layer']}) "
        f"reads the {found['bias']} of {best['mean']:.1%} of unseen images (chance {chance:.1%}{beside}){_head(found)}."
    )
    for one in per_bias(found):
        level = max(one["chance"].values())
        best = max(one["probes"], key=lambda row: row["mean"])
        yield (
            f"{one['bias']} alone: {_left(best['mean'], level, one['n_test']).lower()}; the best fresh probe "
            f"({best['probe']} at {best['layer']}) reads it of {best['mean']:.1%} of unseen images "
            f"(chance {level:.1%})."
        )
    if found["recoloring"] is not None:
        yield _recolored(found["recoloring"])
    yield from (f"Note: {warning}." for warning in found["warnings"])


def at_chance(accuracy: float, chance: float, n: int) -> bool:
    """Return whether an accuracy on n images counts as guessing: hardly above chance, or by no more than noise."""
    margin = 3 * sqrt(chance * (1 - chance) / n)  # three standard errors of an accuracy at chance
    return share(accuracy, chance) <= _NONE or accuracy <= chance + margin


def share(accuracy: float, chance: float) -> float:
    """Return how much of what there is to read above chance is read."""
    return (accuracy - chance) / max(1 - chance, 1e-12)


def _left(accuracy: float, chance: float, n: int) -> str:
    if at_chance(accuracy, chance, n):
        return "No bias was found to be left"
    word = next((word for limit, word in _WORDS if share(accuracy, chance) <= limit), "most")
    return f"{word.capitalize()} of the bias is left"


def _head(found: dict[str, Any]) -> str:
    """Return what to say of h: fooled where it is at chance although a fresh probe reads the bias."""
    if found["h_accuracy"] is None:
        return "; no phase trained a bias head h"
    told = f"h reads {found['h_accuracy']:.1%} of its own bias labels (chance {found['h_chance']:.1%})"
    if not at_chance(found["h_accuracy"], found["h_chance"], found["n_test"]):
        return f"; {told}, so h was not fooled"
    if at_chance(found["leakage"], max(found["chance"].values()), found["n_test"]):
        return f"; {told}, which agrees"
    return f"; {told}, so h was fooled: it is at chance although the bias can be read"


def _recolored(found: dict[str, Any]) -> str:
    """Return the sentence about recoloring.json."""
    flip, change = found["flip_rate"], found["mean_change"]
    plain_flip = plain_change = ""
    if found["erm"] is not None:
        plain_flip = f"; plain training: {found['erm']['flip_rate']['value']:.1%}"
        plain_change = f"; plain training: {found['erm']['mean_change']['value']:.3f}"
    return (
        f"Shown in all {len(found['colors'])} colours, {flip['value']:.1%} of {found['n']} test images do not keep "
        f"their prediction (95 % interval {flip['low']:.1%} to {flip['high']:.1%}{plain_flip}); the probabilities move "
        f"by {change['value']:.3f} on average, where 0 is none ({change['low']:.3f} to {change['high']:.3f}"
        f"{plain_change})."
    )
