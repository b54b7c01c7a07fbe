"""The functions of lntl.ops, compared with slow loops, and the parameters that get gradients from an adversary."""

import math
from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.models.heads import MapHead
from lntl.ops import (
    MASKED_LOGIT,
    adversarial,
    bias_accuracy,
    bias_cross_entropy,
    entropy,
    frozen,
    limit_gradient_ratio,
    mean_over_positions,
    reverse_gradient,
    supervised_contrast,
    uniform_cross_entropy,
)
from lntl.types import IGNORE


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    torch.manual_seed(0)


def compute_softmax(logits: list[float]) -> list[float]:
    maximum = max(logits)
    weights = [math.exp(value - maximum) for value in logits]
    return [weight / sum(weights) for weight in weights]


def iterate_probabilities(logits: Tensor) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    """Yield each index (n, ...) of logits (N, K, ...) with its K probabilities."""
    channels_last = logits.movedim(1, -1)
    for position in torch.cartesian_prod(*(torch.arange(size) for size in channels_last.shape[:-1])).view(
        -1, channels_last.dim() - 1
    ):
        index = tuple(position.tolist())
        yield index, compute_softmax(channels_last[index].tolist())


@pytest.mark.parametrize("shape", [(4, 5), (2, 8, 3, 2, 2)])
def test_entropy_is_the_mean_of_minus_p_log_p(shape: tuple[int, ...]) -> None:
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    terms = [-sum(p * math.log(p) for p in probabilities) for _, probabilities in iterate_probabilities(logits)]
    assert entropy(logits).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_entropy_is_log_k_of_uniform_and_0_of_certain_predictions() -> None:
    assert entropy(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))
    assert entropy(torch.eye(8) * 1e4).item() == 0


@pytest.mark.parametrize("shape", [(4, 5), (2, 8, 3, 2, 2)])
def test_uniform_cross_entropy_is_the_mean_of_minus_log_p(shape: tuple[int, ...]) -> None:
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    terms = [
        -sum(math.log(p) for p in probabilities) / len(probabilities)
        for _, probabilities in iterate_probabilities(logits)
    ]
    assert uniform_cross_entropy(logits).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_uniform_cross_entropy_is_lowest_for_uniform_predictions_and_0_for_an_empty_batch() -> None:
    assert uniform_cross_entropy(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))
    assert uniform_cross_entropy(torch.randn(0, 8, 3)).item() == 0


def test_uniform_cross_entropy_and_entropy_leave_out_bins_that_a_bias_does_not_have() -> None:
    """One bias of five values and one of two, uniform predictions: log 5 and log 2, without a gradient of f."""
    logits = torch.zeros(3, 5, 2)
    logits[:, 2:, 1] = MASKED_LOGIT
    for loss in (entropy, uniform_cross_entropy):
        z = logits.clone().requires_grad_()
        assert loss(z).item() == pytest.approx((math.log(5) + math.log(2)) / 2)
        (gradient,) = torch.autograd.grad(loss(z), z)
        assert gradient.abs().max() < 1e-7


def slow_bias_loss(logits: Tensor, bias: Tensor) -> float:
    """Sum over channels of the mean over the labelled positions of -log p(label)."""
    losses: dict[int, list[float]] = {}
    for index, probabilities in iterate_probabilities(logits):
        if bias[index] != IGNORE:
            losses.setdefault(index[1] if bias.dim() > 1 else 0, []).append(-math.log(probabilities[int(bias[index])]))
    return sum(sum(channel) / len(channel) for channel in losses.values())


def test_bias_cross_entropy_of_one_label_per_image_equals_slow_loops() -> None:
    logits, bias = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, IGNORE, 1, 2, IGNORE])
    assert bias_cross_entropy(logits, bias).item() == pytest.approx(slow_bias_loss(logits, bias), rel=1e-12)


def test_bias_cross_entropy_sums_the_channels_of_a_map_and_skips_unlabelled_positions() -> None:
    logits = torch.randn(2, 8, 3, 3, 3, dtype=torch.float64)
    is_unknown = torch.rand(2, 1, 3, 3) < 0.5  # the background: the same positions in each channel
    bias = torch.where(is_unknown, IGNORE, torch.randint(0, 8, (2, 3, 3, 3)))
    assert bias_cross_entropy(logits, bias).item() == pytest.approx(slow_bias_loss(logits, bias), rel=1e-12)


def test_bias_cross_entropy_weighs_a_bias_known_for_few_rows_as_much_as_one_known_for_all() -> None:
    logits, bias = torch.randn(100, 4, 2, dtype=torch.float64), torch.randint(4, (100, 2))
    bias[5:, 1] = IGNORE
    separate_losses = sum(
        cross_entropy(logits[:rows, :, number], bias[:rows, number]) for number, rows in ((0, 100), (1, 5))
    )
    assert bias_cross_entropy(logits, bias).item() == pytest.approx(float(separate_losses), rel=1e-12)
    assert bias_cross_entropy(logits, bias).item() == pytest.approx(slow_bias_loss(logits, bias), rel=1e-12)


def test_bias_cross_entropy_equals_the_authors_sum_over_three_channels() -> None:
    logits, bias = torch.randn(4, 8, 3, 5, 5, dtype=torch.float64), torch.randint(0, 8, (4, 3, 5, 5))
    bias[:, :, :2] = IGNORE
    authors_loss = sum(cross_entropy(logits[:, :, c], bias[:, c], ignore_index=IGNORE) for c in range(3))
    torch.testing.assert_close(bias_cross_entropy(logits, bias), authors_loss)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_bias_cross_entropy_with_smoothing_equals_that_of_torch(channels: tuple[int, ...]) -> None:
    logits, bias = torch.randn(9, 4, *channels, dtype=torch.float64), torch.randint(4, (9, *channels))
    bias[:2] = IGNORE
    logits_and_labels = [(logits, bias)] if not channels else [(logits[..., c], bias[:, c]) for c in range(3)]
    expected = sum(cross_entropy(*pair, ignore_index=IGNORE, label_smoothing=0.1) for pair in logits_and_labels)
    torch.testing.assert_close(bias_cross_entropy(logits, bias, smoothing=0.1), expected)


def test_bias_cross_entropy_smooths_over_the_bins_that_a_bias_has() -> None:
    """One bias of five values and one of two, whose smoothed labels equal those of an h with two bins."""
    logits, bias = torch.randn(6, 5, 2, dtype=torch.float64), torch.randint(2, (6, 2))
    logits[:, 2:, 1] = MASKED_LOGIT
    separate_losses = [cross_entropy(logits[:, :k, c], bias[:, c], label_smoothing=0.2) for c, k in ((0, 5), (1, 2))]
    torch.testing.assert_close(bias_cross_entropy(logits, bias, smoothing=0.2), sum(separate_losses))


@pytest.mark.parametrize("shape", [(5,), (5, 3, 2, 2)])
def test_bias_cross_entropy_without_any_label_is_0_and_has_no_gradient(shape: tuple[int, ...]) -> None:
    logits = torch.randn(5, 4, *shape[1:], requires_grad=True)
    loss = bias_cross_entropy(logits, torch.full(shape, IGNORE))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("size", [1e4, 1e30, -1e30])
def test_extreme_logits_give_finite_losses_and_gradients(size: float) -> None:
    logits = (size * torch.eye(4)).requires_grad_()
    for loss in (entropy(logits), uniform_cross_entropy(logits), bias_cross_entropy(logits, torch.arange(4))):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_reverse_gradient_keeps_the_value_and_scales_the_gradient_by_minus_mu() -> None:
    z, upstream = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    output = reverse_gradient(z, 0.3)
    (gradient,) = torch.autograd.grad(output, z, upstream)
    assert torch.equal(output, z)
    for i in range(3):
        for j in range(4):
            assert gradient[i, j].item() == pytest.approx(-0.3 * upstream[i, j].item())


def compute_norm(gradient: Tensor) -> float:
    return math.sqrt(sum(value**2 for value in gradient.flatten().tolist()))


@pytest.mark.parametrize("ratio", [0.01, 0.5, 100.0])
def test_limit_gradient_ratio_scales_the_adversary_down_to_a_share_of_the_task(ratio: float) -> None:
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    task, adversary = torch.randn(2, 3, 4, dtype=torch.float64)
    z_for_task, z_for_adversary, original_ratio = limit_gradient_ratio(z, ratio)
    (gradient,) = torch.autograd.grad([z_for_task, z_for_adversary], z, [task, adversary])
    factor = min(1.0, ratio * compute_norm(task) / compute_norm(adversary))
    assert torch.equal(z_for_task, z)
    assert torch.equal(z_for_adversary, z)
    torch.testing.assert_close(gradient, task + factor * adversary)
    assert original_ratio.item() == pytest.approx(compute_norm(adversary) / compute_norm(task), rel=1e-6)


def test_limit_gradient_ratio_without_a_limit_adds_the_gradients() -> None:
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    task, adversary = torch.randn(2, 3, 4, dtype=torch.float64)
    z_for_task, z_for_adversary, _ = limit_gradient_ratio(z, None)
    (gradient,) = torch.autograd.grad([z_for_task, z_for_adversary], z, [task, 1e6 * adversary])
    assert torch.equal(gradient, task + 1e6 * adversary)


@pytest.mark.parametrize(("task", "adversary"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1e-30, 1e-30), (1e-30, 1e30)])
def test_limit_gradient_ratio_is_finite_for_tiny_and_zero_gradients(task: float, adversary: float) -> None:
    z = torch.randn(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        limit_gradient_ratio(z, 0.5)[:2], z, [torch.full((3,), task), torch.full((3,), adversary)]
    )
    assert gradient.isfinite().all()
    assert (gradient - task).abs().max() <= 0.51 * task


def make_head(train: bool) -> nn.Module:
    module = MapHead(channels=4, bins=3, biases=2).double().train(train)
    nn.init.normal_(module.norm.weight)  # so that the BatchNorm is not the identity
    return module


def make_features() -> Tensor:
    return torch.randn(5, 4, 6, 6, dtype=torch.float64, requires_grad=True)


def test_frozen_gives_gradients_to_its_input_and_not_to_its_parameters() -> None:
    module, z = make_head(train=False), make_features()
    output = frozen(module)(z)
    output.square().sum().backward()
    assert torch.equal(output, module(z))
    (expected,) = torch.autograd.grad(module(z).square().sum(), z)
    torch.testing.assert_close(z.grad, expected)
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_frozen_leaves_a_module_that_fabric_wraps_as_it_was() -> None:
    """Fabric's wrapper has its module under two names; a network that was frozen before stays frozen."""
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False))
    wrapped_module = Fabric(accelerator="cpu", devices=1).setup_module(module)
    frozen(wrapped_module)(torch.randn(4, 3, requires_grad=True)).sum().backward()
    assert [p.requires_grad for p in module.parameters()] == [True, True, False, False]
    assert all(isinstance(p, nn.Parameter) and p.grad is None for p in wrapped_module.parameters())


def test_empty_logits_have_entropy_0_and_no_gradient() -> None:
    logits = torch.randn(0, 8, 3, requires_grad=True)
    entropy(logits).backward()
    assert entropy(logits).item() == 0


def compute_gradients(loss: Tensor, module: nn.Module, z: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, [z, *module.parameters()], allow_unused=True))


def run_adversarial_in_two_passes(module: nn.Module, z: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the result of `adversarial`, computed by two forward passes."""
    return module(reverse_gradient(z, scale)), frozen(module)(z)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("side", [0, 1])
def test_each_side_of_adversarial_equals_a_separate_forward_pass(train: bool, side: int) -> None:
    module, z, weights = make_head(train), make_features(), torch.randn(5, 3, 2, 6, 6, dtype=torch.float64)
    output, expected_output = adversarial(module, z, 0.3)[side], run_adversarial_in_two_passes(module, z, 0.3)[side]
    torch.testing.assert_close(output, expected_output)
    expected_gradients = compute_gradients((expected_output * weights).sum(), module, z)
    for gradient, expected_gradient in zip(
        compute_gradients((output * weights).sum(), module, z), expected_gradients, strict=True
    ):
        if expected_gradient is None:  # the frozen side gets no gradient, or one of exact zeros
            assert gradient is None or not gradient.any()
        else:
            torch.testing.assert_close(gradient, expected_gradient)


def test_both_sides_of_adversarial_in_one_loss_equal_two_forward_passes() -> None:
    module, z, weights = make_head(train=True), make_features(), torch.randn(2, 5, 3, 2, 6, 6, dtype=torch.float64)
    outputs, expected_outputs = adversarial(module, z, 0.3), run_adversarial_in_two_passes(module, z, 0.3)
    loss, expected_loss = (
        sum((o * w).sum() for o, w in zip(out, weights, strict=True)) for out in (outputs, expected_outputs)
    )
    torch.testing.assert_close(compute_gradients(loss, module, z), compute_gradients(expected_loss, module, z))


def test_adversarial_updates_the_running_statistics_once() -> None:
    module, reference, z = make_head(train=True), make_head(train=True), make_features()
    reference.load_state_dict(module.state_dict())
    reference(z)
    reversed_logits, frozen_logits = adversarial(module, z, 0.3)
    (reversed_logits + frozen_logits).sum().backward()
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(module.get_buffer(name), buffer)


def test_adversarial_accepts_features_that_need_no_gradient() -> None:
    module, z = make_head(train=True), make_features().detach()
    reversed_logits, _ = adversarial(module, z, 0.3)
    gradient = torch.autograd.grad(reversed_logits.square().sum(), list(module.parameters()))
    expected_gradient = torch.autograd.grad(module(z).square().sum(), list(module.parameters()))
    torch.testing.assert_close(gradient, expected_gradient)


def test_adversarial_does_not_change_a_frozen_module() -> None:
    module, z = make_head(train=False).requires_grad_(False), make_features()
    reversed_logits, frozen_logits = adversarial(module, z, 0.3)
    (gradient,) = torch.autograd.grad((reversed_logits + 2 * frozen_logits).sum(), z)
    torch.testing.assert_close(gradient, 1.7 * torch.autograd.grad(module(z).sum(), z)[0])


def test_features_are_averaged_over_their_positions() -> None:
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for n in range(2):
        for c in range(3):
            mean = sum(float(z[n, c, i, j]) for i in range(4) for j in range(5)) / 20
            assert float(mean_over_positions(z)[n, c]) == pytest.approx(mean, abs=1e-12)
    assert torch.equal(mean_over_positions(z[:, :, 0, 0]), z[:, :, 0, 0])


def test_equation_9_from_one_forward_pass_equals_its_three_separate_terms() -> None:
    """Compared with reverse_gradient and frozen, with a separate forward and backward pass for each term."""
    f, g, h = nn.Conv2d(2, 4, 3, padding=1).double(), nn.Linear(4, 5).double(), make_head(train=True)
    networks = nn.ModuleList([f, g, h])
    x, y = torch.randn(6, 2, 6, 6, dtype=torch.float64), torch.randint(0, 5, (6,))
    bias, lam, mu = torch.randint(0, 3, (6, 2, 6, 6)), 0.7, 0.4

    z = f(x)
    reversed_logits, frozen_logits = adversarial(h, z, mu)
    loss = cross_entropy(g(z.mean((2, 3))), y) - lam * entropy(frozen_logits)
    (loss + bias_cross_entropy(reversed_logits, bias)).backward()
    gradients_of_one_pass = [p.grad.clone() for p in networks.parameters()]

    networks.zero_grad()
    cross_entropy(g(f(x).mean((2, 3))), y).backward()
    (-lam * entropy(frozen(h)(f(x)))).backward()
    bias_cross_entropy(h(reverse_gradient(f(x), mu)), bias).backward()
    torch.testing.assert_close(gradients_of_one_pass, [p.grad for p in networks.parameters()])


def test_supervised_contrast_equals_slow_loops() -> None:
    rng = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(7, 5, dtype=torch.float64, generator=rng))
    y, bias, t = [0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 0, 0, 1], 0.3
    losses = []
    for i in range(7):
        partners = [p for p in range(7) if y[p] == y[i] and bias[p] != bias[i]]
        total = sum(math.exp(v[i] @ v[a] / t) for a in range(7) if a != i)
        if partners:
            losses.append(-sum(math.log(math.exp(v[i] @ v[p] / t) / total) for p in partners) / len(partners))
    positive = torch.tensor([[y[i] == y[p] and bias[i] != bias[p] for p in range(7)] for i in range(7)])
    assert supervised_contrast(v, positive, t).item() == pytest.approx(sum(losses) / len(losses))
    assert len(losses) == 5  # the two examples of class 1 have the same bias value


def test_supervised_contrast_without_pairs_is_0_and_can_be_differentiated() -> None:
    v = torch.nn.functional.normalize(torch.randn(4, 3)).requires_grad_()
    loss = supervised_contrast(v, torch.zeros(4, 4, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert not v.grad.any()


def test_bias_accuracy_counts_the_labelled_positions() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 5.0], [9.0, 0.0, 0.0]])
    assert bias_accuracy(logits, torch.tensor([0, 0, 2, IGNORE])).item() == pytest.approx(2 / 3)
    assert bias_accuracy(logits, torch.full((4,), IGNORE)).item() == 0
