"""Triggers by class and kind: evaluation, recorded prices needed, validation with their policy,
text, and confirmation by preceding blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.errors import ConfigError, Refused
from agent.model import (
    AnyOf,
    AssetDrift,
    Cron,
    Destination,
    History,
    LayerDecision,
    NoTradeZone,
    PastPrices,
    Policy,
    Portfolio,
    Rebalance,
    SingleTrigger,
    StepInput,
    Threshold,
    TradeSide,
    Trigger,
    review_interval_s,
    schedules_of,
    thresholds_of,
)
from agent.policy.drift import compute_drifts, has_band, with_trigger_bands
from agent.policy.triggers import bands, market_events, no_trade_zone, schedules
from agent.policy.triggers.bands import (
    Signal,
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
    validate_band,
)
from agent.policy.triggers.schedules import earliest
from agent.reference import price_inputs, prices_from
from agent.units import Price

RULES: Mapping[type[Any], TriggerRules] = {
    **bands.RULES,
    **schedules.RULES,
    **market_events.RULES,
    **no_trade_zone.RULES,
}
"""Rules by class. AnyOf uses the rules of its triggers."""
NOTATIONS: Mapping[str, TriggerNotation] = {
    notation.kind: notation
    for notation in (
        *bands.NOTATIONS,
        *schedules.NOTATIONS,
        *market_events.NOTATIONS,
        *no_trade_zone.NOTATIONS,
    )
}
"""Notations by kind, in the order in which errors of the config list them."""
MOST_TRIGGERS = 8


def evaluate_trigger(
    trigger: SingleTrigger | AnyOf,
    drifts: Sequence[AssetDrift],
    now_s: int,
    history: History,
    jitter_bps: int = 0,
) -> TriggerResult:
    """Return the result of `trigger` at block time `now_s`; TriggerInput describes the input."""
    if isinstance(trigger, AnyOf):
        banded_triggers = [
            (member, with_trigger_bands(drifts, member)) for member in trigger.triggers
        ]
        return _any(
            [
                evaluate_trigger(member, banded, now_s, history, jitter_bps)
                for member, banded in banded_triggers
            ]
        )
    return RULES[type(trigger)].evaluate(trigger, TriggerInput(drifts, now_s, history, jitter_bps))


def _any(answers: Sequence[TriggerResult]) -> TriggerResult:
    """Combine several results: the reasons are those of fired triggers, or of all if none fired."""
    firing = [answer for answer in answers if answer.fired]
    review_times = [answer.next_s for answer in answers]
    return TriggerResult(
        bool(firing),
        "; ".join(dict.fromkeys(answer.reason for answer in firing or answers)),
        None if None in review_times else earliest(*review_times),
        any(answer.due for answer in answers),
        tuple(dict.fromkeys(name for answer in answers if answer.due for name in answer.reviews)),
        any(answer.by_time for answer in firing),
        tuple(sorted({signal for answer in firing for signal in answer.signals})),
        None if firing else earliest(*(answer.waits_s for answer in answers)),
    )


def trigger_history_s(trigger: Trigger) -> int:
    """Return the seconds of recorded prices that a trigger needs."""
    if isinstance(trigger, AnyOf):
        return max(map(trigger_history_s, trigger.triggers))
    return RULES[type(trigger)].history_s(trigger)


def required_history_s(policy: Policy, others: Iterable[Trigger] = ()) -> int:
    """Return the seconds of hourly prices that a step of this config carries in
    `History.prices`.
    """
    return max(map(trigger_history_s, (policy.trigger, *others)))


def is_plain(trigger: Trigger) -> bool:
    """True if only a band and a schedule decide."""
    return not isinstance(trigger, AnyOf) and RULES[type(trigger)].plain


def band_and_interval(trigger: Trigger) -> tuple[Threshold | None, int | None] | None:
    """Return the band and the interval in seconds if they alone decide; None with any other rule or
    a cron schedule.
    """
    if not is_plain(trigger) or any(
        isinstance(schedule, Cron) for schedule in schedules_of(trigger)
    ):
        return None
    return next(iter(thresholds_of(trigger)), None), review_interval_s(trigger)


# --- Validation of each trigger, and of combinations in a policy.


def validate_trigger(trigger: Trigger) -> None:
    """Raise ConfigError for a trigger that could never fire, or has invalid numbers."""
    if not isinstance(trigger, AnyOf):
        RULES[type(trigger)].validate(trigger)
        return
    if not 2 <= len(trigger.triggers) <= MOST_TRIGGERS:
        raise ConfigError(
            f"policy.trigger: a list of {len(trigger.triggers)}",
            f"write 2 to {MOST_TRIGGERS} triggers, or one by itself",
        )
    for member in trigger.triggers:
        validate_trigger(member)


def validate_policy(policy: Policy, bands: Mapping[str, Threshold] | None = None) -> None:
    """Raise ConfigError if the trigger is invalid or conflicts with destination, sides or the
    assets' own `bands`, by symbol.
    """
    validate_trigger(policy.trigger)
    if policy.cooldown_s < 0:
        raise ConfigError(
            f"policy.cooldown: {policy.cooldown_s} s is negative", 'write a time such as "1h"'
        )
    banded = has_band(policy.trigger)
    if (
        policy.destination is Destination.BAND
        and not banded
        and not isinstance(policy.trigger, NoTradeZone)
    ):
        raise ConfigError(
            "policy.destination: band, but the trigger has no band",
            'use a threshold or hybrid trigger, or "target"',
        )
    if policy.only in (TradeSide.WINNERS, TradeSide.LOSERS) and not banded:
        raise ConfigError(
            f"policy.only: {policy.only.value} needs bands, but the trigger has none",
            'use a threshold or hybrid trigger, or only = "sell"',
        )
    if policy.only is not None and isinstance(policy.trigger, NoTradeZone):
        raise ConfigError(
            f"policy.only: {policy.only.value}, but a zone trades both sides",
            "remove it, or use a threshold",
        )
    for symbol, own in (bands or {}).items():
        where = f"portfolio.assets.{symbol}.band"
        validate_band(own, where)
        if not banded:
            raise ConfigError(
                f"{where}: the trigger has no bands",
                "remove it, or use a threshold or hybrid trigger",
            )
    _zone_goes_with_zone(policy)


def _zone_goes_with_zone(policy: Policy) -> None:
    zone = isinstance(policy.trigger, NoTradeZone)
    if zone and policy.destination is not Destination.ZONE:
        destination = policy.destination.value
        raise ConfigError(
            f"policy.destination: {destination}, but the trigger is a zone",
            'write destination = "zone"',
        )
    if policy.destination is Destination.ZONE and not zone:
        raise ConfigError(
            "policy.destination: zone, but the trigger is not a zone",
            'use trigger = { kind = "zone", … }, or "target"',
        )


# --- Text of a policy's trigger and side: shown for confirmation and by status.


ONLY = {
    TradeSide.SELL: "sells assets above their targets and keeps the proceeds in the numeraire",
    TradeSide.BUY: "buys assets below their goals with the numeraire held in excess of its target",
    TradeSide.WINNERS: "sells only assets above their bands",
    TradeSide.LOSERS: "buys only assets below their bands",
}


def format_trigger(trigger: Trigger, portfolio: Portfolio) -> str:
    """Return the text of a trigger, such as "threshold: 10% of the target"."""
    if isinstance(trigger, AnyOf):
        return "any of: " + "; ".join(
            format_trigger(member, portfolio) for member in trigger.triggers
        )
    return RULES[type(trigger)].describe(trigger, portfolio)


# --- Price confirmation: price signals must also hold at the preceding blocks, because one or two
# blocks can be manipulated (T3). Nothing is stored for this: the preceding blocks are read again,
# by hash, before each action. So a restart, second process or restored store cannot lose or double
# a count, a reorg changes the blocks read, and the same input gives the same decision.


Prices = Mapping[str, Price]
SignalSource = Callable[[StepInput, Prices], frozenset[Signal]]


def trigger_signals(step: StepInput, prices: Prices) -> frozenset[Signal]:
    """Return the price signals of the trigger by kind and token: bands, market events, zone
    exchanges, weights above their limit. Raises Refused.
    """
    drifts, trigger = compute_drifts(step, prices), step.policy.trigger
    if isinstance(trigger, NoTradeZone):
        pair = no_trade_zone.evaluate_zone(
            step.snapshot, step.portfolio, step.limits, trigger.risk, drifts, prices
        )[0].pair
        pays = pair is not None and pair.saves > pair.costs
        if pays and pair is not None:
            moves = frozenset({("too much", pair.source), ("too little", pair.target)})
        else:
            moves = frozenset[Signal]()
        return bands.overweight_signals(drifts) or moves
    trigger_result = evaluate_trigger(
        trigger, drifts, step.snapshot.head.timestamp_s, step.history, step.policy.jitter_bps
    )
    return bands.overweight_signals(drifts) | frozenset(trigger_result.signals)


def unconfirmed_reason(
    step: StepInput, prices: Prices, signals: SignalSource, every: bool = False
) -> str:
    """Return why the preceding blocks do not confirm the signals of current `prices`; empty if they
    do, or if no confirmation is required.

    One signal must hold in all of the blocks; with `every` all of them must.
    """
    confirm_blocks = step.policy.confirm_blocks
    if confirm_blocks == 0:
        return ""
    before = step.snapshot.past[:confirm_blocks]
    head = step.snapshot.head.number
    if [past.head.number for past in before] != list(
        range(head - 1, head - 1 - confirm_blocks, -1)
    ):
        return (
            f"prices of the {confirm_blocks} preceding blocks are missing, and policy.confirm_blocks requires"
            " them"
        )
    kept = now = signals(step, prices)
    for past in before:
        then, why = _then(step, past, signals)
        kept &= then
        if why or not kept or (every and kept != now):
            return (
                f"{why or 'the prices did not confirm it'} at block {past.head.number}, and"
                f" policy.confirm_blocks is {confirm_blocks}"
            )
    return ""


def needs_past_blocks(step: StepInput, decided: Callable[[StepInput], object]) -> bool:
    """True if prices alone make the step act, so that the preceding blocks must be read."""
    if step.policy.confirm_blocks == 0 or step.snapshot.past:
        return False
    alone = decided(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    return isinstance(alone, Rebalance | LayerDecision)


def _then(
    step: StepInput, past: PastPrices, signals: SignalSource
) -> tuple[frozenset[Signal], str]:
    """Return the signals at that block's prices and pools with the current wallet, or why they are
    unknown.
    """
    references = prices_from(price_inputs(step).at(past))
    unpriced = [
        f"{gap.label} had no reference price"
        for gap in references.unpriced
        if _is_asset(step.portfolio, gap.token)
    ]
    if unpriced:
        return frozenset(), "; ".join(unpriced)
    then = replace(step, snapshot=replace(step.snapshot, pools=past.pools))
    try:
        return signals(then, references.by_token), ""
    except Refused as unknown:
        return frozenset(), unknown.message


def _is_asset(portfolio: Portfolio, token: str) -> bool:
    return any(asset.token.address == token for asset in portfolio.assets)
