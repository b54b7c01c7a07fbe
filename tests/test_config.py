"""The configuration: defaults, faults, overrides, inheritance, and reading the resolved YAML of a run."""

import ast
import copy
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lntl import config as configuration
from lntl import plugins
from lntl.config import Config, keys
from lntl.errors import UserError
from lntl.methods.base import Method
from lntl.methods.lntl import LNTL
from lntl.text import count
from lntl.types import Dataset, Networks
from lntl.yaml_file import parse, read_yaml

PACKAGE = Path(plugins.__file__).parent
DEFAULT_PATH = configuration.find("colored_mnist_default")
RawConfig = Callable[..., dict[str, Any]]


def find_faults(raw: Any) -> list[str]:
    """Return the faults that the check finds, one sentence each."""
    with pytest.raises(UserError) as error:
        configuration.validate(raw, "test.yaml")
    head, *lines = str(error.value).splitlines()
    assert head == f"test.yaml: {count(len(lines), 'error')} in the configuration"
    return [line.strip() for line in lines]


# --- valid configurations ---


def test_missing_keys_get_their_defaults(raw_config: RawConfig) -> None:
    config = configuration.validate(raw_config("erm"), "test")
    assert config.project.seed == 0
    assert config.data.color_var == 0.030
    assert config.training.phases[0].optimizer_fg == configuration.Optimizer(name="adam", lr=0.001)
    assert (config.training.ema, config.training.phases[0].ema) == (None, None)
    assert config.evaluation.best_model_metric == "accuracy"


def test_the_sections_logging_and_evaluation_may_be_left_out(raw_config: RawConfig) -> None:
    raw = raw_config("erm")
    del raw["logging"], raw["evaluation"]
    assert configuration.validate(raw, "test").logging.output_dir == "results"


def test_a_configuration_cannot_be_changed(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_config().project.seed = 1


def test_phases_inherit_missing_settings_from_training(make_config: Callable[..., Config]) -> None:
    config = make_config(
        {"method": "erm", "optimizer_fg": {"lr": 0.5}, "ema": None},
        "erm",
        training={"optimizer_fg": {"name": "sgd", "lr": 0.1, "momentum": 0.5}, "ema": 0.9, "clip_grad_norm": 2.0},
    )
    first_phase, second_phase = config.training.phases
    assert first_phase.optimizer_fg == configuration.Optimizer(name="sgd", lr=0.5, momentum=0.5)  # one key is changed
    assert second_phase.optimizer_fg == config.training.optimizer_fg
    assert (first_phase.ema, second_phase.ema) == (None, 0.9)
    assert first_phase.clip_grad_norm == second_phase.clip_grad_norm == 2.0
    assert second_phase.optimizer_h == configuration.Optimizer()


def test_adversarial_lambda_is_mu_of_the_phases_that_have_one(make_config: Callable[..., Config]) -> None:
    config = make_config(
        "erm", "lntl", {"method": "lntl", "mu": 0.7}, {"method": "lntl"}, training={"adversarial_lambda": 0.3}
    )
    assert [getattr(phase, "mu", None) for phase in config.training.phases] == [None, 0.3, 0.7, 0.3]
    assert make_config("lntl").training.phases[0].mu == LNTL.Config().mu


def test_num_epochs_sets_the_last_phase_and_limits_the_others() -> None:
    def read_epochs(number: int | None) -> list[int]:
        config = configuration.read(DEFAULT_PATH, overrides, number)
        return [*(phase.epochs for phase in config.training.phases), config.evaluation.erm_epochs]

    overrides = ["training.phases.0.epochs=3", "training.phases.1.epochs=1", "evaluation.erm_epochs=5"]
    epochs_of_the_file = read_epochs(None)
    assert epochs_of_the_file[:2] == [3, 1]
    assert read_epochs(2) == [2, 1, 2, 2]
    assert read_epochs(9) == [3, 1, 9, 5]


@pytest.mark.parametrize("number", [0, -1])
def test_num_epochs_below_1_is_refused(number: int) -> None:
    with pytest.raises(UserError, match=f"must be at least 1, not {number}"):
        configuration.read(DEFAULT_PATH, [], number)


def test_the_erm_config_differs_only_in_its_phases() -> None:
    config = configuration.read(DEFAULT_PATH, ["evaluation.erm_epochs=7", "project.seed=3"])
    erm_config = configuration.erm_config(config, Path("runs/mine"))
    assert [(phase.method, phase.epochs) for phase in erm_config.training.phases] == [("erm", 7)]
    assert erm_config.data.model_dump() == config.data.model_dump()
    assert (erm_config.model.name, erm_config.project.seed) == (config.model.name, 3)
    assert erm_config.training.phases[0].optimizer_fg == config.training.optimizer_fg
    assert erm_config.training.phases[0].ema == config.training.ema
    assert Path(erm_config.logging.output_dir) == Path("runs/mine")
    assert erm_config.evaluation.erm_epochs == 0


def test_plain_training_has_no_random_colors() -> None:
    config = configuration.read(
        DEFAULT_PATH,
        ["evaluation.erm_epochs=7", "data.random_colors=0.5", "data.random_invert=0.5", "data.rotation=15"],
    )
    data = configuration.erm_config(config, Path("runs/mine")).data
    assert data.model_dump() == config.data.model_dump() | {"random_colors": 0.0, "random_invert": 0.0}


def test_a_users_method_adds_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: RawConfig) -> None:
    (tmp_path / "own_method.py").write_text(
        "from lntl.methods.erm import ERM\nfrom lntl.plugins import Settings\n"
        "from pydantic import Field\n"
        "class Mine(ERM):\n    class Config(Settings):\n        power: int = 2\n        mu: float = Field(1.0, le=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    raw = raw_config("erm", {"method": "own_method.Mine", "power": 5}, training={"adversarial_lambda": 0.25})
    phase = configuration.validate(raw, "test").training.phases[1]
    assert (phase.method, phase.power, phase.mu) == ("own_method.Mine", 5, 0.25)
    raw["training"]["phases"][1]["powr"] = 1
    assert find_faults(raw) == ["training.phases.1.powr: unknown key; did you mean 'power'?"]
    del raw["training"]["phases"][1]["powr"]
    raw["training"]["adversarial_lambda"] = 9.0  # valid in the section, too high for the phase that inherits it
    (fault,) = find_faults(raw)
    assert "9.0 should be less than or equal to 1" in fault


def test_the_name_of_a_model_may_contain_the_architecture(raw_config: RawConfig) -> None:
    raw = raw_config(model={"name": "torchvision/resnet18", "split": "layer2"})
    model: Any = configuration.validate(raw, "test").model
    assert (model.name, model.arch, model.split) == ("torchvision", "resnet18", "layer2")
    raw["model"] |= {"name": "torchvision", "arch": "resnet18"}
    assert configuration.validate(raw, "test").model == model


# --- invalid configurations ---


@pytest.mark.parametrize(
    ("key", "value", "message"),  # ... stands for any text
    [
        ("project.sed", 1, "project.sed: unknown key; did you mean 'seed'?"),
        ("data.color_va", 1, "data.color_va: unknown key; did you mean 'color_var'?"),
        ("training.phases.0.lamb", 1, "training.phases.0.lamb: unknown key; did you mean 'lam'?"),
        ("training.phases.0.optimizer_h.nam", 1, "training.phases.0.optimizer_h.nam: unknown key; ... 'name'?"),
        ("trainin", {}, "trainin: unknown key; did you mean 'training'?"),
        ("model.feature_dim", 8, "model.feature_dim: unknown key; valid: batch_norm, bias_head, ... split"),
        ("project.seed", -1, "project.seed: -1 should be greater than or equal to 0"),
        ("project.seed", 1.5, "project.seed: 1.5 should be a valid integer"),
        ("project.seed", True, "project.seed: True should be a valid integer"),
        ("project.seed", "1", "project.seed: '1' should be a valid integer"),
        ("project.experiment_name", "a/b", "project.experiment_name: 'a/b' should be a name..."),
        ("project.experiment_name", "", "project.experiment_name: ... not ''"),
        ("training.batch_size", 1, "training.batch_size: 1 should be greater than or equal to 2"),
        ("training.phases", [], "training.phases: ...at least 1 item... not []"),
        ("training.phases", 3, "training.phases: 3 should be a valid list"),
        ("training.phases.0", "lntl", "training.phases.0: 'lntl' should be a mapping of keys to values"),
        ("training.phases.0.epochs", 0, "training.phases.0.epochs: 0 should be greater than or equal to 1"),
        ("training.phases.0.mu", "x", "training.phases.0.mu: 'x' should be a valid number"),
        ("training.phases.0.updates", "joined", "training.phases.0.updates: unknown value 'joined'; ... 'joint'?"),
        ("training.phases.0.method", "lnlt", "training.phases.0.method: unknown name 'lnlt'; did you mean 'lntl'?"),
        ("training.phases.0.method", 3, "training.phases.0.method: unknown name '3'; valid: ...erm..."),
        ("model.name", "lenett", "model.name: unknown name 'lenett'; did you mean 'lenet'?"),
        ("model.name", "torchvison/vgg11", "model.name: unknown name 'torchvison'; did you mean 'torchvision'?"),
        ("model.name", "torchvision/vgg11", "model.split: missing (...)"),
        (
            "model",
            {"name": "timm/a", "arch": "b", "split": "c"},
            "...model.name and model.arch name two architectures, 'a' and 'b'...",
        ),
        ("data.name", "colored_mnits", "data.name: unknown ... 'colored_mnits'; did you mean 'colored_mnist'?"),
        ("data.color_var", float("nan"), "data.color_var: nan should be a finite number"),
        ("data.val_coloring", "blue", "data.val_coloring: unknown value 'blue'; valid: biased, random"),
        (
            "data",
            {"name": "biased_mnist", "foreground_correlation": 2},
            "data.foreground_correlation: 2 should be less than or equal to 1, or 'same'",
        ),
        ("evaluation.metrics.0", "acc", "evaluation.metrics.0: unknown value 'acc'; did you mean 'accuracy'?"),
        ("evaluation", None, "evaluation: None should be a mapping of keys to values"),
        ("logging", 3, "logging: 3 should be a mapping of keys to values"),
        ("logging.use_tensorboard", "Yes", "logging.use_tensorboard: 'Yes' is a string in YAML 1.2; write true"),
        ("logging.use_tensorboard", "off", "logging.use_tensorboard: 'off' is a string in YAML 1.2; write false"),
        ("logging.output_dir", "a\0b", "logging.output_dir: 'a\\x00b' should be a string without the character NUL"),
        ("project.experiment_name", "a\0b", "project.experiment_name: 'a\\x00b' should be a name..."),
        ("project.experiment_name", "a\x1bb", "project.experiment_name: 'a\\x1bb' should be a name..."),
        # a wrong value that phases inherit is one fault, at the place where it is written
        ("training.optimizer_fg.lr", 0, "training.optimizer_fg.lr: 0 should be greater than 0"),
        ("training.optimizer_fg.nam", 0, "training.optimizer_fg.nam: unknown key; did you mean 'name'?"),
        ("training.optimizer_h", 3, "training.optimizer_h: 3 should be a mapping of keys to values"),
        ("training.ema", 1.0, "training.ema: 1.0 should be less than 1"),
        ("training.adversarial_lambda", -1, "training.adversarial_lambda: -1 should be greater than or equal to 0"),
    ],
)  # fmt: skip
def test_a_fault_is_reported_with_path_value_and_nearest_name(
    raw_config: RawConfig, key: str, value: Any, message: str
) -> None:
    raw = raw_config("lntl")
    raw["evaluation"]["metrics"] = ["accuracy"]
    raw["training"] |= {"optimizer_fg": {}, "optimizer_h": {}}
    raw["training"]["phases"][0]["optimizer_h"] = {}
    *parents, last_key = [int(part) if part.isdecimal() else part for part in key.split(".")]
    section: Any = raw
    for part in parents:
        section = section[part]
    section[last_key] = value
    (fault,) = find_faults(raw)
    assert re.fullmatch(".*".join(map(re.escape, message.split("..."))), fault), fault


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.batch_size", 10**30),
        ("training.optimizer_fg", {"lr": 1e39}),
        ("training.phases", [{"method": "lntl", "epochs": 10**12}]),
        ("training.phases", [{"method": "lntl", "epochs": 1, "mu": 1e300}]),
        ("model", {"name": "mlp", "hidden": [10**12]}),
        ("model", {"name": "lenet", "feature_dim": 10**12}),
        ("data", {"name": "arrays", "path": "a.npz", "bias": {"column": "b", "bins": 10**9}}),
        ("project.seed", 2**63),
    ],
)
def test_a_number_outside_of_its_range_is_refused(raw_config: RawConfig, key: str, value: Any) -> None:
    raw = raw_config("lntl")
    section, _, name = key.partition(".")
    if name:
        raw[section][name] = value
    else:
        raw[section] = value
    assert re.search(r"should be less than (or equal to )?\d", find_faults(raw)[0])


def test_every_number_has_an_upper_bound() -> None:
    """Only the mean and the standard deviation of images have no upper bound."""

    def find_numbers(field: dict[str, Any]) -> Iterator[dict[str, Any]]:
        items = [field, *field.get("anyOf", []), field.get("items", {}), field.get("additionalProperties", {})]
        yield from (x for x in items if isinstance(x, dict) and x.get("type") in ("integer", "number"))

    unbounded_keys = [
        f"{name}.{key}"
        for name, section in configuration.json_schema()["$defs"].items()
        for key, field in section.get("properties", {}).items()
        if any(not {"maximum", "exclusiveMaximum"} & number.keys() for number in find_numbers(field))
    ]
    assert unbounded_keys == ["Normalise.mean", "Normalise.std"]


@pytest.mark.parametrize("name", ["no_module.Mine", ".Mine", "lntl.methods.erm.Mine"])
def test_a_dotted_name_that_cannot_be_imported_is_an_error(raw_config: RawConfig, name: str) -> None:
    with pytest.raises(UserError, match=f"^test.yaml: .*{re.escape(repr(name))}"):
        configuration.validate(raw_config({"method": name}), "test.yaml")


@pytest.mark.parametrize("section", ["project", "data", "model", "training"])
def test_a_missing_section_is_reported_by_its_name(raw_config: RawConfig, section: str) -> None:
    raw = raw_config("erm")
    del raw[section]
    (fault,) = find_faults(raw)
    assert re.fullmatch(rf"{section}: missing \([A-Z].+\w\)", fault), fault


@pytest.mark.parametrize(
    ("section", "key"), [("project", "experiment_name"), ("data", "name"), ("model", "name"), ("training", "phases")]
)
def test_a_missing_key_is_reported_by_its_name(raw_config: RawConfig, section: str, key: str) -> None:
    raw = raw_config("erm")
    del raw[section][key]
    (fault,) = find_faults(raw)
    assert re.fullmatch(rf"{section}\.{key}: missing \([A-Z].+\w\)|{section}: missing '{key}'", fault), fault


def test_a_configuration_for_data_commands_needs_no_training_section(tmp_path: Path) -> None:
    path = tmp_path / "pets.yaml"
    path.write_text("data: {name: colored_mnist}\n")
    config = configuration.read_for_data(path, ["data.color_var=0.05"])
    assert config.project.experiment_name == "pets"
    assert config.model_dump()["data"]["color_var"] == 0.05
    path.write_text("data: {name: colored_mnist}\ntraining: {phases: []}\n")
    with pytest.raises(UserError, match=r"1 error.*\n  training\.phases"):
        configuration.read_for_data(path)


@pytest.mark.parametrize(
    ("stem", "other_sections", "name"),
    [
        ("my data", "", "my_data"),
        ("pets", "project: {seed: 1}\n", "pets"),
        ("pets", "project: {experiment_name: mine}\ntraining: {batch_size: 4}\n", "mine"),
        ("pets", "project:\ntraining:\nmodel:\n", "pets"),
    ],
)
def test_missing_sections_of_a_data_configuration_get_default_values(
    tmp_path: Path, stem: str, other_sections: str, name: str
) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text("data: {name: colored_mnist}\n" + other_sections)
    assert configuration.read_for_data(path).project.experiment_name == name


def test_all_faults_are_reported_at_once(raw_config: RawConfig) -> None:
    raw = raw_config({"method": "lntl", "epochs": 0, "lamb": 1}, "ermm", project={"sed": 1}, logging={"output_dir": 3})
    assert [fault.partition(":")[0] for fault in find_faults(raw)] == [
        "project.sed",
        "training.phases.0.epochs",
        "training.phases.0.lamb",
        "training.phases.1.method",
        "logging.output_dir",
    ]


@settings(max_examples=25)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["project", "data", "model", "training", "phases", "method", "name", "epochs", "optimizer_fg"]), x)))  # fmt: skip # noqa: E501
def test_any_document_gives_a_user_error(raw: Any) -> None:
    with pytest.raises(UserError):
        configuration.validate(raw, "test")


def test_a_conflict_of_settings_names_only_their_section(raw_config: RawConfig) -> None:
    raw = raw_config("erm")
    raw["data"] |= {"grayscale": True, "random_colors": 0.5}
    assert find_faults(raw) == ["data: grayscale: true excludes random_colors; set only one of them"]


# --- overrides ---


def test_overrides_use_keys_and_values_as_in_yaml() -> None:
    overrides = [
        "training.batch_size=64", "training.phases.1.epochs=2", "training.optimizer_h={name: sgd, lr: 1e-2}",
        "training.ema=null", "project.description=a = b", "evaluation.metrics=[accuracy]",
    ]  # fmt: skip
    config = configuration.read(DEFAULT_PATH, overrides)
    assert config.training.batch_size == 64
    assert config.training.phases[1].epochs == 2
    assert config.training.optimizer_h == configuration.Optimizer(name="sgd", lr=0.01)
    assert config.training.phases[0].optimizer_h == config.training.optimizer_h
    assert config.training.ema is None
    assert config.project.description == "a = b"
    assert config.evaluation.metrics == ["accuracy"]


def test_an_override_may_add_a_section_that_the_file_lacks(tmp_path: Path, raw_config: RawConfig) -> None:
    raw = raw_config("erm")
    del raw["logging"]
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert configuration.read(path, ["logging.output_dir=other_folder"]).logging.output_dir == "other_folder"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("", "write it as key=value"),
        ("training.batch_size", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("logging.output_dir=", "write it as key=value"),
        ("training.phases.9.epochs=1", r"there is no 'training\.phases\.9\.epochs'"),
        ("training.phases.9={method: erm, epochs: 1}", r"there is no 'training\.phases\.9'"),
        ("training.phases.first={method: erm, epochs: 1}", r"there is no 'training\.phases\.first'"),
        (f"training.phases.{'9' * 5000}=1", "there is no 'training"),
        ("logging.output_dir.x=1", "there is no 'logging.output_dir.x'"),
        ("training.batch_size.x=1", r"there is no 'training\.batch_size\.x'"),
        ("training.batch_size=[", "override .*: not valid YAML"),
        ("training.batchsize=64", r"training\.batchsize: unknown key; did you mean 'batch_size'"),
        ("training.batch_size=many", r"training\.batch_size: 'many' should be a valid integer"),
        ("a..b=1", "a: unknown key"),
    ],
)
def test_a_wrong_override_is_a_user_error(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configuration.read(DEFAULT_PATH, [override])


def test_an_override_may_replace_an_item_of_a_list() -> None:
    overrides = ["evaluation.metrics=[accuracy, bias_accuracy]", "evaluation.metrics.1=f1_score_macro"]
    config = configuration.read(DEFAULT_PATH, ["training.phases.0={method: erm, epochs: 7}", *overrides])
    assert (config.training.phases[0].method, config.training.phases[0].epochs) == ("erm", 7)
    assert config.evaluation.metrics == ["accuracy", "f1_score_macro"]


def test_an_override_of_one_alias_does_not_change_the_others(tmp_path: Path, raw_config: RawConfig) -> None:
    path = tmp_path / "c.yaml"
    text = "training: {phases: [&p {method: erm, epochs: 1}, *p]}\n"
    path.write_text(yaml.safe_dump({k: v for k, v in raw_config("erm").items() if k != "training"}) + text)
    phases = configuration.read(path, ["training.phases.1.epochs=5"]).training.phases
    assert [phase.epochs for phase in phases] == [1, 5]


def test_a_fault_shows_at_most_200_characters_of_a_value(raw_config: RawConfig) -> None:
    long_text = "x" * 100_000
    raw = raw_config(
        "erm", project={"seed": long_text, long_text: 1}, model={"name": long_text}, evaluation={"metrics": [long_text]}
    )
    raw["training"]["phases"].append({"method": long_text, "epochs": 1})
    for fault in find_faults(raw):
        assert fault.count("x") < 250, fault
        assert "100," in fault or len(fault) < 500


def test_a_message_lists_at_most_20_faults(raw_config: RawConfig) -> None:
    with pytest.raises(UserError) as error:
        configuration.validate(raw_config("erm", logging={f"key{i}": i for i in range(1000)}), "test.yaml")
    first_line, *_, last_line = lines = str(error.value).splitlines()
    assert (len(lines), first_line, last_line) == (
        22,
        "test.yaml: 1000 errors in the configuration",
        "  and 980 more",
    )


# --- the resolved configuration ---

optimizers = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["sgd", "adam", "adamw", "adagrad"]),
        "lr": st.floats(1e-12, 10),
        "weight_decay": st.floats(0, 1),
        "schedule": st.sampled_from(["constant", "step", "cosine", "one_cycle"]),
        "gamma": st.floats(1e-6, 1),
    },
)
phases = st.one_of(
    st.fixed_dictionaries(
        {"method": st.sampled_from(["erm", "bias_head"]), "epochs": st.integers(1, 99)},
        optional={"optimizer_fg": optimizers, "ema": st.none() | st.floats(0.01, 0.99)},
    ),
    st.fixed_dictionaries(
        {"method": st.just("lntl"), "epochs": st.integers(1, 99)},
        optional={"lam": st.floats(0, 1e9), "mu": st.floats(0, 1e-9), "mu_ramp": st.sampled_from(["dann", "linear"])},
    ),
)  # fmt: skip
number_texts = st.from_regex(r"[-+]?[0-9]{1,3}(\.[0-9]?)?([eE][-+]?[0-9])?", fullmatch=True)
texts = (
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
    | st.sampled_from(["null", "true", "~", "1:30", "0x1f", "-", "? a", "é\n ü"])
    | number_texts
)
raw_configs = st.fixed_dictionaries(
    {
        "project": st.fixed_dictionaries({"experiment_name": st.just("a") | number_texts, "description": texts}),
        "data": st.fixed_dictionaries({"name": st.just("colored_mnist"), "color_var": st.floats(1e-6, 1)}),
        "model": st.just({"name": "convnet"}) | st.just({"name": "lenet", "feature_dim": 7}),
        "training": st.fixed_dictionaries(
            {"phases": st.lists(phases, min_size=1, max_size=3)},
            optional={"optimizer_fg": optimizers, "adversarial_lambda": st.floats(0, 1), "ema": st.floats(0.01, 0.99)},
        ),
    }
)


@settings(max_examples=25)
@given(raw_configs)
def test_the_resolved_yaml_reads_back_as_an_equal_configuration(raw: dict[str, Any]) -> None:
    config = configuration.validate(copy.deepcopy(raw), "test")
    reread_config = configuration.validate(parse(configuration.to_yaml(config), "reread"), "reread")
    assert reread_config == config
    assert configuration.to_yaml(reread_config) == configuration.to_yaml(config)


# --- the JSON Schema ---

SCHEMA = configuration.json_schema()


def test_the_ready_configs_fit_the_schema() -> None:
    import jsonschema

    validator = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
    schema_errors = {
        name: [error.message for error in validator.iter_errors(read_yaml(configuration.find(name)))]
        for name in configuration.ready_names()
    }
    assert {name: messages for name, messages in schema_errors.items() if messages} == {}


@pytest.mark.parametrize("fault", [{"project": {"experiment_name": 3}}, {"modle": {}}, {"training": {"phases": [{"method": "ermm", "epochs": 1}]}}])  # fmt: skip # noqa: E501
def test_the_schema_refuses_the_same_values_as_the_program(fault: dict[str, Any]) -> None:
    import jsonschema

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read_yaml(DEFAULT_PATH) | fault, SCHEMA)


RESNET = {"split": "layer2", "pretrained": True}


@pytest.mark.parametrize(
    ("model", "is_valid"),
    [
        ({"name": "torchvision/resnet18", **RESNET}, True),
        ({"name": "timm/resnet18.a1_in1k", **RESNET}, True),
        ({"name": "torchvision/resnet18", "arch": "resnet18", **RESNET}, True),
        ({"name": "torchvision", "arch": "resnet18", **RESNET}, True),
        ({"name": "torchvision", **RESNET}, False),  # no architecture
        ({"name": "torchvision/", **RESNET}, False),
        ({"name": "tv/resnet18", **RESNET}, False),
        ({"name": "torchvision/resnet18"}, False),  # no split layer
        ({"name": "torchvision/resnet18", "splt": "layer2", **RESNET}, False),
        ({"name": "mlp/resnet18"}, False),
    ],
)
def test_the_schema_and_the_program_agree_on_short_names_of_models(model: dict[str, Any], is_valid: bool) -> None:
    import jsonschema

    raw = read_yaml(DEFAULT_PATH) | {"model": model}
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(raw) == is_valid
    if is_valid:
        assert configuration.validate(raw, "test").model.name == model["name"].partition("/")[0]
    elif model["name"] != "torchvision/":  # an empty name is refused where the network is built
        with pytest.raises(UserError):
            configuration.validate(raw, "test")


def test_the_schema_is_a_valid_json_schema() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(SCHEMA)


# --- every key is read ---

SECTIONS = {name: field.annotation for name, field in Config.model_fields.items()}


def find_plugin_settings() -> Iterator[tuple[type[plugins.Settings], set[str]]]:
    """Yield the Config of each plug-in, with the names under which its fields are read."""
    for folder, base in (("lntl.data", Dataset), ("lntl.models", Networks), ("lntl.methods", Method)):
        for name in plugins.names(folder):
            owners = {"config", "settings"} if folder == "lntl.data" else {"config"}
            yield plugins.load(folder, name, base).Config, owners


def find_all_settings() -> Iterator[tuple[type[plugins.Settings], set[str]]]:
    """Yield each class of settings with the names of the variables in src that may hold an instance of it."""
    for name, section in SECTIONS.items():
        yield section, {name, "settings"} if name == "logging" else {name}
    yield configuration.Optimizer, {"settings"}
    yield configuration.Phase, {"settings", "config"}
    yield from find_plugin_settings()


ALL_SETTINGS = list(find_all_settings())


def find_read_keys() -> set[tuple[str, str]]:
    """Return (owner, key) of every `owner.key`, `owner["key"]`, `owner.get("key")` and `"key" in owner` in src."""
    read_keys = {("training", key) for key in keys.INHERITED_KEYS}  # config/keys.py loops over them: training.get(key)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=owner, attr=key, ctx=ast.Load()):
                    read_keys.add((get_last_name(owner), key))
                case ast.Subscript(value=owner, slice=ast.Constant(value=str(key)), ctx=ast.Load()):
                    read_keys.add((get_last_name(owner), key))
                case ast.Call(func=ast.Attribute(value=owner, attr="get"), args=[ast.Constant(value=str(key)), *_]):
                    read_keys.add((get_last_name(owner), key))
    return read_keys


def get_last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
    return ""


def find_unread_keys(section: type[plugins.Settings], owners: set[str], read_keys: set[tuple[str, str]]) -> list[str]:
    """Return the keys that nothing reads, neither an owner of the section nor the section itself."""
    bases = [base for base in section.__mro__ if issubclass(base, plugins.Settings)]
    own_source = " ".join(map(inspect.getsource, bases))
    return [
        key
        for key in section.model_fields
        if f"self.{key}" not in own_source and not any((owner, key) in read_keys for owner in owners)
    ]


def test_every_key_is_read_somewhere() -> None:
    read_keys = find_read_keys()
    unread_keys = {
        section.__qualname__: find_unread_keys(section, owners, read_keys) for section, owners in ALL_SETTINGS
    }
    assert {name: keys for name, keys in unread_keys.items() if keys} == {}


def test_the_search_finds_an_unread_key() -> None:
    class Project(plugins.Settings):
        seed: int = 0
        nothing_reads_me: int = 0

    assert find_unread_keys(Project, {"project"}, find_read_keys()) == ["nothing_reads_me"]


def test_every_key_is_documented() -> None:
    assert [
        (section.__qualname__, key)
        for section, _ in ALL_SETTINGS
        for key, field in section.model_fields.items()
        if not field.description
    ] == []
    assert [section.__qualname__ for section, _ in ALL_SETTINGS if not section.__doc__] == []


@pytest.mark.parametrize("name", [".", "..", "../other", "a/b", "a b", ""])
def test_an_experiment_name_stays_inside_its_output_folder(raw_config: RawConfig, name: str) -> None:
    assert any(
        line.startswith("project.experiment_name: ")
        for line in find_faults(raw_config(project={"experiment_name": name}))
    )
