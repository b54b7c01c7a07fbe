"""Training on several processes against training on one: the same weights, method by method."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_training import PHASES, VARIANTS, trained
from torch import Tensor

from lntl import plugins
from lntl.config import Config
from lntl.errors import UserError
from lntl.experiment import build
from lntl.methods import load_method

HELPER = Path(__file__).parents[1] / "ranks_training.py"
Results = dict[str, Any]


def in_parts(method: str) -> bool:
    return load_method(method).mean_over_images


@pytest.fixture(scope="module")
def rank_results(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """The results of each of two ranks; the same two processes train all of PHASES."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen([sys.executable, str(HELPER), str(folder), str(rank), "2"], env=os.environ, text=True)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pth") for rank in range(2)]


def difference(left: Any, right: Any) -> float:
    """Return the largest difference between the numbers of two trees of dicts and lists of the same form."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        return max((difference(value, right[key]) for key, value in left.items()), default=0.0)
    if isinstance(left, list):
        return max((difference(a, b) for a, b in zip(left, right, strict=True)), default=0.0)
    both_infinite = isinstance(left, Tensor) and left.is_floating_point()
    a, b = (torch.as_tensor(value).double() for value in (left, right))
    return float(torch.where(a == b, 0.0, (a - b).abs()).max()) if a.numel() or both_infinite else 0.0


@pytest.mark.full
@pytest.mark.parametrize("name", PHASES)
def test_two_ranks_end_with_the_weights_of_one_process(rank_results: list[Results], name: str) -> None:
    """A model without BatchNorm and dropout, SGD, float64, 21 steps, known labels distributed unevenly."""
    alone, first = trained(PHASES[name]), rank_results[0][name]
    assert difference(alone["networks"], first["networks"]) < 1e-9
    assert difference(alone["method"], first["method"]) < 1e-6  # in part float32
    of_share = set() if "max_gradient_ratio" in PHASES[name] else {"train/gradient_ratio"}  # norms of a rank's share
    for of_one, of_two in zip(alone["metrics"], first["metrics"], strict=True):
        assert of_one.keys() == of_two.keys()
        assert {key for key in of_one if of_two[key] != pytest.approx(of_one[key], abs=1e-6)} <= of_share


def test_a_batch_in_parts_is_the_whole_batch() -> None:
    phase = PHASES["lntl, three steps of h"] | {"clip_grad_norm": 0.3}
    whole, parts = (trained(phase, epochs=1, accumulate=accumulate) for accumulate in (1, 3))
    assert difference(whole["networks"], parts["networks"]) < 1e-9


def test_a_loss_over_pairs_refuses_parts_before_any_training(make_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"training\.accumulate: the loss of hsic \(phase 2\), as it is set, is not"):
        build(make_config("erm", "hsic", training={"accumulate": 2}))


def test_a_part_has_two_images_at_least(make_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="batch_size 7 is less than two images for each of 4 parts"):
        make_config("erm", training={"accumulate": 4, "batch_size": 7})


@pytest.mark.full
@pytest.mark.parametrize("phase", [{"method": m} for m in plugins.names("lntl.methods") if in_parts(m)], ids=str)
def test_every_mean_over_images_may_be_computed_in_parts(phase: dict[str, str]) -> None:
    whole, parts = (trained(phase, epochs=1, accumulate=accumulate) for accumulate in (1, 4))
    assert difference(whole["networks"], parts["networks"]) < 1e-9


def difference_on_two_ranks(rank_results: list[Results], name: str) -> float:
    """Return the largest difference of a weight between one process and two."""
    phase, settings = VARIANTS[name]
    return difference(trained(phase, **settings)["networks"], rank_results[0][name]["networks"])


@pytest.mark.full
def test_shares_in_parts_end_with_the_weights_of_one_process(rank_results: list[Results]) -> None:
    assert difference_on_two_ranks(rank_results, "accumulated") < 1e-9


@pytest.mark.full
def test_batchnorm_has_the_statistics_of_a_share(rank_results: list[Results]) -> None:
    """What docs/processes.md says that differs from one process."""
    assert difference_on_two_ranks(rank_results, "with norms") > 1e-6


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("bf16")])
def test_bf16_on_two_ranks_stays_near_one_process(rank_results: list[Results], name: str) -> None:
    """bf16 has 8 bits: sums of a share are rounded differently."""
    assert difference_on_two_ranks(rank_results, name) < 0.01


@pytest.mark.full
def test_float32_with_adam_prints_its_difference(
    rank_results: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    found = difference_on_two_ranks(rank_results, "float32 with Adam")
    with capsys.disabled():
        print(f"\nfloat32 with Adam, 21 steps: weights of two processes and of one differ by {found:.1e} at most")


@pytest.mark.full
def test_all_ranks_have_the_same_state_bit_for_bit(rank_results: list[Results]) -> None:
    for name in rank_results[0]:
        assert difference(rank_results[0][name], rank_results[1][name]) == 0, name
