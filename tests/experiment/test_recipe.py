"""Configurations that are made from a method's name."""

from pathlib import Path

import numpy as np
import pytest

from lntl import config, plugins
from lntl.errors import UserError
from lntl.experiment import build, recipe


@pytest.mark.parametrize(
    ("method", "epochs", "expected"),
    [
        ("erm", 30, [("erm", 30)]),
        ("group_dro", 30, [("group_dro", 30)]),
        ("bias_head", 5, [("bias_head", 5)]),
        ("jtt", 30, [("erm", 3), ("jtt", 30)]),
        ("lntl", 30, [("erm", 3), ("bias_head", 3), ("lntl", 30)]),
        ("conditional_adversary", 4, [("erm", 1), ("bias_head", 1), ("conditional_adversary", 4)]),
    ],
)
def test_what_goes_before_a_method(method: str, epochs: int, expected: list[tuple[str, int]]) -> None:
    story = recipe.phases_of(method, epochs, {"seen": 1})
    assert [(phase["method"], phase["epochs"]) for phase in story] == expected
    assert ["seen" in phase for phase in story] == [False] * (len(story) - 1) + [True]


def test_the_model_is_as_the_methods_need_it_and_numbers_may_be_numpys() -> None:
    training = {"lr": 1}
    phases = [{"method": "domain_independent", "epochs": np.int64(3), "clip_grad_norm": np.float64(2)}]
    config = recipe.config_of("x", 7, {"name": "mlp", "hidden": (8, np.int64(4))}, {"phases": phases})
    assert config.model.heads == "per_bias"  # type: ignore[attr-defined]
    assert config.model.hidden == [8, 4]  # type: ignore[attr-defined]
    assert (config.project.seed, config.training.phases[0].epochs) == (7, 3)
    with pytest.raises(UserError, match=r"x: 1 fault.*\n  training.lr: unknown key"):
        recipe.config_of("x", 7, {"name": "mlp"}, training | {"phases": phases})


def test_methods_without_a_bias_are_told() -> None:
    assert recipe.methods_without_bias() == ["erm", "jtt", "lff", "spectral_decoupling"]


@pytest.mark.parametrize("method", plugins.names("lntl.methods"))
def test_only_methods_without_bias_labels_train_on_data_that_have_none(tmp_path: Path, method: str) -> None:
    y = np.arange(40) % 2
    np.savez(tmp_path / "v.npz", x=np.stack([y, 1 - y], axis=1) + 0.1 * np.arange(40)[:, None], y=y)
    raw = {
        "project": {"experiment_name": "no_bias"},
        "data": {"name": "arrays", "path": str(tmp_path / "v.npz"), "bias": []},
        "model": {"name": "mlp", "heads": "per_bias" if method == "domain_independent" else "single"},
        "training": {"device": "cpu", "batch_size": 8, "phases": [{"method": method, "epochs": 1}]},
    }
    settings = config.validate(raw, "test")
    if method in recipe.methods_without_bias():
        assert len(list(build(settings).trainer)) == 1
    else:
        says = rf"training\.phases\.0\.method: {method} needs bias labels, and no training example has one"
        with pytest.raises(UserError, match=says):
            build(settings)
