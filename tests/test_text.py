"""Names are escaped, so that Markdown, a spreadsheet or a shell shows exactly the name."""

import subprocess

import pytest
from markdown_it import MarkdownIt

from lntl.text import markdown, markdown_code, one_line, shell, without_formula

SPECIAL_NAMES = [
    "a`b``c",
    "*a* **b** _c_ __d__ ~~e~~",
    "<script>alert(1)</script> &lt; &amp;",
    "[a](http://b.c) ![d](e) http://f.g www.h.i <j@k.l>",
    "a|b|c \\| d\\",
    "# a",
    "- a",
    "+ a",
    "1. a",
    "12) a",
    "--- a",
    "$x$ \\(y\\)",
    "Katze über ١ 猫",
]


def get_rendered_text(text: str) -> str:
    """Return the text of rendered Markdown, and assert that it has no markup."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children)


@pytest.mark.parametrize("name", SPECIAL_NAMES)
def test_markdown_shows_the_name_itself(name: str) -> None:
    assert get_rendered_text(markdown(name)) == name
    table = MarkdownIt("gfm-like", {"linkify": False}).parse(f"| {markdown(name)} | 2 |\n| --- | --- |\n| 3 | 4 |\n")
    cells = [token.content for token in table if token.type == "inline"]
    assert len(cells) == 4


@pytest.mark.parametrize("name", [*SPECIAL_NAMES, "`", "```"])
def test_a_code_span_shows_the_name_itself(name: str) -> None:
    (span,) = MarkdownIt("commonmark").parse(f"Run {markdown_code(name)}.")[1].children[1:-1]  # type: ignore[index]
    assert (span.type, span.content) == ("code_inline", name)


def test_line_ends_and_control_characters_are_replaced() -> None:
    assert one_line(" a\n\tb\r\nc\u2028d ") == "a b c d"
    assert one_line("\x1b[31mred\x00\udc80") == "\\x1b[31mred\\x00\\udc80"
    assert one_line("5.3\u202fmin 👩\u200d🔬") == "5.3\u202fmin 👩\u200d🔬"


@pytest.mark.parametrize("path", ["a b", "a'b", 'a"b$c`d', "a\nb", "é\t'\\", "plain/path_1"])
def test_a_shell_reads_the_quoted_path_unchanged(path: str) -> None:
    assert "\n" not in shell(path)
    process = subprocess.run(["bash", "-c", f"printf %s {shell(path)}"], capture_output=True, check=True)
    assert process.stdout.decode() == path


def test_formulas_of_a_spreadsheet_get_an_apostrophe() -> None:
    assert [without_formula(text) for text in ("=1", "+1", "-1", "@a", "\t=1", "a=1", "")] == [
        "'=1",
        "'+1",
        "'-1",
        "'@a",
        "'\t=1",
        "a=1",
        "",
    ]
