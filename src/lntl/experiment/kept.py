"""What a checkpoint keeps of its data, as plain values: to use its networks without them, and to see them change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lntl import plugins
from lntl.config import named
from lntl.data import load as load_data
from lntl.data.eval_transform import as_it_is
from lntl.errors import UserError
from lntl.types import Dataset, DataSpec, Networks


def of_data(data: Dataset) -> dict[str, Any]:
    """Return the spec of a data set, the settings of its evaluation transform, and digests of its rows."""
    transform = data.transform or as_it_is(data.spec.input_shape)
    return {"spec": asdict(data.spec), "transform": transform.settings(), "rows": _digests(data)}


def check_same(data: Dataset, kept: Mapping[str, Any] | None, path: Path, resumed: bool = False) -> None:
    """Raise UserError where data are no longer those that the checkpoint at `path` learned from.

    To be evaluated it takes the same training rows, so that none of them can be a test row by now, and the same names;
    to be resumed, all rows as they were. A checkpoint that keeps no digests, of an older version, passes.
    """
    if kept is None or "rows" not in kept:
        return
    then, now, rows = kept["spec"], asdict(data.spec), _digests(data)
    changed = [
        told
        for what, key in (("classes", "class_names"), ("bias values", "bias_value_names"))
        if (told := _renamed(what, then[key], now[key]))
    ]
    if not changed and rows["train"] != kept["rows"]["train"]:
        changed = ["other rows, or rows with another label or bias, are in train, so that it may know test rows"]
    if not changed and resumed and rows["all"] != kept["rows"]["all"]:
        changed = ["the rows of val or test, or the order of all, are others"]
    if changed:
        count = f" ({then['num_rows']} rows then, {now['num_rows']} now)" if then["num_rows"] != now["num_rows"] else ""
        raise UserError(
            f"{path}: its data have changed since it was trained{count}: {'; '.join(changed)}; "
            f"put them back as they were, or train anew (data now: {data.source})"
        )


def _renamed(what: str, then: Sequence[str], now: Sequence[str]) -> str:
    """Return how names have changed, nothing where they have not."""
    if tuple(then) == tuple(now):
        return ""
    gone, new = (sorted(set(a) - set(b)) for a, b in ((then, now), (now, then)))
    sides = [f"{side} {', '.join(names[:5])}" for side, names in (("without", gone), ("with", new)) if names]
    return f"its {what} are now {' and '.join(sides) or 'in another order'}"


def _digests(data: Dataset) -> dict[str, str]:
    """Return digests of name, label and bias of the rows: of train in any order, of all splits as they are."""
    lines = {
        name: [
            f"{data.row_name(row)}\t{y}\t{group}"
            for row, y, group in zip(*(t.tolist() for t in (split.row, split.y, split.group)), strict=True)
        ]
        for name, split in data.splits.items()
    }
    rows = [f"{name} {split.row.tolist()}" for name, split in data.splits.items()]
    return {"train": _digest(sorted(lines["train"])), "all": _digest([*rows, *chain.from_iterable(lines.values())])}


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def networks(
    model: Mapping[str, Any], spec: Mapping[str, Any], where: str, trust: str | Sequence[str] = ()
) -> Networks:
    """Return the networks of a section `model` of a configuration, with random weights, for data of that spec.

    trust: modules that may be imported for it, besides those that are imported already.
    """
    plugin, settings = _plugin("lntl.models", model, where, trust)
    try:
        read = TypeAdapter(DataSpec).validate_python(spec)
    except ValidationError as error:
        raise UserError(f"{where}: the data that it tells of are none: {error.errors()[0]['msg']}") from error
    made: Networks = plugin(read, settings)
    return made


def dataset(data: Mapping[str, Any], where: str, trust: str | Sequence[str]) -> Dataset:
    """Return the data set of a section `data` of a configuration; trust: as of `networks`."""
    _, settings = _plugin("lntl.data", data, where, trust)
    _check_functions(data, where, trust)
    return load_data(str(data["name"]), settings)


def check_trusted(config: Any, where: str, trust: str | Sequence[str] = ()) -> None:
    """Raise UserError where a configuration, not checked yet, names code to import; trust: as of `networks`."""
    data, model, methods = named(config)
    for name in (data, model, *methods):
        plugins.check_trust(name, where, trust)
    _check_functions(config.get("data") if isinstance(config, dict) else None, where, trust)


def _check_functions(data: Any, where: str, trust: str | Sequence[str]) -> None:
    """Raise UserError where a section `data` names a function, of a bias that images show, that is not trusted."""
    biases = data.get("bias") if isinstance(data, Mapping) else None
    for bias in biases if isinstance(biases, list) else [biases]:
        function = bias.get("from") if isinstance(bias, Mapping) else None
        if isinstance(function, str):
            plugins.check_trust(function, where, trust)


def _plugin(folder: str, section: Mapping[str, Any], where: str, trust: str | Sequence[str]) -> tuple[Any, Any]:
    """Return the plug-in that a section names, and its settings."""
    name = str(section["name"])
    plugins.check_trust(name, where, trust)
    try:
        plugin = plugins.load(folder, name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    try:
        return plugin, plugin.Config.model_validate({key: value for key, value in section.items() if key != "name"})
    except ValidationError as error:
        what = folder.removeprefix("lntl.").removesuffix("s")
        raise UserError(f"{where}: the {what} it describes cannot be built: {error.errors()[0]['msg']}") from error
