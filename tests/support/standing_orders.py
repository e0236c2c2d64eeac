"""A minimal bot for tests of orders: it evaluates prices cycle by cycle, decides, plans, and holds the result of its plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    ConditionalOrder,
    Decision,
    Head,
    History,
    Hold,
    Holding,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    PastPrices,
    Plan,
    PriceSource,
    Rebalance,
    StepInput,
    WeightReallocation,
)
from agent.planning.planner import plan
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from tests.support.builders import NOW_S, Number, feed_round, history, step_input, token, unit_price, with_limits
from tests.support.tokens import USDC

BLOCK_S = 12
WIDE = {"turnover_bps": 1, "daily_turnover_bps": 1, "daily_loss_bps": None, "plan_cost_bps": 200, "price_impact_bps": 9_000}
"""Turnover limits that block everything except exits."""
FREE = {**WIDE, "turnover_bps": None, "daily_turnover_bps": None}


def terms(symbol: str, kind: OrderKind, price: Number | None = None, share_bps: int | None = None) -> OrderTerms:
    """Return an order by whole-coin price or by share; for the portfolio if the symbol is empty."""
    if symbol == "":
        return OrderTerms("portfolio", kind, None, share_bps)
    exact = None if price is None else unit_price(token(symbol), price, USDC)
    return OrderTerms(token(symbol).address, kind, exact, share_bps)


def price_of(symbol: str, price: Number) -> Fraction:
    """Return the price in base units of USDC per base unit."""
    return unit_price(token(symbol), price, USDC)


@dataclass
class Bot:
    """Holdings (whole coins by symbol), orders and memory of a bot. Cycles are 600 s apart."""

    targets_bps: Mapping[str, int]
    coins: dict[str, Fraction]
    book: OrdersConfig
    confirm: int = 0
    limits: Mapping[str, object] = field(default_factory=lambda: FREE)
    memory: History = field(default_factory=history)
    looks: int = 0
    step: StepInput | None = None
    decision: Decision = field(default_factory=lambda: Hold("not yet"))
    plan: Plan | None = None
    refused: str = ""

    def seen(self, prices: Mapping[str, Number], before: Sequence[Mapping[str, Number]] | None = None) -> StepInput:
        """Return the step at these prices; `before` are the prices of the preceding blocks, newest first (default: unchanged)."""
        every = {symbol: Fraction(prices.get(symbol, 1)) for symbol in self.targets_bps}
        values = {symbol: coins * every[symbol] for symbol, coins in self.coins.items()}
        now_s = NOW_S + self.looks * 600
        step = step_input(
            self.targets_bps, values, every, kinds=[PriceSource.FEED], depth=50_000_000, past=self.memory, cooldown_s=0, now_s=now_s
        )
        head = replace(step.snapshot.head, number=step.snapshot.head.number + 50 * self.looks)
        feeds = tuple(feed_round(symbol, price, now_s - 60) for symbol, price in every.items())
        blocks = [prices] * self.confirm if before is None else before
        past = tuple(_block(head, back, {**every, **dict(block)}, now_s) for back, block in enumerate(blocks, 1))
        holdings = tuple(Holding(token(s).address, int(coins * 10 ** token(s).decimals)) for s, coins in self.coins.items())
        snapshot = replace(step.snapshot, head=head, feeds=feeds, past_prices=past, holdings=holdings)
        step = with_limits(replace(step, snapshot=snapshot), **self.limits)
        policy = replace(step.policy, confirm_blocks=self.confirm)
        return replace(step, policy=policy, portfolio=replace(step.portfolio, orders=self.book))

    def look(self, prices: Mapping[str, Number], before: Sequence[Mapping[str, Number]] | None = None) -> Decision:
        """Run one cycle with all its effects; `memory` takes the place of the store."""
        self.step = apply_orders(self.seen(prices, before))
        history = self.step.history
        self.memory = replace(self.memory, orders=history.orders)
        self.looks, self.plan, self.refused = self.looks + 1, None, ""
        self.decision = decide(self.step).decision
        if isinstance(self.decision, Rebalance):
            try:
                self.plan = plan(self.step, self.decision)
            except Refused as why:
                self.refused = why.message
                return self.decision
            labels = {token(symbol).address: symbol for symbol in self.coins}
            for address, raw in self.plan.holdings_after:
                self.coins[labels[address]] = Fraction(raw, 10 ** token(labels[address]).decimals)
        return self.decision

    def order(self, symbol: str, kind: OrderKind) -> ConditionalOrder:
        """Return the state of one order."""
        at = "portfolio" if symbol == "" else token(symbol).address
        return next(order for order in self.memory.orders.states if (order.token, order.kind) == (at, kind))

    def stages(self) -> dict[str, str]:
        """Return the stages by "SYMBOL kind"."""
        labels = {token(symbol).address: symbol for symbol in self.coins} | {"portfolio": "portfolio"}
        return {f"{labels[order.token]} {order.kind.value}": order.stage.value for order in self.memory.orders.states}

    def rearm(self, symbol: str) -> None:
        """Re-arm the orders of a symbol as the owner's command does in the store."""
        at = "portfolio" if symbol == "" else token(symbol).address
        waiting = tuple(
            replace(state, stage=OrderStage.WAITING, event_price=None) if state.token == at else state
            for state in self.memory.orders.states
        )
        self.memory = history(self.memory, states=waiting)

    def targets(self) -> dict[str, int]:
        """Return the targets of the last cycle, in bps."""
        assert self.step is not None
        return {asset.token.symbol: asset.target_bps for asset in self.step.effective_assets}


def look(bot: Bot, *prices: Number) -> Decision:
    """Run a cycle at each of these prices of WETH, beside WBTC at 60,000; return the last decision."""
    return [bot.look({"WETH": price, "WBTC": 60_000}) for price in prices][-1]


def _block(head: Head, back: int, prices: Mapping[str, Number], now_s: int) -> PastPrices:
    at_s = now_s - BLOCK_S * back
    then = replace(head, number=head.number - back, hash=f"0x{back:064x}", timestamp_s=at_s)
    return PastPrices(then, tuple(feed_round(symbol, price, at_s - 5) for symbol, price in prices.items()), ())


def two(*orders: OrderTerms, weth: Number = 5_000, usdc: Number = 5_000, confirm: int = 0, **changes: object) -> Bot:
    """Return a bot with half WETH at 2,000 and half USDC, and these orders."""
    coins = {"WETH": Fraction(weth) / 2_000, "USDC": Fraction(usdc)}
    return Bot({"WETH": 5_000, "USDC": 5_000}, coins, OrdersConfig(orders, **changes), confirm)  # type: ignore[arg-type]  # fields of Orders


def three(*orders: OrderTerms, absent: WeightReallocation = WeightReallocation.CASH, **changes: object) -> Bot:
    """Return a bot with WETH 50, WBTC 30, USDC 20, on target, and these orders."""
    coins = {"WETH": Fraction(5_000, 2_000), "WBTC": Fraction(3_000, 60_000), "USDC": Fraction(2_000)}
    book = OrdersConfig(orders, absent, **changes)  # type: ignore[arg-type]  # fields of Orders
    return Bot({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, coins, book)
