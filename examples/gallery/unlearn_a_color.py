"""Unlearn a color in a minute.

In training each digit has its own color; in the test set the colors are random. Plain training (ERM) learns the
colors. *Learning Not to Learn*, here with the loss of the method `bias_product`, learns the shapes. Both train on
3,600 images. The figure shows training images, then the same ten test images twice, with the prediction of one network
above each image.
"""

import torch

import lntl
from lntl import config, experiment, figures

settings = config.read(
    "colored_mnist/best",
    ["data.max_images=4000", "training.batch_size=64", "evaluation.erm_epochs=4", "logging.use_tensorboard=false"],
    num_epochs=4,  # epochs of the last phase
)
run, result = experiment.train(settings, overwrite=True)
assert result.erm is not None
for name, scores in {"plain training": result.erm.last, "LNTL": result.last}.items():
    print(f"{name}: test accuracy {scores.test['accuracy']:.3f} after {scores.epoch} epochs")

# One image of each digit; `lntl.load` returns a trained classifier, which takes images as arrays of bytes.
train, test = (run.experiment.data.splits[name] for name in ("train", "test"))
images = {
    name: split.pixels(torch.stack([(split.y == digit).nonzero()[0, 0] for digit in range(10)]))
    for name, split in {"training": train, "test": test}.items()
}
folders = {"plain training": run.folder.erm, "LNTL": run.folder.path}
titles = [""] * 10
for folder in folders.values():
    predicted = lntl.load(folder).predict(images["test"]).argmax(dim=1)
    titles += [f"{'' if digit == truth else '✗ '}{digit}" for truth, digit in enumerate(predicted.tolist())]
pixels = torch.cat([images["training"], images["test"], images["test"]])
rows = ["training images", *(f"test images, {name}" for name in folders)]
figure = figures.sample_grid(pixels, columns=10, titles=titles, row_names=rows)
for text in figure.axes[0].texts:
    text.set_color(figures.PALETTE[1] if "✗" in text.get_text() else "black")
figure.savefig("unlearn_a_color.png", dpi=100)
