"""Orders of Perpetual Protocol v2 on the real contracts: quote equals fill, bounds hold, a delegate trades and withdraws nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.chain.lens import abi_encode
from agent.errors import Refused
from agent.layers.futures.planning.orders import plan_futures
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.model.futures import FuturesLimits, FuturesPolicy, FuturesTarget, MarginAccount, PerpOrder, PerpOrderKind
from agent.units import UINT256_MAX
from agent.venues import perpetual_protocol as venue
from tests.support.perps import WAD, advance_time, contracts_of, read_now, send_data

LONG_AFTER_S = 3_600


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    return perps_chain


def funded(perps: LocalPerps, usd: int = 10_000) -> str:
    who = perps.chain.accounts[3].address
    perps.deposit(who, usd * 10**6)
    return who


def order_of(perps: LocalPerps, who: str, size_raw: int, slippage_bps: int = 200) -> PerpOrder:
    market = read_now(perps, who).market(perps.markets["WETH"].base_token)
    return PerpOrder(market.market, size_raw, PerpOrderKind.MARKET, index_bound_raw(market, size_raw, slippage_bps), False)


def quoted(perps: LocalPerps, order: PerpOrder, who: str, sender: str | None = None) -> venue.PerpQuote:
    deadline_s = perps.chain.now_s() + LONG_AFTER_S
    return venue.quote_order(perps.chain.transport, order, contracts_of(perps, who), sender or who, deadline_s)


def send_order(perps: LocalPerps, order: PerpOrder, who: str, sender: str | None = None) -> None:
    contracts = contracts_of(perps, who)
    data = venue.encode_order(order, contracts, sender or who, perps.chain.now_s() + LONG_AFTER_S)
    send_data(perps, contracts.clearing_house, data, sender or who)


@pytest.mark.parametrize("size_raw", [3 * WAD, -2 * WAD - 7, 1])
def test_a_quote_is_what_the_transaction_exchanges(perps: LocalPerps, size_raw: int) -> None:
    who = funded(perps)
    order = order_of(perps, who, size_raw)
    order = replace(order, bound_raw=max(1, order.bound_raw))
    quote = quoted(perps, order, who)
    before = perps.account_balance.functions.getTakerOpenNotional(who, order.market).call()
    send_order(perps, order, who)
    changed = abs(perps.account_balance.functions.getTakerOpenNotional(who, order.market).call() - before)
    fee = -(-quote.quote_raw * 1_000 // 999) - quote.quote_raw if size_raw < 0 else quote.quote_raw // 1_000
    assert abs(changed - quote.quote_raw) <= fee + 2
    if abs(size_raw) > 10:  # what is smaller counts as dust
        assert read_now(perps, who).size_raw(order.market) == size_raw


@pytest.mark.parametrize(("size_raw", "better"), [(3 * WAD, -1), (-3 * WAD, 1)])
def test_an_order_beyond_its_bound_is_refused_before_it_is_sent(perps: LocalPerps, size_raw: int, better: int) -> None:
    who = funded(perps)
    order = order_of(perps, who, size_raw)
    fill = quoted(perps, order, who).quote_raw
    tight = replace(order, bound_raw=fill + better)
    with pytest.raises(Refused, match="bound"):
        quoted(perps, tight, who)
    with pytest.raises(RuntimeError, match="CH_T"):
        send_order(perps, tight, who)


def test_leverage_pause_and_deadline__are_refused_in_words(perps: LocalPerps) -> None:
    who = funded(perps)
    with pytest.raises(Refused, match="not enough free margin"):
        quoted(perps, order_of(perps, who, 60 * WAD, 2_000), who)
    order = order_of(perps, who, WAD)
    with pytest.raises(Refused, match="deadline"):
        venue.quote_order(perps.chain.transport, order, contracts_of(perps, who), who, perps.chain.now_s() - 1)
    perps.chain.send(perps.exchange.functions.setMaxTickCrossedWithinBlock(order.market, 0))
    with pytest.raises(Refused, match="paused"):
        quoted(perps, order, who)
    assert read_now(perps, who).market(order.market).is_paused


def test_a_delegate_trades_and_withdraws_nothing(perps: LocalPerps) -> None:
    who = funded(perps)
    key = perps.chain.accounts[4].address
    contracts = contracts_of(perps, who)
    order = order_of(perps, who, WAD)
    with pytest.raises(Refused, match="not a delegate of the account"):
        quoted(perps, order, who, key)
    send_data(perps, contracts.delegate_approval, venue.encode_delegate(key, is_allowed=True), who)
    assert quoted(perps, order, who, key) == quoted(perps, order, who)
    send_order(perps, order, who, key)
    assert read_now(perps, who).size_raw(order.market) == WAD
    withdrawal = venue.encode_withdrawal(perps.collateral_token.address, 10**6)
    with pytest.raises(RuntimeError, match="V_NEFC"):
        send_data(perps, contracts.vault, withdrawal, key)
    assert perps.chain.balance("USDC", key) == 0
    send_data(perps, contracts.delegate_approval, venue.encode_delegate(key, is_allowed=False), who)
    with pytest.raises(Refused, match="not a delegate of the account"):
        quoted(perps, order, who, key)


def test_margin_is_deposited_and_withdrawn_up_to_what_is_free(perps: LocalPerps) -> None:
    who = funded(perps)
    contracts = contracts_of(perps, who)
    token = perps.collateral_token.address
    usdc = perps.chain.token_contract("USDC").functions
    perps.chain.send(usdc.mint(who, 500 * 10**6))
    perps.chain.send(usdc.approve(contracts.vault, 500 * 10**6), who)
    send_data(perps, contracts.vault, venue.encode_deposit(token, 500 * 10**6), who)
    send_order(perps, order_of(perps, who, 4 * WAD), who)
    account = read_now(perps, who)
    free = margin.free_margin_raw(account) // account.collateral_unit_raw
    with pytest.raises(RuntimeError, match="V_NEFC"):
        send_data(perps, contracts.vault, venue.encode_withdrawal(token, free + 10**6), who)
    send_data(perps, contracts.vault, venue.encode_withdrawal(token, free - 10**6), who)
    assert perps.chain.balance("USDC", who) == free - 10**6


LIMITS = FuturesLimits(40_000, 9_000, 10_000, 0, 1_000, 150, 500, 500, 400, 500, 7_200)
POLICY = FuturesPolicy((FuturesTarget("", 10_000),), 30_000, 1_000, LIMITS)


def ride(perps: LocalPerps, seed: int, agent: bool) -> tuple[bool, int]:
    """Whether a book of 3x is liquidatable at any hour of a fall of 40 % and a rise of 60 %, which a whale trades, and for how many
    hours in a row its leverage is above the limit."""
    chance = random.Random(seed)
    who = funded(perps)
    whale = perps.chain.whale.address
    base = perps.markets["WETH"].base_token
    policy = replace(POLICY, targets=(FuturesTarget(base, 10_000),))
    send_order(perps, order_of(perps, who, 14 * WAD, 500), who)
    over = longest = 0
    price = Fraction(3_000)
    for hours, factor in ((14, 0.6), (14, 1.6)):
        for _ in range(hours):
            price *= Fraction(round(factor ** (1 / hours) * (1 + chance.gauss(0, 0.008)) * 10**6), 10**6)
            perps.chain.deployed_world = replace(
                perps.chain.deployed_world, prices_usd={**perps.chain.deployed_world.prices_usd, "WETH": price}
            )
            push_to(perps, whale, price)
            advance_time(perps, 3_600)
            account = read_now(perps, who)
            if margin.is_liquidatable(account):
                return True, longest
            if agent:
                account = act(perps, who, account, policy)
            leverage = margin.leverage(account)
            over = over + 1 if leverage is None or leverage > Fraction(LIMITS.max_leverage_bps, 10_000) else 0
            longest = max(longest, over)
    return False, longest


def push_to(perps: LocalPerps, whale: str, price: Fraction) -> None:
    """The whale trades the virtual pool to a price, a thousand ticks a block at most."""
    for _ in range(60):
        base = perps.markets["WETH"].base_token
        root = perps.exchange.functions.getSqrtMarketTwapX96(base, 0).call()
        now = Fraction(root, 2**96) ** 2
        if abs(now / price - 1) < Fraction(1, 500):
            return
        away = min(Fraction(1, 30), abs(now / price - 1))
        perps.trade(whale, "WETH", (1 if now < price else -1) * int(WAD * 700 * away))


def act(perps: LocalPerps, who: str, account: MarginAccount, policy: FuturesPolicy) -> MarginAccount:
    plan = plan_futures(account, policy, Fraction(0), perps.chain.now_s())
    for order in plan.orders:
        try:
            send_order(perps, order, who)
        except RuntimeError:
            continue  # beyond its bound: the next hour plans anew
    return read_now(perps, who)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 51))])
def test_a_fall_and_a_rise_never_liquidate_the_book_of_the_agent(perps: LocalPerps, seed: int) -> None:
    perps.deposit(perps.chain.whale.address, 50_000_000 * 10**6)
    mark = perps.chain.snapshot()
    liquidated, longest = ride(perps, seed, agent=True)
    assert (liquidated, longest <= 1) == (False, True)
    perps.chain.revert(mark)
    assert ride(perps, seed, agent=False)[0]


def test_amounts_of_the_venue_are_within_its_words() -> None:
    with pytest.raises(Refused, match="no limit orders"):
        venue.encode_order(
            PerpOrder("0x" + "1" * 40, 1, PerpOrderKind.LIMIT, 1, False), venue.PerpetualProtocolAddresses("", "", "", ""), "", 1
        )
    with pytest.raises(Refused, match="no bound"):
        venue.encode_order(
            PerpOrder("0x" + "1" * 40, 1, PerpOrderKind.MARKET, 0, False), venue.PerpetualProtocolAddresses("", "", "", ""), "", 1
        )
    assert venue.revert_code("", "execution reverted: CH_TLRS") == "CH_TLRS"
    assert venue.revert_code("0x08c379a0" + "00" * 5, "") == ""
    assert venue.revert_code("0x08c379a0" + abi_encode(["string"], ["CH_TLRS"]).hex(), "") == "CH_TLRS"
    assert venue.revert_code("0x08c379a0" + abi_encode(["string"], ["paused"]).hex(), "CH_TLRS") == ""
    assert venue.revert_code("0x", hex(UINT256_MAX)) == ""
