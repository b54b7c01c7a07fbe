"""The process of one run of a benchmark: `python -m lntl.worker CONFIG.yaml test|val` trains and scores it."""

import os
import signal
import sys
import threading

from lntl.cli import guarded
from lntl.errors import DeadEndError


def main(config: str, split: str) -> None:
    """Train and score; where the process that started this one is gone, stop as after SIGTERM: saved, to be resumed."""
    from lntl import commands
    from lntl.benchmark.runner import DEAD_END

    def make() -> None:
        try:
            commands.make(config, split)
        except DeadEndError as error:
            print(f"Error: {error}", file=sys.stderr)
            raise SystemExit(DEAD_END) from None

    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    guarded(make, debug=False)


def _stop_with_the_parent() -> None:
    os.read(0, 1)  # nothing comes on stdin; this returns when the other end of the pipe is closed
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(*sys.argv[1:])
