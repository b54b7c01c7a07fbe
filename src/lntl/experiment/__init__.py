"""From a configuration to a finished run: the one room that knows every name."""

from lntl.experiment.build import Experiment, build
from lntl.experiment.opened import load_networks
from lntl.experiment.result import conclude, evaluate_checkpoint
from lntl.experiment.run import Run, resume, start

__all__ = [
    "Experiment",
    "Run",
    "build",
    "conclude",
    "evaluate_checkpoint",
    "load_networks",
    "resume",
    "start",
]
