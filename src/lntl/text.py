"""Escape characters with a special meaning in terminals, Markdown, spreadsheets and shells; count with a noun."""

import re
from pathlib import Path
from shlex import quote

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_WHITESPACE = re.compile(r"[ \t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
_MARKDOWN_SYNTAX = re.compile(r"[\\`*_\[\]<>|~$&]|:(?=//)|(?<=www)\.|^[-+#](?=[-+#\s]|$)")
_LIST_NUMBER = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet reads as a formula


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 run" or "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def escape_controls(text: str) -> str:
    """Return a text with control characters, except tabs and line ends, as Python escapes, which no terminal obeys."""
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def one_line(text: object) -> str:
    """Return a text on one line; control characters and invalid bytes become Python escapes."""
    return escape_controls(_WHITESPACE.sub(" ", str(text)).strip())


def markdown(text: object) -> str:
    """Return a text on one line, escaped for Markdown, also in a table cell."""
    return _LIST_NUMBER.sub(r"\1\\\2", _MARKDOWN_SYNTAX.sub(r"\\\g<0>", one_line(text)))


def markdown_code(text: object) -> str:
    """Return a text on one line as a Markdown code span, with more backticks around it than inside."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall(r"`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def without_formula(text: str) -> str:
    """Return a text that no spreadsheet reads as a formula; if it starts like one, an apostrophe is put before it."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def shell(path: Path | str) -> str:
    """Return a path for a command line of a POSIX shell, on one line."""
    text = str(path)
    if one_line(text) == text:
        return quote(text)
    return "$'" + "".join(ascii(c)[1:-1] if c < " " else f"\\{c}" if c in "\\'" else c for c in text) + "'"
