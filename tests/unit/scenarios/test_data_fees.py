"""Data fees: bounds against the contracts' formulas, answers of oracles, and their part in cost, caps and simulations."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.chain.tokens import encode_approve
from agent.errors import Refused, Retryable
from agent.execution.submission.checks import require_granted_data_fee
from agent.guards.case import build_guard_case
from agent.layers.liquidity.composer import encode_liquidity
from agent.model import (
    Allowance,
    DataFeeQuote,
    IntentKind,
    MarginDeposit,
    PerpOrder,
    PerpOrderKind,
    Snapshot,
    UnreadableItem,
    UnsignedTx,
)
from agent.model.rollups import DATA_FEE_ITEM, ENVELOPE_BYTES, MAX_FEE_RISE, MAX_TX_BYTES, OPERATOR_SAMPLE_GAS
from agent.planning import proposals
from agent.planning.approval_gas import calldata_sizes, legs_bytes, with_data_fee
from agent.policy import minimum, native_coin
from agent.policy.minimum import ACTION_BYTES, APPROVAL_BYTES
from agent.policy.step_faults import data_fee_fault
from agent.ports import Grant, Simulation
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses, futures_call
from tests.support.builders import OWNER, ROUTER, step_input, with_limits, with_snapshot
from tests.support.plans import evidence, sell_weth, verdict
from tests.support.signing import ACTIONS, STRANGER

QUOTE = DataFeeQuote(10**12, 10**15, 7, 7 + OPERATOR_SAMPLE_GAS // 10)


def fjord(flz_bytes: int, base_scalar: int, base_fee: int, blob_scalar: int, blob_fee: int) -> int:
    """GasPriceOracle._fjordL1Cost of ethereum-optimism/optimism, packages/contracts-bedrock/src/L2/GasPriceOracle.sol."""
    estimated = max(100 * 10**6, -42_585_600 + 836_500 * flz_bytes)
    return estimated * (base_scalar * 16 * base_fee + blob_scalar * blob_fee) // 10**12


def upper_bound(size: int, *prices: int) -> int:
    """GasPriceOracle.getL1FeeUpperBound of an unsigned transaction of `size` bytes."""
    padded = size + 68
    return fjord(padded + padded // 255 + 16, *prices)


PRICES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**12), st.integers(0, 2**32 - 1), st.integers(0, 10**12))


@given(calldata=st.integers(0, MAX_TX_BYTES * 31 // 32 - 1_000), prices=PRICES)
def test_the_bound_is_not_below_the_fee_of_any_transaction(calldata: int, prices: tuple[int, int, int, int]) -> None:
    quote = DataFeeQuote(upper_bound(0, *prices), upper_bound(MAX_TX_BYTES, *prices))
    unsigned = calldata + ENVELOPE_BYTES
    assert quote.max_data_fee_wei(calldata) >= upper_bound(unsigned, *prices)
    # FastLZ writes at most a control byte for each 32 bytes that it cannot compress; 68 bytes are the signature.
    assert quote.max_data_fee_wei(calldata) >= fjord(unsigned + -(-unsigned // 32) + 68, *prices)
    assert quote.max_data_fee_wei(calldata) <= 2 * upper_bound(unsigned, *prices) + 2


@given(gas=st.integers(0, 30_000_000), scalar=st.integers(0, 2**32 - 1), constant=st.integers(0, 2**64 - 1), jovian=st.booleans())
def test_the_operator_fee_is_not_below_that_of_the_gas(gas: int, scalar: int, constant: int, jovian: bool) -> None:
    def fee(units: int) -> int:
        return constant + (units * scalar * 100 if jovian else units * scalar // 10**6)

    quote = DataFeeQuote(0, 0, fee(0), fee(OPERATOR_SAMPLE_GAS))
    assert fee(gas) <= quote.max_fee_beyond_gas_wei(gas, 100) <= fee(gas) + 2


@pytest.mark.parametrize(("calldata_bytes", "counted_bytes"), [(0, 187), (12, 199), (13, 201)])
def test_the_bound_counts_a_byte_for_each_32_begun_and_another(calldata_bytes: int, counted_bytes: int) -> None:
    assert DataFeeQuote(0, MAX_TX_BYTES).max_data_fee_wei(calldata_bytes) == counted_bytes


@pytest.mark.parametrize(("gas", "fee_wei"), [(0, 0), (1, 1), (OPERATOR_SAMPLE_GAS, 1), (OPERATOR_SAMPLE_GAS + 1, 2)])
def test_the_operator_fee_is_rounded_up(gas: int, fee_wei: int) -> None:
    assert DataFeeQuote(0, 0, 0, 1).max_fee_beyond_gas_wei(gas) == fee_wei


@given(least=st.integers(1, 10**18), more=st.integers(0, 10**18), empty=st.integers(0, 10**18), size=st.integers(0, 100_000))
def test_expected_fee__is_between_that_of_nothing_and_the_bound(least: int, more: int, empty: int, size: int) -> None:
    quote = DataFeeQuote(empty, empty + 10**18, 3, 3 + OPERATOR_SAMPLE_GAS, least, least + more)
    assert empty <= quote.expected_data_fee_wei(size) <= quote.max_data_fee_wei(size)
    assert quote.expected_data_fee_wei(size) <= quote.expected_data_fee_wei(size + 512)
    assert quote.expected_fee_beyond_gas_wei(1_000, size, size) == 2 * quote.expected_data_fee_wei(size) + 2 * 3 + 1_000


def test_expected_swap_fee__is_on_the_line_of_typical_ones() -> None:
    quote = DataFeeQuote(100, 10**9, one_swap_wei=200, four_swaps_wei=500)
    fees = [quote.expected_data_fee_wei(legs_bytes(legs)) for legs in ([None] * number for number in (1, 2, 4, 8))]
    assert fees == [200, 300, 500, 900]
    assert quote.expected_data_fee_wei(APPROVAL_BYTES) == 100, "no transaction pays less than an empty least"


def test_plans_count_the_expected_fee_and_caps_twice_the_bound() -> None:
    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    typical = replace(QUOTE, one_swap_wei=2 * 10**12, four_swaps_wei=4 * 10**12)
    loose, tight = (with_snapshot(step, data_fee=quote) for quote in (QUOTE, typical))
    plans = [proposals.propose_rebalance(rollup).plan for rollup in (loose, tight)]
    assert plans[0] is not None
    assert plans[1] is not None
    assert plans[1].cost.data_fee < plans[0].cost.data_fee
    cases = [build_guard_case(rollup, plans[1], evidence(rollup, plans[1])) for rollup in (loose, tight)]
    assert cases[1].cost() < cases[0].cost()
    assert cases[1].worst_gas_wei() == cases[0].worst_gas_wei()
    assert native_coin.worst_gas_cost_wei(tight.snapshot, tight.limits) == native_coin.worst_gas_cost_wei(loose.snapshot, loose.limits)
    assert native_coin.data_fee_cap_wei(tight.snapshot, TX) == native_coin.data_fee_cap_wei(loose.snapshot, TX)
    price = Fraction(1, 10**9)
    assert minimum.leg_gas_value(tight.snapshot, price) < minimum.leg_gas_value(loose.snapshot, price)


def test_no_action_has_more_calldata_than_its_plan_counts() -> None:
    order = PerpOrder(OWNER, -(10**24), PerpOrderKind.MARKET, 10**24, is_reduce_only=True)
    for_another = PerpetualProtocolAddresses(*[OWNER] * 3, trader=STRANGER)
    calls = [encode_liquidity(action, OWNER, 2**40) for action in ACTIONS.values()]
    calls += [futures_call(action, for_another, OWNER, OWNER, 2**40)[1] for action in (order, MarginDeposit(10**24))]
    assert max(len(data) // 2 - 1 for data in calls) <= ACTION_BYTES
    assert len(encode_approve(OWNER, 2**256 - 1)) // 2 - 1 == APPROVAL_BYTES


def test_cost_and_caps_contain_the_fee() -> None:
    plain = step_input()
    rollup = with_snapshot(plain, data_fee=QUOTE)
    plan = sell_weth(plain)
    cases = [build_guard_case(step, plan, evidence(step, plan)) for step in (plain, rollup)]
    units = cases[0].gas_units()
    more_wei = cases[1].data_fee_wei(units)
    assert more_wei > QUOTE.max_data_fee_wei(0) > 0 == cases[0].data_fee_wei(units)
    assert cases[1].cost() - cases[0].cost() == more_wei * cases[0].price(plain.portfolio.wrapped_native)
    worst_wei = cases[1].worst_gas_wei() - cases[0].worst_gas_wei()
    assert worst_wei >= MAX_FEE_RISE * more_wei
    limit_wei = plain.history.budgets.gas_24h_wei + cases[0].worst_gas_wei()
    for guard, limits in (
        ("gas_per_day", {"gas_per_day_wei": limit_wei}),
        ("native_floor", {"native_floor_wei": plain.snapshot.native_wei - cases[0].worst_gas_wei()}),
    ):
        assert verdict(guard, with_limits(plain, **limits), plan).passed
        assert not verdict(guard, with_limits(rollup, **limits), plan).passed
    price = Fraction(1, 10**9)
    assert minimum.leg_gas_value(rollup.snapshot, price) > minimum.leg_gas_value(plain.snapshot, price)
    assert native_coin.worst_gas_cost_wei(rollup.snapshot, rollup.limits) > native_coin.worst_gas_cost_wei(plain.snapshot, plain.limits)
    assert native_coin.unwrap_cost_wei(rollup.snapshot, rollup.limits) > native_coin.unwrap_cost_wei(plain.snapshot, plain.limits)


@pytest.mark.parametrize(("allowed_raw", "approvals"), [(10**30, 0), (0, 1), (1, 2)])
def test_plan__pays_for_the_data_of_swap_and_approvals(allowed_raw: int, approvals: int) -> None:
    """In wei, valued by the native coin's price; an allowance that is too small is reset first."""
    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    allowances = tuple(Allowance(asset.token.address, ROUTER, allowed_raw) for asset in step.portfolio.assets)
    step = with_snapshot(step, data_fee=QUOTE, allowances=allowances)
    plan = sell_weth(step)
    units = plan.gas_units + approvals * minimum.APPROVAL_GAS
    sizes = (minimum.LEG_BYTES * (len(plan.legs) + 1), *[APPROVAL_BYTES] * approvals)
    assert calldata_sizes(step, plan) == sizes
    fee_wei = QUOTE.max_fee_beyond_gas_wei(units, *sizes)
    assert fee_wei >= (approvals + 1) * (QUOTE.empty_tx_wei + QUOTE.operator_wei)
    price = Fraction(2_000 * 10**6, 10**18)
    charged = with_data_fee(step, plan, price)
    assert charged.cost.data_fee == charged.cost.gas - plan.cost.gas == fee_wei * price
    case = build_guard_case(step, plan, evidence(step, plan))
    assert case.cost() - case.trading_cost() == (units * case.gas_price_wei() + fee_wei) * price
    planned = proposals.propose_rebalance(step).plan
    sizes = (minimum.LEG_BYTES * (len(planned.legs) + 1), *[APPROVAL_BYTES] * approvals)
    fee_wei = QUOTE.max_fee_beyond_gas_wei(planned.gas_units + approvals * minimum.APPROVAL_GAS, *sizes)
    assert abs(planned.cost.data_fee / price - fee_wei) <= 1, "swap and approvals are rounded up by themselves"


def test_the_fee_of_small_parts_is_in_wei_like_their_gas() -> None:
    plain = step_input()
    rollup = with_snapshot(plain, data_fee=QUOTE)
    price = Fraction(1, 10**9)
    leg = minimum.leg_gas_value(rollup.snapshot, price) - minimum.leg_gas_value(plain.snapshot, price)
    assert leg == QUOTE.max_fee_beyond_gas_wei(minimum.LEG_GAS, minimum.LEG_BYTES) * price
    margin_wei = native_coin.worst_gas_cost_wei(rollup.snapshot, rollup.limits) - native_coin.worst_gas_cost_wei(
        plain.snapshot, plain.limits
    )
    assert margin_wei == MAX_FEE_RISE * QUOTE.max_fee_beyond_gas_wei(native_coin.STEP_GAS, *native_coin.STEP_BYTES)
    least_wei = native_coin.gas_cost_with_margin_wei(rollup.snapshot, 100_000) - native_coin.gas_cost_with_margin_wei(
        plain.snapshot, 100_000
    )
    assert least_wei == QUOTE.max_fee_beyond_gas_wei(125_000, native_coin.UNWRAP_BYTES)
    assert native_coin.data_fee_cap_wei(rollup.snapshot, TX) == MAX_FEE_RISE * QUOTE.max_fee_beyond_gas_wei(TX.gas, 100)


@pytest.mark.parametrize(("base_fee_wei", "gas"), [(3, 67), (4, 50), (200, 1), (201, 1)])
def test_the_gas_of_a_fee_that_is_charged_as_gas_is_rounded_up(base_fee_wei: int, gas: int) -> None:
    step = step_input()
    quote = DataFeeQuote(100, 100, is_charged_as_gas=True)
    head = replace(step.snapshot.head, base_fee_wei=base_fee_wei)
    snapshot = with_snapshot(step, data_fee=quote, head=head).snapshot
    assert snapshot.max_data_gas(0) == gas
    assert with_snapshot(step, data_fee=replace(quote, is_charged_as_gas=False), head=head).snapshot.max_data_gas(0) == 0


def test_the_fee_is_valued_where_gas_is_free() -> None:
    step = step_input(values={"WETH": 7_000, "USDC": 3_000})
    free = replace(step.snapshot.head, base_fee_wei=0)
    plan = proposals.propose_rebalance(with_snapshot(step, data_fee=QUOTE, head=free, priority_fee_wei=0)).plan
    assert plan.cost.gas + plan.cost.approval_gas >= plan.cost.data_fee > 0


def test_an_unread_fee_halts_and_refuses() -> None:
    step = step_input()
    plan = sell_weth(step)
    unread = with_snapshot(step, unreadable_items=(UnreadableItem(DATA_FEE_ITEM, OWNER, "there is no contract"),))
    assert "there is no contract" in data_fee_fault(unread.snapshot)
    assert data_fee_fault(step.snapshot) == ""
    judged = verdict("gas_per_day", with_limits(unread, gas_per_day_wei=10**30), plan)
    assert not judged.passed
    assert "data fee" in judged.measured_text
    with pytest.raises(Refused, match="data fee is unknown"):
        native_coin.data_fee_cap_wei(unread.snapshot, TX)


def test_a_stored_snapshot_keeps_the_fee_or_none() -> None:
    snapshot = step_input().snapshot
    assert codec.loads(Snapshot, codec.dumps(snapshot)).data_fee is None
    read = replace(snapshot, data_fee=QUOTE)
    assert codec.loads(Snapshot, codec.dumps(read)).data_fee == QUOTE


TX = UnsignedTx(31337, 0, OWNER, 0, "0x" + "11" * 100, 50_000, 100, 1, None)


def test_fee_above_the_granted__is_refused_but_for_revocations() -> None:
    grant = Grant(IntentKind.SWAP, 0, 1, 0, max_data_fee_wei=10)
    head = step_input().snapshot.head
    require_granted_data_fee(Simulation(True, "", 1, head, data_fee_wei=10), grant)
    with pytest.raises(Refused, match="data fee rose"):
        require_granted_data_fee(Simulation(True, "", 1, head, data_fee_wei=11), grant)
    revocation = replace(grant, kind=IntentKind.APPROVE, approval_terms=(OWNER, OWNER, 0))
    require_granted_data_fee(Simulation(True, "", 1, head, data_fee_wei=11), revocation)
    unknown = Simulation(True, "", 1, head, data_fee_unknown_reason="the data fee is unknown")
    require_granted_data_fee(unknown, revocation)
    for capped in (grant, replace(grant, max_data_fee_wei=None)):
        with pytest.raises(Retryable, match="data fee"):
            require_granted_data_fee(unknown, capped)
    require_granted_data_fee(Simulation(True, "", 1, head, data_fee_wei=11), replace(grant, max_data_fee_wei=None))
