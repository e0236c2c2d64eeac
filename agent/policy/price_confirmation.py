"""Price confirmation: price signals must also hold at the preceding blocks, since one or two blocks
can be manipulated (T3).

Nothing is stored for this: the preceding blocks are read anew, by hash, before each action. So no
restart, second process or restored store loses or doubles a count, a reorg changes the blocks read,
and the same input still gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.errors import Refused
from agent.model import AdjustLiquidity, NoTradeZone, PastPrices, Rebalance, StepInput
from agent.policy.drift import compute_drifts
from agent.policy.liquidity import decide
from agent.policy.liquidity.book import ProvideMove, liquidity_limits, open_position_book
from agent.policy.triggers import bands, no_trade_zone
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.trigger import Signal
from agent.reference import reference_prices_at
from agent.units import Price

Prices = Mapping[str, Price]
SignalSource = Callable[[StepInput, Prices], frozenset[Signal]]


def trigger_signals(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """Return the price signals of the trigger by side and token: bands, zone exchanges, weights
    above their limit. Raises Refused.
    """
    drifts, trigger = compute_drifts(step, prices), step.policy.trigger
    if isinstance(trigger, NoTradeZone):
        pair = no_trade_zone.evaluate_zone(step, trigger.risk, drifts, prices)[0].pair
        pays = pair is not None and pair.saves > pair.costs
        moves = (
            frozenset({("too much", pair.source), ("too little", pair.target)})
            if pays and pair is not None
            else frozenset[Signal]()
        )
        return bands.overweight_signals(drifts) or moves
    found = evaluate_trigger(
        trigger, drifts, step.snapshot.head.timestamp_s, step.history, step.policy.jitter_bps
    )
    return bands.overweight_signals(drifts) | frozenset(found.signals)


def limit_signals(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """Return a signal for each exceeded liquidity limit. Raises Refused."""
    load, most = open_position_book(step, prices).load(), liquidity_limits(step.limits)
    over = {"impermanent_loss": load.exceeds_loss(most), "lp_max_weight": load.exceeds_weight(most)}
    return frozenset(("limit", name) for name, exceeded in over.items() if exceeded)


def liquidity_signals(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """Return a signal for each move of the liquidity targets. Raises Refused."""
    moves = decide.target_adjustment(step, prices).moves
    return frozenset(
        (
            ("ProvideMove", move.target.pool)
            if isinstance(move, ProvideMove)
            else (type(move).__name__, move.one.name)
        )
        for move in moves
    )


def unconfirmed_reason(
    step: StepInput, prices: Prices, signals: SignalSource, every: bool = False
) -> str:
    """Return why the preceding blocks do not confirm the signals of current `prices`; empty if they
    do, or need not.

    One signal must hold in all of the blocks; with `every` all of them must.
    """
    wanted = step.policy.confirm_blocks
    if wanted == 0:
        return ""
    before = step.snapshot.past[:wanted]
    head = step.snapshot.head.number
    if [past.head.number for past in before] != list(range(head - 1, head - 1 - wanted, -1)):
        return (
            f"the prices of the {wanted} previous blocks are not known, which policy.confirm_blocks"
            " requires"
        )
    kept = now = signals(step, prices)
    for past in before:
        then, why = _then(step, past, signals)
        kept &= then
        if why or not kept or (every and kept != now):
            return (
                f"{why or 'the prices did not confirm it'} at block {past.head.number}, and"
                f" policy.confirm_blocks is {wanted}"
            )
    return ""


def needs_past_blocks(step: StepInput, decided: Callable[[StepInput], object]) -> bool:
    """True if prices alone make the step act, so that the preceding blocks must be read."""
    if step.policy.confirm_blocks == 0 or step.snapshot.past:
        return False
    alone = decided(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    return isinstance(alone, Rebalance | AdjustLiquidity)


def _then(
    step: StepInput, past: PastPrices, signals: SignalSource
) -> tuple[frozenset[Signal], str]:
    """Return the signals at that block's prices and pools with the current wallet, or why they are
    unknown.
    """
    found = reference_prices_at(step, past)
    unpriced = [
        f"{gap.label} had no reference price"
        for gap in found.unpriced
        if _is_asset(step, gap.token)
    ]
    if unpriced:
        return frozenset(), "; ".join(unpriced)
    then = replace(step, snapshot=replace(step.snapshot, pools=past.pools))
    try:
        return signals(then, found.by_token), ""
    except Refused as unknown:
        return frozenset(), unknown.message


def _is_asset(step: StepInput, token: str) -> bool:
    return any(asset.token.address == token for asset in step.portfolio.assets)
