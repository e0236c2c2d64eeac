"""Tests of agent/guards/table.py: a good plan passes every guard, missing data refuse, every verdict is required; and payouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction

import pytest

from agent import guards
from agent.errors import EXIT_REFUSED, Refused
from agent.guards.table import (
    GUARDS,
    REMEDIES,
    judge_minimums,
    judge_payout,
    judge_payout_permission,
    payout_remedies,
    require_payout_allowed,
)
from agent.layers.futures.guards import FUTURES_GUARDS
from agent.model import Limits, Payment, Payout, PendingPayment, Plan, StepInput, Verdict
from agent.units import NATIVE
from tests.support.builders import (
    ETHER,
    NOW_S,
    address,
    history,
    limits,
    step_input,
    token,
    with_history,
    with_limits,
    with_snapshot,
    without_feed,
)
from tests.support.decisions.plan_costs import with_past_costs
from tests.support.plans import assert_refused, evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.text import mentions, raises_code

NAMES = [guard.name for guard in GUARDS if guard not in FUTURES_GUARDS]
FIXED_GUARDS = {"kill_switch", "quorum", "allowlist", "reverts_in_row", "expiry", "balance", "prediction", "fair_floor"}
"""Guards that no config switches off."""
ALL_LIMITS_OFF = replace(limits(), **{field.name: None for field in fields(Limits)})
REPLAY_GUARDS = {
    "price_impact", "slippage", "fair_floor", "pool_min_value", "plan_cost", "turnover", "daily_turnover", "daily_loss", "min_trade",
    "oracle_deviation", "second_quote_deviation", "balance", "prediction", "native_floor",
}  # fmt: skip
"""Guards that simulate the legs."""
PRICE_GUARDS = {
    "fair_floor", "pool_min_value", "plan_cost", "turnover", "daily_turnover", "daily_loss", "min_trade", "max_live_value",
    "oracle_deviation", "feed_health", "depeg",
}  # fmt: skip
"""Guards that need prices."""


def verdicts_of(step: StepInput, plan: Plan, **evidence_fields: object) -> tuple[Verdict, ...]:
    return guards.judge(step, plan, evidence(step, plan, **evidence_fields))


def refusals(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Return what was measured by the guards that refuse."""
    return {judged.guard: judged.measured_text for judged in verdicts if not judged.passed}


# --- judge and require_all_passed


def test_good_plan_passes_every_guard_and_carries_all_verdicts() -> None:
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    plan = sell_weth(step)
    verdicts = verdicts_of(step, plan)

    assert [judged.guard for judged in verdicts] == NAMES
    assert refusals(verdicts) == {}
    assert guards.require_all_passed(plan, verdicts) == replace(plan, verdicts=verdicts)


def test_plan_without_legs_passes() -> None:
    step = step_input()
    plan = plan_of(step, [], gas_units=0)

    guards.require_all_passed(plan, verdicts_of(step, plan))


def test_every_limit_can_be_off_and_fixed_guards_cannot() -> None:
    step = replace(step_input(), limits=ALL_LIMITS_OFF)
    plan = sell_weth(step, 5_000)  # more than the wallet has, far beyond any impact limit

    verdicts = verdicts_of(step, plan, second_quotes=())

    assert {judged.guard for judged in verdicts if judged.limit != "off"} == FIXED_GUARDS
    assert all(judged.passed for judged in verdicts if judged.guard not in FIXED_GUARDS)
    assert "balance" in refusals(verdicts)


def test_unsimulated_plan_is_refused_by_every_guard_of_legs() -> None:
    step = step_input()
    refused_texts = refusals(verdicts_of(step, with_leg(sell_weth(step), 0, pool=address("nowhere"))))

    assert set(refused_texts) == REPLAY_GUARDS | {"allowlist"}
    assert all("the snapshot" in refused_texts[name] for name in REPLAY_GUARDS)


def test_unpriced_asset_is_refused_by_every_guard_of_values() -> None:
    step = step_input()
    plan = sell_weth(step)
    refused_texts = refusals(verdicts_of(with_snapshot(step, feeds=()), plan))

    assert set(refused_texts) == PRICE_GUARDS
    assert mentions(refused_texts["fair_floor"], "reference price", "WETH", "feed", "not read")


@pytest.mark.parametrize("guard", ["turnover", "daily_loss", "max_live_value", "balance", "prediction"])
def test_balance_that_was_not_read_refuses_what_needs_the_total(guard: str) -> None:
    step = step_input()

    assert_refused(verdict(guard, with_snapshot(step, holdings=()), sell_weth(step)), "unknown", "not read")


def test_refusal_names_each_guard_with_measure_limit_and_remedy() -> None:
    step = with_limits(step_input(), price_impact_bps=10, max_live_value=None)
    plan = sell_weth(step, 1)
    verdicts = verdicts_of(step, plan, paused=True, pause_reason="holiday")

    with pytest.raises(Refused) as refusal:
        guards.require_all_passed(plan, verdicts)

    assert refusal.value.verdicts == verdicts
    assert refusal.value.exit_code == EXIT_REFUSED
    assert "kill_switch measured paused: holiday, limit not paused" in refusal.value.message
    assert mentions(refusal.value.message, "price_impact measured 40 bps", "limit 10 bps")
    assert f"kill_switch: {REMEDIES['kill_switch']}" in refusal.value.remedy
    assert f"price_impact: {REMEDIES['price_impact']}" in refusal.value.remedy


def test_refusal__unknown_day__names_it_once_without_limits_to_raise() -> None:
    reason = "the wallet's last 24 h are not known (no archive); run trimtab adopt --nothing-lost"
    step = with_past_costs(step_input(), unknown_reason=reason)
    plan = sell_weth(step)

    with pytest.raises(Refused) as refusal:
        guards.require_all_passed(plan, verdicts_of(step, plan))

    assert len(refusal.value.guards) > 2
    assert refusal.value.message.count(reason) == 1
    assert f"{', '.join(refusal.value.guards)} unknown: {reason}" in refusal.value.message
    assert refusal.value.remedy == f"{', '.join(refusal.value.guards)}: a higher limit does not help; see the message"


@pytest.mark.parametrize("guard", NAMES)
def test_plan_that_a_guard_has_not_judged_is_refused(guard: str) -> None:
    step = step_input()
    plan = sell_weth(step)
    other_verdicts = tuple(judged for judged in verdicts_of(step, plan) if judged.guard != guard)

    with raises_code(Refused, "not_judged", guard):
        guards.require_all_passed(plan, other_verdicts)


def test_failed_verdict_of_an_unknown_guard_refuses_too() -> None:
    step = step_input()
    plan = sell_weth(step)

    with raises_code(Refused, "house_rule"):
        guards.require_all_passed(plan, (*verdicts_of(step, plan), Verdict("house_rule", "no", "yes", False)))


def test_every_guard_has_a_remedy_and_a_name_of_its_own() -> None:
    names = [*NAMES, *(guard.name for guard in FUTURES_GUARDS)]

    assert set(REMEDIES) == set(names)
    assert len(set(names)) == len(names)


def test_judge_minimums_judges_minimums_and_their_prices_alone() -> None:
    step = step_input()
    plan = sell_weth(step)
    loose_plan = with_leg(plan, 0, min_out_raw=1)

    low = judge_minimums(step, loose_plan)

    assert judge_minimums(step, plan) is None
    assert low.is_stale
    assert low.reason.startswith("fair_floor: ")
    assert low.text == f"is stale, {low.reason}"


@pytest.mark.parametrize("min_out_raw", [None, 1], ids=["fit before", "low before"])
@pytest.mark.parametrize("fault", ["no feed", "old round", "sequencer down"])
def test_judge_minimums__prices_unfit__says_that_they_could_not_be_checked(fault: str, min_out_raw: int | None) -> None:
    step = step_input()
    plan = sell_weth(step) if min_out_raw is None else with_leg(sell_weth(step), 0, min_out_raw=min_out_raw)
    feeds = tuple(replace(feed, updated_at_s=NOW_S - 10**6) for feed in step.snapshot.feeds)
    steps = {
        "no feed": without_feed(step, "WETH"),
        "old round": with_snapshot(step, feeds=feeds),
        "sequencer down": replace(step, reference=replace(step.reference, sequencer_feed=address("sequencer"))),
    }
    judged = judge_minimums(steps[fault], plan)
    assert judged.is_stale == (fault == "sequencer down" and min_out_raw == 1), "a minimum below a price that is known is low"
    assert judged.is_stale or judged.text == f"has minimums that could not be checked, {judged.reason}"


# --- Payouts.


WETH = token("WETH").address
USDC = token("USDC").address
HOME = address("home")
STRANGER = address("stranger")
USDC_COIN = 10**6
FLOOR_WEI = ETHER // 20


def payment(paid_token: str, paid_raw: int, to: str = HOME) -> Payout:
    """Return a payout of request 1."""
    return Payout(paid_token, to, paid_raw, paid_raw, 1)


def payout_step(limit_usdc: int | None = None, **past_fields: object) -> StepInput:
    """Return a step with 3 WETH, 4,000 USDC and one native coin."""
    limit_value = None if limit_usdc is None else Fraction(limit_usdc * USDC_COIN)
    step = with_limits(step_input(values={"WETH": 6_000, "USDC": 4_000}), payout_per_day=limit_value)
    return replace(step, history=history(**past_fields))


def payout_verdict(guard: str, step: StepInput, payout: Payout) -> Verdict:
    (judged,) = (judged for judged in judge_payout(step, payout, (HOME,)) if judged.guard == guard)
    return judged


@pytest.mark.parametrize(
    ("paid_token", "paid_raw", "paid_before_usdc", "limit_usdc"),
    [
        pytest.param(WETH, ETHER, 0, 2_000, id="a WETH"),
        pytest.param(NATIVE, ETHER, 0, 2_000, id="a native coin"),
        pytest.param(WETH, ETHER, 500, 2_500, id="a WETH after 500 USDC"),
        pytest.param(USDC, 2_000 * USDC_COIN, 0, 2_000, id="USDC"),
    ],
)
def test_payout_per_day_counts_a_payment_at_its_price(paid_token: str, paid_raw: int, paid_before_usdc: int, limit_usdc: int) -> None:
    step = payout_step(limit_usdc, outflow_24h=Fraction(paid_before_usdc * USDC_COIN))

    at_limit = payout_verdict("payout_per_day", step, payment(paid_token, paid_raw))
    beyond = payout_verdict("payout_per_day", step, payment(paid_token, paid_raw + 1))

    assert at_limit.passed
    assert at_limit.measured_text.startswith(f"{limit_usdc} USDC")
    assert_refused(beyond, "in 24 h")


def test_payout_per_day_adds_up_the_payments_of_a_request() -> None:
    payouts = (payment(WETH, ETHER), payment(USDC, 500 * USDC_COIN))

    def judged(limit_usdc: int) -> Verdict:
        verdicts = judge_payout_permission(payout_step(limit_usdc), payouts, (HOME,))
        return next(judged for judged in verdicts if judged.guard == "payout_per_day")

    assert judged(2_500).passed
    assert_refused(judged(2_499), "2500 USDC")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(payout_step(2_000, unknown_reason="block 7 cannot be read"), "block 7", id="unknown day"),
        pytest.param(without_feed(payout_step(2_000), "WETH"), "no reference price", id="no price"),
    ],
)
def test_payout_per_day_refuses_what_it_cannot_count(step: StepInput, reason: str) -> None:
    judged = payout_verdict("payout_per_day", step, payment(WETH, 1))
    assert_refused(judged, "unknown", reason)
    assert payout_remedies((judged,)) == ("a higher limit does not help; see the message",)


@pytest.mark.parametrize("is_known", [True, False])
def test_higher_limit_is_advised_only_for_a_known_measure(is_known: bool) -> None:
    """Whatever the words of the measure are."""
    judged = Verdict("payout_per_day", "not to be had", "2000 USDC", passed=False, is_known=is_known)
    (remedy,) = payout_remedies((judged,))
    assert ("raise limits.payout_per_day" in remedy) is is_known


def test_payout_per_day_can_be_off() -> None:
    judged = payout_verdict("payout_per_day", payout_step(None, unknown_reason="block 7"), payment(WETH, ETHER))

    assert (judged.limit, judged.passed) == ("off", True)


def test_payout_address_must_be_confirmed_for_every_payment() -> None:
    payouts = (payment(USDC, 1), payment(USDC, 1, STRANGER))
    verdicts = judge_payout_permission(payout_step(), payouts, (HOME, address("another home")))

    assert payout_verdict("payout_address", payout_step(), payment(USDC, 1)).passed
    assert refusals(verdicts) == {"payout_address": STRANGER}
    with pytest.raises(Refused, match=f"payout_address: {STRANGER} is not a confirmed payout address"):
        require_payout_allowed(verdicts)


def test_payout_waits_for_the_kill_switch() -> None:
    verdicts = judge_payout_permission(payout_step(), (payment(USDC, 1),), (HOME,), paused=True)

    assert refusals(verdicts) == {"kill_switch": "paused"}


def with_claim(step: StepInput, request_id: int, claimed_usdc: int, reserved_usdc: int) -> StepInput:
    """Return the step with this open claim of USDC and this reserve of USDC, of which the claim is a part."""
    reserves = {USDC: reserved_usdc * USDC_COIN}
    assets = tuple(replace(asset, reserve_raw=reserves.get(asset.token.address, 0)) for asset in step.portfolio.assets)
    claim = PendingPayment(request_id, Payment(USDC, claimed_usdc * USDC_COIN))
    return replace(with_history(step, pending_payments=(claim,)), portfolio=replace(step.portfolio, assets=assets))


@pytest.mark.parametrize(
    ("step", "paid_token", "largest_raw"),
    [
        pytest.param(payout_step(), WETH, 3 * ETHER, id="whole balance"),
        pytest.param(payout_step(), NATIVE, ETHER - FLOOR_WEI, id="native coin above its floor"),
        pytest.param(with_claim(payout_step(), 1, 500, 1_500), USDC, 3_000 * USDC_COIN, id="its claim is in the reserve"),
        pytest.param(with_claim(payout_step(), 2, 500, 1_500), USDC, 2_500 * USDC_COIN, id="the claim of another request"),
        pytest.param(with_claim(payout_step(), 1, 500, 0), USDC, 4_000 * USDC_COIN, id="a claim beyond the reserve"),
    ],
)
def test_payout_leaves_floor_reserve_and_other_claims(step: StepInput, paid_token: str, largest_raw: int) -> None:
    assert payout_verdict("balance", step, payment(paid_token, largest_raw)).passed
    assert not payout_verdict("balance", step, payment(paid_token, largest_raw + 1)).passed


def native_step(reserve_weth: int, claims: tuple[PendingPayment, ...] = ()) -> StepInput:
    """Return a step with 3 WETH and one native coin above the floor, which count together."""
    step = with_history(with_snapshot(payout_step(), native_wei=ETHER + FLOOR_WEI), pending_payments=claims)
    assets = tuple(
        replace(asset, includes_native=True, reserve_raw=reserve_weth * ETHER) if asset.token.address == WETH else asset
        for asset in step.portfolio.assets
    )
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def claim_of(request_id: int, native: bool) -> tuple[PendingPayment, ...]:
    return (PendingPayment(request_id, Payment(WETH, ETHER, native)),)


@pytest.mark.parametrize(
    ("step", "paid_token", "largest_raw"),
    [
        pytest.param(native_step(0), NATIVE, ETHER, id="native coin above its floor"),
        pytest.param(native_step(3), NATIVE, ETHER, id="wrapped coin covers the reserve"),
        pytest.param(native_step(4), NATIVE, 0, id="native coin is in the reserve"),
        pytest.param(native_step(4, claim_of(1, native=True)), NATIVE, ETHER, id="its own claim"),
        pytest.param(native_step(4, claim_of(2, native=True)), NATIVE, 0, id="the claim of another request"),
        pytest.param(native_step(4, claim_of(1, native=False)), NATIVE, 0, id="its claim of wrapped coin"),
        pytest.param(native_step(1), WETH, 3 * ETHER, id="native coin covers the reserve"),
        pytest.param(native_step(3), WETH, ETHER, id="both cover the reserve"),
        pytest.param(native_step(4, claim_of(1, native=True)), WETH, 0, id="its claim of native coin"),
    ],
)
def test_payout_leaves_the_reserve_of_native_and_wrapped_coin(step: StepInput, paid_token: str, largest_raw: int) -> None:
    assert payout_verdict("balance", step, payment(paid_token, largest_raw)).passed
    assert not payout_verdict("balance", step, payment(paid_token, largest_raw + 1)).passed


def test_payout_of_a_token_that_is_no_asset_has_no_balance() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, hubs=["WETH"])

    assert not payout_verdict("balance", step, payment(WETH, 1)).passed
