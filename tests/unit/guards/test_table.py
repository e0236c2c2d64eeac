"""All guards together: a good plan passes every one, off is said, missing data refuse, require carries every verdict."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from agent import guards
from agent.errors import EXIT_REFUSED, Refused
from agent.guards.table import GUARDS, REMEDIES
from agent.layers.futures.guards import FUTURES_GUARDS
from agent.model import Limits, Verdict
from tests.support.builders import address, limits, step_input, with_limits, with_snapshot
from tests.support.plans import evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.text import mentions, raises_code

NAMES = [guard.name for guard in GUARDS if guard not in FUTURES_GUARDS]
ALWAYS = {"kill_switch", "quorum", "allowlist", "reverts_in_row", "expiry", "balance", "prediction", "fair_floor"}
OFF = replace(limits(), **{field.name: None for field in fields(Limits)})


def test_a_good_plan_passes_every_guard_and_carries_all_verdicts() -> None:
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    plan = sell_weth(step)
    verdicts = guards.judge(step, plan, evidence(step, plan))
    assert [verdict_.guard for verdict_ in verdicts] == NAMES
    assert [verdict_ for verdict_ in verdicts if not verdict_.passed] == []
    assert guards.require_all_passed(plan, verdicts) == replace(plan, verdicts=verdicts)


def test_a_plan_without_legs_passes() -> None:
    step = step_input()
    plan = plan_of(step, [], gas_units=0)
    guards.require_all_passed(plan, guards.judge(step, plan, evidence(step, plan)))


def test_every_limit_can_be_off_by_name_and_then_passes_whatever_happens() -> None:
    step = replace(step_input(), limits=OFF)
    plan = sell_weth(step, 5_000)  # more than the wallet has, far beyond any impact limit
    by_name = {verdict_.guard: verdict_ for verdict_ in guards.judge(step, plan, evidence(step, plan, second_quotes=()))}
    for name in set(NAMES) - ALWAYS:
        assert (by_name[name].passed, by_name[name].limit) == (True, "off"), name
    assert not by_name["balance"].passed


def test_guards_without_a_key_cannot_be_off() -> None:
    step = replace(step_input(), limits=OFF)
    plan = sell_weth(step)
    assert {verdict_.guard for verdict_ in guards.judge(step, plan, evidence(step, plan)) if verdict_.limit != "off"} == ALWAYS


def test_a_plan_that_cannot_be_simulated_is_refused_by_every_guard_that_looks_at_its_legs() -> None:
    step = step_input()
    plan = with_leg(sell_weth(step), 0, pool=address("nowhere"))
    refusing = {
        verdict_.guard: verdict_.measured_text for verdict_ in guards.judge(step, plan, evidence(step, plan)) if not verdict_.passed
    }
    replay_guards = {"price_impact", "slippage", "fair_floor", "pool_min_value", "plan_cost", "turnover", "daily_turnover", "daily_loss"}
    replay_guards |= {"min_trade", "oracle_deviation", "second_quote_deviation", "balance", "prediction"}
    assert set(refusing) == replay_guards | {"allowlist"}
    assert all("the snapshot" in refusing[name] for name in replay_guards)


def test_an_asset_without_a_price_is_refused_by_every_guard_that_counts_value() -> None:
    step = step_input()
    blind_step = with_snapshot(step, feeds=())
    plan = sell_weth(step)
    refusing = {verdict_.guard for verdict_ in guards.judge(blind_step, plan, evidence(blind_step, plan)) if not verdict_.passed}
    assert refusing == {
        *("fair_floor", "pool_min_value", "plan_cost", "turnover", "daily_turnover", "daily_loss", "min_trade", "max_live_value"),
        *("oracle_deviation", "feed_health", "depeg"),
    }
    assert mentions(verdict("fair_floor", blind_step, plan).measured_text, "reference price", "WETH", "feed", "not read")


def test_a_balance_that_was_not_read_refuses_what_needs_the_total() -> None:
    step = step_input()
    plan = sell_weth(step)
    blind_step = with_snapshot(step, holdings=())
    for name in ("turnover", "daily_loss", "max_live_value", "balance", "prediction"):
        judged = verdict(name, blind_step, plan)
        assert (judged.passed, "not read" in judged.measured_text) == (False, True), name


def test_refusal_names_each_failing_guard_with_measure_limit_and_remedy() -> None:
    step = with_limits(step_input(), price_impact_bps=10, max_live_value=None)
    plan = sell_weth(step, 1)
    verdicts = guards.judge(step, plan, evidence(step, plan, paused=True, pause_reason="holiday"))
    with pytest.raises(Refused) as refusal:
        guards.require_all_passed(plan, verdicts)
    assert refusal.value.verdicts == verdicts
    assert refusal.value.exit_code == EXIT_REFUSED
    text = str(refusal.value)
    assert mentions(text, "kill_switch", "holiday")
    assert mentions(text, "price_impact", "40 bps")
    assert "limit 10 bps" in text
    assert REMEDIES["kill_switch"] in text
    assert REMEDIES["price_impact"] in text


@pytest.mark.parametrize("guard_name", NAMES)
def test_a_plan_that_one_guard_has_not_judged_is_refused(guard_name: str) -> None:
    step = step_input()
    plan = sell_weth(step)
    other_verdicts = tuple(verdict_ for verdict_ in guards.judge(step, plan, evidence(step, plan)) if verdict_.guard != guard_name)
    with raises_code(Refused, "not_judged", guard_name):
        guards.require_all_passed(plan, other_verdicts)


def test_a_verdict_of_an_unknown_guard_that_fails_refuses_too() -> None:
    step = step_input()
    plan = sell_weth(step)
    verdicts = (*guards.judge(step, plan, evidence(step, plan)), Verdict("house_rule", "no", "yes", False))
    with raises_code(Refused, "house_rule"):
        guards.require_all_passed(plan, verdicts)


def test_every_guard_has_a_remedy_and_a_name_of_its_own() -> None:
    names = [*NAMES, *(guard.name for guard in FUTURES_GUARDS)]
    assert set(REMEDIES) == set(names)
    assert len(set(names)) == len(names)
