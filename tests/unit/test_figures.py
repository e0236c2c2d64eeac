"""Labels and formats of documents: declared once, read by tables, pages and the API's schema."""

from __future__ import annotations

import json

import pytest

from agent.artifacts import WEB_FOLDER
from agent.cli.display.tables import document_table, figure_cell
from agent.figures import Column, column, columns, field_label
from agent.web.pages import column_at, columns_at
from tests.cli.widths import drawn


@pytest.mark.parametrize(
    ("document", "path", "label", "figure"),
    [
        ("StatusDocument", "holdings.0.symbol", "asset", "text"),
        ("StatusDocument", "holdings.0.weight_bps", "weight", "percent"),
        ("StatusDocument", "holdings.0.band_bps.1", "band", "percent"),
        ("StatusDocument", "holdings.0.day_bps", "24 h", "percent+"),
        ("StatusDocument", "total_value", "total value", "money"),
        ("LiquidityDocument", "positions.0.lvr_per_day", "LVR a day", "amount"),
        ("LiquidityDocument", "positions.0.loss_bps", "loss, share", "percent+"),
        ("HistoryDocument", "steps.3.cost.total", "cost", "amount"),
        ("LotsDocument", "assets.0.lots.1.acquired", "acquired (UTC)", "time"),
        ("LivePlanDocument", "weights_after_bps.USDC.e", "USDC.e", "percent"),
        ("LivePlanDocument", "legs.0.amount_in_raw", "in", "number"),
    ],
)
def test_column__label_and_format_are_those_of_the_declaration(document: str, path: str, label: str, figure: str) -> None:
    assert column(document, path) == Column(path, label, figure)


@pytest.mark.parametrize("path", ["no_field", "holdings.0.no_field", "block.deeper"])
def test_column__a_field_that_is_not_declared_is_refused(path: str) -> None:
    with pytest.raises(KeyError, match="StatusDocument"):
        column("StatusDocument", path)


def test_column__the_schema_of_the_api_has_the_same_label() -> None:
    schema = json.loads((WEB_FOLDER / "api" / "openapi.json").read_text())["components"]["schemas"]["HoldingDocument"]
    assert schema["properties"]["price_source"]["title"] == "Price from"
    assert schema["properties"]["drift_bps"]["x-figure"] == "points+"


def test_column__tables_and_pages_read_the_same_declaration() -> None:
    fields = ("position", "state", "hold_value", "lvr_per_day")
    shown = columns_at("lp.positions.0", *fields)
    assert shown == list(columns("PositionDocument", *fields))
    assert [heading.heading for heading in shown] == ["Position", "State", "If held", "LVR a day"]


def test_column__documents_without_a_declared_type_have_none() -> None:
    assert column_at("run.state") is None
    assert column_at("pnl.month.periods.0.profit") == column("ProfitDocument", "periods.0.profit")


def test_table__cells_have_the_declared_labels_and_formats() -> None:
    row = {"name": "up", "costs": "12.345", "return_bps": -150, "sharpe": None}
    table = document_table("", columns("StrategyDocument", "name", "costs", "return_bps", "sharpe"), [row])
    assert drawn(table, 80).split() == ["strategy", "costs", "return", "sharpe", "─" * 32, "up", "12.34", "-1.50", "%", "–"]


def test_table__a_field_of_an_absent_part_is_a_dash() -> None:
    assert figure_cell({"cost": None}, column("PastStepDocument", "cost.total")) == "–"


def test_field_label__words_without_the_unit() -> None:
    assert field_label("max_live_value_raw") == "Max live value"
