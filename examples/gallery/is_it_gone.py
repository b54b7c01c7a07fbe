"""Is the bias gone?

A bias head h at chance proves little, because f may only have learnt to mislead this h. `lntl probe` therefore trains
new networks (probes) on the frozen features, and shows each test digit in all ten colors. Both are done for plain
training (ERM), too. The image shows three test digits in ten colors, with the predictions of both networks.
"""

import torch

import lntl
from lntl import config, experiment, figures, probing

settings = config.read(
    "colored_mnist/best",
    ["data.max_images=3000", "training.batch_size=48", "evaluation.erm_epochs=4", "logging.use_tensorboard=false"],
    num_epochs=4,  # epochs of the last phase
)
run, _ = experiment.train(settings, overwrite=True)
results = probing.probe_checkpoint(run.folder.last, layers=["f"], seeds=1)
probe, recoloring = results.probe, results.recoloring
assert probe.reference.erm is not None
assert recoloring is not None
assert recoloring.erm is not None

print(f"chance: {probe.chance.majority:.2f} of the colors predicted correctly")
leakage = {"plain training": max(row.mean for row in probe.reference.erm), "LNTL": probe.leakage}
flips = {"plain training": recoloring.erm.flip_rate.value, "LNTL": recoloring.flip_rate.value}
for name in leakage:
    print(f"{name}: a new probe predicts {leakage[name]:.2f} of the colors correctly from the features")
    print(f"{name}: another color changes the prediction of {flips[name]:.2f} of the digits")

# Three test digits, with one row for each network.
test, spec = run.experiment.data.splits["test"], run.experiment.data.spec
index = torch.stack([(test.y == digit).nonzero()[0, 0] for digit in (0, 4, 7)])
digits = torch.stack([test.recolored(value).pixels(index) for value in range(spec.num_bias_values)], dim=1)
networks = {name: lntl.load(folder) for name, folder in {"plain": run.folder.erm, "LNTL": run.folder.path}.items()}
predicted = torch.stack([network.predict(row).argmax(dim=1) for row in digits for network in networks.values()])
figure = figures.recoloring_strip(
    digits.repeat_interleave(len(networks), dim=0),
    predicted,
    test.y[index].repeat_interleave(len(networks)),
    spec.bias_value_names,
    spec.class_names,
)
axes = figure.axes[0]
axes.set_yticks(axes.get_yticks(), [name for _ in index for name in networks])
figure.savefig("is_it_gone.png", dpi=100)
