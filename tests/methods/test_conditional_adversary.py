"""The conditional adversary has the gradients of eq. 9 with y as an input of h; tests of its class embedding."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.ops import bias_cross_entropy
from lntl.training.trainer import Trainer
from lntl.types import Batch

MakeTrainer = Callable[..., Trainer]


def make_method(make_trainer: MakeTrainer, model: str = "convnet", **settings: Any) -> Any:
    """Return the method with a random class embedding; the method itself starts with an embedding of 0."""
    method = make_trainer({"method": "conditional_adversary", **settings}, model={"name": model}).method
    nn.init.normal_(method.class_embedding.weight)
    return method


def add_class(z: Tensor, embedding: nn.Embedding, y: Tensor) -> Tensor:
    """Return z with the embedding of each image's class added to each channel, in a loop."""
    sums = z.clone()
    for n, label in enumerate(y.tolist()):
        for channel in range(z.shape[1]):
            sums[n, channel] = z[n, channel] + embedding.weight[label, channel]
    return sums


@pytest.mark.parametrize("model", ["convnet", "lenet"])
def test_the_gradients_equal_those_of_eq_9_with_y_as_an_input_of_h(
    make_trainer: MakeTrainer, batch: Batch, model: str
) -> None:
    """f gets the gradient of task + lam * information - mu * bias, g that of task, h and the embedding that of bias."""
    method = make_method(make_trainer, model, lam=0.4, mu=0.3).double()
    batch = replace(batch, x=batch.x.double())
    nets = {name: getattr(method, name).double().train() for name in ("f", "g", "h")}
    nets["e"] = method.class_embedding
    parameters = {name: [*net.parameters()] for name, net in nets.items()}
    (objective,) = method.objectives(batch, 0.5)
    assert objective.over == (method.f, method.g, method.h, method.class_embedding)
    gradients = torch.autograd.grad(
        objective.loss, [p for network_parameters in parameters.values() for p in network_parameters]
    )

    z = nets["f"](batch.x)
    task = cross_entropy(nets["g"](z), batch.y)
    log_q = torch.log_softmax(nets["h"](add_class(z, nets["e"], batch.y), batch.labelled), dim=1)
    information = (log_q.exp() * log_q).sum(dim=1).mean()
    labels = batch.bias.movedim(1, -1)[batch.labelled]
    bias = -3 * log_q.gather(1, labels[:, None])[:, 0].mean()
    losses = {"f": task + 0.4 * information - 0.3 * bias, "g": task, "h": bias, "e": bias}
    expected_gradients = [
        g for name in losses for g in torch.autograd.grad(losses[name], parameters[name], retain_graph=True)
    ]
    torch.testing.assert_close(gradients, tuple(expected_gradients))


def test_in_the_alternating_schedule_y_is_an_input_of_h(make_trainer: MakeTrainer, batch: Batch) -> None:
    method = make_method(make_trainer, lam=0.4, mu=0.3, updates="alternating")
    task_objective, bias_objective = method.objectives(batch, 0.5)
    assert task_objective.over == (method.f, method.g)
    assert bias_objective.over == (method.f, method.h, method.class_embedding)
    log_q = torch.log_softmax(
        method.h(add_class(method.f(batch.x), method.class_embedding, batch.y), batch.labelled), dim=1
    )
    bias = bias_cross_entropy(log_q, batch.bias_at(batch.labelled))
    torch.testing.assert_close(bias_objective.loss, bias)
    torch.testing.assert_close(task_objective.terms["mi"], (log_q.exp() * log_q).sum(dim=1).mean().detach())


def test_finding_the_number_of_channels_of_z_does_not_change_f(make_trainer: MakeTrainer) -> None:
    f, erm_f = (make_trainer(name).networks.f for name in ("conditional_adversary", "erm"))
    assert f.state_dict().keys() == erm_f.state_dict().keys()
    assert all(torch.equal(value, f.state_dict()[key]) for key, value in erm_f.state_dict().items())
    f.train()(torch.zeros(2, 3, 28, 28))
    assert not torch.equal(f.norm.running_var, erm_f.norm.running_var)  # in training mode the statistics would change
    assert make_method(make_trainer).class_embedding.weight.shape == (10, 32)
    assert make_method(make_trainer, "lenet").class_embedding.weight.shape == (10, 128)


def test_h_with_y_as_an_input_learns_the_bias_from_y(make_trainer: MakeTrainer, batch: Batch) -> None:
    """With constant features, h learns the shares of the colors; with y as an input, the color of each class."""
    losses = []
    for name in ("conditional_adversary", "lntl"):
        method: Any = make_trainer({"method": name}).method
        adversary, constant_features = method._get_adversary(batch), torch.zeros(len(batch.y), 32, 14, 14)
        optimizer = torch.optim.Adam([*method.h.parameters(), *method.parameters()], 0.01)
        for _ in range(40):
            loss = bias_cross_entropy(adversary(constant_features, batch.labelled), batch.bias_at(batch.labelled))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.7 * losses[1]


def test_the_adversary_starts_with_an_embedding_of_0(make_trainer: MakeTrainer, batch: Batch) -> None:
    method: Any = make_trainer({"method": "conditional_adversary"}).method.eval()
    z = method.f(batch.x)
    torch.testing.assert_close(
        method._get_adversary(batch).eval()(z, batch.labelled), method.h.eval()(z, batch.labelled)
    )


def test_the_embedding_learns_at_the_rate_of_h(make_trainer: MakeTrainer) -> None:
    phase = {"method": "conditional_adversary", "optimizer_fg": {"lr": 0.5}, "optimizer_h": {"lr": 0.25}}
    (record,) = make_trainer(phase)
    rates = {name: record.metrics[f"train/lr_{name}"] for name in ("f", "g", "h", "class_embedding")}
    assert rates == {"f": 0.5, "g": 0.5, "h": 0.25, "class_embedding": 0.25}
