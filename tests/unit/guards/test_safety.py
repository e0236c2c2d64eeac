"""Tests of agent/guards/safety.py: age, expiry, funding, prediction, pins, screens, kill switch, quorum, reverts and gas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction

import pytest

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import V4Pool
from agent.guards.case import build_guard_case
from agent.guards.safety import moved_tokens
from agent.guards.table import REMEDIES
from agent.model import (
    EMPTY_CODE_HASH,
    NATIVE_VENUE,
    NO_CODE_HASH,
    CodeHash,
    ExitFailures,
    FailedPool,
    Head,
    Holding,
    LegPlace,
    Plan,
    ScreenedToken,
    ScreenSubject,
    StepInput,
    TokenFinding,
    TopUp,
)
from agent.units import NATIVE
from tests.support.builders import (
    ETHER,
    GWEI,
    NOW_S,
    ROUTER,
    address,
    history,
    raw,
    step_input,
    v2_pool,
    v3_pool,
    with_history,
    with_limits,
    with_snapshot,
)
from tests.support.decisions.plan_costs import exit_plan
from tests.support.lp_worlds import lp_target, planned, world
from tests.support.plans import R, Swap, approved, assert_refused, evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.text import mentions
from tests.support.tokens import LINK, USDC, WBTC, WETH

TWO_AND_A_HALF_WETH = 5 * ETHER // 2
"""Balance of WETH of `step_input()`."""


# --- head_age and expiry


@pytest.mark.parametrize(
    ("age_s", "measured", "limit", "passed"),
    [
        pytest.param(0, "0 s", "90 s", True, id="of now"),
        pytest.param(90, "90 s", "90 s", True, id="at the limit"),
        pytest.param(91, "91 s", "90 s", False, id="one second older"),
        pytest.param(-1, "1 s in the future", "30 s in the future", True, id="a second ahead"),
        pytest.param(-30, "30 s in the future", "30 s in the future", True, id="ahead at the limit"),
        pytest.param(-31, "31 s in the future", "30 s in the future", False, id="one second further ahead"),
    ],
)
def test_head_age_is_judged_by_the_agent_s_clock(age_s: int, measured: str, limit: str, passed: bool) -> None:
    step = step_input()
    plan = sell_weth(step)

    judged = verdict("head_age", step, plan, evidence(step, plan, now_s=step.snapshot.head.timestamp_s + age_s))

    assert (judged.measured_text, judged.limit, judged.passed) == (measured, limit, passed)


def test_head_age_can_be_off_for_past_and_future() -> None:
    step = with_limits(step_input(), head_age_s=None)
    plan = sell_weth(step)

    assert verdict("head_age", step, plan, evidence(step, plan, now_s=0)).passed


@pytest.mark.parametrize(
    ("blocks_ahead", "valid_blocks", "passed"),
    [
        pytest.param(0, 5, True, id="made at the head"),
        pytest.param(0, 0, True, id="valid to the head"),
        pytest.param(0, -1, False, id="expired a block ago"),
        pytest.param(-1, 5, False, id="made a block before"),
        pytest.param(1, 5, False, id="made a block ahead"),
    ],
)
def test_expiry_needs_a_plan_of_the_head_that_is_valid(blocks_ahead: int, valid_blocks: int, passed: bool) -> None:
    step = step_input()
    head_block = step.snapshot.head.number
    plan = replace(sell_weth(step), block=head_block + blocks_ahead, expires_block=head_block + valid_blocks)

    assert verdict("expiry", step, plan).passed is passed


# --- balance


def weth_sales(step: StepInput, *amounts_raw: int) -> Plan:
    """Return the plan that sells these amounts of WETH in the first pool, in order."""
    return plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, amount_raw) for amount_raw in amounts_raw])


def test_balance_refuses_one_wei_of_the_reserve() -> None:
    step = step_input(reserves={"WETH": 1})

    assert verdict("balance", step, weth_sales(step, TWO_AND_A_HALF_WETH)).passed
    assert_refused(verdict("balance", step, weth_sales(step, TWO_AND_A_HALF_WETH + 1)), "leg 1 spends 1 base units of WETH")


def test_balance_is_shared_by_the_legs() -> None:
    step = step_input()
    half_raw = TWO_AND_A_HALF_WETH // 2

    assert verdict("balance", step, weth_sales(step, half_raw, half_raw)).passed
    assert_refused(verdict("balance", step, weth_sales(step, half_raw, half_raw + 1)), "leg 2 spends 1 base units of WETH")


def hub_step() -> StepInput:
    """Return a step with pools of WBTC with WETH, a hub that the portfolio does not hold, and of WETH with USDC."""
    return step_input({"WBTC": 5_000, "USDC": 5_000}, hubs=["WETH"], pools=[v2_pool(WBTC, WETH, 30), v2_pool(WETH, USDC, 2_000)])


WBTC_RAW = raw(Fraction(1, 100), WBTC)


def two_hop_plan(step: StepInput) -> Plan:
    """Return the plan that sells WBTC for USDC over WETH, which the router holds meanwhile."""
    wbtc_pool, weth_pool = step.snapshot.pools
    return plan_of(step, [Swap(wbtc_pool, WBTC.address, WBTC_RAW, sink=R), Swap(weth_pool, WETH.address, source=R)])


@pytest.mark.parametrize(
    ("excess_raw", "is_reversed", "passed"),
    [
        pytest.param(0, False, True, id="what the first leg bought"),
        pytest.param(1, False, False, id="one wei more"),
        pytest.param(0, True, False, id="before it is bought"),
    ],
)
def test_balance_counts_what_earlier_legs_bought(excess_raw: int, is_reversed: bool, passed: bool) -> None:
    step = hub_step()
    wbtc_pool, weth_pool = step.snapshot.pools
    purchase = Swap(wbtc_pool, WBTC.address, WBTC_RAW)
    bought_raw = plan_of(step, [purchase]).legs[0].amount_out_raw
    swaps = [purchase, Swap(weth_pool, WETH.address, bought_raw + excess_raw)]

    assert verdict("balance", step, plan_of(step, swaps[::-1] if is_reversed else swaps)).passed is passed


def test_balance_spends_no_hub_that_the_wallet_holds() -> None:
    step = hub_step()
    step = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(WETH.address, ETHER)))
    plan = plan_of(step, [Swap(step.snapshot.pools[1], WETH.address, 10**15)])

    assert_refused(verdict("balance", step, plan), "WETH too much")


@pytest.mark.parametrize(("sale_raw", "passed"), [(0, True), (10**12, False)], ids=["filled", "filled and spent"])
def test_balance_below_its_reserve_may_only_be_filled(sale_raw: int, passed: bool) -> None:
    step = step_input()
    assets = tuple(replace(asset, reserve_raw=10 * ETHER) if asset.token == WETH else asset for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    pool = step.snapshot.pools[0]
    swaps = [Swap(pool, USDC.address, 10**9), *([Swap(pool, WETH.address, sale_raw)] if sale_raw else [])]

    assert verdict("balance", step, plan_of(step, swaps)).passed is passed


def test_balance_refuses_what_stays_in_the_router() -> None:
    step = hub_step()
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, WBTC_RAW, sink=R)])

    assert_refused(verdict("balance", step, plan), "base units of WETH remain in the router")


def test_balance_needs_something_in_the_router_for_its_leg() -> None:
    step = hub_step()
    plan = two_hop_plan(step)

    assert_refused(verdict("balance", step, replace(plan, legs=plan.legs[1:])), "unknown", "no balance to spend")


FLOOR_WEI = ETHER // 20


def native_asset_step(native_wei: int) -> StepInput:
    """Return a step whose asset WETH includes native coin: so much of it and 2.5 WETH; 0.05 stay for gas."""
    step = with_snapshot(step_input(), native_wei=native_wei)
    assets = tuple(replace(asset, includes_native=asset.token == WETH) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def conversion_and_sale(step: StepInput, wrapped_wei: int, sold_raw: int, sink: LegPlace = LegPlace.WALLET) -> Plan:
    """Return the plan that wraps native coin, into the wallet or the router, and sells WETH from there."""
    pool = step.snapshot.pools[0]
    sale = plan_of(step, [Swap(pool, WETH.address, sold_raw)])
    wrap = replace(
        sale.legs[0], pool=WETH.address, venue=NATIVE_VENUE, token_in=NATIVE, token_out=WETH.address,
        amount_in_raw=wrapped_wei, amount_out_raw=wrapped_wei, min_out_raw=wrapped_wei, fee_raw=0,
    )  # fmt: skip
    return replace(sale, legs=(replace(wrap, sink=sink), replace(sale.legs[0], source=sink)))


@pytest.mark.parametrize(
    ("wrapped_wei", "sold_raw", "reason"),
    [
        pytest.param(ETHER, TWO_AND_A_HALF_WETH + ETHER, "", id="all of both forms"),
        pytest.param(ETHER + 1, TWO_AND_A_HALF_WETH, "leg 1 spends 1 base units", id="one wei of the gas floor"),
        pytest.param(ETHER, TWO_AND_A_HALF_WETH + ETHER + 1, "leg 2 spends 1 base units", id="one wei more than both forms"),
        pytest.param(ETHER // 2, TWO_AND_A_HALF_WETH + ETHER, "leg 2 spends", id="more than was wrapped"),
    ],
)
def test_balance_keeps_native_and_wrapped_coin_apart(wrapped_wei: int, sold_raw: int, reason: str) -> None:
    step = native_asset_step(ETHER + FLOOR_WEI)

    judged = verdict("balance", step, conversion_and_sale(step, wrapped_wei, sold_raw))

    assert judged.passed is not bool(reason)
    assert reason in judged.measured_text


@pytest.mark.parametrize(("wrapped_wei", "passed"), [(ETHER, True), (ETHER + 1, False)], ids=["above the reserve", "one wei of it"])
def test_balance_counts_coin_wrapped_into_the_router_as_spent(wrapped_wei: int, passed: bool) -> None:
    """A reserve of 3.5 ETH leaves one of the 4.5 in both forms."""
    step = native_asset_step(2 * ETHER + FLOOR_WEI)
    assets = tuple(replace(asset, reserve_raw=7 * ETHER // 2 if asset.token == WETH else 0) for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))

    assert verdict("balance", step, conversion_and_sale(step, wrapped_wei, wrapped_wei, sink=R)).passed is passed


# --- prediction


@pytest.mark.parametrize(
    ("leg_fields", "balance_guard_passes"),
    [
        pytest.param({"amount_in_raw": 1}, True, id="input"),
        pytest.param({"amount_out_raw": 1}, True, id="output"),
    ],
)
def test_prediction_of_a_router_leg_is_that_of_the_simulation(leg_fields: dict[str, int], balance_guard_passes: bool) -> None:
    step = hub_step()
    plan = two_hop_plan(step)
    changes = {name: getattr(plan.legs[1], name) + change_raw for name, change_raw in leg_fields.items()}
    wrong_plan = with_leg(plan, 1, **changes)

    assert verdict("prediction", step, plan).passed
    assert verdict("balance", step, wrong_plan).passed is balance_guard_passes
    assert_refused(verdict("prediction", step, wrong_plan), "leg 2 gives")


@pytest.mark.parametrize("change_raw", [1, -1], ids=["one more", "one less"])
def test_prediction_of_a_balance_is_exact(change_raw: int) -> None:
    step = step_input()
    plan = sell_weth(step)
    holdings_after = tuple((at, balance_raw + change_raw * (at == USDC.address)) for at, balance_raw in plan.holdings_after)

    assert_refused(verdict("prediction", step, replace(plan, holdings_after=holdings_after)), "USDC ends at")


@pytest.mark.parametrize("change_wei", [0, 1, -1], ids=["exact", "one wei more", "one wei less"])
def test_prediction_of_native_coin_is_exact(change_wei: int) -> None:
    step = native_asset_step(ETHER + FLOOR_WEI)
    plan = conversion_and_sale(step, ETHER, ETHER)
    usdc_raw = dict(plan.holdings_after)[USDC.address]
    holdings_after = ((WETH.address, TWO_AND_A_HALF_WETH), (USDC.address, usdc_raw))
    plan = replace(plan, holdings_after=holdings_after, native_after_wei=FLOOR_WEI + change_wei)

    assert verdict("prediction", step, plan).passed is (change_wei == 0)


@pytest.mark.parametrize("change_raw", [1, -1], ids=["one more", "one less"])
def test_prediction__balance_that_no_leg_moves__is_exact(change_raw: int) -> None:
    step = step_input({"WETH": 5_000, "USDC": 2_500, "WBTC": 2_500})
    plan = sell_weth(step)
    unmoved_raw = build_guard_case(step, plan, evidence(step, plan)).balance_raw(WBTC.address)

    def predicting(wbtc_raw: int) -> Plan:
        return replace(plan, holdings_after=tuple((dict(plan.holdings_after) | {WBTC.address: wbtc_raw}).items()))

    assert verdict("prediction", step, predicting(unmoved_raw)).passed
    assert_refused(verdict("prediction", step, predicting(unmoved_raw + change_raw)), "WBTC ends at")


def test_prediction__native_coin_that_no_leg_moves__is_exact() -> None:
    step = step_input()
    plan = replace(sell_weth(step), native_after_wei=step.snapshot.native_wei)

    assert verdict("prediction", step, plan).passed
    assert not verdict("prediction", step, replace(plan, native_after_wei=step.snapshot.native_wei + 1)).passed


def test_prediction_compares_only_the_tokens_that_it_names() -> None:
    step = step_input()

    assert verdict("prediction", step, replace(sell_weth(step), holdings_after=())).passed


# --- allowlist


def with_code(step: StepInput, at: str, code_hash: str | None) -> StepInput:
    """Return the step whose snapshot has this code hash at an address, or none (None)."""
    other_hashes = tuple(entry for entry in step.snapshot.code_hashes if entry.address != at)
    return with_snapshot(step, code_hashes=other_hashes if code_hash is None else (*other_hashes, CodeHash(at, code_hash)))


NEW_CODE = "0x" + "ab" * 32
CONTRACTS = {
    "pool": step_input().snapshot.pools[0].address,
    "token sold": WETH.address,
    "token bought": USDC.address,
    "router": ROUTER,
}
"""The contracts of `sell_weth(step_input())`."""


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
@pytest.mark.parametrize(
    ("code_hash", "reason"),
    [(None, "was not read"), (NO_CODE_HASH, "no code at"), (NEW_CODE, "changed since it was pinned")],
    ids=["not read", "no code", "new code"],
)
def test_allowlist_needs_the_pinned_code_of_each_contract(contract: str, code_hash: str | None, reason: str) -> None:
    step = step_input()
    plan = sell_weth(step)

    assert_refused(verdict("allowlist", with_code(step, contract, code_hash), plan, evidence(step, plan)), reason, contract)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_allowlist_needs_a_pin_of_each_contract(contract: str) -> None:
    step = step_input()
    step = replace(step, execution=replace(step.execution, pinned=()))
    plan = sell_weth(step)
    pins = tuple(pin for pin in evidence(step, plan).pinned_code_hashes if pin[0] != contract)

    assert_refused(verdict("allowlist", step, plan, evidence(step, plan, pinned_code_hashes=pins)), f"{contract} is not pinned")


@pytest.mark.parametrize("code_hash", [NO_CODE_HASH, EMPTY_CODE_HASH, EMPTY_CODE_HASH.upper().replace("X", "x")])
def test_allowlist_refuses_no_code_though_it_was_pinned(code_hash: str) -> None:
    step = with_code(step_input(), ROUTER, code_hash)
    plan = sell_weth(step)

    assert (ROUTER, code_hash) in evidence(step, plan).pinned_code_hashes
    assert_refused(verdict("allowlist", step, plan), "no code at", ROUTER)


def test_allowlist_takes_no_pin_of_another_address() -> None:
    step = step_input()
    plan = sell_weth(step)
    pins = dict(evidence(step, plan).pinned_code_hashes)
    swapped_pins = pins | {WETH.address: pins[USDC.address], USDC.address: pins[WETH.address]}

    judged = verdict("allowlist", step, plan, evidence(step, plan, pinned_code_hashes=tuple(swapped_pins.items())))

    assert_refused(judged, f"code at {WETH.address} changed", f"code at {USDC.address} changed")


def test_allowlist_judges_what_execution_pins_without_a_leg() -> None:
    step = step_input()
    factory = address("factory")
    step = replace(step, execution=replace(step.execution, pinned=(ROUTER, factory)))

    assert_refused(verdict("allowlist", step, sell_weth(step)), f"code at {factory} was not read")


def test_allowlist_refuses_a_pinned_token_outside_the_portfolio() -> None:
    step = hub_step()
    step = with_code(step, WETH.address, NEW_CODE)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WBTC.address, 10**5)])
    step_without_hub = replace(step, portfolio=replace(step.portfolio, hubs=()))

    assert verdict("allowlist", step, plan).passed
    assert_refused(verdict("allowlist", step_without_hub, plan), f"{WETH.address} is not a token of the portfolio")


def test_allowlist_leaves_out_pins_of_tokens_in_quarantine() -> None:
    step = step_input()
    step = replace(step, execution=replace(step.execution, pinned=(*step.execution.pinned, WBTC.address)))
    quarantined = ScreenedToken(WBTC.address, TokenFinding.CODE_CHANGED)
    quarantine_step = replace(step, targets=replace(step.targets, quarantined_tokens=(quarantined,)))
    plan = sell_weth(step)

    assert_refused(verdict("allowlist", step, plan), f"code at {WBTC.address} was not read")
    assert verdict("allowlist", quarantine_step, plan).passed


MANAGER = address("pool manager")


def v4_step() -> StepInput:
    """Return a step with one V4 pool, which the manager holds."""
    pool = v3_pool(WETH, USDC, 2_000)
    pool_fields = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    return step_input(pools=[V4Pool(**pool_fields, manager=MANAGER)])


def test_allowlist_pins_the_contract_of_a_pool_not_its_id() -> None:
    step = v4_step()
    plan = sell_weth(step)

    assert_refused(verdict("allowlist", step, plan), f"code at {MANAGER} was not read")
    assert verdict("allowlist", with_code(step, MANAGER, NEW_CODE), plan).passed


def test_allowlist_pins_pool_and_manager_of_liquidity() -> None:
    step = world([], [lp_target(2_500)])
    plan = planned(step)
    (action,) = plan.layer_actions

    assert verdict("allowlist", step, plan).passed
    for contract in (action.pool, action.contract):
        assert_refused(verdict("allowlist", with_code(step, contract, None), plan), f"code at {contract} was not read")


# --- token_screen


def screened(step: StepInput, plan: Plan, *screens: ScreenedToken) -> bool:
    """Return whether the plan passes with these screens in place of those of their tokens."""
    usual_screens = evidence(step, plan).screened_tokens or ()
    tokens = {screen.token for screen in screens}
    plan_evidence = evidence(step, plan, screened_tokens=(*(screen for screen in usual_screens if screen.token not in tokens), *screens))
    return verdict("token_screen", with_limits(step, token_screen=True), plan, plan_evidence).passed


def failing_in(contract: str, of: str = USDC.address) -> ScreenedToken:
    """Return the screen of a token that moves, but not through this contract."""
    return ScreenedToken(of, TokenFinding.CLEAN, "", ScreenSubject.POOL, (FailedPool(contract, "frozen"),))


def test_token_screen_refuses_a_token_that_keeps_a_fee() -> None:
    step = step_input()
    plan = sell_weth(step)

    assert screened(step, plan)
    assert not screened(step, plan, ScreenedToken(USDC.address, TokenFinding.FEE_ON_TRANSFER))
    assert screened(step, plan, ScreenedToken(LINK.address, TokenFinding.FEE_ON_TRANSFER)), "not of the plan"


def test_token_screen_refuses_a_clean_token_in_quarantine() -> None:
    step = step_input()
    quarantined = ScreenedToken(USDC.address, TokenFinding.PAUSED)
    step = replace(step, targets=replace(step.targets, quarantined_tokens=(quarantined,)))

    assert not screened(step, sell_weth(step))


@pytest.mark.parametrize(
    ("screen", "passed"),
    [
        pytest.param(failing_in(MANAGER), False, id="a token of the plan in its pool"),
        pytest.param(failing_in(address("other pool")), True, id="in another pool"),
        pytest.param(failing_in(MANAGER, LINK.address), True, id="another token in that contract"),
    ],
)
def test_token_screen_refuses_a_pool_that_failed_for_its_token(screen: ScreenedToken, passed: bool) -> None:
    step = v4_step()

    assert screened(step, sell_weth(step), screen) is passed


def test_token_screen_refuses_tokens_that_were_not_tested() -> None:
    step = with_limits(step_input(), token_screen=True)
    plan = sell_weth(step)

    assert_refused(verdict("token_screen", step, plan, evidence(step, plan, screened_tokens=None)), "unknown", "no token was tested")
    assert_refused(verdict("token_screen", step, plan, evidence(step, plan, screened_tokens=())), "WETH was not tested", "USDC was not")


def test_token_screen_is_not_needed_where_nothing_is_exchanged() -> None:
    step = with_limits(step_input(), token_screen=True)
    plan = sell_weth(step)
    no_screens = evidence(step, plan, screened_tokens=None)

    assert verdict("token_screen", step, replace(plan, legs=()), no_screens).passed
    assert verdict("token_screen", step, with_leg(plan, 0, token_out=NATIVE), no_screens).passed


@pytest.mark.parametrize(
    ("leg_fields", "tokens"),
    [
        pytest.param({}, (WETH.address, USDC.address), id="a swap"),
        pytest.param({"token_out": NATIVE}, (), id="unwrapping"),
        pytest.param({"token_in": NATIVE}, (), id="wrapping"),
    ],
)
def test_moved_tokens_are_those_that_swaps_exchange(leg_fields: dict[str, str], tokens: tuple[str, ...]) -> None:
    assert moved_tokens(with_leg(sell_weth(step_input()), 0, **leg_fields)) == tokens


# --- kill_switch and quorum


@pytest.mark.parametrize(
    ("paused", "reason", "measured", "passed"),
    [
        pytest.param(False, "", "not paused", True, id="off"),
        pytest.param(True, "", "paused", False, id="on"),
        pytest.param(True, "holiday", "paused: holiday", False, id="on with a reason"),
        pytest.param(None, "OSError", "unreadable, which counts as paused", False, id="unreadable"),
    ],
)
def test_kill_switch_must_be_readable_and_off(paused: bool | None, reason: str, measured: str, passed: bool) -> None:
    step = step_input()
    plan = sell_weth(step)

    judged = verdict("kill_switch", step, plan, evidence(step, plan, paused=paused, pause_reason=reason))

    assert (judged.measured_text, judged.passed) == (measured, passed)


@pytest.mark.parametrize(
    ("operators", "has_quorum", "measured"),
    [
        pytest.param(("alpha", "beta"), True, "2 operator(s) agree", id="two agree"),
        pytest.param(("alpha", "alpha"), False, "1 operator(s) agree", id="two endpoints of one"),
    ],
)
def test_quorum_is_that_of_the_evidence_and_counts_operators(operators: tuple[str, ...], has_quorum: bool, measured: str) -> None:
    step = with_snapshot(step_input(), operators=operators)
    plan = sell_weth(step)

    judged = verdict("quorum", step, plan, evidence(step, plan, has_quorum=has_quorum))

    assert (judged.measured_text, judged.passed) == (measured, has_quorum)


def test_quorum_has_a_remedy_for_two_operators_and_for_one() -> None:
    remedy_of_two, remedy_of_one = REMEDIES["quorum"].split("; with one operator only, ")

    assert "replace an endpoint" in remedy_of_two
    assert mentions(remedy_of_one, "add a second", "chain.single_operator")


# --- reverts_in_row


@pytest.mark.parametrize(
    ("failures", "passed"),
    [
        pytest.param({}, True, id="none"),
        pytest.param({"reverts_in_row": 2, "approval_cycles_in_row": 7}, True, id="one less than each limit"),
        pytest.param({"reverts_in_row": 3}, False, id="three reverts"),
        pytest.param({"reverts_in_row": 4}, False, id="four reverts"),
        pytest.param({"approval_cycles_in_row": 8}, False, id="eight approvals without a swap"),
        pytest.param({"is_stopped": True}, False, id="stopped before"),
    ],
)
def test_reverts_in_row_stop_the_agent_at_their_limits(failures: dict[str, object], passed: bool) -> None:
    step = replace(step_input(), history=history(**failures))

    assert verdict("reverts_in_row", step, sell_weth(step)).passed is passed


WAIT_S = 60
"""First wait of an exit after three failures of its own."""


@pytest.mark.parametrize(
    ("age_s", "spend_caps", "passed"),
    [
        pytest.param(WAIT_S, (), True, id="at the end of its wait"),
        pytest.param(WAIT_S - 1, (), False, id="one second earlier"),
        pytest.param(WAIT_S - 1, ((WETH.address, ETHER),), True, id="after the approvals of this step"),
    ],
)
def test_reverts_in_row_let_an_exit_retry_after_its_wait(age_s: int, spend_caps: Sequence[tuple[str, int]], passed: bool) -> None:
    failed_exit = ExitFailures(WETH.address, 3, 0, NOW_S - age_s)
    step = replace(step_input(), history=history(reverts_in_row=3, failed_exits=(failed_exit,)))
    step = replace(step, progress=replace(step.progress, spend_caps=tuple(spend_caps)))

    assert verdict("reverts_in_row", step, exit_plan(sell_weth(step))).passed is passed


def test_reverts_in_row_of_others_hold_no_exit_back() -> None:
    step = replace(step_input(), history=history(reverts_in_row=3, failed_exits=(ExitFailures(WBTC.address, 3, 0, NOW_S),)))

    assert verdict("reverts_in_row", step, exit_plan(sell_weth(step))).passed


def test_reverts_in_row_have_the_command_in_their_remedy() -> None:
    assert "trimtab resume" in REMEDIES["reverts_in_row"]


def test_reverts_in_row__success_after_the_stop__says_that_it_stays() -> None:
    step = replace(step_input(), history=history(is_stopped=True, reverts_in_row=0))

    judged = verdict("reverts_in_row", step, sell_weth(step))

    assert_refused(judged, "0 reverts", "an exit succeeded since", "stays stopped until trimtab resume")
    still_failing = replace(step_input(), history=history(is_stopped=True, reverts_in_row=3))
    assert "succeeded" not in verdict("reverts_in_row", still_failing, sell_weth(step)).measured_text


# --- gas_price, gas_per_day and native_floor


def step_at_gas_price(base_fee_wei: int, tip_wei: int) -> StepInput:
    """Return a step with all approvals, one native coin and this gas price."""
    step = approved(step_input())
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei), priority_fee_wei=tip_wei, native_wei=ETHER)


@pytest.mark.parametrize(
    ("tip_wei", "measured", "passed"),
    [
        pytest.param(GWEI, "60 gwei", True, id="at the limit"),
        pytest.param(GWEI + 1, "60.000000001 gwei", False, id="one wei beyond"),
    ],
)
def test_gas_price_is_base_fee_and_tip(tip_wei: int, measured: str, passed: bool) -> None:
    step = step_at_gas_price(59 * GWEI, tip_wei)

    judged = verdict("gas_price", step, sell_weth(step))

    assert (judged.measured_text, judged.limit, judged.passed) == (measured, "60 gwei", passed)


@pytest.mark.parametrize(("limit_wei", "passed"), [(50 * GWEI, True), (50 * GWEI - 1, False)], ids=["at the limit", "one wei beyond"])
def test_gas_price_without_base_fee_is_the_node_s(limit_wei: int, passed: bool) -> None:
    step = with_limits(step_at_gas_price(0, 0), gas_price_wei=limit_wei)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=None), gas_price_wei=50 * GWEI)

    assert verdict("gas_price", step, sell_weth(step)).passed is passed


WORST_GAS_WEI = 250_000 * 21 * GWEI
"""200,000 gas and a quarter, at twice 10 gwei and a tip of 1."""
DAY_LIMIT_WEI = ETHER // 20


@pytest.mark.parametrize(
    ("spent_wei", "passed"),
    [
        pytest.param(DAY_LIMIT_WEI - WORST_GAS_WEI, True, id="at the limit"),
        pytest.param(DAY_LIMIT_WEI - WORST_GAS_WEI + 1, False, id="one wei beyond"),
    ],
)
def test_gas_per_day_adds_the_most_that_the_plan_may_burn(spent_wei: int, passed: bool) -> None:
    step = with_history(with_limits(step_at_gas_price(10 * GWEI, GWEI), gas_per_day_wei=DAY_LIMIT_WEI), gas_24h_wei=spent_wei)

    assert verdict("gas_per_day", step, sell_weth(step)).passed is passed


@pytest.mark.parametrize(
    ("spent_wei", "passed"),
    [
        pytest.param(DAY_LIMIT_WEI // 2 - WORST_GAS_WEI, True, id="at half of the limit"),
        pytest.param(DAY_LIMIT_WEI // 2 - WORST_GAS_WEI + 1, False, id="one wei beyond"),
    ],
)
def test_gas_per_day_leaves_half_to_others_after_a_failing_exit(spent_wei: int, passed: bool) -> None:
    step = with_limits(step_at_gas_price(10 * GWEI, GWEI), gas_per_day_wei=DAY_LIMIT_WEI)
    step = with_history(step, gas_24h_wei=spent_wei, failed_exits=(ExitFailures(WETH.address, 3, 0, NOW_S),))

    judged = verdict("gas_per_day", step, exit_plan(sell_weth(step)))

    assert judged.passed is passed
    assert judged.limit == "0.025 native after this exit's 3 reverts, 0 approval cycles without a swap"


@pytest.mark.parametrize(("gas_price_wei", "passed"), [(15 * GWEI, True), (None, False)], ids=["gas_price of 15 gwei", "gas_price off"])
def test_gas_per_day_counts_at_most_the_gas_price_limit(gas_price_wei: int | None, passed: bool) -> None:
    step = with_limits(step_at_gas_price(10 * GWEI, GWEI), gas_price_wei=gas_price_wei, gas_per_day_wei=250_000 * 15 * GWEI)

    assert verdict("gas_per_day", step, sell_weth(step)).passed is passed


def test_gas_per_day_of_an_unknown_day_holds_rebalances_back() -> None:
    unread_step = with_history(step_input(), unknown_reason="block 7 cannot be read")
    unpriced_step = with_history(step_input(), unknown_reason="LINK has no price", unpriced_falls_reason="LINK has no price")
    plan = sell_weth(step_input())

    assert_refused(verdict("gas_per_day", unread_step, exit_plan(plan)), "unknown", "block 7")
    assert_refused(verdict("gas_per_day", unpriced_step, plan), "unknown", "LINK")
    assert verdict("gas_per_day", unpriced_step, exit_plan(plan)).passed


@pytest.mark.parametrize(
    ("spare_wei", "measured", "passed"),
    [
        pytest.param(0, "0.05 native", True, id="at the floor"),
        pytest.param(-1, "0.049999999999999999 native", False, id="one wei less"),
    ],
)
def test_native_floor_counts_all_gas_of_the_plan(spare_wei: int, measured: str, passed: bool) -> None:
    step = with_snapshot(step_at_gas_price(10 * GWEI, GWEI), native_wei=FLOOR_WEI + WORST_GAS_WEI + spare_wei)

    judged = verdict("native_floor", step, sell_weth(step))

    assert (judged.measured_text, judged.limit, judged.passed) == (measured, "at least 0.05 native", passed)


@pytest.mark.parametrize(
    ("unwrapped_wei", "passed"),
    [
        pytest.param(WORST_GAS_WEI + 1, True, id="one wei more than its gas"),
        pytest.param(WORST_GAS_WEI, False, id="no more than its gas"),
    ],
)
def test_native_floor_of_a_refill_needs_more_than_its_gas(unwrapped_wei: int, passed: bool) -> None:
    step = with_snapshot(step_at_gas_price(10 * GWEI, GWEI), native_wei=WORST_GAS_WEI)
    sale = replace(sell_weth(step), decision=TopUp("short of gas", unwrapped_wei))
    unwrap = with_leg(sale, 0, venue=NATIVE_VENUE, pool=WETH.address, token_out=NATIVE, amount_in_raw=unwrapped_wei)

    assert verdict("native_floor", step, unwrap).passed is passed


def test_native_floor_counts_what_the_plan_unwraps() -> None:
    step = with_snapshot(step_at_gas_price(10 * GWEI, GWEI), native_wei=WORST_GAS_WEI)
    unwrap = with_leg(sell_weth(step), 0, venue=NATIVE_VENUE, pool=WETH.address, token_out=NATIVE, amount_in_raw=FLOOR_WEI)

    assert verdict("native_floor", step, unwrap).passed
    assert_refused(verdict("native_floor", step, with_leg(unwrap, 0, amount_in_raw=FLOOR_WEI - 1)), "0.049999999999999999 native")


def test_worst_gas_of_an_odd_estimate_is_rounded_up() -> None:
    step = step_at_gas_price(0, GWEI)
    plan = replace(sell_weth(step), gas_units=3)

    assert build_guard_case(step, plan, evidence(step, plan)).worst_gas_wei() == 4 * GWEI


def test_worst_gas_without_base_fee_is_at_the_node_s_price() -> None:
    step = step_at_gas_price(0, 0)
    head = step.snapshot.head
    step = with_snapshot(step, head=Head(1, 1_000, head.hash, head.timestamp_s, None), gas_price_wei=7 * GWEI)
    plan = replace(sell_weth(step), gas_units=4)

    assert build_guard_case(step, plan, evidence(step, plan)).worst_gas_wei() == 35 * GWEI


def test_native_floor__replay_fails__counts_no_unwrapped_coin() -> None:
    step = with_snapshot(step_at_gas_price(10 * GWEI, GWEI), native_wei=WORST_GAS_WEI)
    unwrap = with_leg(sell_weth(step), 0, venue=NATIVE_VENUE, pool=WETH.address, token_out=NATIVE, amount_in_raw=2 * FLOOR_WEI)
    impossible_leg = replace(unwrap.legs[0], pool=USDC.address)

    plan = replace(unwrap, legs=(*unwrap.legs, impossible_leg))

    assert verdict("native_floor", step, unwrap).passed
    assert_refused(verdict("native_floor", step, plan), "unknown", "does not convert")
