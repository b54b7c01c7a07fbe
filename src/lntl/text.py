"""Names as plain text where a format gives some characters a meaning: one line, Markdown, spreadsheets, shells."""

import re
import unicodedata
from pathlib import Path
from shlex import quote

_LINES = re.compile(r"[ \t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~$&]|:(?=//)|(?<=www)\.|^[-+#](?=[-+#\s]|$)")
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet runs


def one_line(text: object) -> str:
    """Return a text on one line; control characters and odd bytes are shown as Python escapes."""
    line = _LINES.sub(" ", str(text)).strip()
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") else c for c in line)


def markdown(text: object) -> str:
    """Return a text on one line for Markdown, also for a cell of a table, in which no character is markup."""
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", one_line(text)))


def markdown_code(text: object) -> str:
    """Return a text on one line as a code span of Markdown; it has more backticks around it than inside."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall(r"`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def without_formula(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: with an apostrophe in front where it would."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def shell(path: Path | str) -> str:
    """Return a path for a command line of a POSIX shell, on one line."""
    text = str(path)
    if one_line(text) == text:
        return quote(text)
    return "$'" + "".join(ascii(c)[1:-1] if c < " " else f"\\{c}" if c in "\\'" else c for c in text) + "'"
