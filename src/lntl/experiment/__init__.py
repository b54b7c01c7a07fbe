"""From a configuration to a finished run: build, train, evaluate; only this package uses all plug-ins."""

from lntl.experiment.build import Experiment, build
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.experiment.evaluate import Evaluation, conclude, evaluate_checkpoint, train, train_erm
from lntl.experiment.repairs import repair
from lntl.experiment.run import Run, exhaust, resume, run_folder, start, start_or_resume, stop_signals

__all__ = [
    "Evaluation",
    "Experiment",
    "Run",
    "build",
    "conclude",
    "evaluate_checkpoint",
    "exhaust",
    "load_networks",
    "open_checkpoint",
    "repair",
    "resume",
    "run_folder",
    "start",
    "start_or_resume",
    "stop_signals",
    "train",
    "train_erm",
]
