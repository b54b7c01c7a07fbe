"""Script with the same code as `lntl`: `python src/main.py --config C --mode train|evaluate ...`."""

import argparse
import sys
from pathlib import Path

try:
    from lntl.cli import exit_on_error
    from lntl.cli.arguments import configured_run
    from lntl.cli.eval import evaluate
    from lntl.cli.train import train
except ModuleNotFoundError as missing:
    print(
        f"Error: {sys.executable} has no package '{missing.name}': run `make setup`, then `source .venv/bin/activate`.",
        file=sys.stderr,
    )
    raise SystemExit(2) from None


def run(args: argparse.Namespace) -> None:
    """Train or evaluate."""
    if args.mode == "train":
        train(
            args.config, args.overrides, args.checkpoint_path, args.overwrite, args.num_epochs, args.device, args.trust
        )
    else:
        path = Path(args.checkpoint_path) if args.checkpoint_path else configured_run(args.config, args.overrides)
        evaluate(path, args.device, args.trust)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train or evaluate; `lntl --help` shows the whole command line.")
    parser.add_argument("--config", required=True, help="YAML file, or the name of a ready configuration")
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train")
    parser.add_argument(
        "--checkpoint_path",
        "--resume",
        help="train: checkpoint to resume from, or 'auto'; evaluate: checkpoint to evaluate",
    )
    parser.add_argument(
        "--num_epochs", type=int, help="epochs of the last phase; each earlier phase gets at most this number"
    )
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--overwrite", action="store_true", help="replace the run of the same name")
    parser.add_argument(
        "--trust", action="append", metavar="MODULE", help="a module that a checkpoint may name; may be repeated"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override configuration keys")
    arguments = parser.parse_intermixed_args()
    exit_on_error(lambda: run(arguments), debug=arguments.debug)
