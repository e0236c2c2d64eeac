"""Positions read by the lens against what the deployed contracts pay for them, to the wei."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest

from agent.amm.lp import positions
from agent.chain.pools import own_positions
from agent.chain.pools.own_positions import UnsolicitedPosition, UnsolicitedPositions, find_unsolicited_positions
from agent.localchain import LocalChain
from agent.model import ConfirmedPosition, LpMissingPosition, LpV2Position, LpV3Position
from agent.units import NATIVE
from tests.support import lp_on_chain
from tests.support.endpoints import pools
from tests.support.lp_worlds import redeemable_amounts
from tests.support.text import mentions
from tests.support.worlds import price_now

V2 = "v2 WETH/USDC"
V3 = "v3 WETH/USDC 3000"


def equal(chain: LocalChain, own: ConfirmedPosition) -> tuple[int, int]:
    """What we say the position pays is what the contracts pay; that amount."""
    amounts = redeemable_amounts(lp_on_chain.read(chain, own))
    assert amounts == lp_on_chain.take_out(chain, own)
    return amounts


def busy(chain: LocalChain, pool: str, usd: int = 300_000) -> None:
    """Somebody trades both ways and leaves fees."""
    info = chain.deployed_world.pool_by_name[pool]
    for token in (info.token0, info.token1):
        chain.swap(pool, token.symbol, int(usd / chain.deployed_world.prices_usd[token.symbol] * 10**token.decimals))


@pytest.mark.parametrize("fee", ["never on", "on all along", "on since the last mint", "off again"])
def test_lp_tokens_pay_what_a_burn_pays(chain: LocalChain, fee: str) -> None:
    if fee in ("on all along", "off again"):
        lp_on_chain.set_fee_to(chain, chain.accounts[5].address)
    own = lp_on_chain.provide_v2(chain, V2, 5_000)
    busy(chain, V2)
    if fee == "on since the last mint":
        lp_on_chain.set_fee_to(chain, chain.accounts[5].address)
    if fee == "off again":
        lp_on_chain.set_fee_to(chain, NATIVE)
    position = lp_on_chain.read(chain, own)
    assert isinstance(position, LpV2Position)
    assert (positions.v2_protocol_mint(position) > 0) == (mentions(fee, "all along"))
    assert all(raw > 0 for raw in equal(chain, own))


def test_tokens_sent_to_the_pair__do_not_count(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v2(chain, V2, 5_000)
    ratio = price_now(chain, V2)
    plain = positions.owned_amounts(lp_on_chain.read(chain, own), ratio, Fraction(1))
    chain.send(chain.token_contract("USDC").functions.transfer(own.contract, 10**12))
    assert positions.owned_amounts(lp_on_chain.read(chain, own), ratio, Fraction(1)) == plain
    equal(chain, own)


@pytest.mark.parametrize(("lower", "upper"), [(-20, 20), (-1, 1), (0, 1), (5, 30), (-30, -5), (-10_000, 10_000)])
def test_a_position_pays_what_decreasing_and_collecting_pay(anvil_chain: LocalChain, lower: int, upper: int) -> None:
    own = lp_on_chain.provide_v3(anvil_chain, V3, lower, upper, 4_000)
    busy(anvil_chain, V3)
    equal(anvil_chain, own)


@pytest.mark.parametrize("up", [True, False])
def test_position_left_by_the_price__is_one_token_and_fees(chain: LocalChain, up: bool) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -3, 3, 4_000)
    chain.move_market({"WETH": 3_300 if up else 2_700})
    position = lp_on_chain.read(chain, own)
    assert isinstance(position, LpV3Position)
    assert not position.tick_lower <= position.tick < position.tick_upper
    assert min(positions.principal(position)) == 0
    assert max(positions.uncollected_fees(position)) > 0
    assert min(equal(chain, own)) == 0


def test_position_left_and_reached_again__keeps_its_fees(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -3, 3, 4_000)
    for price in (3_300, 2_700, 3_000):
        chain.move_market({"WETH": price})
    assert all(raw > 0 for raw in positions.uncollected_fees(lp_on_chain.read(chain, own)))
    equal(chain, own)


def test_fees_are_what_collect_alone_pays(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -20, 20, 4_000)
    busy(chain, V3)
    amounts = positions.uncollected_fees(lp_on_chain.read(chain, own))
    before = lp_on_chain.balances(chain, own)
    lp_on_chain.collect(chain, own.token_id or 0)
    after = lp_on_chain.balances(chain, own)
    assert amounts == (after[0] - before[0], after[1] - before[1])
    assert min(amounts) > 0


def test_a_position_half_taken_out_and_owed_pays_both_halves(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -20, 20, 4_000)
    busy(chain, V3)
    position = lp_on_chain.read(chain, own)
    assert isinstance(position, LpV3Position)
    half = position.liquidity // 2
    paid = positions.principal(position, half)
    lp_on_chain.decrease(chain, position.token_id, half)
    later = lp_on_chain.read(chain, own)
    assert isinstance(later, LpV3Position)
    fees = positions.uncollected_fees(position)
    assert later.owed == (paid[0] + fees[0], paid[1] + fees[1])
    busy(chain, V3)
    equal(chain, own)


def test_position_without_liquidity__holds_what_it_is_owed(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -20, 20, 4_000)
    position = lp_on_chain.read(chain, own)
    assert isinstance(position, LpV3Position)
    lp_on_chain.decrease(chain, position.token_id, position.liquidity)
    assert positions.principal(lp_on_chain.read(chain, own)) == (0, 0)
    assert min(equal(chain, own)) > 0
    assert redeemable_amounts(lp_on_chain.read(chain, own)) == (0, 0)


def test_burned_token__is_gone_before_and_after_the_start(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -20, 20, 4_000)
    before = lp_on_chain.refs(chain, [own])
    lp_on_chain.take_out(chain, own)
    chain.send(lp_on_chain.manager(chain).burn(own.token_id), chain.wallet.address)
    for refs in (before, lp_on_chain.refs(chain, [own])):
        snapshot = lp_on_chain.look(chain, refs)
        assert snapshot.unreadable_items == ()
        assert snapshot.positions == (LpMissingPosition(own.venue, own.contract, own.token_id or 0, own.token0, own.token1),)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tokens_of_one_range_share_the_pools_account_to_the_wei(chain: LocalChain, seed: int) -> None:
    """Others in the very same range trade, collect and leave: the pool's roundings are left to the last token."""
    random = Random(seed)
    info = chain.deployed_world.pool_by_name[V3]
    whale = chain.whale.address
    around = lp_on_chain.tick(chain, V3)
    own = lp_on_chain.provide_v3(chain, V3, -2, 3, 4_000, around=around)
    other = lp_on_chain.provide_v3(chain, V3, -2, 3, 7_777, owner=whale, around=around)
    for _ in range(12):
        token = random.choice((info.token0, info.token1))
        usd = random.choice((7, 900, 40_000))
        chain.swap(
            V3, token.symbol, int(usd / chain.deployed_world.prices_usd[token.symbol] * 10**token.decimals) + random.randrange(10**5)
        )
        lp_on_chain.collect(chain, other.token_id or 0, whale)
    mark = chain.snapshot()
    equal(chain, own)
    chain.revert(mark)
    liquidity_left = lp_on_chain.manager(chain).positions(other.token_id).call()[7]
    lp_on_chain.decrease(chain, other.token_id or 0, liquidity_left, whale)
    lp_on_chain.collect(chain, other.token_id or 0, whale)
    equal(chain, own)


def test_all_positions_together_take_two_requests(local_chain: LocalChain) -> None:
    chain = local_chain
    own = [lp_on_chain.provide_v2(chain, V2, 5_000), *(lp_on_chain.provide_v3(chain, V3, -n, n, 500) for n in (1, 2, 3))]
    snapshot = lp_on_chain.look(chain, lp_on_chain.refs(chain, own))
    assert snapshot.http_request_count == 2
    assert [position.name for position in snapshot.positions] == [position.name for position in own]


def unsolicited(chain: LocalChain, *own: ConfirmedPosition, manager: bool = True) -> UnsolicitedPositions:
    """What the wallet holds beside these."""
    contract = chain.addresses.position_manager if manager else None
    return find_unsolicited_positions(chain.transport, chain.wallet.address, contract, pools(chain), own, "latest")


def test_unconfirmed_positions__are_listed_by_the_contracts(chain: LocalChain) -> None:
    pair = lp_on_chain.provide_v2(chain, V2, 5_000)
    other = lp_on_chain.provide_v2(chain, "v2 WBTC/WETH", 5_000)
    tokens = [lp_on_chain.provide_v3(chain, V3, -n, n, 500) for n in (1, 2, 3)]
    liquidity = [lp_on_chain.manager(chain).positions(token.token_id).call()[7] for token in tokens]
    raw = lp_on_chain.pair_of(chain, V2).balanceOf(chain.wallet.address).call()
    expected = (
        UnsolicitedPosition(pair.name, pair.contract, None, (pair.token0, pair.token1), raw),
        *(
            UnsolicitedPosition(token.name, token.contract, token.token_id, (token.token0, token.token1), amount)
            for token, amount in zip(tokens, liquidity, strict=True)
        ),
    )
    assert unsolicited(chain, other) == UnsolicitedPositions(expected, 0)
    assert unsolicited(chain, other, *tokens) == UnsolicitedPositions(expected[:1], 0)
    assert unsolicited(chain, other, manager=False) == UnsolicitedPositions(expected[:1], 0)


def test_as_many_tokens_as_are_checked_leave_none_out(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_positions, "MAX_CHECKED_TOKENS", 2)
    assert unsolicited(anvil_chain) == UnsolicitedPositions((), 0)
    tokens = [lp_on_chain.provide_v3(anvil_chain, V3, -n, n, 500) for n in (1, 2)]
    assert ([position.name for position in unsolicited(anvil_chain).positions], unsolicited(anvil_chain).unchecked_count) == (
        [token.name for token in tokens],
        0,
    )
    tokens.append(lp_on_chain.provide_v3(anvil_chain, V3, -3, 3, 500))
    assert ([position.name for position in unsolicited(anvil_chain).positions], unsolicited(anvil_chain).unchecked_count) == (
        [token.name for token in tokens[1:]],
        1,
    )
