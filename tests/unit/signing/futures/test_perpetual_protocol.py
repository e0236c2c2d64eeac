"""Each clause of the signer's rule for futures, by the transaction that only this clause refuses; mutations (threats T4, T12)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
from eth_abi.abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import IntentKind, UnsignedTx
from agent.model.futures import DelegateChange, MarginDeposit, MarginWithdrawal, PerpOrder, PerpOrderKind, Position
from agent.ports import Grant
from agent.signing import futures
from agent.signing.rules import SigningRules
from agent.units import NATIVE, UINT256_MAX
from agent.venues.perpetual_protocol import encode_delegate, encode_deposit, encode_withdrawal
from tests.support.samples import examples
from tests.support.signables import calldata, cut_or_lengthened, edited_words, flipped_bits, overwritten, signs, with_bytes
from tests.support.signing import (  # fmt: skip
    ACCOUNT,
    ALLOW,
    BUY,
    CONTRACTS,
    DEADLINE_S,
    DELEGATE,
    DELEGATE_BUY,
    DELEGATE_RULES,
    DELEGATES,
    DEPOSIT,
    END,
    ESCAPE,
    FUTURES,
    FUTURES_ALLOWED,
    FUTURES_RULES,
    HOUSE,
    MAX_GAS_WEI,
    NOW_S,
    REDUCE,
    ROUTER,
    RULES,
    SHORT,
    STRANGER,
    TAKE_OUT,
    TRADER,
    USDC,
    VAULT,
    VBTC,
    VETH,
    WAD,
    WALLET,
    WBTC,
    WETH,
    futures_grant,
    order_tx,
    signer,
    tx,
)

SIGNER = signer(FUTURES_RULES)
is_signed = partial(signs, SIGNER)
ORDERS = {"buy": BUY, "short": SHORT, "reduce": REDUCE}
CALLS = {name: pair for name, pair in FUTURES_ALLOWED.items() if pair[1].kind is IntentKind.FUTURES}


def refused(transaction: UnsignedTx, grant: Grant, rule: str, rules: SigningRules = FUTURES_RULES) -> None:
    with pytest.raises(Refused) as refusal:
        signer(rules).sign(transaction, grant)
    assert refusal.value.verdicts[0].guard == f"signer.{rule}", refusal.value.message


def assert_changed_order_refused(order: PerpOrder, rule: str, rules: SigningRules = FUTURES_RULES, **fields: object) -> None:
    """Asserts that the order with these fields, granted as it is sent, is refused by `rule`."""
    other = replace(order, **fields)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    refused(order_tx(other), futures_grant(other), rule, rules)


@pytest.mark.parametrize("name", FUTURES_ALLOWED)
def test_each_action_is_signed_as_granted(name: str) -> None:
    assert SIGNER.sign(*FUTURES_ALLOWED[name]).hash


def test_nothing_is_signed_without_configured_futures() -> None:
    for name, (transaction, grant) in FUTURES_ALLOWED.items():
        refused(transaction, grant, "approval" if "approve" in name else "futures", RULES)


@pytest.mark.parametrize("name", CALLS)
def test_only_the_pinned_contract_of_each_call_is_reached(name: str) -> None:
    transaction, grant = CALLS[name]
    for to in {HOUSE, VAULT, DELEGATES, USDC, ROUTER, STRANGER, WALLET} - {transaction.to}:
        refused(replace(transaction, to=to), grant, "contract")


@pytest.mark.parametrize("name", CALLS)
def test_futures_carry_no_coin_and_stay_on_their_chain(name: str) -> None:
    transaction, grant = CALLS[name]
    refused(replace(transaction, value_wei=1), grant, "value")
    refused(replace(transaction, chain_id=1), grant, "chain_id")


@pytest.mark.parametrize("name", CALLS)
def test_no_action_is_signed_on_the_grant_of_another(name: str) -> None:
    transaction, _ = CALLS[name]
    for other, (_, grant) in CALLS.items():
        if other != name:
            assert not is_signed(transaction, grant)
    bare_grant = Grant(IntentKind.FUTURES, NOW_S, NOW_S + 90, MAX_GAS_WEI)
    refused(transaction, bare_grant, "action")


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [("market", VBTC, "market"), ("market", VETH, "market"), ("size_raw", WAD + 1, "size"), ("size_raw", -WAD - 1, "size"),
     ("bound_raw", 1, "bound"), ("bound_raw", UINT256_MAX, "bound")],
)  # fmt: skip
def test_market_size_and_bound_are_exactly_the_granted_ones(order: PerpOrder, field: str, value: object, rule: str) -> None:
    if getattr(order, field) != value:
        refused(order_tx(replace(order, **{field: value})), futures_grant(order), rule)  # type: ignore[arg-type]


def test_order_in_another_market_or_kind_is_refused() -> None:
    assert_changed_order_refused(BUY, "market", market=WETH)
    assert_changed_order_refused(BUY, "market", replace(RULES, futures=replace(FUTURES, markets=(VBTC,))))
    refused(order_tx(BUY), futures_grant(replace(BUY, kind=PerpOrderKind.LIMIT)), "order")
    blind_account = replace(ACCOUNT, markets=ACCOUNT.markets[1:])
    refused(order_tx(BUY), futures_grant(BUY, blind_account), "market")


@pytest.mark.parametrize("name", ["futures: buy", "futures: short", "futures: reduce"])
@pytest.mark.parametrize("deadline_s", [NOW_S, NOW_S - 1, NOW_S + 91, 2**255])
def test_deadline_is_short_and_within_the_grant(name: str, deadline_s: int) -> None:
    order = ORDERS[name.split()[1]]
    refused(order_tx(order, deadline_s=deadline_s), futures_grant(order), "deadline")
    if deadline_s > NOW_S:
        refused(order_tx(order, deadline_s=deadline_s), replace(futures_grant(order), deadline_s=2**256), "deadline")


@pytest.mark.parametrize(
    ("order", "edge", "beyond"),
    [(BUY, 9_090 * WAD, 1), (SHORT, 5_940 * WAD, -1), (REDUCE, 2_970 * WAD, -1)],
    ids=["buy", "short", "reduce"],
)
def test_bound_beyond_the_slippage_from_index_is_refused(order: PerpOrder, edge: int, beyond: int) -> None:
    assert is_signed(order_tx(replace(order, bound_raw=edge)), futures_grant(replace(order, bound_raw=edge)))
    assert_changed_order_refused(order, "bound", bound_raw=edge + beyond)


def test_purchase_of_one_base_unit_is_no_sale() -> None:
    assert_changed_order_refused(BUY, "bound", size_raw=1, bound_raw=BUY.bound_raw)


def test_wider_bound_of_an_emergency_needs_a_reduction() -> None:
    refused(order_tx(ESCAPE), futures_grant(ESCAPE), "bound")
    low = replace(ESCAPE, bound_raw=ESCAPE.bound_raw - 1)
    refused(order_tx(low), futures_grant(low, is_emergency=True), "bound")
    refused(order_tx(BUY), futures_grant(BUY, is_emergency=True), "emergency")


@pytest.mark.parametrize(("index_s", "is_fresh"), [(NOW_S - 3_600, True), (NOW_S - 3_601, False), (NOW_S, True), (NOW_S + 1, False)])
def test_stale_index_or_one_from_the_future_is_no_base(index_s: int, is_fresh: bool) -> None:
    aged_account = replace(ACCOUNT, markets=(replace(ACCOUNT.markets[0], index_s=index_s), ACCOUNT.markets[1]))
    if is_fresh:
        assert is_signed(order_tx(BUY), futures_grant(BUY, aged_account))
    else:
        refused(order_tx(BUY), futures_grant(BUY, aged_account), "index_age")


@pytest.mark.parametrize(("size", "rule"), [(-2 * WAD - 1, "reduce_only"), (WAD, "reduce_only"), (-2 * WAD, "")])
def test_reduction_only_makes_the_position_smaller(size: int, rule: str) -> None:
    order = PerpOrder(VETH, size, PerpOrderKind.MARKET, abs(size) * 3_000, True)
    if rule:
        refused(order_tx(order), futures_grant(order), rule)
    else:
        assert is_signed(order_tx(order), futures_grant(order))


def test_reduction_needs_a_position() -> None:
    refused(order_tx(REDUCE), futures_grant(REDUCE, replace(ACCOUNT, positions=())), "reduce_only")


def test_opening_order_ends_within_the_leverage_limit() -> None:
    """Gross 6,000 + 3,000 s against 10,000 less the 1 % of the bound and 0.1 % of fee: 3x ends between s = 7.74 and 7.75."""
    for hundredths, allowed in ((773, True), (776, False)):
        size = hundredths * WAD // 100
        order = PerpOrder(VETH, size, PerpOrderKind.MARKET, size * 3_030, False)
        gross, value = 6_000 + 30 * hundredths, 10_000 - Fraction(30 * hundredths, 100) - Fraction(3_030 * hundredths, 100_000)
        assert (gross <= 3 * value) is allowed
        if allowed:
            assert is_signed(order_tx(order), futures_grant(order))
        else:
            refused(order_tx(order), futures_grant(order), "leverage")


@pytest.mark.parametrize("less_raw", [1, 7, 999])
def test_leverage_fee_of_a_part_of_a_base_unit_counts_whole(less_raw: int) -> None:
    """After the fill the account is worth exactly nothing."""
    order = replace(BUY, bound_raw=BUY.bound_raw - less_raw)
    market = ACCOUNT.markets[0]
    mark_raw = int(order.size_raw * market.mark)
    fee = Fraction(max(mark_raw, order.bound_raw) * market.fee_ppm, 1_000_000)
    assert fee.denominator > 1
    collateral_raw = max(0, order.bound_raw - mark_raw) + fee.__ceil__()
    account = replace(ACCOUNT, collateral_raw=collateral_raw, positions=())
    with pytest.raises(Refused) as refusal:
        signer(FUTURES_RULES).sign(order_tx(order), futures_grant(order, account))
    assert refusal.value.verdicts[0].measured_text == "unlimited"


@pytest.mark.parametrize(
    ("collateral", "realised", "pending", "order"),
    [
        (10_000 * WAD, 0, 0, PerpOrder(VETH, 7 * WAD, PerpOrderKind.MARKET, 7 * 3_010 * WAD, False)),
        (9_000 * WAD, 1_000 * WAD + 1, 0, PerpOrder(VETH, 7 * WAD, PerpOrderKind.MARKET, 7 * 2_990 * WAD, False)),
        (9_000 * WAD, 0, -1_000 * WAD, PerpOrder(VBTC, WAD // 3, PerpOrderKind.MARKET, 20_100 * WAD, False)),
        (11_000 * WAD, 0, 1_000 * WAD + 7, PerpOrder(VBTC, -WAD // 3, PerpOrderKind.MARKET, 19_900 * WAD, False)),
        (12_000 * WAD, -2_000 * WAD, 0, PerpOrder(VETH, -9 * WAD, PerpOrderKind.MARKET, 9 * 2_980 * WAD, False)),
        (12_000 * WAD, -2_000 * WAD, 0, PerpOrder(VETH, -9 * WAD, PerpOrderKind.MARKET, 9 * 3_020 * WAD, False)),
    ],
)
def test_leverage_counts_all_value_and_the_worse_fill(collateral: int, realised: int, pending: int, order: PerpOrder) -> None:
    """Worked out here in fractions; the limit is put on either side of what the order reaches."""
    position = Position(VETH, 2 * WAD, -5_900 * WAD, funding_pending_raw=pending)
    account = replace(ACCOUNT, collateral_raw=collateral, realised_raw=realised, positions=(position,))
    prices = {market.market: market.mark for market in account.markets}
    mark_value = abs(order.size_raw) * prices[order.market]
    value = collateral + realised - 5_900 * WAD - pending + 2 * WAD * prices[VETH]
    value -= max(0, order.bound_raw - mark_value if order.size_raw > 0 else mark_value - order.bound_raw)
    value -= (max(mark_value, order.bound_raw) / 1_000).__ceil__()
    sizes = {VETH: 2 * WAD}
    sizes[order.market] = sizes.get(order.market, 0) + order.size_raw
    gross = sum(abs(int(size * prices[name])) for name, size in sizes.items())
    least_limit_bps = (gross * 10_000 / value).__ceil__()
    for limit_bps, is_within in ((least_limit_bps, True), (least_limit_bps - 1, False)):
        rules = replace(FUTURES_RULES, futures=replace(FUTURES, max_leverage_bps=limit_bps))
        if is_within:
            assert signer(rules).sign(order_tx(order), futures_grant(order, account)).hash
        else:
            refused(order_tx(order), futures_grant(order, account), "leverage", rules)


def test_opening_on_a_worthless_or_unread_account_is_refused() -> None:
    empty_account = replace(ACCOUNT, collateral_raw=0, positions=())
    refused(order_tx(BUY), futures_grant(BUY, empty_account), "leverage")
    mark_raw = int(BUY.size_raw * empty_account.markets[0].mark)
    cost_raw = max(0, BUY.bound_raw - mark_raw) + -(-max(mark_raw, BUY.bound_raw) * empty_account.markets[0].fee_ppm // 1_000_000)
    for collateral_raw, leverage in ((cost_raw, "unlimited"), (cost_raw + 1, "x")):  # worth exactly nothing after the fill, and one more
        with pytest.raises(Refused) as refusal:
            signer(FUTURES_RULES).sign(order_tx(BUY), futures_grant(BUY, replace(empty_account, collateral_raw=collateral_raw)))
        assert str(refusal.value.verdicts[0].measured_text).endswith(leverage)
    blind_account = replace(ACCOUNT, markets=ACCOUNT.markets[:1], positions=(*ACCOUNT.positions, Position(VBTC, WAD, -WAD)))
    refused(order_tx(BUY), futures_grant(BUY, blind_account), "market")


@pytest.mark.parametrize("field", ["index", "mark"])
def test_order_in_a_market_without_a_price_is_refused(field: str) -> None:
    for price in (0, -1):
        market = replace(ACCOUNT.markets[0], **{field: Fraction(price)})
        account = replace(ACCOUNT, markets=(market, ACCOUNT.markets[1]))
        refused(order_tx(REDUCE), futures_grant(REDUCE, account), "market")


def test_calldata_of_an_unknown_function_is_not_decoded() -> None:
    for data in (b"", b"\0" * 4, bytes.fromhex(encode_deposit(USDC, 1)[2:])[:3]):
        with pytest.raises(futures.UndecodableCalldata, match="unknown function"):
            futures.decode(data)


def test_turned_position_is_held_to_the_leverage_limit() -> None:
    """Selling 12 of a long of 2 leaves a short of 10: 30,000 of notional on less than 10,000."""
    order = PerpOrder(VETH, -12 * WAD, PerpOrderKind.MARKET, 12 * 2_990 * WAD, False)
    refused(order_tx(order), futures_grant(order), "leverage")


def test_losses_and_funding_count_in_the_leverage() -> None:
    for poorer_account in (
        replace(ACCOUNT, realised_raw=-6_000 * WAD),
        replace(ACCOUNT, collateral_raw=4_000 * WAD),
        replace(ACCOUNT, positions=(Position(VETH, 2 * WAD, -6_000 * WAD, 6_000 * WAD),)),
        replace(ACCOUNT, positions=(Position(VETH, 2 * WAD, -12_000 * WAD),)),
        replace(ACCOUNT, collateral_raw=0),
    ):
        refused(order_tx(BUY), futures_grant(BUY, poorer_account), "leverage")
        assert is_signed(order_tx(REDUCE), futures_grant(REDUCE, poorer_account)), "a reduction is never held back by leverage"


def test_order_trades_for_the_configured_account_only() -> None:
    assert signer(DELEGATE_RULES).sign(DELEGATE_BUY, futures_grant(BUY)).hash
    refused(order_tx(BUY), futures_grant(BUY), "trader", DELEGATE_RULES)
    refused(DELEGATE_BUY, futures_grant(BUY), "trader")
    refused(order_tx(BUY, replace(CONTRACTS, trader=STRANGER)), futures_grant(BUY), "trader", DELEGATE_RULES)


@pytest.mark.parametrize("name", ["futures: deposit", "futures: withdraw", "futures: allow", "futures: end"])
def test_delegate_touches_neither_margin_nor_delegates(name: str) -> None:
    refused(*CALLS[name], "trader", DELEGATE_RULES)


@pytest.mark.parametrize(("action", "encode"), [(DEPOSIT, encode_deposit), (TAKE_OUT, encode_withdrawal)])
def test_margin_moves_are_exact_and_of_the_collateral(action: MarginDeposit | MarginWithdrawal, encode: object) -> None:
    assert callable(encode)
    for token, raw, rule in ((WBTC, action.raw, "tokens"), (USDC, action.raw + 1, "amount"), (USDC, action.raw - 1, "amount")):
        refused(tx(VAULT, encode(token, raw)), futures_grant(action), rule)
    refused(tx(VAULT, encode(USDC, 0)), futures_grant(replace(action, raw=0)), "amount")


@pytest.mark.parametrize("is_allowed", [True, False])
def test_only_the_configured_delegate_may_be_allowed_or_ended(is_allowed: bool) -> None:
    for other in (STRANGER, NATIVE, WALLET, TRADER):
        action = DelegateChange(other, is_allowed)
        refused(tx(DELEGATES, encode_delegate(other, is_allowed=is_allowed)), futures_grant(action), "delegate")
    action = ALLOW if is_allowed else END
    refused(tx(DELEGATES, encode_delegate(DELEGATE, is_allowed=not is_allowed)), futures_grant(action), "delegate")
    rules_without_delegate = replace(RULES, futures=replace(FUTURES, delegate=None))
    refused(tx(DELEGATES, encode_delegate(DELEGATE, is_allowed=is_allowed)), futures_grant(action), "delegate", rules_without_delegate)


@pytest.mark.parametrize("right", [0, 2, 3, 255, UINT256_MAX])
def test_delegate_gets_the_right_to_trade_and_no_other(right: int) -> None:
    """2 is the right to provide liquidity, 3 both."""
    data = "0x" + (futures.APPROVE + abi_encode(["address", "uint256"], [DELEGATE, right])).hex()
    refused(tx(DELEGATES, data), futures_grant(ALLOW), "call")


@pytest.mark.parametrize(
    ("position", "word"),
    [(1, 0), (2, 0), (1, 2), (2, 2), (6, 1), (7, 1)],
    ids=["not a sale", "not exact in", "side of two", "input of two", "price limit", "referral"],
)
def test_each_other_field_of_an_order_has_one_value(position: int, word: int) -> None:
    data = bytearray(calldata(order_tx(SHORT)))
    offset = 4 + 32 * position
    data[offset : offset + 32] = word.to_bytes(32, "big")
    refused(with_bytes(order_tx(SHORT), bytes(data)), futures_grant(SHORT), "call")


def test_vault_is_approved_for_exactly_the_deposit() -> None:
    transaction, grant = FUTURES_ALLOWED["futures: approve vault"]

    def vault_approval(token: str, spender: str, raw: int) -> tuple[UnsignedTx, Grant]:
        return tx(token, encode_approve(spender, raw)), replace(grant, approval_terms=(token, spender, raw))

    assert is_signed(*vault_approval(USDC, VAULT, 0))
    refused(*vault_approval(USDC, VAULT, DEPOSIT.raw + 1), "approval_amount")
    refused(*vault_approval(USDC, VAULT, UINT256_MAX), "approval_amount")
    refused(*vault_approval(USDC, ROUTER, DEPOSIT.raw), "spender")
    refused(*vault_approval(WETH, VAULT, DEPOSIT.raw), "contract")
    assert grant.layer_grant is not None
    refused(transaction, replace(grant, layer_grant=replace(grant.layer_grant, action=TAKE_OUT)), "approval")
    refused(transaction, replace(grant, layer_grant=None), "spender")


# --- Mutations.


def harmless(original: UnsignedTx, mutated: UnsignedTx) -> bool:
    """Only the deadline moved, and stayed within its window."""
    original_call, mutated_call = futures.decode(calldata(original)), futures.decode(calldata(mutated))
    if not isinstance(original_call, futures.OpenPosition) or not isinstance(mutated_call, futures.OpenPosition):
        return False
    return replace(mutated_call, deadline_s=DEADLINE_S) == original_call and NOW_S < mutated_call.deadline_s <= NOW_S + 90


@pytest.mark.parametrize("name", CALLS)
def test_no_action_with_changed_calldata_is_signed(name: str) -> None:
    transaction, grant = CALLS[name]
    for mutated in (*flipped_bits(transaction), *edited_words(transaction)):
        assert not is_signed(mutated, grant) or harmless(transaction, mutated)
    for mutated in cut_or_lengthened(transaction):
        assert not is_signed(mutated, grant)


@examples(100)
@given(
    name=st.sampled_from(sorted(CALLS)),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=40)), min_size=1, max_size=4),
)
def test_no_random_overwriting_of_an_action_is_signed(name: str, edits: list[tuple[int, bytes]]) -> None:
    transaction, grant = CALLS[name]
    mutated = overwritten(transaction, edits)
    assert mutated.data == transaction.data or not is_signed(mutated, grant) or harmless(transaction, mutated)


@examples(100)
@given(
    size=st.integers(-20 * WAD, 20 * WAD).filter(bool),
    slippage_bps=st.integers(-500, 500),
    position_raw=st.integers(-10 * WAD, 10 * WAD),
    collateral=st.integers(0, 20_000 * WAD),
    reduce_only=st.booleans(),
)
def test_no_signed_order_breaks_bound_or_leverage(
    size: int, slippage_bps: int, position_raw: int, collateral: int, reduce_only: bool
) -> None:
    """Recomputed in one formula of its own, with the fill at the mark: less than the rule asks."""
    bound = max(1, abs(size) * 3_000 * (10_000 + slippage_bps) // 10_000)
    positions = (Position(VETH, position_raw, -position_raw * 3_000),) if position_raw else ()
    account = replace(ACCOUNT, collateral_raw=collateral, positions=positions)
    order = PerpOrder(VETH, size, PerpOrderKind.MARKET, bound, reduce_only)
    if not is_signed(order_tx(order), futures_grant(order, account)):
        return
    assert slippage_bps <= 100 if size > 0 else slippage_bps >= -100
    if abs(position_raw + size) > abs(position_raw) or position_raw * size >= 0 or position_raw * (position_raw + size) < 0:
        assert not reduce_only
        assert 3_000 * abs(position_raw + size) <= 3 * collateral


def test_market_that_the_config_does_not_name_is_only_reduced() -> None:
    """Someone else has opened a position there; an emergency or the owner closes it."""
    terms = FUTURES_RULES.futures
    assert terms is not None
    rules_elsewhere = replace(FUTURES_RULES, futures=replace(terms, markets=()))
    for order, is_emergency in ((REDUCE, False), (ESCAPE, True)):
        assert signer(rules_elsewhere).sign(order_tx(order), futures_grant(order, is_emergency=is_emergency)).hash
    for order in (BUY, SHORT):
        refused(order_tx(order), futures_grant(order), "market", rules_elsewhere)
        disguised_order = replace(order, is_reduce_only=True)
        refused(order_tx(disguised_order), futures_grant(disguised_order), "reduce_only", rules_elsewhere)
    larger_order = replace(REDUCE, size_raw=REDUCE.size_raw * 100, bound_raw=REDUCE.bound_raw * 100)
    refused(order_tx(larger_order), futures_grant(larger_order), "reduce_only", rules_elsewhere)


def test_index_below_one_quote_unit_a_base_unit_is_a_price() -> None:
    market = replace(ACCOUNT.markets[0], index=Fraction(1, 2), mark=Fraction(1, 2))
    cheap_account = replace(ACCOUNT, markets=(market, ACCOUNT.markets[1]), positions=())
    order = replace(BUY, bound_raw=abs(BUY.size_raw) // 2)
    assert is_signed(order_tx(order), futures_grant(order, cheap_account))
