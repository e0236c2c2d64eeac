"""Price confirmation: price signals must also hold at the preceding blocks, because one or two
blocks can be manipulated (T3). Nothing is stored for this: the preceding blocks are read again,
by hash, before each action. So a restart, second process or restored store cannot lose or double
a count, a reorg changes the blocks read, and the same input gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.errors import Refused
from agent.layers.questions import sale_taxes
from agent.model import (
    LayerDecision,
    NoTradeZone,
    PastPrices,
    Portfolio,
    Rebalance,
    StepInput,
)
from agent.policy.drift import compute_drifts
from agent.policy.triggers import bands, no_trade_zone
from agent.policy.triggers.bands import (
    PriceSignal,
)
from agent.policy.triggers.exchange_costs import PricedMarket
from agent.policy.triggers.rules import evaluate_trigger
from agent.reference import price_inputs, prices_from
from agent.units import Price

Prices = Mapping[str, Price]
SignalSource = Callable[[StepInput, Prices], frozenset[PriceSignal]]


def trigger_signals(step: StepInput, prices: Prices) -> frozenset[PriceSignal]:
    """Return the price signals of the trigger by kind and token: bands, market events, zone
    exchanges, weights above a limit that must be reduced. Under policy.only the other side starts
    no trade, so it confirms none. Raises Refused.
    """
    drifts = compute_drifts(step, prices)
    policy = step.policy
    trigger = policy.trigger
    overweight_signals = frozenset[PriceSignal]()
    if bands.must_reduce_weight(policy, drifts):
        overweight_signals = bands.overweight_signals(drifts)
    if isinstance(trigger, NoTradeZone):
        zone, zone_drifts = no_trade_zone.evaluate_zone(
            PricedMarket.of_step(step, prices),
            trigger.risk,
            drifts,
            sale_taxes(step, prices),
            counts_pairs=policy.trade_side is None,
        )
        zone_signals = no_trade_zone.zone_signals(zone, zone_drifts)
        return overweight_signals or bands.signals_of_side(zone_signals, policy.trade_side)
    trigger_result = evaluate_trigger(
        trigger,
        drifts,
        step.snapshot.head.timestamp_s,
        step.history,
        policy.jitter_bps,
        step.portfolio.numeraire.address,
    )
    return bands.signals_of_side(
        overweight_signals | frozenset(trigger_result.signals), policy.trade_side
    )


def unconfirmed_reason(
    step: StepInput, prices: Prices, signals_at: SignalSource, needs_all: bool = False
) -> str:
    """Return why the preceding blocks do not confirm the signals of current `prices`; empty if they
    do, or if no confirmation is required.

    One signal must hold in all of the blocks; with `needs_all` all of them must.
    """
    confirm_blocks = step.policy.confirm_blocks
    if confirm_blocks == 0:
        return ""
    past_blocks = step.snapshot.past_prices[:confirm_blocks]
    head_number = step.snapshot.head.number
    if [past_block.head.number for past_block in past_blocks] != list(
        range(head_number - 1, head_number - 1 - confirm_blocks, -1)
    ):
        return (
            f"prices of the {confirm_blocks} preceding blocks are missing, and policy.confirm_blocks requires"
            " them"
        )
    confirmed_signals = current_signals = signals_at(step, prices)
    for past_block in past_blocks:
        block_signals, unknown_reason = _signals_at(step, past_block, signals_at)
        confirmed_signals &= block_signals
        if (
            unknown_reason
            or not confirmed_signals
            or (needs_all and confirmed_signals != current_signals)
        ):
            return (
                f"{unknown_reason or 'the prices did not confirm it'} at block {past_block.head.number}, and"
                f" policy.confirm_blocks is {confirm_blocks}"
            )
    return ""


def needs_past_blocks(step: StepInput, decide: Callable[[StepInput], object]) -> bool:
    """True if prices alone make the step act, so that the preceding blocks must be read."""
    if step.policy.confirm_blocks == 0 or step.snapshot.past_prices:
        return False
    unconfirmed_decision = decide(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    return isinstance(unconfirmed_decision, Rebalance | LayerDecision)


def _signals_at(
    step: StepInput, past_block: PastPrices, signals_at: SignalSource
) -> tuple[frozenset[PriceSignal], str]:
    """Return the signals at that block's prices and pools with the current wallet, or why they are
    unknown.
    """
    references = prices_from(price_inputs(step).at_block(past_block))
    unpriced_reasons = [
        f"{unpriced.label} had no reference price"
        for unpriced in references.unpriced
        if _is_asset(step.portfolio, unpriced.token)
    ]
    if unpriced_reasons:
        return frozenset(), "; ".join(unpriced_reasons)
    past_step = replace(step, snapshot=replace(step.snapshot, pools=past_block.pools))
    try:
        return signals_at(past_step, references.price_by_token), ""
    except Refused as refusal:
        return frozenset(), refusal.message


def _is_asset(portfolio: Portfolio, token: str) -> bool:
    return any(asset.token.address == token for asset in portfolio.assets)
