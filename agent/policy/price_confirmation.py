"""What prices ask for must have been asked for by those of the blocks before, too: one block, or two, anybody can push (T3).

Nothing is remembered for this: the blocks before are read anew, by hash, whenever something is about to be done. So no restart,
no second process and no restored store forgets or doubles a count, a reorganisation changes what is read with it, and the same
input still gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.errors import Refused
from agent.model import AdjustLiquidity, PastPrices, Rebalance, StepInput, Zone
from agent.policy.drift import drift
from agent.policy.liquidity import decide as lp_wish
from agent.policy.liquidity.book import In, bounds, open_book
from agent.policy.triggers import no_trade_zone as zone
from agent.policy.triggers import rules as max_weight
from agent.policy.triggers.rules import Signal, fired
from agent.reference import prices_at
from agent.units import Price

Prices = Mapping[str, Price]
Signals = Callable[[StepInput, Prices], frozenset[Signal]]


def by_trigger(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """What of prices fires the trigger, by side and token, what a zone would exchange, what is above its limit. Raises Refused."""
    drifts, trigger = drift(step, prices), step.policy.trigger
    if isinstance(trigger, Zone):
        pair = zone.view(step, trigger.risk, drifts, prices)[0].pair
        pays = pair is not None and pair.saves > pair.costs
        moves = frozenset({("too much", pair.source), ("too little", pair.target)}) if pays and pair is not None else frozenset[Signal]()
        return max_weight.signals(drifts) or moves
    found = fired(trigger, drifts, step.snapshot.head.timestamp_s, step.history, step.policy.jitter_bps)
    return max_weight.signals(drifts) | frozenset(found.signals)


def by_limits(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """Which limits of liquidity are exceeded. Raises Refused."""
    load, most = open_book(step, prices).load(), bounds(step.limits)
    over = {"impermanent_loss": load.over_loss(most), "lp_max_weight": load.over_weight(most)}
    return frozenset(("limit", name) for name, exceeded in over.items() if exceeded)


def by_targets(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """What the targets of liquidity want moved. Raises Refused."""
    moves = lp_wish.asked_for(step, prices).moves
    return frozenset(("In", move.target.pool) if isinstance(move, In) else (type(move).__name__, move.one.name) for move in moves)


def lacking(step: StepInput, prices: Prices, signals: Signals, every: bool = False) -> str:
    """Why the blocks before do not confirm what `prices`, those of now, ask for; empty when they do, or need not.

    One signal must hold in all of the blocks; with `every` all of them must.
    """
    wanted = step.policy.confirm_blocks
    if wanted == 0:
        return ""
    before = step.snapshot.past[:wanted]
    head = step.snapshot.head.number
    if [past.head.number for past in before] != list(range(head - 1, head - 1 - wanted, -1)):
        return f"the prices of the {wanted} blocks before are not known, which policy.confirm_blocks asks for"
    kept = now = signals(step, prices)
    for past in before:
        then, why = _then(step, past, signals)
        kept &= then
        if why or not kept or (every and kept != now):
            return f"{why or 'the prices did not ask for it'} at block {past.head.number}, and policy.confirm_blocks is {wanted}"
    return ""


def wants(step: StepInput, decided: Callable[[StepInput], object]) -> bool:
    """Whether prices alone make the step act, so that the blocks before have to be read."""
    if step.policy.confirm_blocks == 0 or step.snapshot.past:
        return False
    alone = decided(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    return isinstance(alone, Rebalance | AdjustLiquidity)


def _then(step: StepInput, past: PastPrices, signals: Signals) -> tuple[frozenset[Signal], str]:
    """What the prices and pools of that block ask for of the wallet of now, or why that cannot be said."""
    found = prices_at(step, past)
    unpriced = [f"{gap.label} had no reference price" for gap in found.unpriced if _is_asset(step, gap.token)]
    if unpriced:
        return frozenset(), "; ".join(unpriced)
    then = replace(step, snapshot=replace(step.snapshot, pools=past.pools))
    try:
        return signals(then, {token: price.price for token, price in found.prices.items()}), ""
    except Refused as unknown:
        return frozenset(), unknown.message


def _is_asset(step: StepInput, token: str) -> bool:
    return any(asset.token.address == token for asset in step.portfolio.assets)
