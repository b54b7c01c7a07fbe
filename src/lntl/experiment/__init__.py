"""From a configuration to a finished run: the one room that knows every name."""

from lntl.experiment.build import Experiment, build
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.experiment.evaluate import Evaluation, conclude, evaluate_checkpoint, train, train_erm
from lntl.experiment.run import Run, resume, run_folder, start, stop_signals, take_up

__all__ = [
    "Evaluation",
    "Experiment",
    "Run",
    "build",
    "conclude",
    "evaluate_checkpoint",
    "load_networks",
    "open_checkpoint",
    "resume",
    "run_folder",
    "start",
    "stop_signals",
    "take_up",
    "train",
    "train_erm",
]
