"""`lntl eval`: evaluate a trained model on the test set."""

from lntl.cli.arguments import DeviceOption, RunArgument, TrustOption


def evaluate(target: RunArgument, device: DeviceOption = None, trust: TrustOption = None) -> None:
    """Evaluate a trained model on the test set."""
    from rich.columns import Columns

    from lntl import experiment
    from lntl.cli.console import echo, echo_paths, log_to_console, out
    from lntl.cli.train import keep_freed_memory
    from lntl.reporting import tables
    from lntl.runs.folder import RunFolder

    log_to_console()
    keep_freed_memory()
    path = RunFolder.resolve(target)
    evaluation = experiment.evaluate_checkpoint(path, device=device, trust=trust or [])
    files = evaluation.write()
    result, metrics = evaluation.measured, evaluation.config.evaluation.metrics
    title = f"{evaluation.config.project.experiment_name}: {path.name}, epoch {result.epoch}, test set"
    out.print(tables.metric_table(title, {name: result.metrics[name] for name in metrics}))
    parts = [("by class", result.by_class), ("by bias", result.by_bias)]
    accuracies = [tables.accuracy_table(name, rows) for name, rows in parts if any(row.n for row in rows)]
    out.print(Columns(accuracies))
    for warning in result.warnings:
        echo(f"Note: {warning}.", style="yellow")
    echo_paths(files)
    if not files:
        echo("No file was written, because the checkpoint is not in RUN/checkpoints/.", style="dim")
