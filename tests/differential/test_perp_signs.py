"""The table of signs in docs/futures.md, row by row, on the contracts of Perpetual Protocol v2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
from web3.logs import DISCARD

from agent.layers.futures.policy.exposure import expected_funding_of_all
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.model.futures import MarginAccount, PerpOrder, PerpOrderKind, Position
from agent.venues import perpetual_protocol as venue
from tests.support.perps import WAD, advance_time, contracts_of, read_now, send_data

MARGIN_USD = 10_000
SIDES = pytest.mark.parametrize("side", [1, -1], ids=["long", "short"])


@pytest.fixture
def perps(perps_chain: LocalPerps) -> Iterator[LocalPerps]:
    chain, books = perps_chain.chain, perps_chain.chain.deployed_world  # shared with other tests: replaced, never changed
    perps_chain.deposit(chain.wallet.address, MARGIN_USD * 10**6)
    perps_chain.deposit(chain.whale.address, 20_000_000 * 10**6)
    yield perps_chain
    chain.deployed_world = books


def read(perps: LocalPerps) -> MarginAccount:
    return read_now(perps, perps.chain.wallet.address)


def only(perps: LocalPerps) -> Position:
    [position] = read(perps).positions
    return position


def open_position_of(perps: LocalPerps, size_raw: int) -> None:
    """The wallet trades, and the whale puts the pool back."""
    perps.trade(perps.chain.wallet.address, "WETH", size_raw)
    perps.trade(perps.chain.whale.address, "WETH", -size_raw)


def move_prices(perps: LocalPerps, share: Fraction, index: bool = True) -> None:
    """Pool, and index if wanted, go to another price; the mark follows within the hour."""
    chain = perps.chain
    books = perps.chain.deployed_world
    price = books.prices_usd["WETH"] * (1 + share)
    chain.node.mine_at(chain.now_s() + 15)
    if index:
        chain.deployed_world = replace(books, prices_usd={**books.prices_usd, "WETH": price})
        perps.set_index("WETH", price)
    perps.move_pools({"WETH": price}, lambda seconds: chain.node.mine_at(chain.now_s() + int(seconds)))
    advance_time(perps, 3_600)


@SIDES
def test_a_size_is_positive_for_a_long_and_negative_for_a_short(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 2 * WAD)
    assert only(perps).size_raw == side * 2 * WAD
    assert only(perps).is_long is (side > 0)


@SIDES
def test_a_negative_order_sells_and_a_positive_one_buys(perps: LocalPerps, side: int) -> None:
    chain = perps.chain
    market = read(perps).market(perps.markets["WETH"].base_token)
    order = PerpOrder(market.market, side * WAD, PerpOrderKind.MARKET, index_bound_raw(market, side * WAD, 200), False)
    contracts = contracts_of(perps, chain.wallet.address)
    sent = send_data(
        perps, contracts.clearing_house, venue.encode_order(order, contracts, chain.wallet.address, 2**40), chain.wallet.address
    )
    receipt = chain.w3.eth.get_transaction_receipt(sent)
    [event] = perps.clearing_house.events.PositionChanged().process_receipt(receipt, errors=DISCARD)
    assert event["args"]["exchangedPositionSize"] == side * WAD
    quote = -event["args"]["exchangedPositionNotional"]
    assert quote * side > 0, "a buy pays quote, a sale brings it"
    assert (abs(quote) <= order.bound_raw) if side > 0 else (abs(quote) >= order.bound_raw)


@SIDES
def test_open_notional__is_what_opening_added_to_the_quote(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 2 * WAD)
    assert only(perps).open_notional_raw * side < 0
    assert only(perps).entry_price > 0


@SIDES
def test_unrealised_profit__is_positive_with_the_position(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 2 * WAD)
    move_prices(perps, Fraction(side * 4, 100))
    assert margin.unrealised_profit_raw(read(perps)) > 0
    move_prices(perps, Fraction(-side * 8, 100))
    assert margin.unrealised_profit_raw(read(perps)) < 0


@SIDES
def test_a_realised_profit_is_positive_for_a_gain(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 2 * WAD)
    move_prices(perps, Fraction(side * 6, 100))
    value = margin.account_value_raw(read(perps))
    size = only(perps).size_raw
    perps.trade(perps.chain.wallet.address, "WETH", -size)
    closed = read(perps)
    assert closed.realised_raw > 0 == len(closed.positions)
    assert abs(margin.account_value_raw(closed) - value) < 60 * WAD, "the gain is the account's"


@SIDES
@pytest.mark.parametrize("premium", [1, -1], ids=["mark above", "mark below"])
def test_a_positive_daily_rate_has_longs_pay_shorts(perps: LocalPerps, side: int, premium: int) -> None:
    """And pending funding is positive for the side that pays: settling it takes collateral away."""
    open_position_of(perps, side * 2 * WAD)
    move_prices(perps, Fraction(premium * 5, 100), index=False)
    advance_time(perps, 20_000)
    account = read(perps)
    rate = account.market(perps.markets["WETH"].base_token).funding_daily
    assert rate * premium > 0
    assert margin.funding_pending_raw(account) * side * premium > 0
    assert expected_funding_of_all(account, 86_400) * side * premium > 0
    before = margin.collateral_value_raw(replace(account, positions=()))
    pending = margin.funding_pending_raw(account)
    perps.trade(perps.chain.wallet.address, "WETH", WAD // 10**6)  # settles what is pending
    settled = read(perps)
    after = margin.collateral_value_raw(replace(settled, positions=()))
    assert (after < before) is (pending > 0)
    assert abs(before - after - pending) * 100 < abs(pending)
    assert abs(margin.funding_pending_raw(settled)) < abs(pending) // 100


@SIDES
def test_a_long_is_liquidated_below_its_mark_and_a_short_above(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 20 * WAD)
    account = read(perps)
    base = perps.markets["WETH"].base_token
    distance = margin.liquidation_distance(account, base)
    price = margin.liquidation_price(account, base)
    assert distance is not None
    assert price is not None
    assert distance * side < 0
    assert (price - account.market(base).mark) * side < 0


@SIDES
def test_a_liquidation_sells_a_long_and_buys_a_short_back(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 26 * WAD)
    move_prices(perps, Fraction(-side * 8, 100))
    chain = perps.chain
    before = only(perps).size_raw
    assert margin.is_liquidatable(read(perps))
    liquidate = perps.clearing_house.get_function_by_signature("liquidate(address,address)")
    receipt = chain.w3.eth.get_transaction_receipt(
        chain.send(liquidate(chain.wallet.address, perps.markets["WETH"].base_token), chain.whale.address)
    )
    changes = perps.clearing_house.events.PositionLiquidated().process_receipt(receipt, errors=DISCARD)
    assert [change["args"]["trader"] for change in changes] == [chain.wallet.address]
    size_after = read(perps).size_raw(perps.markets["WETH"].base_token)
    assert (size_after - before) * side < 0
    assert size_after * side >= 0


@SIDES
def test_a_net_notional_counts_longs_up_and_shorts_down(perps: LocalPerps, side: int) -> None:
    open_position_of(perps, side * 2 * WAD)
    account = read(perps)
    assert margin.net_notional_raw(account) == side * margin.gross_notional_raw(account) != 0
