"""Searchers on anvil that trade before our snapshot, and in front of and behind our swap in the same block; and their profits.

Their gas is free and they have no competition, so they earn more here than is possible in reality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.amm.lp.positions import sqrt_price_x96
from agent.app.agent import Agent
from agent.artifacts import npm_artifact
from agent.execution.settlement import realised_legs
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards.sandwich import plan_worst_case
from agent.localchain import LocalChain, LocalPool
from agent.localchain.chain import SWAP_ROUTER_02_ARTIFACT, V2_PAIR_ARTIFACT
from agent.localchain.nodes import AnvilNode
from agent.localchain.world import v2_input_to_reach
from agent.model import IntentKind, LegPlace, Plan
from agent.units import BPS, PIPS
from tests.support.agents import ROOMY, USD, agent_on, explain_balances, fund, loss_usd, purse, yes
from tests.support.constants import GWEI
from tests.support.worlds import price_now

FIRST = 50 * GWEI
LAST = 0
"""Tips of transactions in front of ours, and behind ours."""
PLAN_COST = Fraction(50, BPS)
SLIPPAGE = Fraction(30, BPS)
"""The template's limits."""
Push = tuple[str, str]
"""A pool by name, and the symbol of the token sold into it."""


@dataclass(frozen=True, slots=True)
class Tactic:
    """Shares of the size traded before the snapshot and in front of the swap; negative in the other direction.

    With `back` the open position is closed behind the swap in the same block, with the profit from our swap's distance from the fair
    price; otherwise in the next block.
    """

    name: str
    skew: Fraction
    front: Fraction
    back: bool


TACTICS = (
    Tactic("back-run", Fraction(0), Fraction(0), True),
    Tactic("front-run, unwind later", Fraction(0), Fraction(1), False),
    Tactic("front-run and back-run", Fraction(0), Fraction(1), True),
    Tactic("skew, unwind later", Fraction(1), Fraction(0), False),
    Tactic("skew and back-run", Fraction(1), Fraction(0), True),
    Tactic("skew, front-run and back-run", Fraction(1, 2), Fraction(1, 2), True),
    Tactic("bait: skew in our favour, turned round in front", Fraction(-1), Fraction(2), True),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """Result of one attack, in dollars at fair prices. For a plan that was not executed everything but gas is zero.

    `lost` is our loss, gas included, and `limit` the loss allowed by the limits: (plan_cost + slippage) · turnover, and the gas of
    approvals and reverts. `short` is the shortfall of our outputs against the plan; `shown_short` and `shown_profit` are the estimates,
    before submission, of the largest shortfall and the largest profit of a searcher, `shown_worst` the worst case, and that gas.
    """

    size_usd: Fraction
    kind: OutcomeKind
    profit: Fraction
    lost: Fraction
    limit: Fraction
    turnover: Fraction
    short: Fraction = Fraction(0)
    shown_short: Fraction = Fraction(0)
    shown_profit: Fraction = Fraction(0)
    shown_worst: Fraction | None = None

    def require_bounded(self) -> None:
        """Assert that our loss and the searcher's profit are within limits and estimates."""
        assert self.lost <= self.limit, self
        self.require_shown()

    def require_shown(self) -> None:
        """Assert that our loss and the searcher's profit are within the estimates."""
        assert self.shown_worst is None or self.lost <= self.shown_worst, self
        if self.kind is OutcomeKind.DONE:
            assert self.short <= self.shown_short, self
            assert self.profit <= self.shown_profit, self
        else:
            assert self.profit <= 0, self


class Searcher:
    """The whale as a searcher against one agent; it orders the transactions of a block."""

    def __init__(self, chain: LocalChain, agent: Agent, value_by_symbol: Mapping[str, int]) -> None:
        assert isinstance(chain.node, AnvilNode)
        self.chain = chain
        self.node = chain.node
        self.agent = agent
        self.value_by_symbol = value_by_symbol
        self.names = {address: name for name, address in chain.address_by_pool.items()}
        self.symbols = {token.address: symbol for symbol, token in chain.tokens.items()}

    def expected_pushes(self) -> list[Push]:
        """Return the pushes against the plan that the agent would make now, with fresh funds."""
        fund(self.chain, self.value_by_symbol)
        explain_balances(self.agent)
        planned = self.agent.plan().plan
        assert planned is not None, "without a plan there is nothing to attack"
        return self.pushes(planned)

    def attack(self, tactic: Tactic, size_usd: Fraction, expected: list[Push] | None = None) -> Turn:
        """Run one step of the agent under this attack, from a restored market and fresh funds. The pushes before the snapshot are those
        `expected`, by default of the plan that it would make now.
        """
        chain = self.chain
        targets = self.expected_pushes() if expected is None else expected
        fund(chain, self.value_by_symbol)
        explain_balances(self.agent)
        had = self.wealth()
        before = purse(chain)
        for pool, sold in targets:
            self.trade(pool, sold, tactic.skew * size_usd)
        touched = set(targets)

        def in_block(plan: Plan) -> None:
            used = self.pushes(plan)
            touched.update(used)
            self.order_block(used, tactic, size_usd)

        outcome = self.agent.rebalance(send=True, confirm=yes, progress=self.at_swap(in_block))
        for pool, _ in sorted(touched):
            self.harvest(chain.deployed_world.pool_by_name[pool])
        profit = self.wealth() - had
        assert expected is not None or outcome.kind is not OutcomeKind.HALT, outcome.reason
        turn = self.turn(outcome, size_usd, profit, loss_usd(chain, before, chain.deployed_world.prices_usd))
        if outcome.kind is OutcomeKind.FAILED:  # a success in between, since three reverts in a row would stop the agent
            assert self.agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        for name in chain.address_by_pool:
            chain.arbitrage(chain.deployed_world.pool_by_name[name])
        return turn

    def turn(self, outcome: StepOutcome, size_usd: Fraction, profit: Fraction, lost_usd: Fraction) -> Turn:
        """Return the figures of an attacked step."""
        assert outcome.kind in (OutcomeKind.DONE, OutcomeKind.FAILED, OutcomeKind.REFUSED, OutcomeKind.HALT), outcome.reason
        done = outcome.kind is OutcomeKind.DONE
        beside = [i for i in outcome.transactions if i.receipt is not None and not (done and i.kind is IntentKind.SWAP)]
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in beside if intent.receipt is not None)
        gas = Fraction(gas_wei, 10**18) * self.chain.deployed_world.prices_usd["WETH"]
        plan = outcome.plan
        if not done or plan is None:
            return Turn(size_usd, outcome.kind, profit, lost_usd, gas, Fraction(0))
        (swap,) = [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP]
        assert swap.receipt is not None
        ends = [(done.leg, done.out_raw) for done in realised_legs(plan, swap.receipt) if done.leg.sink is LegPlace.WALLET]
        short = sum((self.worth(leg.token_out, leg.amount_out_raw - out_raw) for leg, out_raw in ends), Fraction(0))
        sandwich = self.agent.sandwich_risk(outcome)
        assert sandwich.max_loss is not None
        assert sandwich.max_profit is not None
        limit = (PLAN_COST + SLIPPAGE) * plan.turnover / USD + gas
        most = sandwich.max_loss / USD
        worst = plan_worst_case(outcome.step_input, plan)
        assert worst is not None
        turnover = plan.turnover / USD
        gained = sandwich.max_profit / USD
        return Turn(size_usd, outcome.kind, profit, lost_usd, limit, turnover, short, most, gained, worst / USD + gas)

    def at_swap(self, happens: Callable[[Plan], None]) -> Callable[[str], None]:
        """Return a progress listener that keeps a sent swap in the mempool until `happens` has ordered the block."""
        store = self.agent.context.store

        def progress(event: str) -> None:
            if event not in ("before:send", "after:send") or store.journal.open_intents()[-1].kind is not IntentKind.SWAP:
                return
            if event == "before:send":
                self.node.rpc("evm_setAutomine", False)
                return
            try:
                plan = store.journal.grant(store.journal.open_intents()[-1].id).plan
                assert plan is not None
                happens(plan)
            finally:
                self.node.rpc("evm_setAutomine", True)

        return progress

    def order_block(self, used: Sequence[Push], tactic: Tactic, size_usd: Fraction) -> None:
        """Mine one block with our swap from the mempool, and the searcher's trades in front of it and behind it."""
        ours = [tx["hash"] for by_nonce in self.node.rpc("txpool_content")["pending"].values() for tx in by_nonce.values()]
        assert len(ours) == 1, "the mempool holds the agent's swap alone"
        nonce = int(self.node.rpc("eth_getTransactionCount", self.chain.whale.address, "latest"), 16)
        orders = [(self.order(pool, sold, tactic.front * size_usd), FIRST) for pool, sold in used if tactic.front]
        orders += [(order, LAST) for pool, sold in used if tactic.back for order in self.closing(pool, sold)]
        base_wei = int(self.node.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        hashes = []
        for number, (order, tip) in enumerate(orders):
            most_wei = 200 * GWEI if tip == FIRST else base_wei * 9 // 8 + 1  # anvil orders by this fee; ours pays up to twice the base fee
            fees = {"gas": 3_000_000, "maxFeePerGas": most_wei, "maxPriorityFeePerGas": tip, "nonce": nonce + number}
            hashes.append("0x" + bytes(order.transact({"from": self.chain.whale.address, **fees})).hex())
        self.node.rpc("evm_mine")
        mined = self.node.rpc("eth_getBlockByNumber", "latest", False)["transactions"]
        fronts = sum(tip == FIRST for _, tip in orders)
        assert mined == hashes[:fronts] + ours + hashes[fronts:], "the block is not in the searcher's order"

    def pushes(self, plan: Plan) -> list[Push]:
        """Return the pools of a plan, each with the token that the plan sells there."""
        return list(dict.fromkeys((self.names[leg.pool], self.symbols[leg.token_in]) for leg in plan.legs))

    def trade(self, pool: str, sold: str, usd: Fraction) -> None:
        """Sell for this many dollars; a negative amount buys."""
        if usd:
            self.chain.send(self.order(pool, sold, usd))

    def order(self, pool: str, sold: str, usd: Fraction) -> Any:
        """Return a bound call that sells for this many dollars (negative: buys)."""
        info = self.chain.deployed_world.pool_by_name[pool]
        symbol_in = sold if usd > 0 else next(token.symbol for token in (info.token0, info.token1) if token.symbol != sold)
        raw = int(abs(usd) / self.chain.deployed_world.prices_usd[symbol_in] * 10 ** self.chain.tokens[symbol_in].decimals)
        return self._swap(info, symbol_in, raw, 0)

    def closing(self, pool: str, sold: str) -> list[Any]:
        """Return the calls behind a swap that sold this token into the pool: they buy it back while the pool is off the fair price.

        A pair has no price limit; its rest waits for the next block.
        """
        info = self.chain.deployed_world.pool_by_name[pool]
        if info.version == 2:
            return []
        bought = info.token1 if info.token0.symbol == sold else info.token0
        limit_x96 = sqrt_price_x96(self._kept(info, up=sold == info.token0.symbol))
        return [self._swap(info, bought.symbol, self.chain.balance(bought.symbol, self.chain.whale.address) // 10, limit_x96)]

    def harvest(self, info: LocalPool) -> None:
        """Trade a pool until no further profit is possible after its fee."""
        now_x96 = sqrt_price_x96(price_now(self.chain, info.name))
        whale = self.chain.whale.address
        for token_in, target, off in ((info.token0, self._kept(info, up=False), 1), (info.token1, self._kept(info, up=True), -1)):
            if (now_x96 - sqrt_price_x96(target)) * off <= 0:
                continue
            if info.version == 3:
                call = self._swap(info, token_in.symbol, self.chain.balance(token_in.symbol, whale) // 10, sqrt_price_x96(target))
            else:
                reserves = self.chain.contract(info.address, npm_artifact(V2_PAIR_ARTIFACT)).functions.getReserves().call()[:2]
                there = v2_input_to_reach(*reserves, target) if off > 0 else v2_input_to_reach(*reversed(reserves), 1 / target)
                if there == 0:
                    continue
                call = self._swap(info, token_in.symbol, there, 0)
            self.chain.send(call)

    def _kept(self, info: LocalPool, up: bool) -> Fraction:
        """Return the price (token1 per token0) up to which buying token0, or down to which selling it, is profitable after the fee."""
        fair = self.chain.pool_price(info.token0.symbol, info.token1.symbol)
        keeps = 1 - Fraction(info.fee_pips, PIPS)
        return fair * keeps if up else fair / keeps

    def _swap(self, info: LocalPool, symbol_in: str, raw: int, limit_x96: int) -> Any:
        chain = self.chain
        router = chain.contract(chain.addresses.swap_router_02, npm_artifact(SWAP_ROUTER_02_ARTIFACT)).functions
        sold = chain.tokens[symbol_in]
        bought = info.token1 if info.token0.symbol == symbol_in else info.token0
        if info.version == 2:
            return router.swapExactTokensForTokens(raw, 0, [sold.address, bought.address], chain.whale.address)
        return router.exactInputSingle((sold.address, bought.address, info.fee_pips, chain.whale.address, raw, 0, limit_x96))

    def worth(self, address: str, raw: int) -> Fraction:
        """Return the dollar value of base units."""
        symbol = self.symbols[address]
        return raw * self.chain.deployed_world.prices_usd[symbol] / 10 ** self.chain.tokens[symbol].decimals

    def wealth(self) -> Fraction:
        """Return the dollar value of everything that the searcher has, except native coin."""
        whale = self.chain.whale.address
        return sum(
            (self.worth(token.address, self.chain.balance(symbol, whale)) for symbol, token in self.chain.tokens.items()), Fraction(0)
        )


# --- Scenes for attacks, and the search for the most profitable size.


BIG = {**ROOMY, "limits.daily_loss": "off", "limits.gas_per_day": "off", "portfolio.max_live_value": "off"}
"""Changes after which only the limits of a single plan protect the portfolio."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A portfolio large enough to be worth an attack: config changes, targets, and holdings in dollars."""

    name: str
    changes: Mapping[str, object]
    targets: Mapping[str, str] | None
    value_by_symbol: Mapping[str, int]


ONE_POOL = Scene(
    "one pool",
    {**BIG, "venues.uniswap_v2.pools": [], "venues.uniswap_v3.fee_tiers": [500]},
    {"WETH": "50%", "USDC": "50%"},
    {"WETH": 1_200_000, "USDC": 600_000},
)
"""300,000 dollars through one V3 pool of 40 million."""
EVERY_POOL = Scene("every pool", BIG, None, {"WETH": 900_000, "WBTC": 250_000, "USDC": 250_000, "USDT": 400_000, "LINK": 200_000})
"""Five tokens over all pools of V2 and V3."""
BUYING = replace(ONE_POOL, name="one pool, buying", value_by_symbol={"WETH": 600_000, "USDC": 1_200_000})
"""The same from the other side."""
SCENES = (ONE_POOL, EVERY_POOL)
ROUTERS = ("swap_router_02", "rebalancer")


@contextmanager
def searcher_on(chain: LocalChain, folder: Path, scene: Scene, router: str) -> Iterator[Searcher]:
    """Yield a searcher against an agent with the scene's holdings."""
    with agent_on(chain, folder, {**scene.changes, "execution.router": router}, scene.targets) as agent:
        yield Searcher(chain, agent, scene.value_by_symbol)


def turns_by_size(attack: Callable[[Fraction], Turn], sizes: Sequence[Fraction], rounds: int) -> list[Turn]:
    """Return the results by ascending size."""
    turns = {size: attack(size) for size in sizes}
    for _ in range(rounds):
        known = sorted(turns)
        best = max(range(len(known)), key=lambda number: turns[known[number]].profit)
        beside = [(low, high) for low, high in pairwise(known) if known[best] in (low, high)]
        if not beside:
            break
        low, high = max(beside, key=lambda ends: ends[1] - ends[0])
        turns[(low + high) / 2] = attack((low + high) / 2)
    return [turns[size] for size in sorted(turns)]


# --- Moves that the references have not followed.


LARGEST_PUSH_USD = 6_000_000
"""Moves ONE_POOL's pool by about 2 %, beyond any lag that oracle_deviation permits."""
PUSH_AND_BACK_RUN = Tactic("skew and back-run", Fraction(1), Fraction(0), True)
MOSTLY_SKEW = Tactic("most of it skew, the rest in front", Fraction(17, 20), Fraction(3, 20), True)
LAG_TACTICS = (PUSH_AND_BACK_RUN, MOSTLY_SKEW)


@dataclass(frozen=True, slots=True)
class UnseenMove:
    """A move of WETH by `move_bps`, in equal steps of a minute, that no feed follows; the pools stay there for `wait_s`."""

    move_bps: int
    step_count: int = 1
    wait_s: int = 0

    def play(self, chain: LocalChain) -> None:
        """Move the market, and let the time pass."""
        start_usd = chain.deployed_world.prices_usd["WETH"]
        for step in range(1, self.step_count + 1):
            if step > 1:
                chain.warp(60, refresh_feeds=False)
            price_usd = start_usd * (1 + Fraction(self.move_bps * step, BPS * self.step_count))
            chain.move_market({"WETH": price_usd}, twap_follows=False, feeds_follow=False)
        if self.wait_s:
            chain.warp(self.wait_s, refresh_feeds=False)


def attacked_after(
    chain: LocalChain, folder: Path, scene: Scene, router: str, move: UnseenMove, tactic: Tactic, size_usd: Fraction
) -> Turn:
    """Return the result of one attack on a new agent so long after the move; the chain is as before it."""
    snapshot = chain.snapshot()
    world = chain.deployed_world
    agent_folder = folder / f"agent-{len(list(folder.iterdir()))}"
    agent_folder.mkdir()
    try:
        with searcher_on(chain, agent_folder, scene, router) as searcher:
            expected = searcher.expected_pushes()
            move.play(chain)
            return searcher.attack(tactic, size_usd, expected)
    finally:
        chain.revert(snapshot)
        chain.deployed_world = world


def best_responses(chain: LocalChain, folder: Path, scene: Scene, router: str, move: UnseenMove, rounds: int) -> list[Turn]:
    """Return the results of a search, for each tactic, for the largest push after which the plan is still carried out: up to it the loss
    grows.
    """
    turns = []
    for tactic in LAG_TACTICS:
        carried_out_usd = Fraction(0)
        refused_usd = Fraction(LARGEST_PUSH_USD)
        for _ in range(rounds):
            size_usd = (carried_out_usd + refused_usd) / 2
            turns.append(attacked_after(chain, folder, scene, router, move, tactic, size_usd))
            if turns[-1].kind is OutcomeKind.DONE:
                carried_out_usd = size_usd
            else:
                refused_usd = size_usd
    return turns
