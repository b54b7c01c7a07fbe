"""The configurations that ship with the package."""

from pathlib import Path

import pytest

from lntl import config
from lntl.benchmark import plan
from lntl.errors import UserError

ROOT = Path(__file__).parents[1]


def test_the_default_configuration_is_listed() -> None:
    assert "colored_mnist_default" in config.ready_names()


def test_each_configuration_is_valid_and_has_a_description() -> None:
    names_without_description = [name for name in config.ready_names() if not config.read(name).project.description]
    assert names_without_description == []


def test_the_rows_of_the_benchmark_have_equal_epochs_batches_and_optimisers() -> None:
    """Eight epochs (ten for the best recipe), Adam, batches of 128; methods with h have a second learning rate."""
    rows = plan.read(ROOT / "benchmarks/colored_mnist/plan.yaml").runs
    assert len(rows) == 18
    for row in rows:
        training = config.read(row.config).training
        is_best, has_h = row.name == "best", row.name in ("lntl", "blind_eye", "conditional_adversary", "best")
        assert sum(phase.epochs for phase in training.phases) == (10 if is_best else 8), row.name
        assert (training.batch_size, training.ema) == (128, 0.99), row.name
        assert {phase.optimizer_fg.name for phase in training.phases} == {"adam"}, row.name
        assert {phase.optimizer_fg.lr for phase in training.phases} == ({0.002, 0.004} if has_h else {0.002}), row.name


def test_a_path_is_used_unchanged() -> None:
    assert str(config.find("some/where.yaml")) == "some/where.yaml"


def test_the_error_for_an_unknown_name_suggests_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'colored_mnist_default'"):
        config.find("colored_mnist_defualt")
