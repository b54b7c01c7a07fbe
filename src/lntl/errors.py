"""Errors that a user can correct, and helpers that format their messages."""

import os
from pathlib import Path

from lntl.text import escape_controls


class UserError(Exception):
    """An error that the user can correct; its message is one sentence: what is wrong, where, and what to do."""


class DeadEndError(UserError):
    """The run cannot continue from its checkpoint and must be trained again."""


class RankLostError(UserError):
    """Another process of the run has ended or cannot be reached; this process cannot continue."""


class UntrustedError(UserError):
    """A file names code that the user has not trusted; the code was not run."""


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user stopped the run; its state is saved."""


# Environment variable that `lntl train` sets for the ranks that it starts: the folder for their errors.
RANK_ERRORS = "LNTL_RANK_ERRORS"


def report_to_launcher(error: Exception, message: str) -> bool:
    """Write an error for the launcher, the process that started this rank; return False if there is no launcher."""
    if RANK_ERRORS not in os.environ:
        return False
    kind = type(error).__name__ if isinstance(error, DeadEndError | RankLostError) else UserError.__name__
    path = Path(os.environ[RANK_ERRORS]) / f"rank{int(os.environ['RANK']):05d}"
    path.write_text(f"{kind}\n{message}", encoding="utf-8")
    return True


def for_terminal(message: str, limit: int = 1000) -> str:
    """Return a message with control characters escaped; lines longer than `limit` lose their middle.

    Lines may be long because a path in a message may have any length.
    """
    lines = [
        line if len(line) <= limit else f"{line[: limit // 2]} [...] {line[-limit // 4 :]}"
        for line in escape_controls(message).split("\n")
    ]
    return "\n".join(lines)


def shorten(value: object, limit: int = 200) -> str:
    """Return a value as a short text for a message.

    Args:
        value: Anything.
        limit: Largest number of characters of repr(value) to show.

    Returns:
        repr(value); if it is longer, its beginning and its length.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits; a value that contains itself
        text = f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
