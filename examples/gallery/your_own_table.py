"""Your own images and a CSV table.

`lntl init` writes a small project: drawn shapes, a table of their labels, and a configuration. In training, most shapes
have the background of their class. `lntl data check` measures how well the background predicts the shape. `lntl train`
trains in random colors, so that the background no longer indicates the shape, and, for comparison, without random
colors (ERM). The figure shows the test accuracy for each shape on each background.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from lntl import figures

project = Path("shapes")


def lntl(*arguments: str, folder: Path = project) -> None:
    """Run the command `lntl ARGUMENTS` in a folder."""
    subprocess.run([sys.executable, "-m", "lntl", *arguments], cwd=folder, check=True, capture_output=True)


lntl("init", "shapes", folder=Path())
print(*(project / "data/table.csv").read_text().splitlines()[:4], "...", sep="\n")

lntl("data", "check", "config.yaml")
(check,) = project.glob("results/**/check.json")
for finding in json.loads(check.read_text())["findings"]:
    print(f"{finding['level']}: {finding['title']}")

lntl("train", "config.yaml")
run = project / "results/shapes"
evaluations = {
    name: json.loads(path.read_text())
    for name, path in {
        "plain training": run / "erm/evaluation/test.json",
        "random colors": run / "evaluation/test.json",
    }.items()
}
for name, evaluation in evaluations.items():
    worst = evaluation["metrics"]["worst_group_accuracy"]
    print(
        f"{name}: worst-group accuracy {worst['value']:.2f} (95 % interval {worst['low']:.2f} to {worst['high']:.2f})"
    )

names = evaluations["random colors"]["class_names"], evaluations["random colors"]["bias_value_names"]
accuracy = {name: np.array(evaluation["groups"]["accuracy"]) for name, evaluation in evaluations.items()}
figures.group_accuracies(accuracy, *names, "background").savefig("your_own_table.png", dpi=100)
