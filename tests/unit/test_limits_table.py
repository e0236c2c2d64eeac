"""docs/limits.md lists every guard and every limit, with the units of the config's models and the values of the template."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from agent.config import fields
from agent.config.presets import ETHEREUM
from agent.config.schema import Config, LimitsTable
from agent.config.template import TemplateAsset, render
from agent.guards.table import GUARDS, REMEDIES

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
UNITS = {
    "share": fields.ShareOrOff,
    "duration": fields.DurationOrOff,
    "gwei": fields.GasPriceOrOff,
    "native": fields.DecimalOrOff,
    "coins": fields.DecimalOrOff,
    "switch": fields.Switch,
}


def rows(width: int) -> list[list[str]]:
    """Cells of every table row of that many columns, without heads and rules."""
    cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [row for row in cells if len(row) == width and row[0] not in ("guard", "key") and not row[0].startswith("---")]


LIMITS = [row for row in rows(5) if row[2]] + [["", *row] for row in rows(4)]
"""guard, key, unit, template value, input"""


def template() -> dict[str, Any]:
    assets = [TemplateAsset(t.symbol, t.address, "50%", t.feed) for t in (ETHEREUM.tokens[0], ETHEREUM.tokens[2])]
    return tomllib.loads(render(ETHEREUM, ETHEREUM.wrapped_native, assets, [], "USDC", [("A", "one"), ("B", "two")]))


def place(key: str) -> list[str]:
    return key.split(".") if "." in key else ["limits", key]


def annotation(key: str) -> Any:
    table: Any = Config
    *tables, name = place(key)
    for part in tables:
        table = table.model_fields[part].annotation
        table = next((one for one in get_args(table) if one is not type(None)), table)  # a table that may be left out
    field = table.model_fields[name]
    return field.annotation, field.metadata


def test_every_guard_has_its_row_and_no_row_is_of_a_guard_that_is_gone() -> None:
    assert sorted(row[0] for row in rows(5)) == sorted(guard.name for guard in GUARDS)


def test_every_limit_of_the_config_is_listed_once() -> None:
    listed = [row[1] for row in LIMITS if "." not in row[1]]
    assert sorted(listed) == sorted({*LimitsTable.model_fields} - {"i_accept", "max_weight"})


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[1])
def test_a_row_has_the_templates_value_and_the_models_unit(row: list[str]) -> None:
    _, key, unit, value, about = row
    found: Any = template()
    for part in place(key):
        found = found[part]
    assert found == value
    assert about
    kind, validators = annotation(key)
    expected = UNITS[unit]
    if kind is int:  # a duration that cannot be off
        expected = fields.Duration
    assert (kind, validators) == (expected.__origin__, list(expected.__metadata__))


def test_what_cannot_be_used_does_not_pass_for_a_guard() -> None:
    assert not {row[0] for row in rows(4)} & {guard.name for guard in GUARDS}


def test_every_guard_says_what_can_be_done() -> None:
    assert {guard.name for guard in GUARDS} <= set(REMEDIES)
