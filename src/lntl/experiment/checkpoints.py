"""Open a checkpoint as an experiment; check that its data and configuration are still the same."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lntl import config as configuration
from lntl import plugins
from lntl.config import Config
from lntl.data import load as load_data
from lntl.data.eval_transform import identity
from lntl.errors import DeadEndError, UserError, shorten
from lntl.experiment.build import Experiment, build
from lntl.models import append_eraser
from lntl.plugins import Settings
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.files import describe_fault
from lntl.runs.formats import LearnedData, RowDigests
from lntl.types import Dataset, DataSpec, Networks

Plugin = TypeVar("Plugin", Networks, Dataset)

# Keys that may change when a run is resumed: the finished epochs do not depend on them.
_CHANGEABLE_KEYS = (
    "project.name",
    "project.description",
    "project.experiment_name",
    "training.device",
    "training.devices",
    "training.num_nodes",
    "logging.",
    "evaluation.batch_size",
    "evaluation.metrics",
    "evaluation.erm_epochs",
)


def open_checkpoint(path: Path, device: str | None = None, trust: Sequence[str] = ()) -> tuple[Experiment, Checkpoint]:
    """Return the experiment of the configuration inside a checkpoint, and the checkpoint.

    Args:
        path: The checkpoint.
        device: The device to use instead of the configuration's.
        trust: The user's modules that may be imported to load the checkpoint, besides those in LNTL_TRUST.

    Returns:
        experiment: Data, networks and trainer; the weights are not loaded yet (`load_networks`).
        saved: The checkpoint.

    Raises:
        UserError: If the checkpoint cannot be read, names code that is not trusted, or its data have changed since.
    """
    saved = checkpoint.load(path)
    configuration.check_trusted(saved.config, str(path), trust)
    config = configuration.validate(_with_device(saved.config, device), f"{path} (the configuration inside)")
    experiment = build(config, trained=True)
    check_same_data(experiment.data, saved.data, path)
    return experiment, saved


def _with_device(raw: object, device: str | None) -> object:
    """Return a raw configuration with another device; a malformed one is returned unchanged for validation."""
    if device is None or not isinstance(raw, dict) or not isinstance(training := raw.get("training"), dict):
        return raw
    return raw | {"training": training | {"device": device, "devices": 1, "num_nodes": 1}}


def load_networks(experiment: Experiment, saved: Checkpoint, path: Path) -> Networks:
    """Return the experiment's networks with the weights that a checkpoint evaluates.

    Args:
        experiment: The experiment of `open_checkpoint`.
        saved: The checkpoint.
        path: Its file, for error messages.

    Returns:
        f, g and h, with the moving average of the weights if the phase has one.

    Raises:
        UserError: If the weights do not fit the networks.
    """
    with check_fit(path):
        experiment.networks.load_state_dict(evaluated_weights(saved))
    return experiment.networks


def load_start_weights(experiment: Experiment, path: Path, trust: Sequence[str] = ()) -> None:
    """Load the evaluated weights of a checkpoint into the networks of an experiment.

    The checkpoint must have the same model and training rows; it may lack the eraser. Code that it names is trusted if
    the configuration or `trust` names it, too. Raises UserError if the checkpoint cannot be read or does not fit.
    """
    saved, config = checkpoint.load(path), experiment.config
    trusted = [*configuration.code_names(config.model_dump()), *trust]
    configuration.check_trusted(saved.config, str(path), trusted)
    model = saved.config.get("model") if isinstance(saved.config, dict) else None
    if not isinstance(model, dict) or saved.data is None:
        raise UserError(f"{path}: it does not describe its networks, so training cannot start from it")
    check_same_data(experiment.data, saved.data, path)
    networks = build_networks(model, saved.data.spec, str(path), trusted)
    with check_fit(path):
        networks.load_state_dict(evaluated_weights(saved))
        if config.model.eraser != model.get("eraser", "none"):
            append_eraser(networks, saved.data.spec)
        experiment.networks.load_state_dict(networks.state_dict())


def evaluated_weights(saved: Checkpoint) -> dict[str, Tensor]:
    """Return a checkpoint's weights of f, g and h to evaluate: their average, if it has one."""
    if (average := saved.trainer["average"]) is None:
        return saved.trainer["networks"]
    return {k.removeprefix("module."): v for k, v in average.items() if k.startswith("module.")}


@contextmanager
def check_fit(path: Path) -> Iterator[None]:
    """Turn torch's errors about weights that do not fit the networks, within the block, into UserError."""
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise UserError(f"{path}: its weights do not fit the configured networks and optimisers: {reason}") from error


def describe_data(data: Dataset) -> LearnedData:
    """Return the spec of a data set, the settings of its evaluation transform, and digests of its rows."""
    transform = data.transform or identity(data.spec.input_shape)
    return LearnedData(spec=data.spec, transform=transform.settings(), rows=_digests(data))


def check_same_data(data: Dataset, learned: LearnedData | None, path: Path, resumed: bool = False) -> None:
    """Raise UserError if the data have changed since the checkpoint at `path` was trained.

    Evaluation needs the same names and the same training rows; otherwise test rows may have been used for training.
    Resuming needs all rows unchanged. A checkpoint of an older version, without digests, is accepted.
    """
    if learned is None or learned.rows is None:
        return
    old_spec, new_spec, rows = learned.spec, data.spec, _digests(data)
    changes = [
        change
        for kind, key in (("classes", "class_names"), ("bias values", "bias_value_names"))
        if (change := _describe_renaming(kind, getattr(old_spec, key), getattr(new_spec, key)))
    ]
    if not changes and rows.train != learned.rows.train:
        changes = ["train has other rows, labels or bias values, so test rows may have been used for training"]
    if not changes and resumed and rows.all != learned.rows.all:
        changes = ["the rows of val or test, or the order of the rows, have changed"]
    if changes:
        count = (
            f" ({old_spec.num_rows} rows then, {new_spec.num_rows} now)"
            if old_spec.num_rows != new_spec.num_rows
            else ""
        )
        raise UserError(
            f"{path}: its data have changed since it was trained{count}: {'; '.join(changes)}; "
            f"restore the old data, or train again (data now: {data.source})"
        )


def _describe_renaming(kind: str, old_names: Sequence[str], new_names: Sequence[str]) -> str:
    """Return a phrase about the change of names, "" if they are the same."""
    if tuple(old_names) == tuple(new_names):
        return ""
    removed, added = (sorted(set(a) - set(b)) for a, b in ((old_names, new_names), (new_names, old_names)))
    phrases = [f"{word} {', '.join(names[:5])}" for word, names in (("without", removed), ("with", added)) if names]
    return f"its {kind} are now {' and '.join(phrases) or 'in another order'}"


def _digests(data: Dataset) -> RowDigests:
    """Return digests of the rows' names, labels and biases; the order of rows counts in `all`, but not in `train`."""
    lines = {
        name: [
            f"{data.row_name(row)}\t{y}\t{group}"
            for row, y, group in zip(*(t.tolist() for t in (split.row, split.y, split.group)), strict=True)
        ]
        for name, split in data.splits.items()
    }
    rows = [f"{name} {split.row.tolist()}" for name, split in data.splits.items()]
    all_lines = chain(rows, *lines.values())
    return RowDigests(train=_digest(sorted(lines["train"])), all=_digest(all_lines))


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def check_same_config(config: Config, saved: Checkpoint, path: Path, trust: Sequence[str] = ()) -> None:
    """Raise DeadEndError if the configuration has changed; the last phase may be longer, and phases may be added.

    Keys that an old checkpoint lacks have their defaults. Code that the checkpoint names is trusted if the user's
    configuration names it, too.
    """
    configuration.check_trusted(saved.config, str(path), [*configuration.code_names(config.model_dump()), *trust])
    old_config = configuration.validate(saved.config, f"{path} (the configuration inside)")
    num_phases = len(old_config.training.phases)
    added_phases = tuple(f"training.phases.{i}." for i in range(num_phases, len(config.training.phases)))
    new_settings, old_settings = flatten(config.model_dump()), flatten(old_config.model_dump())
    last_epochs_key = f"training.phases.{num_phases - 1}.epochs"
    changes = [
        f"{key} is {shorten(new_settings.get(key))}, was {shorten(old_settings.get(key))}"
        for key in sorted(new_settings.keys() | old_settings.keys())
        if new_settings.get(key) != old_settings.get(key)
        and not key.startswith(_CHANGEABLE_KEYS + added_phases)
        and key != last_epochs_key
    ]
    if changes:
        raise DeadEndError(
            f"{path}: cannot resume, the configuration differs: {'; '.join(changes[:10])}; use the run's "
            "config.yaml, or train again under another project.experiment_name"
        )
    phase, epoch = saved.trainer["phase"], saved.trainer["epoch"]
    num_finished = sum(p.epochs for p in old_config.training.phases[:phase]) + epoch
    if phase >= num_phases or epoch > old_config.training.phases[phase].epochs or len(saved.records) != num_finished:
        raise UserError(f"{path}: is damaged (phase {phase}, epoch {epoch}, {len(saved.records)} records); use another")
    if phase == num_phases - 1 and epoch > (epochs := config.training.phases[phase].epochs):
        raise DeadEndError(f"{path}: {epoch} epochs of the last phase are done, more than {last_epochs_key} = {epochs}")


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """Return the leaves of nested dicts and lists by dotted path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in flatten(value, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): tree}


def build_networks(
    model: Mapping[str, object], spec: DataSpec, where: str, trust: str | Sequence[str] = ()
) -> Networks:
    """Return networks with random weights for a data spec; `model` is the section `model` of a configuration."""
    configuration.check_trusted({"model": model}, where, trust)
    model_settings = {key: value for key, value in model.items() if key != "eraser"}
    plugin, settings = _load_plugin("lntl.models", Networks, model_settings, where)
    try:
        spec = TypeAdapter(DataSpec).validate_python(spec)
    except ValidationError as error:
        raise UserError(f"{where}: its description of the data is damaged ({describe_fault(error)})") from error
    networks = plugin(spec, settings)
    if model.get("eraser", "none") != "none":
        append_eraser(networks, spec)
    return networks


def build_data(data: Mapping[str, object], where: str, trust: str | Sequence[str]) -> Dataset:
    """Return the data set of a section `data` of a configuration."""
    configuration.check_trusted({"data": data}, where, trust)
    _, settings = _load_plugin("lntl.data", Dataset, data, where)  # type: ignore[type-abstract]
    return load_data(str(data["name"]), settings)


def _load_plugin(
    folder: str, base: type[Plugin], section: Mapping[str, object], where: str
) -> tuple[type[Plugin], Settings]:
    """Return the plug-in that a section names, and its settings."""
    name = section.get("name")
    try:
        plugin = plugins.load(folder, name if isinstance(name, str) else "", base)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    try:
        return plugin, plugin.Config.model_validate({key: value for key, value in section.items() if key != "name"})
    except ValidationError as error:
        section_name = folder.removeprefix("lntl.").removesuffix("s")
        raise UserError(f"{where}: its section {section_name} is not valid: {describe_fault(error)}") from error
