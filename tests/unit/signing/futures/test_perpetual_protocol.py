"""Tests of agent/signing/futures.py for Perpetual Protocol v2: each clause, by the transaction that only this clause refuses (T4, T12)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
from eth_abi.abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.tokens import encode_approve
from agent.model import IntentKind, UnsignedTx
from agent.model.futures import DelegateChange, MarginAccount, MarginDeposit, MarginWithdrawal, PerpOrder, PerpOrderKind, Position
from agent.ports import Grant
from agent.signing import futures
from agent.signing.rules import SigningRules
from agent.units import BPS, NATIVE, UINT256_MAX
from agent.venues.perpetual_protocol import encode_delegate, encode_deposit, encode_withdrawal
from tests.support import signing
from tests.support.samples import examples
from tests.support.signables import calldata, signs, with_bytes
from tests.support.signing import (
    ACCOUNT,
    ALLOW,
    BUY,
    CONTRACTS,
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
assert_refused_by = partial(signing.assert_refused_by, rules=FUTURES_RULES)
ORDERS = {"buy": BUY, "short": SHORT, "reduce": REDUCE}
CALLS = {name: pair for name, pair in FUTURES_ALLOWED.items() if pair[1].kind is IntentKind.FUTURES}
OTHER_CONTRACTS = {"house": HOUSE, "vault": VAULT, "delegates": DELEGATES, "token": USDC, "router": ROUTER, "stranger": STRANGER}


def assert_order_signed(order: PerpOrder, account: MarginAccount = ACCOUNT, rules: SigningRules = FUTURES_RULES) -> None:
    """Require that the order, granted as it is sent, is signed."""
    assert signer(rules).sign(order_tx(order), futures_grant(order, account)).hash


def assert_order_refused(
    rule: str, order: PerpOrder, account: MarginAccount = ACCOUNT, rules: SigningRules = FUTURES_RULES, *, is_emergency: bool = False
) -> None:
    """Require that the order, granted as it is sent, is refused by `rule`."""
    assert_refused_by(rule, order_tx(order), futures_grant(order, account, is_emergency=is_emergency), rules=rules)


def with_market(**market_fields: object) -> MarginAccount:
    """Return the account with these fields of the market of ETH."""
    eth_market, btc_market = ACCOUNT.markets
    return replace(ACCOUNT, markets=(replace(eth_market, **market_fields), btc_market))  # type: ignore[arg-type]  # field names


@pytest.mark.parametrize("name", FUTURES_ALLOWED)
def test_each_action_is_signed_as_granted(name: str) -> None:
    assert SIGNER.sign(*FUTURES_ALLOWED[name]).hash


# --- Contract, chain, value and grant.


@pytest.mark.parametrize("name", FUTURES_ALLOWED)
def test_action_without_configured_futures_is_refused(name: str) -> None:
    assert_refused_by("approval" if "approve" in name else "futures", *FUTURES_ALLOWED[name], rules=RULES)


@pytest.mark.parametrize(
    ("name", "to"), [(name, to) for name, (transaction, _) in CALLS.items() for to in OTHER_CONTRACTS.values() if to != transaction.to]
)
def test_action_reaches_the_pinned_contract_of_its_call_alone(name: str, to: str) -> None:
    transaction, grant = CALLS[name]
    assert_refused_by("contract", replace(transaction, to=to), grant)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("rule", "tx_fields"), [("value", {"value_wei": 1}), ("chain_id", {"chain_id": 1})], ids=["value", "chain"])
def test_action_carries_no_coin_and_stays_on_its_chain(name: str, rule: str, tx_fields: dict[str, int]) -> None:
    transaction, grant = CALLS[name]

    assert_refused_by(rule, replace(transaction, **tx_fields), grant)  # type: ignore[arg-type]  # field names, checked by replace


@pytest.mark.parametrize("name", CALLS)
def test_action_is_signed_on_its_own_grant_alone(name: str) -> None:
    transaction, _ = CALLS[name]

    assert {granted for granted, (_, grant) in CALLS.items() if is_signed(transaction, grant)} == {name}


@pytest.mark.parametrize("name", CALLS)
def test_action_on_a_grant_without_one_is_refused(name: str) -> None:
    assert_refused_by("action", CALLS[name][0], Grant(IntentKind.FUTURES, NOW_S, NOW_S + 90, MAX_GAS_WEI))


@pytest.mark.parametrize("data", [b"", b"\0" * 4, bytes.fromhex(encode_deposit(USDC, 1)[2:])[:3]], ids=["none", "zero", "cut"])
def test_unknown_function_is_not_decoded(data: bytes) -> None:
    with pytest.raises(futures.UndecodableCalldata, match="unknown function"):
        futures.decode(data)


# --- Orders: exactly the granted one.


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(
    ("rule", "order_fields"),
    [
        pytest.param("market", {"market": VBTC}, id="market of BTC"),
        pytest.param("market", {"market": VETH}, id="market of ETH"),
        pytest.param("size", {"size_raw": WAD + 1}, id="another purchase"),
        pytest.param("size", {"size_raw": -WAD - 1}, id="another sale"),
        pytest.param("bound", {"bound_raw": 1}, id="bound of one unit"),
        pytest.param("bound", {"bound_raw": UINT256_MAX}, id="no bound"),
    ],
)
def test_order_other_than_granted_is_refused(name: str, rule: str, order_fields: dict[str, object]) -> None:
    order = ORDERS[name]
    encoded = replace(order, **order_fields)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    if encoded != order:
        assert_refused_by(rule, order_tx(encoded), futures_grant(order))


@pytest.mark.parametrize(
    ("word_index", "word"),
    [
        pytest.param(1, 0, id="not a sale"),
        pytest.param(2, 0, id="not exact in"),
        pytest.param(1, 2, id="side of two"),
        pytest.param(2, 2, id="input of two"),
        pytest.param(6, 1, id="price limit"),
        pytest.param(7, 1, id="referral"),
    ],
)
def test_order_has_one_value_in_each_other_field(word_index: int, word: int) -> None:
    data = bytearray(calldata(order_tx(SHORT)))
    word_at = 4 + 32 * word_index
    data[word_at : word_at + 32] = word.to_bytes(32, "big")

    assert_refused_by("call", with_bytes(order_tx(SHORT), bytes(data)), futures_grant(SHORT))


def test_order_in_a_market_outside_the_config_is_refused() -> None:
    assert_order_refused("market", replace(BUY, market=WETH))
    assert_order_refused("market", BUY, rules=replace(RULES, futures=replace(FUTURES, markets=(VBTC,))))


@pytest.mark.parametrize("kind", [PerpOrderKind.LIMIT, PerpOrderKind.POST_ONLY])
def test_order_of_another_kind_is_refused(kind: PerpOrderKind) -> None:
    assert_refused_by("order", order_tx(BUY), futures_grant(replace(BUY, kind=kind)))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("deadline_s", [NOW_S, NOW_S - 1, NOW_S + 91, 2**255], ids=["now", "passed", "one second too far", "for ever"])
def test_deadline_is_short_and_within_the_grant(name: str, deadline_s: int) -> None:
    order = ORDERS[name]

    assert_refused_by("deadline", order_tx(order, deadline_s=deadline_s), futures_grant(order))
    assert_refused_by("deadline", order_tx(order, deadline_s=deadline_s), replace(futures_grant(order), deadline_s=2**256))


@pytest.mark.parametrize("deadline_s", [NOW_S + 1, NOW_S + 90], ids=["in a second", "at the limit"])
def test_deadline_at_the_edge_is_signed(deadline_s: int) -> None:
    assert is_signed(order_tx(BUY, deadline_s=deadline_s), futures_grant(BUY))


def test_order_trades_for_the_configured_account_alone() -> None:
    assert signer(DELEGATE_RULES).sign(DELEGATE_BUY, futures_grant(BUY)).hash
    assert_refused_by("trader", order_tx(BUY), futures_grant(BUY), rules=DELEGATE_RULES)
    assert_refused_by("trader", DELEGATE_BUY, futures_grant(BUY))
    assert_refused_by("trader", order_tx(BUY, replace(CONTRACTS, trader=STRANGER)), futures_grant(BUY), rules=DELEGATE_RULES)


# --- Bounds, and the index that they are near.


@pytest.mark.parametrize(
    ("order", "edge_raw", "step_beyond"),
    [
        pytest.param(BUY, 9_090 * WAD, 1, id="buy, 1 % above"),
        pytest.param(SHORT, 5_940 * WAD, -1, id="short, 1 % below"),
        pytest.param(REDUCE, 2_970 * WAD, -1, id="reduce, 1 % below"),
    ],
)
def test_bound_beyond_the_slippage_from_index_is_refused(order: PerpOrder, edge_raw: int, step_beyond: int) -> None:
    assert_order_signed(replace(order, bound_raw=edge_raw))
    assert_order_refused("bound", replace(order, bound_raw=edge_raw + step_beyond))


def test_purchase_of_one_base_unit_is_no_sale() -> None:
    assert_order_refused("bound", replace(BUY, size_raw=1))


def test_wider_bound_of_an_emergency_needs_a_reduction() -> None:
    assert_order_refused("bound", ESCAPE)
    assert is_signed(order_tx(ESCAPE), futures_grant(ESCAPE, is_emergency=True))
    assert_order_refused("bound", replace(ESCAPE, bound_raw=ESCAPE.bound_raw - 1), is_emergency=True)
    assert_order_refused("emergency", BUY, is_emergency=True)


@pytest.mark.parametrize("index_s", [NOW_S - 3_600, NOW_S], ids=["at the maximum age", "of now"])
def test_fresh_index_is_a_base(index_s: int) -> None:
    assert_order_signed(BUY, with_market(index_s=index_s))


@pytest.mark.parametrize("index_s", [NOW_S - 3_601, NOW_S + 1], ids=["one second too old", "one second ahead"])
def test_stale_or_future_index_is_no_base(index_s: int) -> None:
    assert_order_refused("index_age", BUY, with_market(index_s=index_s))


@pytest.mark.parametrize("field", ["index", "mark"])
@pytest.mark.parametrize("price", [0, -1])
def test_order_in_a_market_without_a_price_is_refused(field: str, price: int) -> None:
    assert_order_refused("market", REDUCE, with_market(**{field: Fraction(price)}))


def test_order_in_a_market_that_was_not_read_is_refused() -> None:
    assert_order_refused("market", BUY, replace(ACCOUNT, markets=ACCOUNT.markets[1:]))


def test_index_below_one_quote_unit_is_a_price() -> None:
    cheap_account = replace(with_market(index=Fraction(1, 2), mark=Fraction(1, 2)), positions=())

    assert_order_signed(replace(BUY, bound_raw=abs(BUY.size_raw) // 2), cheap_account)


# --- Reductions.


def reduction_of(size_raw: int) -> PerpOrder:
    """Return a reduction of the long of 2 ETH at the index."""
    return PerpOrder(VETH, size_raw, PerpOrderKind.MARKET, abs(size_raw) * 3_000, True)


def test_reduction_of_the_whole_position_is_signed() -> None:
    assert_order_signed(reduction_of(-2 * WAD))


@pytest.mark.parametrize("size_raw", [-2 * WAD - 1, WAD], ids=["one unit more than the position", "a purchase"])
def test_reduction_that_does_not_reduce_is_refused(size_raw: int) -> None:
    assert_order_refused("reduce_only", reduction_of(size_raw))


def test_reduction_needs_a_position() -> None:
    assert_order_refused("reduce_only", REDUCE, replace(ACCOUNT, positions=()))


NO_MARKETS = replace(FUTURES_RULES, futures=replace(FUTURES, markets=()))
"""Someone else has opened a position there; an emergency or the owner closes it."""


@pytest.mark.parametrize(("order", "is_emergency"), [(REDUCE, False), (ESCAPE, True)], ids=["reduction", "emergency"])
def test_market_outside_the_config_is_reduced(order: PerpOrder, is_emergency: bool) -> None:
    assert signer(NO_MARKETS).sign(order_tx(order), futures_grant(order, is_emergency=is_emergency)).hash


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        pytest.param("market", BUY, id="a purchase"),
        pytest.param("market", SHORT, id="a short"),
        pytest.param("reduce_only", replace(BUY, is_reduce_only=True), id="a purchase called a reduction"),
        pytest.param("reduce_only", replace(SHORT, is_reduce_only=True), id="a short called a reduction"),
        pytest.param("reduce_only", replace(REDUCE, size_raw=-100 * WAD, bound_raw=297_000 * WAD), id="more than the position"),
    ],
)
def test_market_outside_the_config_is_not_opened(rule: str, order: PerpOrder) -> None:
    assert_order_refused(rule, order, rules=NO_MARKETS)


# --- Leverage.


def purchase_of(hundredths: int) -> PerpOrder:
    size_raw = hundredths * WAD // 100
    return PerpOrder(VETH, size_raw, PerpOrderKind.MARKET, size_raw * 3_030, False)


def test_opening_order_ends_within_the_leverage_limit() -> None:
    """Gross 6,000 + 3,000 s against 10,000 less the 1 % of the bound and 0.1 % of fee: 3x ends between s = 7.74 and 7.75."""

    def leverage_after(hundredths: int) -> Fraction:
        value = 10_000 - Fraction(30 * hundredths, 100) - Fraction(3_030 * hundredths, 100_000)
        return (6_000 + 30 * hundredths) / value

    assert leverage_after(773) <= 3 < leverage_after(776)
    assert_order_signed(purchase_of(773))
    assert_order_refused("leverage", purchase_of(776))


def leverage_text(order: PerpOrder, account: MarginAccount) -> str:
    """Return the leverage that a refusal measures."""
    refusal = assert_refused_by("leverage", order_tx(order), futures_grant(order, account))
    return str(refusal.verdicts[0].measured_text)


@pytest.mark.parametrize("less_raw", [1, 7, 999])
def test_leverage_counts_a_part_of_a_base_unit_of_fee_whole(less_raw: int) -> None:
    """After the fill the account is worth exactly nothing."""
    order = replace(BUY, bound_raw=BUY.bound_raw - less_raw)
    market = ACCOUNT.markets[0]
    mark_raw = int(order.size_raw * market.mark)
    fee = Fraction(max(mark_raw, order.bound_raw) * market.fee_ppm, 1_000_000)
    collateral_raw = max(0, order.bound_raw - mark_raw) + fee.__ceil__()

    assert fee.denominator > 1
    assert leverage_text(order, replace(ACCOUNT, collateral_raw=collateral_raw, positions=())) == "unlimited"


def test_leverage_of_a_worthless_account_is_unlimited() -> None:
    market = ACCOUNT.markets[0]
    mark_raw = int(BUY.size_raw * market.mark)
    cost_raw = max(0, BUY.bound_raw - mark_raw) + -(-max(mark_raw, BUY.bound_raw) * market.fee_ppm // 1_000_000)

    assert leverage_text(BUY, replace(ACCOUNT, collateral_raw=0, positions=())) == "unlimited"
    assert leverage_text(BUY, replace(ACCOUNT, collateral_raw=cost_raw, positions=())) == "unlimited"
    assert leverage_text(BUY, replace(ACCOUNT, collateral_raw=cost_raw + 1, positions=())).endswith("x")


def test_opening_beside_an_unread_position_is_refused() -> None:
    positions = (*ACCOUNT.positions, Position(VBTC, WAD, -WAD))

    assert_order_refused("market", BUY, replace(ACCOUNT, markets=ACCOUNT.markets[:1], positions=positions))


@pytest.mark.parametrize(
    ("collateral", "realised", "pending", "order"),
    [
        pytest.param(10_000 * WAD, 0, 0, PerpOrder(VETH, 7 * WAD, PerpOrderKind.MARKET, 7 * 3_010 * WAD, False), id="a dear purchase"),
        pytest.param(
            9_000 * WAD, 1_000 * WAD + 1, 0, PerpOrder(VETH, 7 * WAD, PerpOrderKind.MARKET, 7 * 2_990 * WAD, False), id="a profit"
        ),
        pytest.param(
            9_000 * WAD, 0, -1_000 * WAD, PerpOrder(VBTC, WAD // 3, PerpOrderKind.MARKET, 20_100 * WAD, False), id="funding received"
        ),
        pytest.param(
            11_000 * WAD, 0, 1_000 * WAD + 7, PerpOrder(VBTC, -WAD // 3, PerpOrderKind.MARKET, 19_900 * WAD, False), id="funding owed"
        ),
        pytest.param(
            12_000 * WAD, -2_000 * WAD, 0, PerpOrder(VETH, -9 * WAD, PerpOrderKind.MARKET, 9 * 2_980 * WAD, False), id="a cheap turn"
        ),
        pytest.param(
            12_000 * WAD, -2_000 * WAD, 0, PerpOrder(VETH, -9 * WAD, PerpOrderKind.MARKET, 9 * 3_020 * WAD, False), id="a dear turn"
        ),
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
    reached_bps = (gross * BPS / value).__ceil__()

    def rules_with(max_leverage_bps: int) -> SigningRules:
        return replace(FUTURES_RULES, futures=replace(FUTURES, max_leverage_bps=max_leverage_bps))

    assert_order_signed(order, account, rules_with(reached_bps))
    assert_order_refused("leverage", order, account, rules_with(reached_bps - 1))


def test_leverage_limit_holds_a_turned_position() -> None:
    """Selling 12 of a long of 2 leaves a short of 10: 30,000 of notional on less than 10,000."""
    assert_order_refused("leverage", PerpOrder(VETH, -12 * WAD, PerpOrderKind.MARKET, 12 * 2_990 * WAD, False))


@pytest.mark.parametrize(
    "account_fields",
    [
        pytest.param({"realised_raw": -6_000 * WAD}, id="losses"),
        pytest.param({"collateral_raw": 4_000 * WAD}, id="less collateral"),
        pytest.param({"positions": (Position(VETH, 2 * WAD, -6_000 * WAD, 6_000 * WAD),)}, id="funding owed"),
        pytest.param({"positions": (Position(VETH, 2 * WAD, -12_000 * WAD),)}, id="a position that lost"),
        pytest.param({"collateral_raw": 0}, id="no collateral"),
    ],
)
def test_leverage_limit_holds_a_poorer_account_and_no_reduction(account_fields: dict[str, object]) -> None:
    account = replace(ACCOUNT, **account_fields)  # type: ignore[arg-type]  # keywords are field names, checked by replace

    assert_order_refused("leverage", BUY, account)
    assert_order_signed(REDUCE, account)


# --- Margin, delegates and the vault's approval.


@pytest.mark.parametrize("name", ["futures: deposit", "futures: withdraw", "futures: allow", "futures: end"])
def test_delegate_touches_neither_margin_nor_delegates(name: str) -> None:
    assert_refused_by("trader", *CALLS[name], rules=DELEGATE_RULES)


@pytest.mark.parametrize(
    ("rule", "data", "action"),
    [
        pytest.param("tokens", encode_deposit(WBTC, DEPOSIT.raw), DEPOSIT, id="deposit of another token"),
        pytest.param("amount", encode_deposit(USDC, DEPOSIT.raw + 1), DEPOSIT, id="deposit of one unit more"),
        pytest.param("amount", encode_deposit(USDC, DEPOSIT.raw - 1), DEPOSIT, id="deposit of one unit less"),
        pytest.param("amount", encode_deposit(USDC, 0), MarginDeposit(0), id="deposit of nothing, as granted"),
        pytest.param("tokens", encode_withdrawal(WBTC, TAKE_OUT.raw), TAKE_OUT, id="withdrawal of another token"),
        pytest.param("amount", encode_withdrawal(USDC, TAKE_OUT.raw + 1), TAKE_OUT, id="withdrawal of one unit more"),
        pytest.param("amount", encode_withdrawal(USDC, TAKE_OUT.raw - 1), TAKE_OUT, id="withdrawal of one unit less"),
        pytest.param("amount", encode_withdrawal(USDC, 0), MarginWithdrawal(0), id="withdrawal of nothing, as granted"),
    ],
)
def test_margin_move_is_exact_and_of_the_collateral(rule: str, data: str, action: MarginDeposit | MarginWithdrawal) -> None:
    assert_refused_by(rule, tx(VAULT, data), futures_grant(action))


@pytest.mark.parametrize("is_allowed", [True, False], ids=["allowed", "ended"])
@pytest.mark.parametrize("delegate", [STRANGER, NATIVE, WALLET, TRADER])
def test_delegate_is_the_configured_one_alone(delegate: str, is_allowed: bool) -> None:
    data = encode_delegate(delegate, is_allowed=is_allowed)

    assert_refused_by("delegate", tx(DELEGATES, data), futures_grant(DelegateChange(delegate, is_allowed)))


@pytest.mark.parametrize(("granted", "is_allowed"), [(ALLOW, True), (END, False)], ids=["allow", "end"])
def test_delegate_change_is_the_granted_one(granted: DelegateChange, is_allowed: bool) -> None:
    no_delegate = replace(RULES, futures=replace(FUTURES, delegate=None))
    transaction = tx(DELEGATES, encode_delegate(DELEGATE, is_allowed=is_allowed))
    opposite = tx(DELEGATES, encode_delegate(DELEGATE, is_allowed=not is_allowed))

    refusal = assert_refused_by("delegate", opposite, futures_grant(granted))
    assert refusal.verdicts[0].limit == f"exactly {'approve' if is_allowed else 'revoke'} {DELEGATE}"
    assert_refused_by("delegate", transaction, futures_grant(granted), rules=no_delegate)


@pytest.mark.parametrize("right", [0, 2, 3, 255, UINT256_MAX])
def test_delegate_gets_the_right_to_trade_and_no_other(right: int) -> None:
    """2 is the right to provide liquidity, 3 both."""
    data = "0x" + (futures.APPROVE + abi_encode(["address", "uint256"], [DELEGATE, right])).hex()

    assert_refused_by("call", tx(DELEGATES, data), futures_grant(ALLOW))


APPROVE_VAULT, VAULT_GRANT = FUTURES_ALLOWED["futures: approve vault"]


def vault_approval(token: str, spender: str, raw: int) -> tuple[UnsignedTx, Grant]:
    """Return an approval with the grant of the deposit that names it."""
    return tx(token, encode_approve(spender, raw)), replace(VAULT_GRANT, approval_terms=(token, spender, raw))


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        pytest.param("approval_amount", *vault_approval(USDC, VAULT, DEPOSIT.raw + 1), id="one unit more"),
        pytest.param("approval_amount", *vault_approval(USDC, VAULT, DEPOSIT.raw - 1), id="one unit less"),
        pytest.param("approval_amount", *vault_approval(USDC, VAULT, UINT256_MAX), id="unlimited"),
        pytest.param("spender", *vault_approval(USDC, ROUTER, DEPOSIT.raw), id="the router"),
        pytest.param("contract", *vault_approval(WETH, VAULT, DEPOSIT.raw), id="another token"),
        pytest.param("approval", APPROVE_VAULT, replace(futures_grant(TAKE_OUT), kind=IntentKind.APPROVE,
            approval_terms=VAULT_GRANT.approval_terms), id="for a withdrawal"),
        pytest.param("spender", APPROVE_VAULT, replace(VAULT_GRANT, layer_grant=None), id="without an action"),
    ],
)  # fmt: skip
def test_vault_is_approved_for_exactly_the_deposit(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert_refused_by(rule, transaction, grant)


def test_vault_approval_may_be_reset() -> None:
    assert is_signed(*vault_approval(USDC, VAULT, 0))


# --- Mutations.


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
