"""Training on two processes gives the same weights as training on one, for every method."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_training import PHASES, VARIANTS, train
from torch import Tensor

from lntl import plugins
from lntl.config import Config
from lntl.errors import UserError
from lntl.experiment import build
from lntl.methods import load_method

TRAINING_SCRIPT = Path(__file__).parents[1] / "ranks_training.py"
Results = dict[str, Any]


def can_be_accumulated(method: str) -> bool:
    return load_method(method).mean_over_images


@pytest.fixture(scope="module")
def rank_results(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """The results of each of two ranks; the same two processes train all of PHASES."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen([sys.executable, str(TRAINING_SCRIPT), str(folder), str(rank), "2"], env=os.environ, text=True)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pth") for rank in range(2)]


def compute_difference(first: Any, second: Any) -> float:
    """Return the largest difference between the numbers of two trees of dicts and lists with the same structure."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return max((compute_difference(value, second[key]) for key, value in first.items()), default=0.0)
    if isinstance(first, list):
        return max((compute_difference(a, b) for a, b in zip(first, second, strict=True)), default=0.0)
    is_float_tensor = isinstance(first, Tensor) and first.is_floating_point()
    a, b = (torch.as_tensor(value).double() for value in (first, second))
    return float(torch.where(a == b, 0.0, (a - b).abs()).max()) if a.numel() or is_float_tensor else 0.0


@pytest.mark.full
@pytest.mark.parametrize("name", PHASES)
def test_two_ranks_give_the_weights_of_one_process(rank_results: list[Results], name: str) -> None:
    """The model has no BatchNorm and no dropout; 21 steps of SGD in float64; ranks have unequal numbers of labels."""
    expected, rank_result = train(PHASES[name]), rank_results[0][name]
    assert compute_difference(expected["networks"], rank_result["networks"]) < 1e-9
    assert compute_difference(expected["method"], rank_result["method"]) < 1e-6  # some methods have a float32 state
    # Each rank computes the gradient ratio from its own images.
    differing_keys = set() if "max_gradient_ratio" in PHASES[name] else {"train/gradient_ratio"}
    for expected_metrics, rank_metrics in zip(expected["metrics"], rank_result["metrics"], strict=True):
        assert expected_metrics.keys() == rank_metrics.keys()
        assert {
            key for key in expected_metrics if rank_metrics[key] != pytest.approx(expected_metrics[key], abs=1e-6)
        } <= differing_keys


def test_accumulated_gradients_equal_those_of_the_whole_batch() -> None:
    phase = PHASES["lntl, three steps of h"] | {"clip_grad_norm": 0.3}
    expected, accumulated_result = (train(phase, epochs=1, accumulate=accumulate) for accumulate in (1, 3))
    assert compute_difference(expected["networks"], accumulated_result["networks"]) < 1e-9


def test_a_loss_over_pairs_refuses_accumulation_before_training(make_config: Callable[..., Config]) -> None:
    with pytest.raises(
        UserError, match=r"training\.accumulate: with these settings the loss of hsic \(phase 2\) is not"
    ):
        build(make_config("erm", "hsic", training={"accumulate": 2}))


def test_a_batch_has_at_least_two_images_for_each_accumulated_part(make_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="batch_size 7 is less than two images for each of 4 parts"):
        make_config("erm", training={"accumulate": 4, "batch_size": 7})


@pytest.mark.full
@pytest.mark.parametrize(
    "phase", [{"method": m} for m in plugins.names("lntl.methods") if can_be_accumulated(m)], ids=str
)
def test_every_loss_that_is_a_mean_over_images_can_be_accumulated(phase: dict[str, str]) -> None:
    expected, accumulated_result = (train(phase, epochs=1, accumulate=accumulate) for accumulate in (1, 4))
    assert compute_difference(expected["networks"], accumulated_result["networks"]) < 1e-9


def compare_two_ranks(rank_results: list[Results], name: str) -> float:
    """Return the largest difference between a weight after training on one process and on two."""
    phase, settings = VARIANTS[name]
    return compute_difference(train(phase, **settings)["networks"], rank_results[0][name]["networks"])


@pytest.mark.full
def test_two_ranks_with_accumulation_give_the_weights_of_one_process(rank_results: list[Results]) -> None:
    assert compare_two_ranks(rank_results, "accumulated") < 1e-9


@pytest.mark.full
def test_batchnorm_statistics_differ_between_one_process_and_two_ranks(rank_results: list[Results]) -> None:
    """docs/processes.md documents this difference."""
    assert compare_two_ranks(rank_results, "BatchNorm") > 1e-6


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("bf16")])
def test_bf16_on_two_ranks_stays_near_one_process(rank_results: list[Results], name: str) -> None:
    """bf16 has 8 bits, so the sums over the images of one rank are rounded differently."""
    assert compare_two_ranks(rank_results, name) < 0.01


@pytest.mark.full
def test_float32_with_adam_prints_its_difference(
    rank_results: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    largest_difference = compare_two_ranks(rank_results, "float32 with Adam")
    with capsys.disabled():
        print(f"\nfloat32 with Adam, 21 steps: weights of one and of two processes differ by {largest_difference:.1e}")


@pytest.mark.full
def test_all_ranks_have_the_same_state_bit_for_bit(rank_results: list[Results]) -> None:
    for name in rank_results[0]:
        assert compute_difference(rank_results[0][name], rank_results[1][name]) == 0, name
