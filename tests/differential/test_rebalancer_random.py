"""Random lists of legs in the Rebalancer: what the wallet really gets and gives is what our simulation says, to the wei."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.localchain import LocalChain
from agent.model import Leg, LegPlace, Plan, Pool
from agent.signing.calldata import FundsLocation, decode
from agent.units import NATIVE
from tests.support.signing import native_leg, plan_of
from tests.support.wallets import AtomicDesk
from tests.support.worlds import read_pool

W = LegPlace.WALLET
R = LegPlace.ROUTER
MOST_LEGS = 8
WORTH_USD = 2_000_000


class Builder:
    """Adds legs one by one, each simulated on the pools as the legs before it left them.

    A pool is read once; from then on its state is what our simulation says of all trades since, in every plan.
    """

    def __init__(self, desk: AtomicDesk, states: dict[str, Pool] | None = None) -> None:
        self.context, self.chain = desk, desk.chain
        self.states = {} if states is None else states
        self.router: Counter[str] = Counter()
        self.legs: list[Leg] = []

    def state(self, pool: str) -> Pool:
        if pool not in self.states:
            self.states[pool] = read_pool(self.chain, pool)
        return self.states[pool]

    def swap(self, pool: str, token_in: str, raw: int, source: LegPlace, sink: LegPlace) -> bool:
        """False when the pool cannot take the amount; nothing is added then."""
        before = self.state(pool)
        try:
            done = before.swap(token_in, raw)
        except (BeyondKnownTicks, ContractRevert):
            return False
        if done.amount_in_raw != raw or done.amount_out_raw <= 0:
            return False
        self.states[pool] = done.pool_after
        out = pools.token_out(before, token_in)
        fee_pips = before.fee_pips
        if source is R:
            del self.router[token_in]
        if sink is R:
            self.router[out] += done.amount_out_raw
        out_raw = done.amount_out_raw
        self.legs.append(Leg(before.address, before.venue, token_in, out, fee_pips, raw, out_raw, out_raw, done.fee_raw, 0, source, sink))
        return True

    def wrap(self, raw: int, sink: LegPlace) -> None:
        weth = self.context.at("WETH")
        self.legs.append(native_leg(NATIVE, weth, raw, sink=sink))
        if sink is R:
            self.router[weth] += raw

    def unwrap(self, source: LegPlace, raw: int) -> None:
        weth = self.context.at("WETH")
        if source is R:
            raw = self.router.pop(weth)
        self.legs.append(native_leg(weth, NATIVE, raw, source=source))

    def pools_of(self, token: str) -> list[str]:
        return [
            name for name, info in self.chain.deployed_world.pool_by_name.items() if token in (info.token0.address, info.token1.address)
        ]

    def raw_worth(self, token: str, usd: int) -> int:
        return max(1, int(Fraction(usd * 10**6, 100) / self.context.prices[token]))


def build(desk: AtomicDesk, states: dict[str, Pool], data: st.DataObject) -> Plan:
    """Up to eight legs over any pools in any order, then what is left in the router goes home."""
    builder = Builder(desk, states)
    sinks = st.sampled_from([W, R, R])
    cents = st.integers(1, 3_000_000)
    for _ in range(data.draw(st.integers(1, MOST_LEGS))):
        what = data.draw(st.sampled_from(["wallet", "wallet", "router", "router", "wrap", "unwrap"]))
        if what == "wrap":
            builder.wrap(data.draw(st.integers(1, 10**18)), data.draw(sinks))
        elif what == "unwrap":
            builder.unwrap(R if builder.router[desk.at("WETH")] else W, data.draw(st.integers(1, 10**18)))
        elif what == "router" and +builder.router:
            token = data.draw(st.sampled_from(sorted(+builder.router)))
            builder.swap(data.draw(st.sampled_from(builder.pools_of(token))), token, builder.router[token], R, data.draw(sinks))
        else:
            pool = data.draw(st.sampled_from(sorted(desk.chain.address_by_pool)))
            info = desk.chain.deployed_world.pool_by_name[pool]
            token = data.draw(st.sampled_from([info.token0.address, info.token1.address]))
            builder.swap(pool, token, builder.raw_worth(token, data.draw(cents)), W, data.draw(sinks))
    for token in sorted(+builder.router):
        if not any(builder.swap(pool, token, builder.router[token], R, W) for pool in builder.pools_of(token)):
            raise AssertionError(f"no pool takes {builder.router[token]} of {token}")
    return plan_of(*builder.legs)


def changes(plan: Plan) -> Counter[str]:
    """What the wallet's balances change by."""
    counter: Counter[str] = Counter()
    for leg in plan.legs:
        if leg.source is W:
            counter[leg.token_in] -= leg.amount_in_raw
        if leg.sink is W:
            counter[leg.token_out] += leg.amount_out_raw
    return counter


def rich(chain: LocalChain) -> AtomicDesk:
    """A wallet that can pay for anything these tests draw, with open allowances, so that each plan is one transaction."""
    desk = AtomicDesk(chain)
    for symbol, token in chain.tokens.items():
        chain.set_balance(
            symbol, desk.chain.balance(symbol) + int(WORTH_USD * 10**token.decimals / chain.deployed_world.prices_usd[symbol])
        )
        chain.send(chain.token_contract(symbol).functions.approve(desk.router, 2**200), desk.wallet, gas=200_000)
    chain.set_native(10**24)
    return desk


def check(desk: AtomicDesk, plan: Plan) -> set[FundsLocation]:
    """Sends the plan, holds wallet and contract against it, and says from where its legs were paid."""
    chain = desk.chain
    before = desk.balances()
    native = chain.w3.eth.get_balance(desk.wallet)
    transaction = desk.swap_tx(plan)
    receipt = desk.swap(plan)
    assert receipt.status == 1
    after = desk.balances()
    expected = changes(plan)
    assert {chain.tokens[s].address: after[s] - before[s] for s in after} == {t.address: expected[t.address] for t in chain.tokens.values()}
    paid = chain.w3.eth.get_balance(desk.wallet) - native + receipt.gas_used * receipt.effective_gas_price_wei
    assert paid == expected[NATIVE]
    assert not any(chain.balance(symbol, desk.router) for symbol in chain.tokens)
    assert chain.w3.eth.get_balance(desk.router) == 0
    return {leg.source for leg in decode(transaction.data).legs}  # type: ignore[union-attr]  # a rebalance has legs


@pytest.mark.parametrize("examples", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_random_legs_on_anvil_are_realised_to_the_wei(anvil_chain: LocalChain, examples: int) -> None:
    desk = rich(anvil_chain)
    counter = Counter[object]()
    known: dict[str, Pool] = {}

    @settings(max_examples=examples)
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        states = dict(known)
        plan = build(desk, states, data)
        if plan.legs:
            counter.update(check(desk, plan))
            counter.update({leg.venue for leg in plan.legs})
            known.update(states)

    run()
    assert set(counter) == {*FundsLocation, "uniswap_v2", "uniswap_v3", "wrapped_native"}, "every way of paying and every venue came up"


def test_plan_of_each_way_to_pay_on_eth_tester__pays_to_the_wei(tester_chain: LocalChain) -> None:
    desk = rich(tester_chain)
    builder = Builder(desk)
    assert builder.swap("v3 LINK/WETH 3000", desk.at("LINK"), 10**20, W, R)
    assert builder.swap("v2 WETH/USDC", desk.at("WETH"), builder.router[desk.at("WETH")], R, W)
    builder.wrap(10**18, R)
    assert builder.swap("v3 WETH/USDC 500", desk.at("WETH"), 10**18, R, W)
    assert builder.swap("v3 WETH/USDC 500", desk.at("USDC"), 10**9, W, W)
    builder.unwrap(W, 10**17)
    assert check(desk, plan_of(*builder.legs)) == {*FundsLocation}


def fed_pair(desk: AtomicDesk, between: bool) -> Plan:
    """A swap into the router whose WETH a pair takes, at once or after another swap in the pair."""
    builder = Builder(desk)
    assert builder.swap("v3 LINK/WETH 3000", desk.at("LINK"), 10**20, W, R)
    if between:
        assert builder.swap("v2 WETH/USDC", desk.at("USDC"), 10**9, W, W)
    assert builder.swap("v2 WETH/USDC", desk.at("WETH"), builder.router[desk.at("WETH")], R, W)
    return plan_of(*builder.legs)


def test_pair_after_its_feeder__is_paid_by_it_to_the_wei(anvil_chain: LocalChain) -> None:
    desk = rich(anvil_chain)
    assert check(desk, fed_pair(desk, between=False)) == {FundsLocation.WALLET, FundsLocation.PAIR}


def test_pair_between_feeder_and_spender__pays_to_the_wei(anvil_chain: LocalChain) -> None:
    desk = rich(anvil_chain)
    assert check(desk, fed_pair(desk, between=True)) == {FundsLocation.WALLET, FundsLocation.REBALANCER}
