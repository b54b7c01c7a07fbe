"""A study: trials of a space, run by one or more processes, with a storage that several machines can share."""

import json
import os
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from lntl import __version__, experiment
from lntl import config as configuration
from lntl.errors import DeadEndError, Interrupted, UserError, shorten
from lntl.evaluation.metrics import METRICS, lower_is_better
from lntl.experiment.run import Stop, flush_denormals
from lntl.runs.environment import describe
from lntl.runs.files import describe_fault, write_text
from lntl.runs.formats import Study, Trial
from lntl.seeding import derive
from lntl.tuning.space import Parameter, Space, Value, choose_objective, make_trial_config
from lntl.types import EpochRecord

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:
    raise UserError(f"lntl tune needs Optuna ({error}): pip install 'lntl[tune]'") from error

Result = TypeVar("Result")
State = optuna.trial.TrialState

_STORAGE_TIMEOUT = 30.0  # seconds
_HEARTBEAT_INTERVAL = 60.0  # seconds; a running trial writes the time into the storage at this interval
_HEARTBEAT_TIMEOUT = 900.0  # seconds; a trial that has not written the time for so long counts as killed
# Exceptions of storages.
_STORAGE_ERRORS = (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, OSError, ValueError, LookupError)
MAX_SCORE = 1e6  # largest absolute value of a score
_MIN_TRIALS = 5  # number of finished trials before a trial can be pruned
_STATES = {
    State.COMPLETE: "complete",
    State.PRUNED: "pruned",
    State.FAIL: "failed",
    State.RUNNING: "running",
    State.WAITING: "waiting",
}


@dataclass(frozen=True)
class Tuning:
    """The settings of a study.

    Args:
        config: A configuration file, or the name of a ready configuration.
        overrides: Settings that replace those of the file, as key=value.
        space: The space.
        seeds: Number of seeds over which a trial is averaged; the first is project.seed, the next one is 1 higher, ...
        storage: A journal file, or the URL of a database; "" for a journal in the folder of the study.
    """

    config: str
    overrides: Sequence[str]
    space: Space
    seeds: int = 1
    storage: str = ""
    objective: str = field(init=False)
    folder: Path = field(init=False)
    first_seed: int = field(init=False)

    def __post_init__(self) -> None:
        """Derive the objective and the folder of the study from the configuration."""
        config = configuration.read(self.config, [*self.overrides])
        if config.training.devices * config.training.num_nodes > 1:
            raise UserError(
                "training.devices: a trial is trained by one process; set training.devices and training.num_nodes to "
                "1, and make several trials at once with --jobs"
            )
        object.__setattr__(self, "objective", choose_objective(self.space, config))
        object.__setattr__(self, "folder", Path(config.logging.output_dir) / self.space.name)
        object.__setattr__(self, "first_seed", config.project.seed)

    @property
    def target(self) -> str:
        """The storage, also if it is the default."""
        return self.storage or str(self.folder / "study.journal")

    def fingerprint(self) -> str:
        """Return a text that two studies share if they have the same training, space, objective and seeds."""
        config = configuration.read(self.config, [*self.overrides])
        settings = config.model_dump(include={"data", "model", "training"}, exclude_defaults=True)
        settings["training"].pop("device", None)
        return repr((settings, self.space.model_dump(exclude={"name"}), self.objective, self.first_seed, self.seeds))


def open_study(tuning: Tuning) -> optuna.Study:
    """Open the study in its storage, or create it there.

    Raises:
        UserError: If the storage does not answer or cannot be opened, or if its study of this name has other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    target = tuning.target
    if not tuning.storage:
        _make_folder(tuning.folder)
    direction: Literal["minimize", "maximize"] = "minimize" if lower_is_better(tuning.objective) else "maximize"

    def create() -> optuna.Study:
        return optuna.create_study(
            storage=_open_storage(target),
            study_name=tuning.space.name,
            direction=direction,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_MIN_TRIALS),
        )

    with storage_errors(target):
        study = _call_with_timeout(_STORAGE_TIMEOUT, create, _hide_password(target))
        settings = tuning.fingerprint()
        is_same = study.directions == [optuna.study.StudyDirection[direction.upper()]]
        if not is_same or study.user_attrs.setdefault("settings", settings) != settings:
            raise UserError(
                f"{_hide_password(target)}: its study {tuning.space.name} has another configuration, space, objective "
                "or number of seeds; set another name in the space, or another --storage"
            )
        study.set_user_attr("settings", settings)
        _check_trials(tuning, study)
    return study


def _check_trials(tuning: Tuning, study: optuna.Study) -> None:
    """Raise UserError if a trial in the storage has values that no trial of the study has."""
    for trial in study.get_trials(deepcopy=False):
        try:
            value = _make_trial(trial).value
            if trial.state == State.COMPLETE and (value is None or abs(value) > MAX_SCORE):
                raise ValueError(f"its score is {value}")
            for key, setting in trial.params.items():
                if key not in tuning.space.space or not tuning.space.space[key].contains(setting):
                    raise ValueError(f"{shorten(key)} is {shorten(setting)}, which is not in the space")
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            reason = describe_fault(error) if isinstance(error, ValidationError) else str(error)[:300]
            raise UserError(
                f"{_hide_password(tuning.target)}: trial {trial.number} is damaged ({reason}); restore the storage, or "
                "set another name in the space"
            ) from error


def _make_trial(trial: optuna.trial.FrozenTrial) -> Trial:
    return Trial(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.value,
        scores=trial.user_attrs.get("scores", []),
        values=trial.params,
        epochs=len(trial.intermediate_values),
        seconds=trial.user_attrs.get("seconds"),
        error=trial.user_attrs.get("error", ""),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}; set logging.output_dir") from error


def _open_storage(target: str) -> optuna.storages.BaseStorage:
    if "://" in target:
        return optuna.storages.RDBStorage(target)
    return optuna.storages.JournalStorage(JournalFileBackend(target))


def _hide_password(target: str) -> str:
    """Return the name of a storage for messages; a URL is shown without user and password."""
    head, at, tail = target.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at and "://" in head else target


def _call_with_timeout(seconds: float, call: Callable[[], Result], target: str) -> Result:
    """Return call(); raises UserError if it takes longer than `seconds`."""
    results, errors = list[Result](), list[Exception]()

    def run_call() -> None:
        try:
            results.append(call())
        except _STORAGE_ERRORS as error:  # raised again below, in the caller's thread
            errors.append(error)
        except (TypeError, AttributeError, AssertionError):  # of Optuna, for values of other types than it writes
            errors.append(ValueError("its content is damaged, or written by another program"))

    thread = threading.Thread(target=run_call, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise UserError(f"{target}: the storage does not answer within {seconds:g} s; is its server running?")
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def storage_errors(target: str) -> Iterator[None]:
    """Convert the errors of a storage within the block to UserError."""
    try:
        yield
    except _STORAGE_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{_hide_password(target)}: the storage cannot be used: {reason[:300]}; name a file that can be written "
            "to, or the URL of a database whose driver is installed"
        ) from error


def queue_trials(study: optuna.Study, count: int) -> int:
    """Queue trials until the study has `count` trials, running ones included; return the number of waiting trials.

    A trial whose process was killed is marked as failed, and its values are queued again.
    """
    for trial in study.get_trials(deepcopy=False, states=(State.RUNNING,)):
        if _is_dead(trial):
            _requeue(study, trial)
    for _ in range(count - len(_list_trials(study))):
        study.enqueue_trial({}, user_attrs={"queued": True})
    return len(study.get_trials(deepcopy=False, states=(State.WAITING,)))


def _is_dead(trial: optuna.trial.FrozenTrial) -> bool:
    host, pid = trial.user_attrs.get("host"), trial.user_attrs.get("pid")
    if host == socket.gethostname() and isinstance(pid, int) and not _is_alive(pid):
        return True
    begin = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - float(trial.user_attrs.get("alive", begin)) > _HEARTBEAT_TIMEOUT


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _requeue(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
    """Mark an unfinished trial as failed, and queue its values again."""
    try:
        study.tell(trial.number, state=State.FAIL)
    except ValueError:  # another process has done it
        return
    study.enqueue_trial(trial.params, user_attrs={"queued": True, "instead_of": trial.number})


def _list_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials without those that were queued again."""
    trials = study.get_trials(deepcopy=False)
    requeued = {trial.user_attrs.get("instead_of") for trial in trials}
    unqueued = [trial.number for trial in trials if trial.state == State.FAIL and "queued" not in trial.user_attrs]
    return [trial for trial in trials if trial.number not in requeued.union(unqueued)]


def run_trials(
    tuning: Tuning, study: optuna.Study, stop: Stop = lambda: False, watch: Callable[[str], None] = lambda line: None
) -> None:
    """Run the queued trials, one after another, until none waits.

    Args:
        tuning: The settings of the study.
        study: The study.
        stop: When it returns True, the current trial is queued again, and Interrupted is raised.
        watch: Called with a line of text about each finished trial.

    Raises:
        Interrupted: If `stop` returned True.
        UserError: If a trial cannot begin, for example because the data are missing.
    """
    while study.get_trials(deepcopy=False, states=(State.WAITING,)):
        if stop():
            raise Interrupted("stopped; the same command continues the study")
        trial = study.ask()
        if "queued" not in trial.user_attrs:  # another process has just taken the last queued trial
            study.tell(trial, state=State.FAIL)
            return
        # The draws of the sampler depend only on seed and trial, so a stopped study continues with the same values.
        study.sampler = optuna.samplers.TPESampler(seed=derive(tuning.first_seed, "tune", trial.number) % 2**32)
        watch(_run_trial(tuning, study, trial, stop))


def _run_trial(tuning: Tuning, study: optuna.Study, trial: optuna.Trial, stop: Stop) -> str:
    """Train a trial with each seed; return a line about it."""
    start = time.monotonic()
    for key, value in (("host", socket.gethostname()), ("pid", os.getpid()), ("alive", time.time())):
        trial.set_user_attr(key, value)
    values = {key: _suggest(trial, key, parameter) for key, parameter in tuning.space.space.items()}
    scores: list[float] = []
    folder = tuning.folder / "trials" / f"{trial.number}"
    try:
        for seed in range(tuning.first_seed, tuning.first_seed + tuning.seeds):
            scores.append(_train(tuning, trial, values, seed, scores, folder, stop))
    except optuna.TrialPruned:
        outcome = State.PRUNED
    except DeadEndError as error:
        trial.set_user_attr("error", str(error)[:500])
        study.tell(trial, state=State.FAIL)
        return f"trial {trial.number}: failed: {error}"
    except (Interrupted, UserError):
        _requeue(study, trial)
        raise
    else:
        outcome = State.COMPLETE
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
    trial.set_user_attr("scores", scores)
    mean = statistics.fmean(scores) if outcome == State.COMPLETE else None
    result = study.tell(trial, mean, state=outcome)
    settings = " ".join(f"{key}={_format(value)}" for key, value in values.items())
    return f"trial {trial.number}: {_STATES[outcome]} {tuning.objective}={result.value:.4f} {settings}"


def _format(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter) -> Value:
    if parameter.float_ is not None:
        return trial.suggest_float(key, *parameter.float_, log=parameter.log)
    if parameter.int_ is not None:
        return trial.suggest_int(key, *parameter.int_, log=parameter.log)
    return trial.suggest_categorical(key, parameter.choice or [])


def _train(
    tuning: Tuning,
    trial: optuna.Trial,
    values: dict[str, Value],
    seed: int,
    scores: Sequence[float],
    folder: Path,
    stop: Stop,
) -> float:
    """Train with one seed; return the objective on val after the last epoch. The test set is not read.

    Raises TrialPruned in the last phase if the mean over the seeds so far is below the median of the other trials.
    """
    settings = [f"project.seed={seed}", f"project.experiment_name=seed-{seed}", f"logging.output_dir={folder}"]
    try:
        config = make_trial_config(tuning.config, tuning.overrides, values, tuning.objective, settings)
    except UserError as error:  # each value is valid, but their combination is not
        raise DeadEndError(str(error)) from error
    heartbeat, score, step = time.monotonic(), float("nan"), 0
    with flush_denormals():
        run = experiment.start(config, overwrite=True)
        for event in run.train(stop):
            if time.monotonic() - heartbeat > _HEARTBEAT_INTERVAL:
                heartbeat = time.monotonic()
                trial.set_user_attr("alive", time.time())
            if not isinstance(event, EpochRecord) or event.phase != len(config.training.phases):
                continue
            value = run.records[-1].metrics.get(f"val/{tuning.objective}")
            if value is None:
                raise UserError(f"objective: {tuning.objective} is undefined on val; name another metric")
            score, step = value, step + 1
            trial.report(statistics.fmean([*scores, score]), len(scores) * config.training.phases[-1].epochs + step)
            if trial.should_prune():
                raise optuna.TrialPruned
    return score


def summarise(tuning: Tuning, study: optuna.Study) -> Study:
    """Return the results of the study so far."""
    trials = _list_trials(study)
    complete = [trial for trial in trials if trial.state == State.COMPLETE]
    has_variance = len({trial.value for trial in complete}) > 1
    importance = _compute_importance(study) if has_variance else {}
    machine = describe()
    return Study(
        name=tuning.space.name,
        objective=tuning.objective,
        label=METRICS[tuning.objective].label,
        lower_is_better=lower_is_better(tuning.objective),
        config=tuning.config,
        seeds=tuning.seeds,
        best=study.best_trial.number if complete else None,
        importance=importance,
        trials=[_make_trial(trial) for trial in trials],
        processor=machine.processor or "",
        threads=machine.threads,
        lntl=__version__,
    )


def _compute_importance(study: optuna.Study) -> dict[str, float]:
    """Return the share of the objective's variance that each key explains; {} if no tree finds any."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # zero total variance in all trees
        return {}


def write_results(tuning: Tuning, study: Study) -> list[Path]:
    """Write trials.jsonl, one line per trial, and best.yaml, a complete configuration; return the paths."""
    lines, best = tuning.folder / "trials.jsonl", tuning.folder / "best.yaml"
    write_text(lines, "".join(trial.model_dump_json(exclude_defaults=True) + "\n" for trial in study.trials))
    best_trial = next((trial for trial in study.trials if trial.number == study.best), None)
    if best_trial is None:
        return [lines]
    config = make_trial_config(tuning.config, tuning.overrides, best_trial.values)
    project = config.project.model_copy(update={"experiment_name": f"{study.name}-best"})
    write_text(best, configuration.to_yaml(config.model_copy(update={"project": project})))
    return [lines, best]
