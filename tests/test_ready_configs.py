"""The configurations that ship with the package."""

import pytest

from lntl import config, ready_configs
from lntl.errors import UserError


def test_there_are_some() -> None:
    assert "colored_mnist_default" in ready_configs.names()


@pytest.mark.parametrize("name", ready_configs.names())
def test_each_is_valid_and_says_what_it_is(name: str) -> None:
    assert config.read(ready_configs.find(name)).project.description


def test_a_path_is_taken_as_it_is() -> None:
    assert str(ready_configs.find("some/where.yaml")) == "some/where.yaml"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'colored_mnist_default'"):
        ready_configs.find("colored_mnist_defualt")
