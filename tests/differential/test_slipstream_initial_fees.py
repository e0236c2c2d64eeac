"""The initial fee of Slipstream's module of July 2026, by a contract with its rule: paid until a swap of the block moves the tick."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from eth_utils.crypto import keccak

from agent.amm.v3.slipstream import SlipstreamPool
from agent.app.start.doctor.fee_modules import fee_module_checks
from agent.codec import dumps, loads
from agent.venues.kinds.slipstream import INCLUSION_DELAY_S
from tests.support.attacks import attack
from tests.support.constants import ETHER
from tests.support.markets.slipstream_fees import BASE_PIPS, CAP_PIPS, SCALING, WINDOW_S, DynamicFeeMarket, replace_module
from tests.support.rebalancer import RebalancerAttack
from tests.support.venues import Venues

INITIAL_PIPS = 750
SLIPPAGE_BPS = 50


class InitialMarket(DynamicFeeMarket):
    """The market under a module with an initial fee, after a jump, so that later swaps pay more than the first."""

    def __init__(self, venues: Venues, initial: int = INITIAL_PIPS, window_s: int = WINDOW_S, jump: int = 40) -> None:
        super().__init__(venues)
        module = self.chain.deploy(attack("InitialFeeModule"), self.kind.factory, SCALING, CAP_PIPS, window_s)
        self.initial_module = self.chain.contract(module, attack("InitialFeeModule")).functions
        self.manage(self.factory.setSwapFeeModule(module))
        self.set(initial=initial)
        if jump:
            self.jump(jump)

    def set(
        self, base: int = BASE_PIPS, cap: int = CAP_PIPS, scaling: int = SCALING, enabled: bool = True, initial: int = INITIAL_PIPS
    ) -> None:
        """Set the pool's five settings."""
        self.chain.send(self.initial_module.set(self.pool.address, (base, cap, scaling, enabled, initial)))

    def at_inclusion(self) -> None:
        """Let the next block be as late as a snapshot expects."""
        self.chain.node.rpc("evm_setNextBlockTimestamp", self.chain.node.now_s() + INCLUSION_DELAY_S)


@pytest.fixture
def market(venues: Venues) -> InitialMarket:
    return InitialMarket(venues)


def stall_of(market: InitialMarket) -> RebalancerAttack:
    """Return a wallet with 100 WETH on the market's chain."""
    stall = RebalancerAttack(market.venues)
    stall.chain.set_balance("WETH", 100 * ETHER)
    return stall


def sold(pool: SlipstreamPool, token: str, amounts: Sequence[int]) -> list[int]:
    """Return what these sales of a token pay one after the other."""
    paid = []
    for amount in amounts:
        result = pool.swap(token, amount)
        paid.append(result.amount_out_raw)
        pool = result.pool_after
    return paid


@pytest.mark.parametrize(
    "amounts",
    [[8 * ETHER], [8 * ETHER, 8 * ETHER], [10**9, 10**9, 8 * ETHER, ETHER], [8 * ETHER, 10**9, 3 * ETHER]],
    ids=["one", "two", "small ones first", "a small one between"],
)
def test_each_swap_of_a_transaction_receives_what_was_planned(market: InitialMarket, amounts: list[int]) -> None:
    stall = stall_of(market)
    (pool,) = market.read(caller=stall.victim)
    assert pool.dynamic_fee is not None
    assert (pool.fee_pips, pool.dynamic_fee.initial_pips) == (INITIAL_PIPS, INITIAL_PIPS)
    assert loads(SlipstreamPool, dumps(pool)) == pool
    weth = stall.at("WETH")
    paid = sold(pool, weth, amounts)
    legs = [market.pool.leg(weth, amount, out) for amount, out in zip(amounts, paid, strict=True)]
    market.at_inclusion()
    assert stall.send(stall.program(*legs)) == {"WETH": -sum(amounts), "USDC": sum(paid)}


def test_small_swaps_that_move_no_tick_pay_the_initial_fee_each(market: InitialMarket) -> None:
    (pool,) = market.read()
    weth = market.chain.tokens["WETH"].address
    small = pool.swap(weth, 10**9).pool_after
    assert (small.tick, small.fee_pips) == (pool.tick, INITIAL_PIPS)
    moved = small.swap(weth, 8 * ETHER).pool_after
    assert moved.tick != pool.tick
    assert moved.fee_pips > 2 * INITIAL_PIPS
    assert moved.swap(weth, 10**9).pool_after.fee_pips == moved.fee_pips


def test_minimum__holds_after_another_trader_s_swap_of_the_block(market: InitialMarket) -> None:
    """Both outcomes: a revert by name, or at least the minimum."""
    stall = stall_of(market)
    (pool,) = market.read(caller=stall.victim)
    weth = stall.at("WETH")
    amount = ETHER
    planned = pool.quote(weth, amount)
    outcomes = set()
    for allowed_bps in (SLIPPAGE_BPS, 500):
        least = planned * (10_000 - allowed_bps) // 10_000
        program = stall.program(market.pool.leg(weth, amount, least))
        snapshot = market.chain.node.snapshot()
        market.chain.node.rpc("evm_setAutomine", False)
        eth: Any = market.chain.w3.eth
        before = market.chain.balance("USDC")
        trade = market.venues.hand.functions.run(market.pool.address, market.venues._swap(weth == market.pool.token0, 2 * ETHER))
        trade.transact({"from": market.chain.whale.address, "gas": 3_000_000, "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**10})
        fields = {"gas": 3_000_000, "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9}
        ours = eth.send_transaction({"from": stall.victim, "to": stall.rebalancer, "data": program.calldata, **fields})
        market.chain.node.rpc("evm_mine")
        market.chain.node.rpc("evm_setAutomine", True)
        receipt = eth.get_transaction_receipt(ours)
        assert receipt["transactionIndex"] == 1, "after the trader's"
        received = market.chain.balance("USDC") - before
        assert received == 0 if receipt["status"] == 0 else least <= received < planned
        outcomes.add(int(receipt["status"]))
        market.chain.node.revert(snapshot)
    assert outcomes == {0, 1}


SETTINGS: dict[str, tuple[dict[str, int | bool], int, int | None]] = {
    "an initial fee": ({}, INITIAL_PIPS, INITIAL_PIPS),
    "above the cap": ({"cap": 5_000, "initial": 6_000}, 6_000, 6_000),
    "of base": ({"initial": 0}, BASE_PIPS, BASE_PIPS),
    "of none": ({"initial": 420}, 0, 0),
    "disabled": ({"enabled": False}, BASE_PIPS, None),
    "none at all": ({"base": 420}, 0, None),
}
"""Settings with the fee of the first swap at rest, and the initial fee."""


@pytest.mark.parametrize("name", SETTINGS)
def test_the_five_settings_are_read_as_the_contract_reads_them(venues: Venues, name: str) -> None:
    market = InitialMarket(venues, jump=0)
    settings, pips, initial = SETTINGS[name]
    market.set(**settings)  # type: ignore[arg-type]  # numbers and a switch by name
    market.wait(2 * WINDOW_S)
    (pool,) = market.read()
    assert pool.dynamic_fee is not None
    assert (pool.fee_pips, pool.dynamic_fee.initial_pips) == (pips, initial)
    assert pool.fee_pips == market.fee_at(INCLUSION_DELAY_S)
    assert pool.idle_fee is None or initial is None


def test_the_base_fee_of_the_spacing_stands_for_none_of_its_own(venues: Venues) -> None:
    market = InitialMarket(venues, jump=0)
    market.set(base=0, initial=0)
    market.wait(2 * WINDOW_S)
    (pool,) = market.read()
    assert pool.fee_pips == market.fee_at(INCLUSION_DELAY_S) == 3_000
    assert pool.dynamic_fee is not None
    assert (pool.dynamic_fee.base_pips, pool.dynamic_fee.initial_pips) == (3_000, 3_000)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_sales_after_random_jumps_receive_what_was_planned(venues: Venues, seed: int) -> None:
    market = InitialMarket(venues)
    random = Random(seed)
    stall = stall_of(market)
    for _ in range(4):
        market.jump(random.randrange(1, 60), random.choice(("WETH", "USDC")))
        market.wait(random.choice((1, 2, 30, random.randrange(1, 700))))
        market.set(initial=random.choice((0, 420, 100, 3_000)), enabled=random.random() < 0.8)
        (pool,) = market.read(caller=stall.victim)
        weth = stall.at("WETH")
        amounts = [random.choice((10**9, ETHER, 6 * ETHER)) for _ in range(3)]
        paid = sold(pool, weth, amounts)
        legs = [market.pool.leg(weth, amount, out) for amount, out in zip(amounts, paid, strict=True)]
        market.at_inclusion()
        assert stall.send(stall.program(*legs)) == {"WETH": -sum(amounts), "USDC": sum(paid)}, (seed, amounts, pool.dynamic_fee)


@pytest.mark.parametrize("jump", [0, 40])
def test_a_module_with_another_window_is_not_known(venues: Venues, jump: int) -> None:
    """Without a jump its fee is that of the known window, until a swap moves the tick."""
    market = InitialMarket(venues, window_s=300, jump=jump)
    (pool,) = market.read()
    assert pool.dynamic_fee is None
    assert pool.fee_pips == market.fee_at(0)


def fee_module_row(market: InitialMarket) -> tuple[str, str]:
    """Return state and finding of doctor's row for the venue."""
    table = SimpleNamespace(name=market.kind.name, factory=market.kind.factory)
    context: Any = SimpleNamespace(config=SimpleNamespace(venues=[table]), transport=market.chain.transport)
    head = market.chain.w3.eth.get_block("latest")
    snapshot: Any = SimpleNamespace(pools=market.read(), head=SimpleNamespace(hash=head["hash"].to_0x_hex()))
    ((check, state, finding, _),) = fee_module_checks(context, snapshot)
    assert check == f"fee module {market.kind.name}"
    return state, finding


def test_doctor__names_a_module_of_unknown_rule_with_its_code(venues: Venues) -> None:
    market = InitialMarket(venues)
    module = market.factory.swapFeeModule().call()
    code_hash = "0x" + keccak(bytes(market.chain.w3.eth.get_code(module))).hex()
    assert fee_module_row(market) == ("ok", f"its rule is known: {module}, code hash {code_hash}")
    replace_module(market, 3_000)
    state, finding = fee_module_row(market)
    other = market.factory.swapFeeModule().call()
    assert (state, other in finding, "unknown for 1 of 1 pools" in finding) == ("warn", True, True)
