"""Build the documentation site in site/, with build/docs/ as work folder: `make docs` runs this script.

Usage: python scripts/docs_site.py

The pages are docs/**.md, README.md, CHANGELOG.md and CONTRIBUTING.md. Before Zensical turns them into HTML, this script

* writes a page for each method, from its docstring, its settings, docs/which_method.md and the benchmark table;
* writes a page for each example of examples/gallery/, from its code and from the output that scripts/gallery.py stored;
* copies each file of the repository to which a page links into the folder repository/ of the site, and adapts the link;
* turns $$...$$ into MathML, so that the page loads no script.

These are errors: a link without a target, a page that is missing from the navigation of mkdocs.yml, an unknown name in
an API page, and a file that the site would load from the network.
"""

import ast
import csv
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from latex2mathml.converter import convert
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lntl import cli, config, plugins
from lntl.methods import load_method

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = ROOT / "benchmarks/colored_mnist"
GALLERY = re.findall(r"\(\.\./examples/gallery/(\w+)\.py\)", (ROOT / "docs/gallery.md").read_text("utf-8"))
# Pages whose source is not in docs/.
ROOT_PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
EXAMPLES = {f"gallery/{name}.md": f"examples/gallery/{name}.py" for name in GALLERY}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
MATH = re.compile(r"^\$\$(.+?)\$\$$", re.MULTILINE | re.DOTALL)
NETWORK_ADDRESS = re.compile(r"""(?:src=|<link[^>]*href=|@import\s|url\()["']?(?:https?:)?//[^"')\s>]+""")


def main() -> None:
    """Write the sources of the pages and build the site from them."""
    work, site = ROOT / "build/docs", ROOT / "site"
    for folder in (work, site):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", work / "docs")
    pages = {file.relative_to(work / "docs").as_posix(): file.read_text("utf-8") for file in work.rglob("docs/**/*.md")}
    pages |= {uri: (ROOT / source).read_text("utf-8") for uri, source in ROOT_PAGES.items()}
    for name, render in (("commands", render_commands), ("configuration", render_configuration)):
        pages[f"{name}.md"] = pages[f"{name}.md"].replace(f"<!-- {name} -->", render())
    methods = {name: render_method_page(name) for name in plugins.names("lntl.methods")}
    pages |= {"methods/index.md": render_methods_page()} | {
        f"methods/{name}.md": text for name, text in methods.items()
    }
    examples = {f"gallery/{name}.md": render_gallery_page(ROOT / f"examples/gallery/{name}.py") for name in GALLERY}
    pages |= examples
    write_pages(pages, work / "docs")
    copy_package(work / "src")
    folders: dict[str, list[Any]] = {
        "methods/": [{name: f"methods/{name}.md"} for name in methods],
        "gallery/": [*examples],
    }
    write_config(pages, folders, work)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
    process = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(process.stdout + process.stderr.partition("Traceback")[0])
    shutil.move(work / "site", site)
    for page in site.rglob("*.html"):
        if address := NETWORK_ADDRESS.search(page.read_text("utf-8")):
            sys.exit(f"{page}: it loads from the network: {address[0]}")
    print(f"{site}/index.html: {len(list(site.rglob('*.html')))} pages")


def write_pages(pages: dict[str, str], folder: Path) -> None:
    """Write the pages, and the files of the repository to which they link."""
    queue = list(pages.items())
    written_paths = set(pages)
    while queue:
        uri, text = queue.pop()
        targets = {
            target: make_site_uri(uri, target)
            for target in LINK.findall(CODE.sub("", text))
            if not _is_external(target)
        }
        for target in targets.values():
            path = target.partition("#")[0]
            if path.startswith("repository/") and path not in written_paths:
                written_paths.add(path)
                source = ROOT / path.removeprefix("repository/")
                if source.suffix == ".md":
                    queue.append((path, source.read_text("utf-8")))
                else:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, folder / path)
        (folder / uri).parent.mkdir(parents=True, exist_ok=True)
        (folder / uri).write_text(adapt_page(text, targets, "../" * uri.count("/")), encoding="utf-8")


def adapt_page(text: str, targets: dict[str, str], root: str) -> str:
    """Return a page with the links of the site and with formulas as MathML; code is unchanged.

    targets: new target of each link, relative to the site. root: relative path from the page to the site.
    """
    parts = []
    end = 0
    for code in [*CODE.finditer(text), None]:
        prose = text[end : code.start() if code else None]
        prose = LINK.sub(lambda link: root + targets[link[0]] if link[0] in targets else link[0], prose)
        parts.append(MATH.sub(lambda math: convert(math[1].strip(), display="block"), prose))
        if code:
            parts.append(code[0])
            end = code.end()
    return "".join(parts)


def _is_external(target: str) -> bool:
    """Return whether a link leads to the web or to a heading of the same page."""
    return target.startswith("#") or "://" in target


def make_site_uri(page: str, target: str) -> str:
    """Return the target of a link in a page: a path in the site's sources, with its #heading."""
    path, mark, heading = target.partition("#")
    source = ROOT_PAGES.get(page) or (
        page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"
    )
    file = (ROOT / source).parent.joinpath(path).resolve()
    if not file.is_relative_to(ROOT):
        sys.exit(f"{source}: the link {target} leads out of the repository")
    name = file.relative_to(ROOT).as_posix()
    uri_of_source = {source_path: uri for uri, source_path in (ROOT_PAGES | EXAMPLES).items()}
    if name.startswith("docs/"):
        return name.removeprefix("docs/") + mark + heading
    if not file.is_file():
        sys.exit(f"{source}: the link {target} leads to no file")
    return uri_of_source.get(name, f"repository/{name}") + mark + heading


def copy_package(folder: Path) -> None:
    """Copy the package, with each "Example:" of a docstring as "Examples:", the heading that mkdocstrings expects."""
    for path in (ROOT / "src").rglob("*.py"):
        target = folder / path.relative_to(ROOT / "src")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            re.sub(r"^( +)Example:$", r"\1Examples:", path.read_text("utf-8"), flags=re.MULTILINE), "utf-8"
        )


def render_gallery_page(path: Path) -> str:
    """Return the page of an example: its text, image, output and code."""
    code = path.read_text("utf-8")
    module = ast.parse(code)
    title, _, text = (ast.get_docstring(module) or "").partition("\n")
    code = "\n".join(code.splitlines()[module.body[0].end_lineno :]).strip()
    output = json.loads((path.parent / f"output/{path.stem}.json").read_text("utf-8"))
    link = f"../../examples/gallery/output/{path.stem}.png"
    machine = f"{output['processor']}, PyTorch {output['packages']['torch']}"
    cost = f"It took {output['seconds']} s of processor time on one core ({machine})."
    parts = [f"# {title.rstrip('.')}", text.strip(), f"![The image that the example saves.]({link})"]
    parts += ["It prints:", f"```text\n{output['printed'].strip()}\n```", cost]
    parts += [f"## `{path.name}`", f"```python\n{code}\n```"]
    return "\n\n".join(parts) + "\n"


def write_config(pages: dict[str, str], folders: dict[str, list[Any]], work: Path) -> None:
    """Write mkdocs.yml; in its navigation, the generated pages replace the name of their folder."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    nav = [item for entry in config["nav"] for item in _expand(entry, folders)]
    nav_pages = set(re.findall(r"[\w/]+\.md", str(nav)))
    if nav_pages != set(pages):
        sys.exit(f"mkdocs.yml: its nav and the pages differ in {', '.join(sorted(nav_pages ^ set(pages)))}")
    config["nav"] = nav
    config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = ["src"]
    (work / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _expand(entry: Any, folders: dict[str, list[Any]]) -> list[Any]:
    """Return a list that replaces one entry of the navigation; the name of a folder becomes its generated pages."""
    if isinstance(entry, dict):
        ((title, inner),) = entry.items()
        return [
            {title: [page for part in inner for page in _expand(part, folders)] if isinstance(inner, list) else inner}
        ]
    return folders.get(entry, [entry])


def render_methods_page() -> str:
    """Return the list of the methods."""
    lines = [
        "# Methods",
        "",
        "Each phase of training uses one method. [Which method?](../which_method.md) compares the methods.",
        "",
    ]
    lines += ["| method | what it does |", "| --- | --- |"]
    for name in plugins.names("lntl.methods"):
        lines.append(f"| [`{name}`]({name}.md) | {_escape_markdown(_summarise(name))} |")
    return "\n".join(lines) + "\n"


def _summarise(name: str) -> str:
    """Return the first line of a method's module."""
    module = inspect.getmodule(load_method(name))
    return (inspect.getdoc(module) or "").partition("\n")[0]


def render_method_page(name: str) -> str:
    """Return the page of a method: its equation, when to use it, its settings and its results."""
    method = load_method(name)
    labels = "it uses bias labels" if method.sees_bias else "it does not use bias labels"
    equation, _, text = (inspect.getdoc(method) or "").partition("\n\n")
    parts = [
        f"# {name}",
        _escape_markdown(_summarise(name)),
        f"{convert_docstring(equation)}\n{{ .equation }}",
        convert_docstring(text),
    ]
    networks = ", ".join(f"*{network}*" for network in method.trains or method.fits)
    parts.append(
        f"It trains {networks}; {labels}." if method.trains else f"It fits {networks} before its first step; {labels}."
    )
    parts += [f"It needs `model.{key}: {value}`." for key, value in method.required_model_settings.items()]
    if name in read_advice():
        parts += ["## When to use it", read_advice()[name]]
    parts += ["## Settings", render_settings_table(method.Config), "## Results", render_results(name)]
    return "\n\n".join(part for part in parts if part) + "\n"


def convert_docstring(text: str) -> str:
    """Return a docstring as Markdown: characters are escaped, indented blocks become code, labels bold."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("    "):
            blocks.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            separated = re.sub(r"\n(?=(?:Deviation|Sources?|Kernels):)", "\n\n", block)
            blocks.append(
                re.sub(r"^(Deviation|Sources?|Kernels):", r"**\1:**", _escape_markdown(separated), flags=re.MULTILINE)
            )
    return "\n\n".join(blocks)


def _escape_markdown(text: str) -> str:
    """Return text with the special characters of Markdown escaped, except in `code`."""
    parts = re.split(r"(`[^`\n]+`)", text)
    special = re.compile(r"([*_\[\]|])")
    return "".join(
        part if part.startswith("`") else special.sub(r"\\\1", part.replace("<", "&lt;").replace(">", "&gt;"))
        for part in parts
    )


@cache
def read_advice() -> dict[str, str]:
    """Return when to use each method: the second column of the table in docs/which_method.md."""
    text = (ROOT / "docs/which_method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(methods/\w+\.md\) \| (.+?) \|", text, re.MULTILINE)
    return dict(rows)


def render_commands() -> str:
    """Return the help of every command of `lntl`."""
    entries = _iterate_commands(typer.main.get_command(cli.app), "lntl")
    lines = ["## All commands", "", "| command | what it does |", "| --- | --- |"]
    lines += [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_escape_markdown(_get_help(command))} |"
        for name, command in entries
    ]
    return "\n".join(
        [
            *lines,
            *(line for name, command in entries for line in ("", f"### {name}", "", *_render_command(name, command))),
        ]
    )


def _iterate_commands(command: Any, name: str) -> list[tuple[str, Any]]:
    """Return the runnable commands of a command group, with their full names."""
    subcommands = {word: part for word, part in getattr(command, "commands", {}).items() if not part.hidden}
    is_runnable = not subcommands or (command.invoke_without_command and name != "lntl")
    entries = [entry for word, part in subcommands.items() for entry in _iterate_commands(part, f"{name} {word}")]
    return [(name, command), *entries] if is_runnable else entries


def _get_help(command: Any) -> str:
    return " ".join((command.help or "").split())


def _render_command(name: str, command: Any) -> list[str]:
    """Return the lines about one command: its usage, its arguments and options."""
    usage = [name, *command.collect_usage_pieces(command.make_context(name, [], resilient_parsing=True))]
    lines = [_escape_markdown(_get_help(command)), "", "```text", " ".join(usage), "```"]
    rows = []
    for parameter in command.params:
        if not parameter.hidden and parameter.name != "help":
            names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
            label = (
                names if parameter.param_type_name == "option" else f"`{(parameter.metavar or parameter.name).upper()}`"
            )
            default = f" Default: `{parameter.default}`." if _has_default(parameter.default) else ""
            rows.append(f"| {label} | {_escape_markdown(' '.join((parameter.help or '').split()))}{default} |")
    return [*lines, "", "| argument or option | meaning |", "| --- | --- |", *rows] if rows else lines


def _has_default(default: object) -> bool:
    return isinstance(default, str | int | float | Path) and not isinstance(default, bool) and str(default) != ""


def render_configuration() -> str:
    """Return the tables of all keys: the sections, and the settings of the data sets and models."""
    parts = []
    sections: dict[str, Any] = config.Config.model_fields
    for section, settings in sections.items():
        parts += [f"## {section}", render_settings_table(settings.annotation)]
        if section == "training":
            parts += [
                "### Optimisers",
                render_settings_table(config.Optimizer),
                "### Phases",
                render_settings_table(config.Phase),
            ]
            parts.append("Each method adds its own settings; its page lists them: [Methods](methods/index.md).")
        if section in ("data", "model"):
            folder = {"data": "lntl.data", "model": "lntl.models"}[section]
            for name in plugins.names(folder):
                plugin: Any = plugins.load(folder, name, object)
                summary = (inspect.getdoc(plugin) or "").partition("\n\n")[0]
                parts += [f"### {section}: {name}", _escape_markdown(summary), render_settings_table(plugin.Config)]
    return "\n\n".join(parts)


def render_settings_table(settings: type[Any]) -> str:
    """Return a table of a plug-in's settings."""
    if not settings.model_fields:
        return "No settings."
    lines = ["| setting | default | values | meaning |", "| --- | --- | --- | --- |"]
    for key, field in settings.model_fields.items():
        bounds = [
            f"{sign} {getattr(limit, name):g}"
            for limit in field.metadata
            for name, sign in BOUNDS.items()
            if hasattr(limit, name)
        ]
        values = ", ".join([_describe_values(field.annotation), *bounds])
        lines.append(f"| `{key}` | {_default(field)} | {values} | {_escape_markdown(field.description or '')} |")
    return "\n".join(lines)


BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
TYPES = {float: "number", int: "whole number", bool: "true or false", str: "text", type(None): "none"}


def _describe_values(annotation: Any) -> str:
    """Return the values of a type in words."""
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part is not ...]
    if annotation in TYPES:
        return TYPES[annotation]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is Annotated:
        return _describe_values(inner[0])
    if origin in (list, tuple):
        return "list of " + ", ".join(dict.fromkeys(map(_describe_values, inner)))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_describe_values, inner)))
    return "keys and values"  # a dict, or nested settings


def _default(field: FieldInfo) -> str:
    """Return the default of a setting as text."""
    value = field.get_default(call_default_factory=True)
    if field.is_required() or value is None or value == "":
        return "required" if field.is_required() else "none" if value is None else "empty"
    if isinstance(value, BaseModel) or (isinstance(value, list) and any(isinstance(part, BaseModel) for part in value)):
        return "see its keys"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if len(text) < 24 else _escape_markdown(text)


def render_results(name: str) -> str:
    """Return a table, by color variance, of the benchmark rows whose last phase uses a method."""
    labels = [label for label, method in _read_plan().items() if method == name]
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    with (BENCHMARK / "table.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "ours" and row["method"] in labels:
                value = f"{float(row['mean']):.4f} ± {float(row['std']):.4f} ({row['n']})"
                cells[row["method"]][f"{float(row['data.color_var']):.3f}"] = value.replace("0.", ".")
    if not cells:
        return "It has no row of its own in the benchmark."
    variances = sorted({variance for scores in cells.values() for variance in scores})
    head = ["| color variance σ² | " + " | ".join(cells) + " |", "| --- |" + " ---: |" * len(cells)]
    body = [
        f"| {variance} | " + " | ".join(scores.get(variance, "") for scores in cells.values()) + " |"
        for variance in variances
    ]
    return "\n".join(
        [
            "Colored MNIST, test accuracy of the last epoch, mean ± standard deviation (number of seeds).",
            "[table.md](../../benchmarks/colored_mnist/table.md) has all rows;",
            "[Reproduction](../REPRODUCTION.md) describes the runs.",
            "",
            *head,
            *body,
        ]
    )


@cache
def _read_plan() -> dict[str, str]:
    """Map the label of each run of the benchmark plan to the method of its last phase."""
    plan = yaml.safe_load((BENCHMARK / "plan.yaml").read_text(encoding="utf-8"))
    methods = {}
    for run in plan["runs"]:
        recipe = yaml.safe_load((ROOT / f"configs/{run['config']}.yaml").read_text(encoding="utf-8"))
        methods[run["label"]] = recipe["training"]["phases"][-1]["method"]
    return methods


if __name__ == "__main__":
    main()
