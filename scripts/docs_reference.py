"""Hook of mkdocs: pages that are made of the code when the site is built. Every key of trimtab.toml, every
command with its options, every call of the API, and a catalogue of refusals, exit codes and alerts with
the anchors that error messages name.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from agent import errors
from agent.cli.main import app
from agent.config.schema import Config
from agent.config.tables import fields
from agent.config.tables.fields import ConfigTable
from agent.guards.table import PAYOUT_REMEDIES, REMEDIES
from agent.model import LIMITS
from agent.model.alerts import AlertKind

ROOT = Path(__file__).parent.parent
OPENAPI = ROOT / "agent" / "web" / "api" / "openapi.json"
UNITS = {
    "address": (fields.Address, fields.AddressOrOff),
    "weight": (fields.Weight,),
    "share": (fields.Share, fields.ShareOrOff),
    "duration": (fields.Duration, fields.DurationOrOff),
    "gas price": (fields.GasPrice, fields.GasPriceOrOff),
    "decimal in quotes": (fields.PlainDecimal, fields.DecimalOrOff),
    '"on" or "off"': (fields.Switch,),
    "environment variable": (fields.Variable,),
    "service/name": (fields.KeyringName,),
    "https address": (fields.PageAddress,),
}
SIZES = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
BOUNDS = {
    "ge": "≥ ",
    "gt": "> ",
    "le": "≤ ",
    "lt": "< ",
    "min_length": "at least ",
    "max_length": "at most ",
}


def plain(text: object) -> str:
    """Return the text on one line, without its meaning in Markdown."""
    return re.sub(r"([<>*_`|\[\]])", r"\\\1", " ".join(str(text).split()))


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield the annotation and everything in it."""
    yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from parts_of(part)


def unit_of(parts: list[Any]) -> str:
    """Return in what a value is written: the unit of the parser, the choices, or the type."""
    for name, aliases in UNITS.items():
        if any(mark in parts for alias in aliases for mark in alias.__metadata__):
            return name
    if choices := [
        choice for part in parts if get_origin(part) is Literal for choice in get_args(part)
    ]:
        return ", ".join(map(str, choices))
    names = {bool: "true or false", int: "number", str: "text", float: "number"}
    return next((names[part] for part in parts if part in names), "table")


def written(value: Any, unit: str) -> str:
    """Return a value of the model as the config has it."""
    if isinstance(value, ConfigTable):
        return "its own"
    if isinstance(value, bool) or not isinstance(value, int):
        return "" if value is None else str(value)
    shown = {
        "share": f"{value / 100:g}%",
        "weight": f"{value / 100:g}%",
        "gas price": f"{value / 10**9:g} gwei",
    }
    if unit == "duration":
        return next(
            f"{value // size}{letter}" for letter, size in SIZES.items() if value % size == 0
        )
    return shown.get(unit, str(value))


def tables(model: type[ConfigTable], name: str) -> Iterator[tuple[str, type[ConfigTable]]]:
    """Yield each table of the config with its name, in the order of the file."""
    yield name, model
    for key, field in model.model_fields.items():
        for part in dict.fromkeys(parts_of(field.annotation)):
            if isinstance(part, type) and issubclass(part, ConfigTable):
                yield from tables(part, f"{name}.{key}" if name else key)


def table(page: str) -> list[list[str]]:
    """Return the rows of the tables of a page, with what is before and after the outer bars."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        [part.strip() for part in line.split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def guards_of_keys() -> dict[str, str]:
    """Return the link to the guard of each key that has one, from the table in docs/limits.md."""
    pairs = [
        (key.strip(), row[1])
        for row in table("limits.md")
        if row[1] in REMEDIES and len(row) == 7
        for key in row[2].replace(" and ", ",").split(",")
    ]
    return {
        key if "." in key else f"limits.{key}": f"[{guard}](refusals.md#{guard})"
        for key, guard in reversed(pairs)
    }


def page_of(name: str, model: type[ConfigTable]) -> str:
    """Return the page that names the table and most of its keys; empty if none does."""
    texts = {
        path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
    }
    counts = {
        page: sum(bool(re.search(rf"\b{key}\b", text)) for key in model.model_fields)
        for page, text in texts.items()
        if f"[{name}]" in text
    }
    return max(counts, key=lambda page: counts[page], default="")


def meaning(page: str, key: str) -> str:
    """Return what the tables of a page say of a key, without links; empty if they do not."""
    rows = table(page) if page else []
    texts = [max(row[2:], key=len) for row in rows if f"`{key}`" in row[1] and len(row) < 6]
    texts += [LIMITS[key].comment] if page == "limits.md" and key in LIMITS else []
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", next(iter(texts), ""))


def config_page() -> str:
    """Return the page of all keys: unit, default, bounds, ceiling and guard."""
    guards = guards_of_keys()
    lines = ["# Every key of trimtab.toml", "", "A key without a default is required in its table."]
    for name, model in dict.fromkeys(tables(Config, "")):
        page = page_of(name, model)
        about = f"{' '.join((model.__doc__ or '').split())} Rules: [{page or 'index.md'}]({page or 'index.md'})."
        lines += ["", f"## {f'[{name}] ({model.__name__})' if name else 'Tables'}", "", about, ""]
        lines += [
            "| key | written as | default | bounds | guard, ceiling | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for key, field in model.model_fields.items():
            parts = [*parts_of(field.annotation), *field.metadata]
            unit = unit_of(parts)
            bounds = [
                f"{sign}{written(getattr(part, bound), unit)}"
                for part in parts
                for bound, sign in BOUNDS.items()
                if not isinstance(part, type) and getattr(part, bound, None) is not None
            ]
            spec = LIMITS.get(key) if name == "limits" else None
            default = (
                ""
                if field.is_required()
                else written(field.get_default(call_default_factory=True), unit) or "none"
            )
            ceiling = f", ceiling {spec.ceiling_bps / 100:g}%" if spec and spec.ceiling_bps else ""
            guard = guards.get(f"{name}.{key}", "") + ceiling
            lines.append(
                f"| `{key}` | {plain(unit)} | {plain(default)} | {plain(', '.join(bounds))} | {guard} | {meaning(page, key)} |"
            )
    return "\n".join(lines)


def commands_page() -> str:
    """Return the page of all commands with their options."""
    lines = ["# Every command"]

    def add(command: click.Command, words: tuple[str, ...]) -> None:
        if words:
            usage = " ".join(
                param.make_metavar(click.Context(command))
                for param in command.params
                if isinstance(param, click.Argument)
            )
            lines.extend(
                [
                    "",
                    f"## trimtab {' '.join(words)} {usage}".rstrip(),
                    "",
                    " ".join((command.help or "").split()),
                    "",
                ]
            )
            options = [
                (", ".join(param.opts), param.help)
                for param in command.params
                if isinstance(param, click.Option)
            ]
            if options:
                lines.extend(
                    [
                        "| option | meaning |",
                        "|---|---|",
                        *(f"| `{names}` | {plain(about)} |" for names, about in options),
                    ]
                )
        for name, below in getattr(command, "commands", {}).items():
            add(below, (*words, name))

    add(get_command(app), ())
    return "\n".join(lines)


def api_page() -> str:
    """Return the page of all calls of the API."""
    lines = ["# Every call of the API", "", "| call | parameters | answer |", "|---|---|---|"]
    for path, methods in json.loads(OPENAPI.read_text(encoding="utf-8"))["paths"].items():
        for method, call in methods.items():
            named = ", ".join(
                f"`{parameter['name']}`"
                for parameter in call.get("parameters", ())
                if parameter["in"] != "header"
            )
            about = plain(
                f"{call.get('summary', '')}. {call.get('description', '')}".replace("`", "")
            )
            lines.append(f"| {method.upper()} `{path}` | {named} | {about} |")
    return "\n".join(lines)


def text_of(node: ast.expr | None) -> str:
    """Return a text of the program, with … in the place of what it fills in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def causes() -> Mapping[str, list[str]]:
    """Return the messages and remedies of each code, as the program's errors have them."""
    found: dict[str, list[str]] = {code.value: [] for code in errors.ErrorCode}
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "agent").rglob("*.py"))]
    nodes = (
        node for text in texts if "code=ErrorCode." in text for node in ast.walk(ast.parse(text))
    )
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        code = named.get("code")
        if isinstance(code, ast.Attribute) and ast.unparse(code.value) == "ErrorCode":
            remedy = named.get("remedy", call.args[1] if len(call.args) > 1 else None)
            parts = filter(None, map(text_of, (*call.args[:1], remedy)))
            found[errors.ErrorCode[code.attr].value].append(" → ".join(parts))
    return found


def refusals_page() -> str:
    """Return the catalogue, with an anchor for each code, guard, exit code and kind of alert."""
    remedies, cases = {**PAYOUT_REMEDIES, **REMEDIES}, causes()
    lines = [
        "# Refusals, exit codes, alerts",
        "",
        "A message of trimtab names its anchor here.",
        "",
    ]
    lines += [
        "## Guards and codes",
        "",
        "Guards refuse a plan, with measured value and limit ([limits](limits.md)).",
    ]
    for name in sorted({*remedies, *cases}):
        lines += ["", f"### {name}", ""]
        lines += [f"- Guard. What to do: {remedies[name]}."] if name in remedies else []
        lines += [f"- {plain(text)}" for text in dict.fromkeys(cases.get(name, ())) if text]
        lines += ["The message has the cause."] if not lines[-1] else []
    exits = [(row[1], f"{row[2]}.") for row in table("service.md") if row[1].isdecimal()]
    alerts = [(kind.value, f"{kind.title[0].upper()}{kind.title[1:]}.") for kind in AlertKind]
    for prefix, title, entries in (("exit", "Exit codes", exits), ("alert", "Alerts", alerts)):
        lines += ["", f"## {title}"]
        lines += [f"\n### {prefix}-{name}\n\n{text}" for name, text in entries]
    return "\n".join(lines)


PAGES = {
    "keys-of-the-config.md": config_page,
    "commands.md": commands_page,
    "calls.md": api_page,
    "refusals.md": refusals_page,
}
BESIDE = ("SECURITY.md", "CONTRIBUTING.md", "README.md")
"""Pages of the checkout outside docs/ to which others link."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocs calls this once it knows the written ones."""
    texts = {name: page() for name, page in PAGES.items()}
    texts |= {f"at-{name}": (ROOT / name).read_text(encoding="utf-8") for name in BESIDE}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Return the text with links to and from the pages outside docs/ that lead to them in the site."""
    inside = page.file.src_uri.startswith("at-")
    for name in BESIDE:
        markdown = markdown.replace(f"]({'' if inside else '../'}{name}", f"](at-{name}")
    return markdown.replace("](docs/", "](").replace('"docs/', '"') if inside else markdown
