"""The model card of a run: what it is for, how it was made, what was measured of it, and what was not."""

import inspect
from pathlib import Path

from lntl import plugins
from lntl.reporting.report.facts import run_facts
from lntl.reporting.report.html import environment
from lntl.reporting.report.reading import RunFiles, read
from lntl.runs.files import write_text
from lntl.runs.folder import RunFolder


def write_card(run: Path) -> Path:
    """Write MODEL_CARD.md into a run folder, from its files alone; return it. Raises UserError where it is none."""
    files = read(run)
    card = RunFolder(run).card
    facts = run_facts(files, [])
    text = (
        environment()
        .get_template("card.md")
        .render(
            f=facts,
            described=files.config.get("project", {}).get("description", ""),
            model=files.config.get("model", {}),
            phases=zip(facts["phases"], map(_meaning, files.phases), strict=True),
            sizes=files.result.sizes if files.result else {},
            biases=files.evaluation.model_dump()["per_bias"] if files.evaluation else {},
            given="arrays.npz" if files.config.get("data", {}).get("name") == "arrays" else "images/",
            erm=files.erm is not None,
            own=str(files.config.get("model", {}).get("name", "")).rpartition(".")[0],
            unmeasured=_unmeasured(files, facts["bias"]),
        )
    )
    write_text(card, text)
    return card


def _meaning(phase: dict[str, object]) -> str:
    """Return what the method of a phase is, in a line; nothing of a method of one's own, whose code is not run."""
    name = phase.get("method")
    if name not in plugins.names("lntl.methods"):
        return ""
    module = inspect.getmodule(plugins.load("lntl.methods", str(name)))
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _unmeasured(files: RunFiles, bias: str) -> list[str]:
    """Return a sentence for each thing that a user could take for known and that was not measured."""
    run, told = files.path, []
    if files.evaluation is None:
        told.append(f"Accuracy on the test split, over groups, with intervals: `lntl eval {run}` measures it.")
    if files.probe is None:
        told.append(f"How much of the {bias} is left in the features: `lntl probe {run}` measures it.")
    if files.recoloring is None:
        told.append(f"Whether an answer changes where nothing but the {bias} of its image does.")
    if files.erm is None and files.method != "erm":
        told.append("Plain training (ERM) on the same data: what unlearning gained and cost is not known.")
    return [
        *told,
        "Other seeds: every number is of this one run, and the intervals are over test images alone.",
        "Data from elsewhere: the test split comes from the same source as the training images.",
        f"Any bias but the {bias}.",
    ]
