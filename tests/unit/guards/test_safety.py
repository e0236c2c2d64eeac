"""Guards on block, balances and trust: age, expiry, funding, pins, kill switch, quorum, reverts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards.safety import NO_CODE_HASH, moved_tokens
from agent.guards.table import REMEDIES
from agent.model import CodeHash, Holding, ScreenedToken, StepInput, TokenFinding
from agent.units import NATIVE
from tests.support.builders import ROUTER, address, history, raw, step_input, token, v2_pool, with_limits, with_snapshot
from tests.support.plans import R, Swap, evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.text import mentions

WETH, USDC, WBTC = token("WETH"), token("USDC"), token("WBTC")


@pytest.mark.parametrize(
    ("age_s", "passed", "measured_text", "limit"),
    [
        (0, True, "0 s", "90 s"),
        (90, True, "90 s", "90 s"),
        (91, False, "91 s", "90 s"),
        (-1, True, "1 s in the future", "30 s in the future"),
        (-30, True, "30 s in the future", "30 s in the future"),
        (-31, False, "31 s in the future", "30 s in the future"),
    ],
)
def test_head_age_is_judged_by_the_agent_s_clock(age_s: int, passed: bool, measured_text: str, limit: str) -> None:
    step = step_input()
    plan = sell_weth(step)
    judged = verdict("head_age", step, plan, evidence(step, plan, now_s=step.snapshot.head.timestamp_s + age_s))
    assert (judged.passed, judged.measured_text, judged.limit) == (passed, measured_text, limit)


@pytest.mark.parametrize(("block", "expires", "passed"), [(0, 5, True), (0, 0, True), (0, -1, False), (-1, 5, False), (1, 5, False)])
def test_a_plan_is_good_for_its_own_block_until_it_expires(block: int, expires: int, passed: bool) -> None:
    step = step_input()
    head = step.snapshot.head.number
    plan = replace(sell_weth(step), block=head + block, expires_block=head + expires)
    assert verdict("expiry", step, plan).passed is passed


def test_a_leg_may_spend_the_whole_investable_balance_and_not_one_unit_of_the_reserve() -> None:
    step = step_input(reserves={"WETH": 1})
    balance_raw = raw(Fraction(25, 10), WETH)
    pool = step.snapshot.pools[0]
    assert verdict("balance", step, plan_of(step, [Swap(pool, WETH.address, balance_raw)])).passed
    judged = verdict("balance", step, plan_of(step, [Swap(pool, WETH.address, balance_raw + 1)]))
    assert not judged.passed
    assert mentions(judged.measured_text, "leg 0", "1 base", "WETH")


def test_two_legs_share_one_balance() -> None:
    step = step_input()
    pool = step.snapshot.pools[0]
    half = raw(Fraction(5, 4), WETH)
    assert verdict("balance", step, plan_of(step, [Swap(pool, WETH.address, half)] * 2)).passed
    assert not verdict("balance", step, plan_of(step, [Swap(pool, WETH.address, half), Swap(pool, WETH.address, half + 1)])).passed


def two_hop_step() -> StepInput:
    """WBTC is sold for WETH, a hub that the portfolio does not hold, and that for USDC."""
    return step_input({"WBTC": 5_000, "USDC": 5_000}, hubs=["WETH"], pools=[v2_pool(WBTC, WETH, 30), v2_pool(WETH, USDC, 2_000)])


def test_what_a_leg_bought_may_be_spent_by_a_later_one_but_not_by_an_earlier_one() -> None:
    step = two_hop_step()
    first, second = step.snapshot.pools
    amount = raw(Fraction(1, 100), WBTC)
    bought_raw = plan_of(step, [Swap(first, WBTC.address, amount)]).legs[0].amount_out_raw
    forward = plan_of(step, [Swap(first, WBTC.address, amount), Swap(second, WETH.address, bought_raw)])
    backward = plan_of(step, [Swap(second, WETH.address, bought_raw), Swap(first, WBTC.address, amount)])
    beyond = plan_of(step, [Swap(first, WBTC.address, amount), Swap(second, WETH.address, bought_raw + 1)])
    assert [verdict("balance", step, plan).passed for plan in (forward, backward, beyond)] == [True, False, False]


def test_a_hub_balance_that_the_wallet_happens_to_hold_is_not_spent() -> None:
    step = two_hop_step()
    rich = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(WETH.address, 10**18)))
    plan = plan_of(rich, [Swap(step.snapshot.pools[1], WETH.address, 10**15)])
    assert not verdict("balance", rich, plan).passed


def test_a_balance_below_its_reserve_may_be_filled_but_not_spent() -> None:
    step = step_input(values={"WETH": 5_000, "USDC": 5_000})
    assets = tuple(replace(asset, reserve_raw=10**19) if asset.token == WETH else asset for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    pool = step.snapshot.pools[0]
    assert verdict("balance", step, plan_of(step, [Swap(pool, USDC.address, 10**9)])).passed
    assert not verdict("balance", step, plan_of(step, [Swap(pool, USDC.address, 10**9), Swap(pool, WETH.address, 10**12)])).passed


def test_nothing_may_stay_in_the_router() -> None:
    step = two_hop_step()
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, raw(Fraction(1, 100), WBTC), sink=R)])
    judged = verdict("balance", step, plan)
    assert (judged.passed, "WETH remain" in judged.measured_text) == (False, True)


def test_a_router_leg_spends_what_is_there_and_a_wrong_prediction_is_refused() -> None:
    step = two_hop_step()
    first, second = step.snapshot.pools
    plan = plan_of(step, [Swap(first, WBTC.address, raw(Fraction(1, 100), WBTC), sink=R), Swap(second, WETH.address, source=R)])
    assert verdict("prediction", step, plan).passed
    wrong_plan = with_leg(plan, 1, amount_in_raw=plan.legs[1].amount_in_raw + 1)
    assert verdict("balance", step, wrong_plan).passed
    judged = verdict("prediction", step, wrong_plan)
    assert (judged.passed, judged.measured_text[:5]) == (False, "leg 1")


def test_a_router_leg_with_nothing_in_the_router_is_refused() -> None:
    step = two_hop_step()
    first, second = step.snapshot.pools
    plan = plan_of(step, [Swap(first, WBTC.address, raw(Fraction(1, 100), WBTC), sink=R), Swap(second, WETH.address, source=R)])
    plan_without_source = replace(plan, legs=plan.legs[1:])
    assert "to spend" in verdict("balance", step, plan_without_source).measured_text


def test_a_predicted_output_that_the_simulation_does_not_give_is_refused() -> None:
    step = step_input()
    plan = sell_weth(step)
    assert not verdict("prediction", step, with_leg(plan, 0, amount_out_raw=plan.legs[0].amount_out_raw + 1)).passed


@pytest.mark.parametrize("off_raw", [1, -1])
def test_a_predicted_balance_that_the_simulation_does_not_give_is_refused(off_raw: int) -> None:
    step = step_input()
    plan = sell_weth(step)
    holdings_after = tuple((address_, amount + off_raw * (address_ == USDC.address)) for address_, amount in plan.holdings_after)
    judged = verdict("prediction", step, replace(plan, holdings_after=holdings_after))
    assert (judged.passed, "USDC ends" in judged.measured_text) == (False, True)


def test_a_token_that_the_prediction_leaves_out_is_not_compared() -> None:
    step = step_input()
    assert verdict("prediction", step, replace(sell_weth(step), holdings_after=())).passed


def with_code(step: StepInput, address_: str, code_hash: str | None) -> StepInput:
    """The step in which the snapshot found other code at an address, or did not look."""
    other_codes = tuple(entry for entry in step.snapshot.code_hashes if entry.address != address_)
    return with_snapshot(step, code_hashes=other_codes if code_hash is None else (*other_codes, CodeHash(address_, code_hash)))


NEW_CODE = "0x" + "ab" * 32


def contracts_of_plan() -> dict[str, str]:
    step = step_input()
    return {"pool": step.snapshot.pools[0].address, "token in": WETH.address, "token out": USDC.address, "router": ROUTER}


@pytest.mark.parametrize("contract", list(contracts_of_plan()))
@pytest.mark.parametrize(
    ("judged", "reason"),
    [(None, "was not read"), (NO_CODE_HASH, "no code at"), (NEW_CODE, "changed since it was pinned")],
    ids=["blind", "none", "new"],
)
def test_each_contract_of_the_plan_must_have_the_code_that_was_pinned(contract: str, judged: str | None, reason: str) -> None:
    step = step_input()
    plan = sell_weth(step)
    judged = verdict("allowlist", with_code(step, contracts_of_plan()[contract], judged), plan, evidence(step, plan))
    assert (judged.passed, reason in judged.measured_text, contracts_of_plan()[contract] in judged.measured_text) == (False, True, True)


@pytest.mark.parametrize("contract", list(contracts_of_plan()))
def test_each_contract_of_the_plan_must_be_pinned(contract: str) -> None:
    step = step_input()
    plan = sell_weth(step)
    pins = tuple(pin for pin in evidence(step, plan).pinned_code_hashes if pin[0] != contracts_of_plan()[contract])
    judged = verdict("allowlist", step, plan, evidence(step, plan, pinned_code_hashes=pins))
    assert mentions(judged.measured_text, f"{contracts_of_plan()[contract]}", "not pinned")


def test_no_code_is_refused_even_when_it_was_pinned() -> None:
    step = with_code(step_input(), ROUTER, NO_CODE_HASH)
    plan = sell_weth(step)
    assert (ROUTER, NO_CODE_HASH) in evidence(step, plan).pinned_code_hashes
    assert not verdict("allowlist", step, plan).passed


def test_a_hash_that_is_pinned_for_another_address_does_not_count() -> None:
    step = step_input()
    plan = sell_weth(step)
    pins = dict(evidence(step, plan).pinned_code_hashes)
    pins[WETH.address], pins[USDC.address] = pins[USDC.address], pins[WETH.address]
    assert not verdict("allowlist", step, plan, evidence(step, plan, pinned_code_hashes=tuple(pins.items()))).passed


def test_letter_case_of_addresses_and_hashes_does_not_matter() -> None:
    step = step_input()
    plan = sell_weth(step)
    pins = tuple((address_.lower(), judged.upper().replace("0X", "0x")) for address_, judged in evidence(step, plan).pinned_code_hashes)
    assert verdict("allowlist", step, plan, evidence(step, plan, pinned_code_hashes=pins)).passed


def test_what_the_execution_wants_pinned_is_judged_even_without_a_leg_through_it() -> None:
    step = step_input()
    factory = address("factory")
    strict_step = replace(step, execution=replace(step.execution, pinned=(ROUTER, factory)))
    assert mentions(verdict("allowlist", strict_step, sell_weth(step)).measured_text, f"{factory}", "not read")


def test_a_token_outside_the_portfolio_is_refused_though_its_code_is_pinned() -> None:
    step = two_hop_step()
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, 10**5)])
    no_hub = with_snapshot(
        replace(step, portfolio=replace(step.portfolio, hubs=())),
        code_hashes=(*step.snapshot.code_hashes, CodeHash(WETH.address, NEW_CODE)),
    )
    assert mentions(verdict("allowlist", no_hub, plan).measured_text, f"{WETH.address}", "token")
    assert "not a token of the portfolio" not in verdict("allowlist", step, plan).measured_text


def test_the_router_must_be_pinned_though_no_config_asks_for_it() -> None:
    step = step_input()
    step = replace(step, execution=replace(step.execution, pinned=()))
    plan = sell_weth(step)
    pins = tuple(pin for pin in evidence(step, plan).pinned_code_hashes if pin[0] != ROUTER)
    assert mentions(
        verdict("allowlist", step, plan, evidence(step, plan, pinned_code_hashes=pins)).measured_text, f"{ROUTER} is not pinned"
    )


def test_changed_code_of_a_token_in_quarantine_holds_no_plan_back() -> None:
    step = step_input()
    plan = sell_weth(step)
    strict_step = replace(step, execution=replace(step.execution, pinned=(*step.execution.pinned, WBTC.address)))
    quarantined = ScreenedToken(WBTC.address, TokenFinding.CODE_CHANGED)
    assert not verdict("allowlist", strict_step, plan).passed
    quarantined_step = replace(strict_step, targets=replace(strict_step.targets, quarantined_tokens=(quarantined,)))
    assert verdict("allowlist", quarantined_step, plan).passed


def test_a_plan_that_exchanges_no_token_needs_no_screen() -> None:
    step = with_limits(step_input(), token_screen=True)
    plan = sell_weth(step)
    unwrap = with_leg(plan, 0, token_out=NATIVE)
    assert moved_tokens(plan) == (WETH.address, USDC.address)
    assert moved_tokens(unwrap) == ()
    case_evidence = evidence(step, plan, screened_tokens=None)
    assert not verdict("token_screen", step, plan, case_evidence).passed
    assert verdict("token_screen", step, replace(plan, legs=()), case_evidence).passed


@pytest.mark.parametrize(
    ("paused", "reason", "passed", "measured_text"),
    [
        (False, "", True, "not paused"),
        (True, "", False, "paused"),
        (True, "holiday", False, "paused: holiday"),
        (None, "OSError", False, "unreadable, which counts as paused"),
    ],
)
def test_only_a_switch_that_says_not_paused_lets_a_plan_pass(paused: bool | None, reason: str, passed: bool, measured_text: str) -> None:
    step = step_input()
    plan = sell_weth(step)
    judged = verdict("kill_switch", step, plan, evidence(step, plan, paused=paused, pause_reason=reason))
    assert (judged.passed, judged.measured_text) == (passed, measured_text)


@pytest.mark.parametrize("has_quorum", [True, False])
def test_quorum_is_what_the_evidence_says(has_quorum: bool) -> None:
    step = step_input()
    plan = sell_weth(step)
    assert verdict("quorum", step, plan, evidence(step, plan, has_quorum=has_quorum)).passed is has_quorum


def test_the_remedy_of_the_quorum_fits_two_operators_that_differ_and_a_single_one() -> None:
    differing, single = REMEDIES["quorum"].split("; with one operator only, ")
    assert "replace an endpoint" in differing
    assert mentions(single, "add a second", "chain.single_operator")


@pytest.mark.parametrize(("reverts", "passed"), [(0, True), (2, True), (3, False), (4, False)])
def test_three_reverts_in_a_row_halt(reverts: int, passed: bool) -> None:
    step = replace(step_input(), history=history(reverts_in_row=reverts))
    assert verdict("reverts_in_row", step, sell_weth(step)).passed is passed


def test_head_age_can_be_off_and_then_the_future_does_not_matter() -> None:
    step = with_limits(step_input(), head_age_s=None)
    plan = sell_weth(step)
    assert verdict("head_age", step, plan, evidence(step, plan, now_s=0)).passed
