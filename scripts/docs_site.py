"""Build the documentation's site: `make docs` runs this. Result: site/; work folder: build/docs/.

Usage: python scripts/docs_site.py

The pages are docs/**.md, README.md, CHANGELOG.md and CONTRIBUTING.md. Before Zensical turns them into HTML, this script

* writes a page for each method, from its docstring, its settings, docs/which_method.md and the benchmark's table;
* writes a page for each example of examples/gallery/, from its code and from what scripts/gallery.py stored of it;
* copies each file of the repository that a page links to into the site, below repository/, and adapts the link;
* turns $$...$$ into MathML, so that no script has to be loaded.

A link that leads nowhere, a page that is missing from the navigation of mkdocs.yml, an unknown name in an API page and
a file that the site would load from the network are errors.
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
# Pages whose source lies outside docs/.
OUTSIDE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
EXAMPLES = {f"gallery/{name}.md": f"examples/gallery/{name}.py" for name in GALLERY}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
MATH = re.compile(r"^\$\$(.+?)\$\$$", re.MULTILINE | re.DOTALL)
FROM_NETWORK = re.compile(r"""(?:src=|<link[^>]*href=|@import\s|url\()["']?(?:https?:)?//[^"')\s>]+""")


def main() -> None:
    """Write the pages' sources and build the site from them."""
    work, site = ROOT / "build/docs", ROOT / "site"
    for folder in (work, site):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", work / "docs")
    pages = {file.relative_to(work / "docs").as_posix(): file.read_text("utf-8") for file in work.rglob("docs/**/*.md")}
    pages |= {uri: (ROOT / source).read_text("utf-8") for uri, source in OUTSIDE.items()}
    for mark, text in (("commands", commands), ("configuration", configuration)):
        pages[f"{mark}.md"] = pages[f"{mark}.md"].replace(f"<!-- {mark} -->", text())
    methods = {name: method_page(name) for name in plugins.names("lntl.methods")}
    pages |= {"methods/index.md": methods_page()} | {f"methods/{name}.md": text for name, text in methods.items()}
    examples = {f"gallery/{name}.md": gallery_page(ROOT / f"examples/gallery/{name}.py") for name in GALLERY}
    pages |= examples
    write_pages(pages, work / "docs")
    copy_package(work / "src")
    folders: dict[str, list[Any]] = {
        "methods/": [{name: f"methods/{name}.md"} for name in methods],
        "gallery/": [*examples],
    }
    write_config(pages, folders, work)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr.partition("Traceback")[0])
    shutil.move(work / "site", site)
    for page in site.rglob("*.html"):
        if loaded := FROM_NETWORK.search(page.read_text("utf-8")):
            sys.exit(f"{page}: it would load from the network: {loaded[0]}")
    print(f"{site}/index.html: {len(list(site.rglob('*.html')))} pages")


def write_pages(pages: dict[str, str], folder: Path) -> None:
    """Write the pages, and the files of the repository that they link to."""
    waiting = list(pages.items())
    written = set(pages)
    while waiting:
        uri, text = waiting.pop()
        targets = {target: site_uri(uri, target) for target in LINK.findall(CODE.sub("", text)) if not _outward(target)}
        for target in targets.values():
            path = target.partition("#")[0]
            if path.startswith("repository/") and path not in written:
                written.add(path)
                source = ROOT / path.removeprefix("repository/")
                if source.suffix == ".md":
                    waiting.append((path, source.read_text("utf-8")))
                else:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, folder / path)
        (folder / uri).parent.mkdir(parents=True, exist_ok=True)
        (folder / uri).write_text(adapted(text, targets, "../" * uri.count("/")), encoding="utf-8")


def adapted(text: str, targets: dict[str, str], up: str) -> str:
    """Return a page with its links as the site has them, and formulas as MathML; code stays as it is."""
    parts = []
    end = 0
    for code in [*CODE.finditer(text), None]:
        plain = text[end : code.start() if code else None]
        plain = LINK.sub(lambda link: up + targets[link[0]] if link[0] in targets else link[0], plain)
        parts.append(MATH.sub(lambda math: convert(math[1].strip(), display="block"), plain))
        if code:
            parts.append(code[0])
            end = code.end()
    return "".join(parts)


def _outward(target: str) -> bool:
    """Return whether a link leads to the web or to a heading of its own page."""
    return target.startswith("#") or "://" in target


def site_uri(page: str, target: str) -> str:
    """Return where a link of a page leads: a path in the site's sources, with its #heading."""
    path, mark, heading = target.partition("#")
    source = OUTSIDE.get(page) or (
        page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"
    )
    found = (ROOT / source).parent.joinpath(path).resolve()
    if not found.is_relative_to(ROOT):
        sys.exit(f"{source}: the link {target} leads out of the repository")
    name = found.relative_to(ROOT).as_posix()
    pages = {outside: uri for uri, outside in (OUTSIDE | EXAMPLES).items()}
    if name.startswith("docs/"):
        return name.removeprefix("docs/") + mark + heading
    if not found.is_file():
        sys.exit(f"{source}: the link {target} leads to no file")
    return pages.get(name, f"repository/{name}") + mark + heading


def copy_package(folder: Path) -> None:
    """Copy the package, with each "Example:" of a docstring as "Examples:", the heading that mkdocstrings knows."""
    for path in (ROOT / "src").rglob("*.py"):
        target = folder / path.relative_to(ROOT / "src")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            re.sub(r"^( +)Example:$", r"\1Examples:", path.read_text("utf-8"), flags=re.MULTILINE), "utf-8"
        )


def gallery_page(path: Path) -> str:
    """Return the page of an example: its text, picture, output and code."""
    code = path.read_text("utf-8")
    module = ast.parse(code)
    title, _, text = (ast.get_docstring(module) or "").partition("\n")
    code = "\n".join(code.splitlines()[module.body[0].end_lineno :]).strip()
    output = json.loads((path.parent / f"output/{path.stem}.json").read_text("utf-8"))
    link = f"../../examples/gallery/output/{path.stem}.png"
    machine = f"{output['processor']}, PyTorch {output['packages']['torch']}"
    ran = f"It took {output['seconds']} s of processor time on one core ({machine})."
    parts = [f"# {title.rstrip('.')}", text.strip(), f"![The picture that the example saves.]({link})"]
    parts += ["It prints:", f"```text\n{output['printed'].strip()}\n```", ran]
    parts += [f"## `{path.name}`", f"```python\n{code}\n```"]
    return "\n\n".join(parts) + "\n"


def write_config(pages: dict[str, str], folders: dict[str, list[Any]], work: Path) -> None:
    """Write mkdocs.yml with the generated pages in its navigation, in the place of their folder's name."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    nav = [filled for entry in config["nav"] for filled in _filled(entry, folders)]
    named = set(re.findall(r"[\w/]+\.md", str(nav)))
    if named != set(pages):
        sys.exit(f"mkdocs.yml: its nav and the pages differ in {', '.join(sorted(named ^ set(pages)))}")
    config["nav"] = nav
    config["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = ["src"]
    (work / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _filled(entry: Any, folders: dict[str, list[Any]]) -> list[Any]:
    """Return what an entry of the navigation stands for."""
    if isinstance(entry, dict):
        ((title, inner),) = entry.items()
        return [
            {title: [new for part in inner for new in _filled(part, folders)] if isinstance(inner, list) else inner}
        ]
    return folders.get(entry, [entry])


def methods_page() -> str:
    """Return the list of the methods."""
    lines = [
        "# Methods",
        "",
        "A method is what one phase of training does. [Which method?](../which_method.md) compares them.",
        "",
    ]
    lines += ["| method | what it does |", "| --- | --- |"]
    for name in plugins.names("lntl.methods"):
        lines.append(f"| [`{name}`]({name}.md) | {_plain(_summary(name))} |")
    return "\n".join(lines) + "\n"


def _summary(name: str) -> str:
    """Return the first line of a method's module."""
    module = inspect.getmodule(load_method(name))
    return (inspect.getdoc(module) or "").partition("\n")[0]


def method_page(name: str) -> str:
    """Return the page of a method: what it is, when to use it, its settings, its results."""
    method = load_method(name)
    sees = "it uses bias labels" if method.sees_bias else "it does not use bias labels"
    equation, _, text = (inspect.getdoc(method) or "").partition("\n\n")
    parts = [f"# {name}", _plain(_summary(name)), f"{docstring(equation)}\n{{ .equation }}", docstring(text)]
    networks = ", ".join(f"*{network}*" for network in method.trains or method.fits)
    parts.append(
        f"It trains {networks}; {sees}." if method.trains else f"It fits {networks} before its first step; {sees}."
    )
    parts += [f"It needs `model.{key}: {value}`." for key, value in method.required_model_settings.items()]
    if name in advice():
        parts += ["## When to use it", advice()[name]]
    parts += ["## Settings", settings_table(method.Config), "## Results", results(name)]
    return "\n\n".join(part for part in parts if part) + "\n"


def docstring(text: str) -> str:
    """Return a docstring as Markdown: signs stay as they are, indented blocks are code, labelled lines a list."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("    "):
            blocks.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            labelled = re.sub(r"\n(?=(?:Deviation|Sources?|Kernels):)", "\n\n", block)
            blocks.append(re.sub(r"^(Deviation|Sources?|Kernels):", r"**\1:**", _plain(labelled), flags=re.MULTILINE))
    return "\n\n".join(blocks)


def _plain(text: str) -> str:
    """Return text whose signs have no meaning in Markdown, but for `code`."""
    parts = re.split(r"(`[^`\n]+`)", text)
    signs = re.compile(r"([*_\[\]|])")
    return "".join(
        part if part.startswith("`") else signs.sub(r"\\\1", part.replace("<", "&lt;").replace(">", "&gt;"))
        for part in parts
    )


@cache
def advice() -> dict[str, str]:
    """Return when to use each method: the second column of the table in docs/which_method.md."""
    text = (ROOT / "docs/which_method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(methods/\w+\.md\) \| (.+?) \|", text, re.MULTILINE)
    return dict(rows)


def commands() -> str:
    """Return the help of every command of `lntl`."""
    verbs = _verbs(typer.main.get_command(cli.app), "lntl")
    lines = ["## All commands", "", "| command | what it does |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {_plain(_help(verb))} |" for name, verb in verbs]
    return "\n".join([*lines, *(line for name, verb in verbs for line in ("", f"### {name}", "", *_verb(name, verb)))])


def _verbs(command: Any, name: str) -> list[tuple[str, Any]]:
    """Return the verbs below a command that do something, by their full name."""
    inner = {word: part for word, part in getattr(command, "commands", {}).items() if not part.hidden}
    alone = [(name, command)] if not inner or (command.invoke_without_command and name != "lntl") else []
    return alone + [found for word, part in inner.items() for found in _verbs(part, f"{name} {word}")]


def _help(verb: Any) -> str:
    return " ".join((verb.help or "").split())


def _verb(name: str, verb: Any) -> list[str]:
    """Return the lines about one verb: its usage, its arguments and options."""
    usage = [name, *verb.collect_usage_pieces(verb.make_context(name, [], resilient_parsing=True))]
    lines = [_plain(_help(verb)), "", "```text", " ".join(usage), "```"]
    rows = []
    for parameter in verb.params:
        if not parameter.hidden and parameter.name != "help":
            names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
            label = (
                names if parameter.param_type_name == "option" else f"`{(parameter.metavar or parameter.name).upper()}`"
            )
            default = f" Default: `{parameter.default}`." if _is_shown(parameter.default) else ""
            rows.append(f"| {label} | {_plain(' '.join((parameter.help or '').split()))}{default} |")
    return [*lines, "", "| argument or option | meaning |", "| --- | --- |", *rows] if rows else lines


def _is_shown(default: object) -> bool:
    return isinstance(default, str | int | float | Path) and not isinstance(default, bool) and str(default) != ""


def configuration() -> str:
    """Return the tables of all keys: the sections, and the settings of the data sets and models."""
    parts = []
    sections: dict[str, Any] = config.Config.model_fields
    for section, settings in sections.items():
        parts += [f"## {section}", settings_table(settings.annotation)]
        if section == "training":
            parts += ["### Optimisers", settings_table(config.Optimizer), "### Phases", settings_table(config.Phase)]
            parts.append("Each method adds its own settings; its page lists them: [Methods](methods/index.md).")
        if section in ("data", "model"):
            folder = {"data": "lntl.data", "model": "lntl.models"}[section]
            for name in plugins.names(folder):
                plugin: Any = plugins.load(folder, name, object)
                about = (inspect.getdoc(plugin) or "").partition("\n\n")[0]
                parts += [f"### {section}: {name}", _plain(about), settings_table(plugin.Config)]
    return "\n\n".join(parts)


def settings_table(settings: type[Any]) -> str:
    """Return a table of a plug-in's settings."""
    if not settings.model_fields:
        return "None of its own."
    lines = ["| setting | default | values | meaning |", "| --- | --- | --- | --- |"]
    for key, field in settings.model_fields.items():
        bounds = [
            f"{sign} {getattr(limit, name):g}"
            for limit in field.metadata
            for name, sign in BOUNDS.items()
            if hasattr(limit, name)
        ]
        values = ", ".join([_values(field.annotation), *bounds])
        lines.append(f"| `{key}` | {_default(field)} | {values} | {_plain(field.description or '')} |")
    return "\n".join(lines)


BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
TYPES = {float: "number", int: "whole number", bool: "true or false", str: "text", type(None): "none"}


def _values(annotation: Any) -> str:
    """Return the values of a type in words."""
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part is not ...]
    if annotation in TYPES:
        return TYPES[annotation]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is Annotated:
        return _values(inner[0])
    if origin in (list, tuple):
        return "list of " + ", ".join(dict.fromkeys(map(_values, inner)))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_values, inner)))
    return "keys and values"  # a dict, or settings of their own


def _default(field: FieldInfo) -> str:
    """Return the default of a setting as it is shown."""
    value = field.get_default(call_default_factory=True)
    if field.is_required() or value is None or value == "":
        return "required" if field.is_required() else "none" if value is None else "empty"
    if isinstance(value, BaseModel) or (isinstance(value, list) and any(isinstance(part, BaseModel) for part in value)):
        return "see its keys"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if len(text) < 24 else _plain(text)


def results(name: str) -> str:
    """Return the rows of the benchmark whose last phase is a method, as a table by colour variance."""
    labels = [label for label, method in _plan().items() if method == name]
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    with (BENCHMARK / "table.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "ours" and row["method"] in labels:
                value = f"{float(row['mean']):.4f} ± {float(row['std']):.4f} ({row['n']})"
                cells[row["method"]][f"{float(row['data.color_var']):.3f}"] = value.replace("0.", ".")
    if not cells:
        return "It has no row of its own in the benchmark."
    variances = sorted({variance for scores in cells.values() for variance in scores})
    head = ["| colour variance σ² | " + " | ".join(cells) + " |", "| --- |" + " ---: |" * len(cells)]
    body = [
        f"| {variance} | " + " | ".join(scores.get(variance, "") for scores in cells.values()) + " |"
        for variance in variances
    ]
    return "\n".join(
        [
            "Colored MNIST, test accuracy of the last epoch, mean ± standard deviation (number of seeds). All rows:",
            "[table.md](../../benchmarks/colored_mnist/table.md); how they were made:",
            "[Reproduction](../REPRODUCTION.md).",
            "",
            *head,
            *body,
        ]
    )


@cache
def _plan() -> dict[str, str]:
    """Return label -> method of the last phase, of every run of the benchmark's plan."""
    plan = yaml.safe_load((BENCHMARK / "plan.yaml").read_text(encoding="utf-8"))
    found = {}
    for run in plan["runs"]:
        recipe = yaml.safe_load((ROOT / f"configs/{run['config']}.yaml").read_text(encoding="utf-8"))
        found[run["label"]] = recipe["training"]["phases"][-1]["method"]
    return found


if __name__ == "__main__":
    main()
