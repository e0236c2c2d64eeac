"""Trades and costs of a year of a new config, in words."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from agent.app.start.tracking_losses import config_loss_document
from agent.app.start.year_costs import year_cost_lines
from agent.config.load import parse_config
from agent.config.schema import Config
from tests.support.bands import BAND_LINES
from tests.support.configs.samples import config_text

TRACKING = 'trigger = { kind = "tracking" }'
EVERY = 'trigger = { kind = "time", every = "28d" }'
CRON = 'trigger = { kind = "time", cron = "0 9 1 * *", timezone = "UTC" }'
NUMBERS = re.compile(r"about ([\d.]+) rebalances and ([\d.,]+) USDC a year, simulated, at ([\d.]+) gwei")


def config_of(trigger_line: str, *changes: tuple[str, str]) -> Config:
    return parse_config(config_text((BAND_LINES, f"{trigger_line}\n"), *changes))


@pytest.mark.parametrize("trigger_line", [TRACKING, BAND_LINES, EVERY], ids=["tracking", "bands", "every"])
@pytest.mark.parametrize("value", [10_000, 1_000_000])
def test_estimated_trigger__year_has_the_loss_s_trades_and_costs(trigger_line: str, value: int) -> None:
    config = config_of(trigger_line)
    loss = config_loss_document(config, Fraction(1), Fraction(value))
    assert loss is not None
    assert loss["own"] is not None
    ordinary_day, _ = year_cost_lines(config, Fraction(1), Fraction(value))
    match = NUMBERS.search(ordinary_day)
    assert match is not None, ordinary_day
    trades, costs, gas_gwei = (float(group.replace(",", "")) for group in match.groups())
    assert trades == pytest.approx(float(loss["own"]["trades_a_year"]), rel=0.1)
    assert costs == pytest.approx(float(loss["own"]["costs_bps"]) * value / 10_000, rel=0.1)
    assert gas_gwei == 1


def test_tracking__dearer_gas__trades_less_often() -> None:
    ordinary_day, other_days = year_cost_lines(config_of(TRACKING), Fraction(1), Fraction(1_000_000))
    trades = [float(number) for number, _, _ in NUMBERS.findall(f"{ordinary_day} {other_days}".replace("About", "about"))]
    on_ordinary_day, on_quiet_day, on_busy_day = trades
    assert on_quiet_day >= on_ordinary_day > on_busy_day > 0


@pytest.mark.parametrize("trigger_line", [TRACKING, BAND_LINES, CRON], ids=["tracking", "bands", "cron"])
def test_below_the_minimum_total__names_it_and_what_to_change(trigger_line: str) -> None:
    change_line, ordinary_day, _ = year_cost_lines(config_of(trigger_line), Fraction(1), Fraction(300))
    assert change_line.startswith("To make it worth it: ")
    assert re.fullmatch(
        r"With 300 USDC: not worth it here at 1 gwei and an assumed pool fee of 0\.3 %, only from [\d,]+ USDC\.", ordinary_day
    ), ordinary_day


def test_total_that_no_setting_makes_worth_it__advises_none() -> None:
    first_line = year_cost_lines(config_of(BAND_LINES), Fraction(1), Fraction(100))[0]
    assert first_line.startswith("With 100 USDC: not worth it here")


def test_fee_above_plan_cost__no_total_is_worth_it() -> None:
    lines = year_cost_lines(config_of(BAND_LINES, ('plan_cost = "0.5%"', 'plan_cost = "0.2%"')), Fraction(1), Fraction(10_000))
    assert "With 10,000 USDC: not worth it here at 1 gwei and an assumed pool fee of 0.3 %, whatever the total." in lines


def test_unestimated_trigger__above_the_minimum_says_nothing() -> None:
    (other_days,) = year_cost_lines(config_of(CRON), Fraction(1), Fraction(100_000))
    assert other_days.startswith("Not worth it here at 30 gwei")
