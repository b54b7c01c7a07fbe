"""Export f and g of a trained run to one file, checked against the original on images of the test split."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lntl import __version__
from lntl.config import code_names
from lntl.data.arrays import ArraySplit
from lntl.data.transforms import float_luma
from lntl.deploy.loading import DESCRIPTION, DIGEST_KEY, Classifier, build_classifier, digest, load
from lntl.deploy.predicting import check_target
from lntl.errors import UserError
from lntl.experiment.checkpoints import build_data
from lntl.runs.files import write_atomic
from lntl.runs.folder import EXPORT_SUFFIX, RunFolder
from lntl.types import ImageSplit

Format = Literal["safetensors", "torch_export", "onnx"]
NUM_CHECKED = 64  # number of test images on which an export is checked
TOLERANCE = 1e-4  # largest accepted difference of a probability
EXTRA_FILE = "lntl.json"  # file with the metadata inside a torch_export
ProbabilityFunction = Callable[[Tensor], Tensor]  # from images to probabilities


class StandaloneClassifier(nn.Module):
    """Map float images on the [0, 1] scale (or vectors) to probabilities: luma if set, normalisation, f, g, softmax.

    If mean and std are float64, vectors are float64, too, because float32 would lose digits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.f, self.g = classifier.f, classifier.g
        for name, value in zip(("mean", "std"), classifier.transform.mean_and_std(), strict=True):
            self.register_buffer(name, value)
        self.gray = classifier.transform.gray
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, classes)."""
        images = float_luma(images) if self.gray else images
        probabilities: Tensor = self.g(self.f(((images - self.mean) / self.std).float())).softmax(dim=1)
        return probabilities


@dataclass(frozen=True)
class Check:
    """The largest difference of a probability between an export and the original, over n images from `origin`."""

    difference: float
    n: int
    origin: str


def export(target: Path, kind: Format, out: Path, trust: str | Sequence[str] = ()) -> Check:
    """Write the classifier of a trained run to a file.

    Args:
        target: A run folder (its best checkpoint, else its last) or a checkpoint.
        kind: The format.
        out: The file.
        trust: As for `load`; also for the data.

    Returns:
        The result of the check against the original.

    Raises:
        UserError: If the probabilities of the export differ from those of the original; no file is written then.
    """
    check_target(out)
    if kind == "safetensors" and out.suffix != EXPORT_SUFFIX:
        raise UserError(f"{out}: give it the suffix {EXPORT_SUFFIX}, by which lntl.load recognises it")
    path = RunFolder.resolve(target)
    classifier = load(path, trust=trust).to(memory_format=torch.contiguous_format)
    images, x, origin = _images_to_check(path, classifier, trust)
    content, exported = _EXPORTERS[kind](
        classifier, images, _metadata(path, classifier, normalises=kind != "safetensors")
    )
    with torch.no_grad():
        expected = classifier(x).softmax(dim=1)
        parts = (slice(0, len(x)), slice(0, 1))  # a batch, and one image alone
        difference = max(float((exported(images[part]) - expected[part]).abs().max()) for part in parts)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{out}: not written, because the {kind} export differs from the original by up to {difference:.2g} in a "
            f"probability, over {len(x)} {origin}; {TOLERANCE:g} is the limit; try another --format"
        )
    write_atomic(out, lambda file: file.write(content))
    return Check(difference, len(x), origin)


def _images_to_check(path: Path, classifier: Classifier, trust: str | Sequence[str]) -> tuple[Tensor, Tensor, str]:
    """Return the images for the check twice, as inputs of an export and as x in evaluation, and their origin.

    The images are spread over the test split; if the data cannot be read, they are random numbers.
    """
    try:
        data = build_data(classifier.description["data"], str(path), trust)
    except UserError as error:
        mean, std = classifier.transform.mean_and_std()
        images = torch.rand(NUM_CHECKED, *classifier.transform.shape, generator=torch.Generator().manual_seed(0))
        if len(classifier.transform.shape) == 1:  # each number of a vector has its own range
            images = mean + std * (2 * images - 1)
        inputs = float_luma(images) if classifier.transform.gray else images
        return images, ((inputs - mean) / std).float(), f"random images (the data cannot be read: {error})"
    split = data.splits["test"]
    index = torch.linspace(0, len(split) - 1, min(NUM_CHECKED, len(split))).long()
    x = split.batch(index).x
    images = x  # if the data set has no transform
    if data.transform is not None and isinstance(split, ArraySplit):
        images = split.values[index]
    elif data.transform is not None and isinstance(split, ImageSplit):
        images = split.pixels(index)
    return images / 255 if images.dtype == torch.uint8 else images, x, "images of the test split"


def _metadata(path: Path, classifier: Classifier, normalises: bool) -> dict[str, Any]:
    """Return the metadata of an export; `normalises`: whether its graph normalises the images."""
    transform = classifier.transform
    mean, std = transform.mean_and_std()
    shape = ", ".join(map(str, transform.shape))
    dtype = str(mean.dtype).removeprefix("torch.")
    scale = "in [0, 1]" if len(transform.shape) == 3 else "not normalised"
    return {
        "lntl_version": __version__,
        "checkpoint": str(path),
        "input": f"images: {dtype} (N, {shape}) {scale}: {transform.description}; normalised "
        f"{'by the graph' if normalises else 'with `normalisation` before f'}",
        "output": f"probabilities: float32 (N, {len(classifier.class_names)}), in the order of class_names"
        if normalises
        else "only the weights of f and g; lntl.load builds the classifier from them",
        "normalisation": {"mean": mean.flatten().tolist(), "std": std.flatten().tolist(), "inside": normalises},
        **{name: classifier.description[name] for name in DESCRIPTION},
    }


def _export_safetensors(
    classifier: Classifier, images: Tensor, metadata: dict[str, Any]
) -> tuple[bytes, ProbabilityFunction]:
    from safetensors.torch import load as read
    from safetensors.torch import save

    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    weights = {key: value.contiguous() for key, value in classifier.state_dict().items()}
    content = save(weights, texts | {DIGEST_KEY: digest(weights, texts)})
    description = {name: json.loads(texts[name]) for name in DESCRIPTION}
    trust = code_names(description)  # the code was trusted when the classifier was built
    path = Path(metadata["checkpoint"])
    return content, StandaloneClassifier(build_classifier(description, read(content), path, trust=trust))


def _export_program(
    classifier: Classifier, images: Tensor, metadata: dict[str, Any]
) -> tuple[bytes, ProbabilityFunction]:
    file = io.BytesIO()
    torch.export.save(_trace(classifier, images), file, extra_files={EXTRA_FILE: json.dumps(metadata)})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


def _export_onnx(classifier: Classifier, images: Tensor, metadata: dict[str, Any]) -> tuple[bytes, ProbabilityFunction]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx writes with it
    except ImportError as error:
        raise UserError(f"--format onnx: {error}; pip install onnx onnxscript onnxruntime") from error
    program = torch.onnx.export(
        _trace(classifier, images), dynamo=True, verbose=False, input_names=["images"], output_names=["probabilities"]
    )
    assert program is not None  # torch returns it because no path is given
    model = program.model_proto
    onnx.helper.set_model_props(model, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def _trace(classifier: Classifier, images: Tensor) -> torch.export.ExportedProgram:
    """Return the graph from images to probabilities, for any number of images."""
    batch = {"images": {0: torch.export.Dim("batch")}}
    # A graph traced with one image accepts only one image.
    two_images = images[:1].expand(2, *images.shape[1:]).contiguous()
    try:
        return torch.export.export(StandaloneClassifier(classifier), (two_images,), dynamic_shapes=batch)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the model cannot be traced ({reason}); use --format safetensors") from error


_EXPORTERS: dict[Format, Callable[[Classifier, Tensor, dict[str, Any]], tuple[bytes, ProbabilityFunction]]] = {
    "safetensors": _export_safetensors,
    "torch_export": _export_program,
    "onnx": _export_onnx,
}
