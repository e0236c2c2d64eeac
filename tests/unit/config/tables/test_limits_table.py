"""docs/limits.md lists every guard and every limit, with the units of the config's models and the values of the template."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.schema import Config
from agent.config.tables import fields, limits
from agent.config.tables.limits import LimitsTable
from agent.config.writing.template import render_config
from agent.execution.evaluation import WALLET_LIMIT_GUARDS
from agent.guards.guard import Guard
from agent.guards.table import GUARDS, MARKET_GUARDS, REMEDIES
from agent.layers.futures.guards import FUTURES_GUARDS
from agent.model import LIMITS, Limits, LimitUnit
from tests.support.builders import step_input, with_limits

GUARDS_OF_EVERY_PLAN = [guard for guard in GUARDS if guard not in FUTURES_GUARDS]
PAGE = Path(__file__).parents[4] / "docs" / "limits.md"
UNITS = {
    "share": fields.ShareOrOff,
    "duration": fields.DurationOrOff,
    "gwei": fields.GasPriceOrOff,
    "native": fields.DecimalOrOff,
    "coins": fields.DecimalOrOff,
    "switch": fields.Switch,
}
TYPES = {LimitUnit.COINS: "Fraction | None", LimitUnit.SWITCH: "bool | None"}
"""Of fields of Limits, by unit; all others are whole numbers."""


def rows(width: int) -> list[list[str]]:
    """Cells of every table row of that many columns, without heads and rules."""
    cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [row for row in cells if len(row) == width and row[0] not in ("guard", "key") and not row[0].startswith("---")]


LIMIT_ROWS = [row for row in rows(5) if row[2]] + [["", *row] for row in rows(4)]
"""guard, key, unit, template value, input"""


def template() -> dict[str, Any]:
    assets = [TemplateAsset(t.symbol, t.address, "50%", t.feed) for t in (ETHEREUM_PRESET.tokens[0], ETHEREUM_PRESET.tokens[2])]
    return tomllib.loads(render_config(ETHEREUM_PRESET, ETHEREUM_PRESET.wrapped_native, assets, [], "USDC", [("A", "one"), ("B", "two")]))


def place(key: str) -> list[str]:
    return key.split(".") if "." in key else ["limits", key]


def annotation(key: str) -> Any:
    table: Any = Config
    *tables, name = place(key)
    for part in tables:
        table = table.model_fields[part].annotation
        table = next((argument for argument in get_args(table) if argument is not type(None)), table)  # a table that may be left out
    field = table.model_fields[name]
    return field.annotation, field.metadata


def test_guard__has_its_row_and_no_row_is_left_over() -> None:
    assert sorted(row[0] for row in rows(5)) == sorted(guard.name for guard in GUARDS_OF_EVERY_PLAN)


def test_every_limit_of_the_config_is_listed_once() -> None:
    listed = [row[1] for row in LIMIT_ROWS if "." not in row[1]]
    assert sorted(listed) == sorted({*LimitsTable.model_fields} - {"i_accept", "max_weight", "futures_notional"})


@pytest.mark.parametrize("row", LIMIT_ROWS, ids=lambda row: row[1])
def test_a_row_has_the_templates_value_and_the_models_unit(row: list[str]) -> None:
    _, key, unit, value, about = row
    toml_document: Any = template()
    for part in place(key):
        toml_document = toml_document[part]
    if key == "oracle_deviation":
        assert (toml_document, value) == ("1%", "1.5%"), "that of the feeds of the test's tokens, and that of unknown ones"
    else:
        assert toml_document == value
    assert about
    kind, validators = annotation(key)
    expected = UNITS[unit]
    if kind is int:  # a duration that cannot be off
        expected = fields.Duration
    assert (kind, validators) == (expected.__origin__, list(expected.__metadata__))


def test_limit_in_coins__initial_off_is_written_off(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = (dataclasses.replace(LIMITS["min_trade"], initial_value="off"),)
    monkeypatch.setattr("agent.config.writing.template.LIMITS_IN_CONFIG_ORDER", specs)
    assert template()["limits"]["min_trade"] == "off"


def test_page_units_and_start_values__are_those_of_the_rows() -> None:
    page = {row[1]: (row[2], row[3]) for row in LIMIT_ROWS if "." not in row[1]}
    assert page == {key: (limit.unit.value, limit.initial_value) for key, limit in LIMITS.items()}


def test_page_lists_each_key_that_may_be_missing_with_its_value() -> None:
    (line,) = (line for line in PAGE.read_text().splitlines() if "A missing key" in line)
    value_by_key = {}
    for keys, value in re.findall(r"([a-z_, ]+) \((?:then )?(\w+)\)", line.partition("except ")[2]):
        value_by_key |= dict.fromkeys(re.findall(r"\w+_\w+", keys), value)
    without_row = {"max_weight": "off", "futures_notional": "off"}
    assert value_by_key == {key: limit.default for key, limit in LIMITS.items() if limit.default} | without_row


def test_every_field_of_limits_has_its_row_and_unit() -> None:
    type_by_name = {field.name: str(field.type) for field in dataclasses.fields(Limits) if field.name != "max_live_value"}
    assert type_by_name == {limit.field_name: TYPES.get(limit.unit, "int | None") for limit in LIMITS.values()}


def test_the_keys_declared_for_mypy_are_those_of_the_model() -> None:
    (table,) = (node for node in ast.walk(ast.parse(Path(limits.__file__).read_text())) if isinstance(node, ast.ClassDef))
    declared = {ast.unparse(node.target): ast.unparse(node.annotation) for node in table.body if isinstance(node, ast.AnnAssign)}
    assert set(declared) <= set(LimitsTable.model_fields)
    rows_of = {key: str(LimitsTable.model_fields[key].annotation) for key in declared if key in LIMITS}
    assert {key: declared[key] for key in rows_of} == rows_of


@pytest.mark.parametrize("guard", [guard for guard in GUARDS if guard.name in LIMITS], ids=lambda guard: guard.name)
def test_a_guard_reads_the_limit_of_its_own_name(guard: Guard[Any]) -> None:
    bare = with_limits(step_input(), **dict.fromkeys(Limits.__slots__))
    own = LIMITS[guard.name].field_name
    assert guard.read_limit(bare) is None
    assert guard.read_limit(with_limits(bare, **{own: 1})) == 1


def test_a_config_without_a_key_means_what_its_row_says() -> None:
    written = template()["limits"]
    for key, limit in LIMITS.items():
        rest = {name: value for name, value in written.items() if name != key}
        if not limit.default:
            with pytest.raises(ValidationError):
                LimitsTable.model_validate(rest)
        else:
            assert getattr(LimitsTable.model_validate(rest), key) == getattr(LimitsTable.model_validate({**rest, key: limit.default}), key)


def test_guards_of_an_exits_market_are_these() -> None:
    assert {
        *("allowlist", "token_screen", "prediction", "price_impact", "slippage", "fair_floor", "pool_min_value", "plan_cost"),
        *("min_trade", "oracle_deviation", "second_quote_deviation"),
    } == MARKET_GUARDS


def test_guards_that_another_exit_may_meet_are_these() -> None:
    names = {"daily_loss", "total_loss", "gas_per_day", "native_floor", "reverts_in_row", "feed_health", "depeg", "signer.gas_cost"}
    assert names == WALLET_LIMIT_GUARDS


def test_guards_of_an_earlier_plan_s_minimums_are_these() -> None:
    assert {guard.name for guard in GUARDS if guard.judges_minimums} == {"fair_floor"}
    assert {guard.name for guard in GUARDS if guard.judges_prices} == {"feed_health", "sequencer"}


def test_what_cannot_be_used_does_not_pass_for_a_guard() -> None:
    assert not {row[0] for row in rows(4)} & {guard.name for guard in GUARDS_OF_EVERY_PLAN}


def test_every_guard_says_what_can_be_done() -> None:
    assert {guard.name for guard in GUARDS} <= set(REMEDIES)
