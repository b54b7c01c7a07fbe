"""Every key of the configuration, with its type and meaning."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from lntl import plugins
from lntl.errors import UserError
from lntl.evaluation.metrics import METRICS, NUM_HEADLINES
from lntl.plugins import Settings, Weight, conflict
from lntl.training import Optimizer, Phase

# Names of runs, which are names of folders.
RUN_NAME = r"^[^/\\\s.\x00-\x1f\x7f][^/\\\s\x00-\x1f\x7f]*$"
RUN_NAME_RULE = "a name without spaces and slashes that does not begin with a point"


class Project(Settings):
    """Name and seed of the run."""

    name: str = Field("LearningNotToLearn", description="Name of the project; shown in reports.")
    experiment_name: str = Field(
        min_length=1,
        max_length=200,
        pattern=RUN_NAME,
        description="Name of the run; its folder is logging.output_dir/NAME.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of initial weights, order and augmentation.")
    description: str = Field("", description="Free text.")


class Data(Settings):
    """The data set."""

    name: str = Field(description="Data set: a name from `lntl.data`, or the dotted name of your own class.")


class Model(Settings):
    """The networks f, g and h."""

    name: str = Field(description="Architecture: a name from `lntl.models`, or the dotted name of your own class.")
    eraser: Literal["none", "leace"] = Field(
        "none",
        description="leace: f ends before g's last linear layer, with an eraser that the method leace fits; until then "
        "the eraser is the identity.",
    )


# Keys of lntl 0.1 and their names since 0.2, for the message about an unknown key.
RENAMED_KEYS = {
    "bias_reach": "bias_dilation",
    "clip": "max_weight",
    "max_ratio": "max_gradient_ratio",
    "places": "h_positions",
    "schedule": "updates",
}
INHERITED_KEYS = ("optimizer_fg", "optimizer_h", "ema", "clip_grad_norm")


class Training(Settings):
    """Settings of training: defaults of the phases, then the phases in order."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    devices: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Number of processes on each machine; each uses one device of the kind `device`. On CPU at most "
        "one per core.",
    )
    num_nodes: int = Field(1, ge=1, le=10_000, description="Number of machines; several need torchrun or SLURM.")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Precision of Lightning Fabric.")
    batch_size: int = Field(128, ge=2, le=1_000_000, description="Images in one step, summed over all processes.")
    accumulate: int = Field(
        1,
        ge=1,
        le=500_000,
        description="Number of parts into which a batch is divided to save memory: their gradients are computed one "
        "after the other. Each part has at least two images. Only for methods whose loss is a mean over images.",
    )
    adversarial_lambda: Weight = Field(
        0.1, description="mu of every phase whose method has mu, unless the phase sets mu."
    )
    optimizer_fg: Optimizer = Field(Optimizer(), description="Optimiser of f and g; a phase may override single keys.")
    optimizer_h: Optimizer = Field(Optimizer(), description="Optimiser of h; a phase may override single keys.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay per step of a moving average of the weights; if set, the average is evaluated.",
    )
    clip_grad_norm: float | None = Field(None, gt=0, le=1e12, description="Largest gradient norm of each network.")
    start_from: str | None = Field(
        None,
        min_length=1,
        description="Checkpoint whose evaluated weights are the initial weights; set by `lntl repair`.",
    )
    phases: list[Phase] = Field(min_length=1, description="The phases of training, in order.")

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        processes = self.devices * self.num_nodes
        if processes > 1 and ":" in self.device:
            raise conflict(
                f"device {self.device} is a single device, but the run has {processes} processes; write only the kind, "
                f"{self.device.partition(':')[0]}"
            )
        if 2 * (parts := processes * self.accumulate) > self.batch_size:
            raise conflict(
                f"batch_size {self.batch_size} is less than two images for each of {parts} parts "
                "(devices x num_nodes x accumulate)"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, raw: object) -> object:
        """Fill each phase with the settings that it inherits from the section `training`."""
        if not isinstance(raw, dict) or not isinstance(phases := raw.get("phases"), list):
            return raw
        return raw | {"phases": [_with_defaults(phase, raw) if isinstance(phase, dict) else phase for phase in phases]}


def _with_defaults(phase: dict[str, object], training: dict[str, object]) -> dict[str, object]:
    phase_settings = dict(phase)
    for key in INHERITED_KEYS:
        value, default = phase.get(key), training.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            phase_settings[key] = default | value
        elif key not in phase and key in training:
            phase_settings[key] = default
    if "mu" not in phase and "adversarial_lambda" in training and _takes_mu(phase.get("method")):
        phase_settings["mu"] = training["adversarial_lambda"]
    return phase_settings


def _takes_mu(method: object) -> bool:
    from lntl.methods import load_method  # imported here so that importing the configuration does not import torch

    try:
        return isinstance(method, str) and "mu" in load_method(method).Config.model_fields
    except UserError:
        return False  # the validation that follows reports the unknown method


if TYPE_CHECKING:
    MetricName = str
    TrackerName = str
else:
    MetricName = Literal[tuple(METRICS)]
    TrackerName = Literal[plugins.modules("lntl.trackers")]


class Logging(Settings):
    """Settings of the files that a run writes."""

    output_dir: str = Field("results", min_length=1, description="Folder of the run folders.")
    log_interval_batches: int = Field(
        50, ge=1, le=1_000_000_000, description="Steps between two log entries and progress updates."
    )
    checkpoint_interval_epochs: int = Field(
        1, ge=1, le=1_000_000, description="Epochs between two checkpoint_epoch_XX.pth."
    )
    checkpoint_minutes: float = Field(
        10.0, gt=0, le=1_000_000, description="Minutes between two saves of last.pth within an epoch."
    )
    trackers: list[TrackerName] = Field(
        ["tensorboard"], description="Where metrics, settings and files go besides the run folder."
    )
    use_tensorboard: bool = Field(True, description="false leaves tensorboard out of the trackers.")

    def tracker_names(self) -> list[str]:
        """Return the names of the trackers to use, each once."""
        return [name for name in dict.fromkeys(self.trackers) if name != "tensorboard" or self.use_tensorboard]


class Evaluation(Settings):
    """Settings of evaluation, and of the choice of the best checkpoint."""

    metrics: list[MetricName] = Field(
        list(METRICS),
        min_length=1,
        description="Metrics to report, on val after each epoch and on test at the end; the first "
        f"{NUM_HEADLINES} also in a line of the log and in the table of results.",
    )
    best_model_metric: MetricName = Field(
        "accuracy",
        description="Metric on val by which best_model.pth is chosen among the epochs of the last phase: the highest "
        "value, or the lowest for the calibration error and the gaps.",
    )
    batch_size: int = Field(1000, ge=1, le=1_000_000, description="Images in one forward pass.")
    erm_epochs: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Epochs of plain training (ERM), which runs first, as a baseline, without random colors; "
        "0 for none.",
    )

    @model_validator(mode="after")
    def _check_best_model_metric(self) -> Self:
        if self.best_model_metric not in self.metrics:
            raise conflict(f"metrics do not contain best_model_metric, {self.best_model_metric}; add it")
        return self


class Config(Settings):
    """The configuration of a run."""

    @model_validator(mode="before")
    @classmethod
    def _split_arch(cls, raw: object) -> object:
        """Turn `model: {name: torchvision/resnet18}` into name and arch."""
        if not isinstance(raw, dict) or not isinstance(model := raw.get("model"), dict):
            return raw
        if not isinstance(name := model.get("name"), str) or "/" not in name:
            return raw
        plugin, _, arch = name.partition("/")
        if model.get("arch", arch) != arch:
            raise conflict(f"model.name and model.arch name two architectures, {arch!r} and {model['arch']!r}")
        return raw | {"model": model | {"name": plugin, "arch": arch}}

    project: Project
    data: Data
    model: Model
    training: Training
    logging: Logging = Logging()
    evaluation: Evaluation = Evaluation()
