"""Hook of mkdocs: pages that are made of the code when the site is built. Every key of trimtab.toml, every
command with its options, every call of the API, and a catalogue of refusals, exit codes and alerts with
the anchors that error messages name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import SecretStr
from typer.main import get_command

from agent.amm.venue_kinds import VenueKind
from agent.app.settings.key_meanings import field_text
from agent.app.start.capital import minimum_capitals
from agent.cli.main import app
from agent.config.networks import NETWORKS, ORDERED_BY_SEQUENCER
from agent.config.networks.network import Network
from agent.config.schema import Config
from agent.config.tables import fields
from agent.config.tables.fields import ConfigTable
from agent.config.tables.futures import SignedShare
from agent.config.tables.limits import MaxWeight
from agent.config.tables.orders import AnyLevel, LevelOrOff, ShareLevel
from agent.config.tables.pace import BpsPerHour, SignedBps
from agent.config.tables.strategies import Ratio
from agent.config.tables.triggers import AnyTriggerTable, Band, Correlation, YearlyCost
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.guards.table import REMEDIES
from agent.model import LIMITS
from agent.model.alerts import AlertKind
from agent.model.rollups import DataFeeKind, data_fee_kind
from agent.reference.prices import required_observations
from agent.web.documentation import refusal_entries

ROOT = Path(__file__).parents[2]
OPENAPI = ROOT / "agent" / "web" / "api" / "openapi.json"
UNITS = {
    "share, or table of shares by symbol": (MaxWeight,),
    "address": (fields.Address, fields.AddressOrOff),
    "weight": (fields.Weight,),
    "share": (fields.Share, fields.ShareOrOff, ShareLevel),
    "share, negative for a short": (SignedShare,),
    "share, or negative": (SignedBps,),
    'share an hour or "zone"': (BpsPerHour,),
    "share a year": (YearlyCost,),
    "correlation": (Correlation,),
    "duration": (fields.Duration, fields.DurationOrOff),
    "gas price": (fields.GasPrice, fields.GasPriceOrOff),
    "decimal in quotes": (fields.PlainDecimal, fields.DecimalOrOff),
    "price or share": (AnyLevel, LevelOrOff),
    "band": (Band,),
    "ratio": (Ratio,),
    '"on" or "off"': (fields.Switch,),
    "environment variable": (fields.Variable,),
    "service/name": (fields.KeyringName,),
    "https address": (fields.PageAddress,),
}
MAY_BE_OFF = (
    fields.AddressOrOff,
    fields.ShareOrOff,
    fields.DurationOrOff,
    fields.GasPriceOrOff,
    fields.DecimalOrOff,
    LevelOrOff,
    MaxWeight,
)
SIZES = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
INTRODUCTION = """\
A share has its unit: `"1%"`, `"100bps"`, `"1.5x"`. Durations are `"90s"`, `"30m"`, `"1h"`, `"7d"`, gas
prices `"60 gwei"`, amounts decimals in quotes, of whole coins. A key that is not required may be left
out: it then has its default. `trimtab init` writes limits of the network; here are those of Ethereum,
where it lowers `oracle_deviation` to 1% for ETH, BTC and LINK."""
STATED_BOUND = re.compile(r"[;,] (at (?:most|least) \d\w*(?: %)?)\.?$")
"""A bound at the end of a key's meaning, checked by code of its own."""
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
    text = " ".join(str(text).split()).replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_`|\[\]])", r"\\\1", text)


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield the annotation and everything in it."""
    yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from parts_of(part)


def unit_of(parts: list[Any], titles: Mapping[type[ConfigTable], str]) -> str:
    """Return in what a value is written: tables, the unit of the parser, the choices, or the type."""
    links = [
        f"[{plain(titles[part])}](#{slugify(titles[part], '-')})"
        for part in dict.fromkeys(parts)
        if isinstance(part, type) and issubclass(part, ConfigTable)
    ]
    marks = [mark for alias in MAY_BE_OFF for mark in alias.__metadata__]
    off = ' or "off"' if any(mark in parts for mark in marks) else ""
    choices = [
        plain(choice) for part in parts if get_origin(part) is Literal for choice in get_args(part)
    ]
    names = {bool: "true or false", int: "number", str: "text", SecretStr: "text", float: "number"}
    unit = (
        " or ".join(links + [f'"{choice}"' for choice in choices] if links else ())
        or next(
            (
                plain(name)
                for name, aliases in UNITS.items()
                if any(mark in parts for alias in aliases for mark in alias.__metadata__)
            ),
            "",
        )
        or ", ".join(choices)
        or next(names[part] for part in parts if part in names)
    )
    origins = [get_origin(part) for part in parts]
    several = "table of " if dict in origins else "list of " if list in origins else ""
    several += "pairs of " if tuple in origins else ""
    return ("" if links or MaxWeight.__metadata__[0] in parts else several) + unit + off


def written(value: Any, unit: str) -> str:
    """Return a value of the model as the config has it."""
    if isinstance(value, ConfigTable):
        return "its own defaults"
    if isinstance(value, list | dict):
        return plain(", ".join(map(str, value)) or "empty")
    if value is None:
        return "off" if unit.endswith('"off"') else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int):
        return str(value) or "empty"
    if unit.startswith(("share", "weight")):
        return f"{value / 100:g}%"
    if unit.startswith("duration"):
        return next(
            f"{value // size}{letter}" for letter, size in SIZES.items() if value % size == 0
        )
    return str(value) if value < 2**64 else f"2^{value.bit_length() - 1}"


def sections() -> dict[type[ConfigTable], str]:
    """Return the title of each table of the config, in the order of the file."""
    titles: dict[type[ConfigTable], str] = {Config: "The whole file"}

    def add(model: type[ConfigTable], path: str, of: str) -> None:
        for key, field in model.model_fields.items():
            parts = list(parts_of(field.annotation))
            origins = [get_origin(part) for part in parts]
            name = path + key + (".NAME" if dict in origins else "")
            brackets = "[[{}]]" if list in origins and key != "trigger" else "[{}]"
            for part in parts:
                if isinstance(part, type) and issubclass(part, ConfigTable) and part not in titles:
                    own = "".join(
                        f" of {chooser} {get_args(part.model_fields[chooser].annotation)[0]}"
                        for chooser in ("kind", "venue")
                        if chooser in part.model_fields
                        and get_origin(part.model_fields[chooser].annotation) is Literal
                        and len(get_args(part.model_fields[chooser].annotation)) == 1
                    )
                    title = brackets.format(name) + own
                    titles[part] = title + (of if title in titles.values() else "")
                    add(part, f"{name}.", own)

    add(Config, "", "")
    return titles


def table(page: str) -> list[list[str]]:
    """Return the rows of the tables of a page, with what is before and after the outer bars."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        [part.strip() for part in line.split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def guards_of_keys() -> dict[str, str]:
    """Return the links to the guards of each key that has any, from the table in docs/limits.md."""
    pairs = [
        (key.strip(), row[1])
        for row in table("limits.md")
        if row[1] in REMEDIES and len(row) == 7
        for key in row[2].replace(" and ", ",").split(",")
    ]
    links: dict[str, list[str]] = {}
    for key, guard in pairs:
        name = key if "." in key else f"limits.{key}"
        links.setdefault(name, []).append(f"[{guard}](refusals.md#{guard})")
    return {name: ", ".join(guards) for name, guards in links.items()}


def cell_of(page: str, name: str) -> str:
    """Return the last cell that is filled in the row of a name in the tables of a page."""
    rows = [row for row in table(page) if row[1].strip("`") == name]
    texts = [cell for row in rows for cell in row[2:] if cell]
    return texts[-1].replace("](#", f"]({page}#") if texts else ""


def config_page() -> str:
    """Return the page of all keys: unit, default, bounds, ceiling and guard."""
    guards = guards_of_keys()
    titles = sections()
    lines = ["# Every key of trimtab.toml"]
    lines += ["", INTRODUCTION]
    for model, title in titles.items():
        kinds = model.model_fields.get("kind")
        about = " ".join((model.__doc__ or "").split())
        if issubclass(model, AnyTriggerTable) and kinds is not None:
            about = (
                f"Acts {cell_of('triggers.md', *get_args(kinds.annotation))} (docs/triggers.md)."
            )
        lines += ["", f"## {plain(title)}", ""]
        lines += [re.sub(r"docs/([a-z-]+\.md)", r"[\1](\1)", about), ""]
        lines += [
            "| key | written as | default | bounds | guard, ceiling | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for key, field in model.model_fields.items():
            parts = [*parts_of(field.annotation), *field.metadata]
            unit = unit_of(parts, titles)
            bounds = [
                f"{sign}{written(getattr(part, bound), unit)}"
                for part in parts
                for bound, sign in BOUNDS.items()
                if not isinstance(part, type) and getattr(part, bound, None) is not None
            ]
            spec = LIMITS.get(key) if title == "[limits]" else None
            about = (cell_of("limits.md", key) if title == "[limits]" else "") or field_text(
                model, key
            )
            about, _, stated = about.partition("; default: ")
            stated = stated.rstrip(".")
            if bound := STATED_BOUND.search(about):
                about = about[: bound.start()]
                bounds = [*bounds, bound[1]]
            if field.is_required():
                default = f"required; {stated}" if stated else "required"
            else:
                default = stated or written(field.get_default(call_default_factory=True), unit)
            if "eeded by `" in about:
                default = "none"
            if spec and spec.initial_value != default:
                default += f"; `init` writes {spec.initial_value}"
            ceiling = f", ceiling {spec.ceiling_bps / 100:g} %" if spec and spec.ceiling_bps else ""
            guard = guards.get(f"{title.strip('[]')}.{key}", "") + ceiling
            about = f"{about[:1].upper()}{about[1:]}".rstrip(".") + "."
            lines.append(
                f"| `{key}` | {unit} | {default} | {plain(', '.join(bounds))} | {guard} | {about} |"
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


def refusals_page() -> str:
    """Return the catalogue, with an anchor for each code, guard, exit code and kind of alert."""
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
    for name, texts in refusal_entries().items():
        lines += ["", f"### {name}", ""]
        lines += [f"- {plain(text)}" for text in texts]
    exits = [(row[1], f"{row[2]}.") for row in table("service.md") if row[1].isdecimal()]
    alerts = [(kind.value, f"{kind.title[0].upper()}{kind.title[1:]}.") for kind in AlertKind]
    for prefix, title, entries in (("exit", "Exit codes", exits), ("alert", "Alerts", alerts)):
        lines += ["", f"## {title}"]
        lines += [f"\n### {prefix}-{name}\n\n{text}" for name, text in entries]
    return "\n".join(lines)


def network_page(network: Network) -> str:
    """Return the page of a network: its chain, what fees and small money mean there, tokens, venues."""
    fees = network.fees
    words = {True: "yes", False: "", None: ""}
    quiet, ordinary, busy = (f"{price / 10**9:g}" for price in fees.gas_prices_wei)
    capitals = [
        (name, minimum_capitals(template).get(network.name, ""))
        for name, template in PORTFOLIO_TEMPLATES.items()
    ]
    feeds = network.sequencer_feed or "none is known"
    sequencer = (
        f" Sequencer's uptime feed: `{feeds}`."
        if data_fee_kind(network.chain_id) is not DataFeeKind.PLAIN
        else ""
    )
    if network.private_endpoint is not None:
        sending = f"a private endpoint, `{network.private_endpoint}`"
    elif network.is_sequenced:
        sending = ORDERED_BY_SEQUENCER
    else:
        sending = "public mempool; no free private endpoint is known"
    lines = [
        f"# {network.title}",
        "",
        f"Chain {network.chain_id}, native coin {network.native_symbol}, wrapped"
        f" `{network.wrapped_native}`. A block about every {network.block_ms / 1000:g} s; final at the"
        f" block tag `{network.finality}`. Explorer: {network.explorer}.",
        "",
        "```",
        f"trimtab init --network {network.name}            # asks for what its options do not give",
        f"trimtab templates --network {network.name}       # baskets, past results, costs",
        "```",
        "",
        f"Sending: {sending}.{sequencer} A TWAP of 30 minutes needs {required_observations(network.chain_id, 1_800)}"
        f" observations ([prices](prices.md#twaps)). What the networks share: [networks](networks.md).",
        "",
        "## Fees and small money",
        "Cautious estimates ([sources](networks.md#typical-fees)); a running agent reads the chain.",
        "",
        "| | quiet | ordinary | busy |",
        "|---|---|---|---|",
        f"| gas price, gwei | {quiet} | {ordinary} | {busy} |",
        "",
        f"Data fee of a swap: {fees.data_fee_wei / 10**9:g} gwei. A coin is counted as"
        f" {float(fees.native_usd):,g} dollars. `trimtab init` writes `gas_price` {network.base_fee_ceiling_gwei} gwei,"
        f" `gas_per_day` {network.gas_per_day}, `native_floor` {network.native_floor},"
        f" `native_top_up` {network.native_top_up}.",
        "",
        "| template | minimum capital on an ordinary day, USDC |",
        "|---|---|",
        *(f"| {name} | {amount or 'none'} |" for name, amount in capitals),
        "",
        "## Tokens",
        "| symbol | address | decimals | Chainlink feed | routes through it |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {token.symbol} | `{token.address}` | {token.decimals} | {network.feed_of(token) or 'none: TWAP'}"
        f" | {words[token.is_hub]} |"
        for token in network.tokens
    ]
    lines += [
        "",
        "## Venues",
        "| venue | factory | pool fees | needs the Rebalancer |",
        "|---|---|---|---|",
    ]
    for venue in network.venues:
        fee_pips = venue.fee_tiers or ((venue.fee_pips,) if venue.fee_pips else ())
        shown = ", ".join(f"{pips / 10_000:g} %" for pips in fee_pips) or "by pool"
        factory = venue.factory or venue.pool_manager
        needs = venue.needs_rebalancer or venue.kind not in (VenueKind.V2, VenueKind.V3)
        lines.append(f"| {venue.name} | `{factory}` | {shown} | {words[needs]} |")
    return "\n".join(lines)


PAGES = {
    **{f"network-{network.name}.md": partial(network_page, network) for network in NETWORKS},
    "keys-of-the-config.md": config_page,
    "commands.md": commands_page,
    "calls.md": api_page,
    "refusals.md": refusals_page,
}
BESIDE = ("SECURITY.md", "CONTRIBUTING.md", "agent/backtest/sample/README.md", "README.md")
"""Pages of the checkout outside docs/ to which others link."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocs calls this once it knows the written ones."""
    texts = {name: page() for name, page in PAGES.items()}
    texts |= {f"at-{name}": (ROOT / name).read_text(encoding="utf-8") for name in BESIDE}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Return the text with links to and from the pages outside docs/ that lead to them in the site,
    and at its end to the keys whose rules it has.
    """
    inside = page.file.src_uri.startswith("at-")
    for name in BESIDE:
        markdown = markdown.replace(f"]({'' if inside else '../'}{name}", f"](at-{name}")
    if inside:
        return markdown.replace("](docs/", "](").replace('"docs/', '"')
    links = [
        f"[{plain(title)}](keys-of-the-config.md#{slugify(title, '-')})"
        for table_class, title in sections().items()
        if f"(docs/{page.file.src_uri})" in " ".join((table_class.__doc__ or "").split())
    ]
    return f"{markdown}\n\nEvery key: {', '.join(links)}." if links else markdown
