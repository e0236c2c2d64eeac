"""Tests of agent/layers/tax/settings.py and its table: rates, limit and currency of [tax], and their mistakes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.config.load import load_config, parse_config
from agent.errors import ConfigError
from agent.layers.tax.config import TaxTable
from agent.layers.tax.settings import read_rates, require_rate_after_tax, year_limit
from tests.support.configs.samples import config_text
from tests.support.text import raises_field

FIFO = {"method": "fifo", "year_limit": "off"}
IN_EUROS = config_text(('# currency = "EUR"', 'currency = "EUR"'), ('# rates = "eur.csv"', 'rates = "eur.csv"'))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="neither"),
        pytest.param({"currency": "EUR", "rates": "eur.csv"}, id="currency and rates"),
        pytest.param({"rate": "0.01%"}, id="a bp of tax"),
        pytest.param({"rate": "100%"}, id="all of it"),
    ],
)
def test_table_has_rates_and_a_currency_together(fields: dict[str, str]) -> None:
    assert TaxTable.model_validate(FIFO | fields).currency == fields.get("currency")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"currency": "EUR"}, "currency and rates must be given together", id="no rates"),
        pytest.param({"rates": "eur.csv"}, "currency and rates must be given together", id="no currency"),
        pytest.param({"rate": "0%"}, "rate: 0 %; write above 0 % and at most 100 %", id="no tax"),
        pytest.param({"rate": "100.01%"}, "rate: 100.01 %; write above 0 % and at most 100 %", id="a bp more than all"),
    ],
)
def test_table_names_its_mistake(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TaxTable.model_validate(FIFO | fields)


@pytest.mark.parametrize(
    ("text", "limit"),
    [pytest.param(None, None, id="off"), pytest.param("0", Fraction(0), id="zero"), pytest.param("12.5", Fraction(12_500_000), id="coins")],
)
def test_year_limit_is_in_base_units(text: str | None, limit: Fraction | None) -> None:
    assert year_limit(text, 6) == limit


def test_rates_are_read_beside_the_config(tmp_path: Path) -> None:
    config_path = tmp_path / "trimtab.toml"
    config_path.write_text(IN_EUROS)

    with raises_field("tax.rates", "eur.csv"):
        read_rates(load_config(config_path))
    (tmp_path / "eur.csv").write_text("time,rate\n2026-01-01,0.92\n")
    rates = read_rates(load_config(config_path))

    assert rates.at(1_767_225_600) == Fraction(92, 100)


def test_rates_are_none_in_the_numeraire(tmp_path: Path) -> None:
    config_path = tmp_path / "trimtab.toml"
    config_path.write_text(config_text())

    assert read_rates(load_config(config_path)) is None


AFTER_TAX = 'trigger = { kind = "tracking", strictness = "strict", after_tax = true }'
WITH_RATE = ('# rate = "25%"', 'rate = "25%"')


def config_after_tax(*changes: tuple[str, str]) -> str:
    lines = config_text().splitlines()
    (trigger,) = [line for line in lines if line.startswith("trigger = ")]
    (destination,) = [line for line in lines if line.startswith("destination = ")]
    return config_text((trigger, AFTER_TAX), (destination, 'destination = "zone"'), *changes)


def test_trigger_after_tax_needs_a_rate() -> None:
    require_rate_after_tax(parse_config(config_after_tax(WITH_RATE)))
    with pytest.raises(ConfigError, match="after_tax"):
        parse_config(config_after_tax())
