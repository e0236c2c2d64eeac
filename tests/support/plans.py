"""Random plans on an embedded chain: the step that the agent would decide from, the executed plan, and the result."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent import guards
from agent.amm import pools
from agent.errors import Refused
from agent.guards.safety import moved_tokens
from agent.localchain import LocalChain
from agent.model import (
    Asset,
    Evidence,
    FeedRound,
    Goal,
    GoalWeight,
    Head,
    Holding,
    Leg,
    LegPlace,
    Plan,
    PlanCost,
    Pool,
    Portfolio,
    Rebalance,
    ScreenedToken,
    SecondQuote,
    StepInput,
    TokenFinding,
    Verdict,
)
from agent.planning.planner import plan
from agent.planning.proposals import propose_rebalance
from agent.reference import reference_prices
from agent.reference.floors import fair_floor, min_out
from agent.units import BPS
from tests.support import builders
from tests.support.builders import raw, token, with_snapshot
from tests.support.text import mentions
from tests.support.wallets import AtomicDesk, Desk
from tests.support.worlds import read_pool

# --- Plans with exact predictions and evidence that passes every guard, so that tests of guards state only what differs.


W = LegPlace.WALLET
R = LegPlace.ROUTER
GAS_UNITS = 200_000


@dataclass(frozen=True, slots=True)
class Swap:
    """Spec of one leg. A router-funded leg spends everything that earlier legs left in the router, regardless of `amount_in_raw`."""

    pool: Pool
    token_in: str
    amount_in_raw: int = 0
    source: LegPlace = W
    sink: LegPlace = W


def plan_of(step: StepInput, swaps: Sequence[Swap], gas_units: int = GAS_UNITS) -> Plan:
    """Return the plan of these swaps on the snapshot's pools: exact amounts, floors by the limits, balances after."""
    states = {pool.address: pool for pool in step.snapshot.pools}
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    router: dict[str, int] = {}
    legs = []
    for swap in swaps:
        amount_in = swap.amount_in_raw if swap.source is W else router.pop(swap.token_in)
        before = states[swap.pool.address]
        done = before.swap(swap.token_in, amount_in)
        states[swap.pool.address] = done.pool_after
        out = pools.token_out(before, swap.token_in)
        if swap.source is W:
            raw_by_token[swap.token_in] = raw_by_token.get(swap.token_in, 0) - amount_in
        target = raw_by_token if swap.sink is W else router
        target[out] = target.get(out, 0) + done.amount_out_raw
        legs.append(
            Leg(
                pool=before.address,
                venue=before.venue,
                token_in=swap.token_in,
                token_out=out,
                fee_pips=before.fee_pips,
                amount_in_raw=amount_in,
                amount_out_raw=done.amount_out_raw,
                min_out_raw=floor_of(step, before, swap.token_in, amount_in, done.amount_out_raw),
                fee_raw=done.fee_raw,
                impact_bps=pools.price_move_bps(before, done.pool_after, swap.token_in),
                source=swap.source,
                sink=swap.sink,
            )
        )
    block = step.snapshot.head.number
    zero = Fraction(0)
    return Plan(
        block=block,
        decision=Rebalance("test", Goal(())),
        legs=tuple(legs),
        holdings_after=tuple(raw_by_token.items()),
        weights_after_bps=(),
        cost=PlanCost(zero, zero, zero, zero),
        turnover=zero,
        gross_volume=zero,
        gas_units=gas_units,
        gap=None,
        verdicts=(),
        skipped=(),
        expires_block=block + step.execution.expire_blocks,
    )


def approved(step: StepInput) -> StepInput:
    """Return the step with all allowances in place."""
    return with_snapshot(step, allowances=tuple(replace(allowance, raw=2**255) for allowance in step.snapshot.allowances))


def floor_of(step: StepInput, pool: Pool, token_in: str, amount_in_raw: int, out_raw: int) -> int:
    """Return the minimum output by the limits; without reference prices by slippage alone."""
    prices = reference_prices(step).reference_by_token
    limits = step.limits
    token_out = pools.token_out(pool, token_in)
    if token_in not in prices or token_out not in prices:
        return min_out(out_raw, 1, limits.slippage_bps)
    slippage = limits.slippage_bps or 0
    impact = limits.price_impact_bps or 0
    fair = fair_floor(amount_in_raw, prices[token_in].price, prices[token_out].price, pool.fee_pips, impact, slippage)
    return min_out(out_raw, fair, limits.slippage_bps)


def with_leg(plan: Plan, number: int, **changes: object) -> Plan:
    """Return the plan with changed fields of one leg."""
    legs = list(plan.legs)
    legs[number] = replace(legs[number], **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    return replace(plan, legs=tuple(legs))


def evidence(step: StepInput, plan: Plan, **changes: object) -> Evidence:
    """Return evidence that passes every guard: all code pinned, equal second quotes, not paused, clock at the head."""
    plain = Evidence(
        paused=False,
        pause_reason="",
        pinned_code_hashes=tuple((entry.address, entry.hash) for entry in step.snapshot.code_hashes),
        second_quotes=tuple(SecondQuote(number, leg.amount_out_raw) for number, leg in enumerate(plan.legs)),
        has_quorum=True,
        now_s=step.snapshot.head.timestamp_s,
        screened_tokens=tuple(ScreenedToken(token, TokenFinding.CLEAN) for token in moved_tokens(plan)),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def verdict(name: str, step: StepInput, plan: Plan, guard_evidence: Evidence | None = None) -> Verdict:
    """Return one guard's verdict on the plan, by default with evidence that passes."""
    verdicts = [v for v in guards.judge(step, plan, guard_evidence or evidence(step, plan)) if v.guard == name]
    assert len(verdicts) == 1
    return verdicts[0]


def refusing_guards(step: StepInput, plan: Plan, guard_evidence: Evidence | None = None) -> list[str]:
    """Return the guards that refuse a plan, in their order, by default with evidence that passes."""
    return [v.guard for v in guards.judge(step, plan, guard_evidence or evidence(step, plan)) if not v.passed]


def proposed_plan(step: StepInput) -> Plan:
    """Return the plan that is proposed for a step. Raises AssertionError with the decision's reason if there is none."""
    proposal = propose_rebalance(step)
    assert proposal.plan is not None, proposal.decision_result.decision.reason
    return proposal.plan


def assert_refused(judged: Verdict, *terms: str) -> None:
    """Require a refusal whose measurement mentions each of the terms."""
    assert not judged.passed, judged.measured_text
    assert mentions(judged.measured_text, *terms), judged.measured_text


def sell_weth(step: StepInput, whole: Fraction | int = Fraction(1, 2)) -> Plan:
    """Return a plan with one leg that sells WETH in the snapshot's first pool."""
    return plan_of(step, [Swap(step.snapshot.pools[0], token("WETH").address, raw(whole, token("WETH")))])


NEAR_BPS = 1
"""Distance from its destination at which a token needs a reason."""
REASONS = (
    "limits.", "no usable pool", "no route", "the ticks read", "less than", "cannot be traded against it", "accept no more", "hold no more",
    "its gas", "floor", "plan_cost allows",
)  # fmt: skip
"""Words that name a bound."""


@dataclass(frozen=True)
class Outcome:
    """Result of one problem. `off_bps` is the distance of each token from its destination, as a share of the total on chain."""

    seed: int
    plan: Plan | None
    exact: bool
    off_bps: Mapping[str, Fraction]
    reasons: tuple[str, ...]
    gas_used: int = 0
    difference: str = ""
    """What was not as planned."""

    @property
    def arrived(self) -> bool:
        """Whether every token is at its destination."""
        return all(off <= NEAR_BPS for off in self.off_bps.values())

    @property
    def explained(self) -> bool:
        """Whether a bound is named for every token that is not at its destination."""
        late = [symbol for symbol, off in self.off_bps.items() if off > NEAR_BPS]
        return all(
            any(reason.startswith(f"{symbol}:") and any(word in reason for word in REASONS) for reason in self.reasons) for symbol in late
        )

    @property
    def kept(self) -> bool:
        """Whether the plan was exact to the wei, and every token is at its destination or has a named bound."""
        return self.exact and self.explained

    def __str__(self) -> str:
        off = max(self.off_bps.values(), default=Fraction(0))
        legs = 0 if self.plan is None else len(self.plan.legs)
        gap = 0.0 if self.plan is None else float(self.plan.gap_bps or 0)
        words = "as planned" if self.exact else f"NOT as planned ({self.difference})"
        why = "" if self.arrived else "  " + "; ".join(self.reasons)
        return f"{self.seed:>4}  {legs:>2} legs  {words}  {float(off):8.2f} bps off  gap {gap:.4f} bps{why}"


def step_of(chain: LocalChain, targets_bps: Mapping[str, int], **limits: object) -> StepInput:
    """Return the step that the agent would decide from: every pool's whole state, the wallet's balances, feeds at the chain's prices."""
    tokens = {symbol: chain.tokens[symbol] for symbol in targets_bps}
    feeds = [
        FeedRound(
            builders.feed_address(s), 8, 7, int(chain.deployed_world.prices_usd[s] * 10**8), builders.NOW_S - 60, builders.NOW_S - 60, 7
        )
        for s in tokens
    ]
    pools = [read_pool(chain, name) for name in chain.address_by_pool]
    holdings = [Holding(token.address, chain.balance(symbol)) for symbol, token in tokens.items()]
    read = builders.snapshot(holdings, pools, feeds, head=Head(chain.chain_id, 1_000, "0x00", builders.NOW_S, 10**9))
    assets = tuple(Asset(tokens[symbol], bps, 0, builders.feed_address(symbol)) for symbol, bps in targets_bps.items())
    portfolio = Portfolio(tokens["USDC"], assets, (), tokens["WETH"].address)
    bounds = replace(builders.limits(), **{"turnover_bps": None, "daily_turnover_bps": None, "plan_cost_bps": 150} | limits)  # type: ignore[arg-type]
    step = builders.step_input()
    execution = replace(step.execution, sweeps_outputs=True)
    return replace(step, snapshot=read, portfolio=portfolio, limits=bounds, execution=execution)


def hold(chain: LocalChain, values: Mapping[str, Fraction | int]) -> None:
    """Set the wallet's balances to these values in dollars."""
    for symbol, dollars in values.items():
        token = chain.tokens[symbol]
        chain.set_balance(symbol, int(Fraction(dollars) * 10**token.decimals / chain.deployed_world.prices_usd[symbol]))


def any_step(chain: LocalChain, seed: int) -> tuple[StepInput, Rebalance]:
    """Return random tokens, targets, holdings of 2,000 to 2,000,000 dollars, limits and destination; some pools are pushed off the
    market.
    """
    dice = random.Random(f"plan on chain {seed}")
    others = [symbol for symbol in chain.tokens if symbol not in ("WETH", "USDC")]
    symbols = ["WETH", "USDC", *dice.sample(others, dice.randint(0, len(others)))]
    cuts = sorted(dice.sample(range(1, 20), len(symbols) - 1))
    shares = [500 * (b - a) for a, b in zip((0, *cuts), (*cuts, 20), strict=True)]
    worth = 10 ** dice.uniform(3.3, 6.3)
    parts = [dice.gammavariate(1, 1) for _ in symbols]
    hold(chain, dict.fromkeys(chain.tokens, 0) | {s: Fraction(worth * p / sum(parts)) for s, p in zip(symbols, parts, strict=True)})
    for name in dice.sample(sorted(chain.address_by_pool), 3):
        push(chain, name, dice.uniform(0, 5_000), dice)
    step = step_of(
        chain,
        dict(zip(symbols, shares, strict=True)),
        price_impact_bps=dice.choice([30, 100, 100, 200]),
        plan_cost_bps=dice.choice([40, 80, 150, None]),
        turnover_bps=dice.choice([None, None, None, 3_000]),
    )
    return step, Rebalance("a random plan", destination(step, dice))


def push(chain: LocalChain, name: str, dollars: float, dice: random.Random) -> None:
    """Swap in a pool from another account."""
    info = chain.deployed_world.pool_by_name[name]
    token_in = dice.choice([info.token0, info.token1])
    raw = int(Fraction(dollars) * 10**token_in.decimals / chain.deployed_world.prices_usd[token_in.symbol])
    if raw > 10**3:
        chain.swap(name, token_in.symbol, raw)


def destination(step: StepInput, dice: random.Random) -> Goal:
    """Return a random destination: the targets, a band around them, or half of the way."""
    kind = dice.choice(["target", "band", "halfway"])
    values = {asset.token.address: value_of(step, asset.token.address) for asset in step.portfolio.assets}
    total = sum(values.values(), Fraction(0))
    points = []
    for asset in step.effective_assets:
        share = Fraction(asset.target_bps, BPS)
        if kind == "halfway":
            share = (share + values[asset.token.address] / total) / 2
        band = share / 20 if kind == "band" else Fraction(0)
        points.append(GoalWeight(asset.token.address, share - band, share + band))
    return Goal(tuple(points))


def value_of(step: StepInput, address: str, raw: int | None = None) -> Fraction:
    """Return the dollar value of a balance (default: the holding) at the feeds' prices."""
    answers = {feed.feed: feed.answer for feed in step.snapshot.feeds}
    asset = next(asset for asset in step.portfolio.assets if asset.token.address == address)
    held_raw = next(holding.raw for holding in step.snapshot.holdings if holding.token == address)
    return Fraction((held_raw if raw is None else raw) * answers[asset.feed], 10 ** (asset.token.decimals + 8))


def execute(chain: LocalChain, seed: int) -> Outcome:
    """Plan one random problem and execute it, by the Rebalancer or SwapRouter02 in turn."""
    step, decision = any_step(chain, seed)
    symbols = {asset.token.address: asset.token.symbol for asset in step.portfolio.assets}
    before = {at: chain.balance(symbol) for at, symbol in symbols.items()}
    try:
        swap_plan = plan(step, decision)
    except Refused as refusal:
        return Outcome(seed, None, exact=True, off_bps=off(step, decision.goal, before), reasons=(f"all: {refusal.message}",))
    desk = (AtomicDesk if seed % 2 else Desk)(chain)
    desk.approve_for(swap_plan)
    receipt = desk.swap(swap_plan)
    after = {at: chain.balance(symbol) for at, symbol in symbols.items()}
    planned = dict(swap_plan.holdings_after)
    difference = "" if receipt.status == 1 else f"reverted with {receipt.gas_used} gas used in block {receipt.block_number}"
    if not difference and after != planned:
        difference = "; ".join(
            f"{symbols.get(at, at)} {after.get(at)} instead of {planned.get(at)}"
            for at in {**planned, **after}
            if after.get(at) != planned.get(at)
        )
    reasons = tuple(f"{item.subject}: {item.why}" for item in swap_plan.skipped)
    return Outcome(seed, swap_plan, not difference, off(step, decision.goal, after), reasons, receipt.gas_used, difference)


def off(step: StepInput, goal: Goal, balances: Mapping[str, int]) -> dict[str, Fraction]:
    """Return the distance of each token from its destination, in bps of the total."""
    values = {at: value_of(step, at, raw) for at, raw in balances.items()}
    total = sum(values.values(), Fraction(0))
    differences = {}
    for weight in goal.weights:
        share = values[weight.token] / total
        symbol = step.portfolio.token(weight.token).label
        differences[symbol] = max(weight.low - share, share - weight.high, Fraction(0)) * BPS
    return differences
