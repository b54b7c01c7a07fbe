"""Training, phase by phase. This file has the settings of a phase and of its optimisers; it does not import torch."""

from typing import Literal

from pydantic import Field

from lntl.plugins import Settings


class Optimizer(Settings):
    """The optimiser, and the learning rate as a function of progress."""

    name: Literal["sgd", "adam", "adamw", "adagrad"] = Field("adam", description="Optimiser of torch.optim.")
    lr: float = Field(0.001, gt=0, le=1e30, description="Highest learning rate of the schedule.")
    weight_decay: float = Field(0.0, ge=0, le=1e6, description="Weight decay, as defined by the optimiser.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum, only for sgd.")
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        "constant", description="Learning rate over the phase; one_cycle: up from lr/25 over the first 30 %, then down."
    )
    step_size: int = Field(40, ge=1, le=1_000_000, description="Epochs between two drops, only for schedule `step`.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop, only for schedule `step`.")


class Phase(Settings):
    """Epochs with one method; a key that is left out has the value in `training`."""

    method: str = Field(description="Method: a name from `lntl methods`, or the dotted name of your own class.")
    epochs: int = Field(ge=1, le=1_000_000, description="Passes over the training data.")
    optimizer_fg: Optimizer = Field(Optimizer(), description="Optimiser of f and g in this phase.")
    optimizer_h: Optimizer = Field(Optimizer(), description="Optimiser of h in this phase.")
    ema: float | None = Field(None, gt=0, lt=1, description="As training.ema, for this phase.")
    clip_grad_norm: float | None = Field(None, gt=0, le=1e12, description="As training.clip_grad_norm, for this phase.")
