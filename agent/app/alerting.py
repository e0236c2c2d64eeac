"""Alerts of a cycle, built from fixed wording: they contain no text from a node and no token name
of a stranger (T17).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from agent.app.documents import fill
from agent.app.documents.setup import AlertDocument, AlertTargetDocument
from agent.config.load import LoadedConfig, load_config
from agent.config.service import AlertsTable, AlertTargetTable
from agent.errors import EXIT_OPERATOR, ConfigError, Refused, Retryable, TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import (
    Alert,
    AlertKind,
    AlertMessage,
    AlertTargetState,
    AssetDrift,
    BlockedExit,
    Delivery,
    IntentKind,
    OrderStage,
    Plan,
    Portfolio,
    StepInput,
    Verdict,
)
from agent.model.strategies import StrategyHealth
from agent.observe.notify import (
    UNANSWERED,
    AlertChannel,
    AlertNotifier,
    AlertRules,
    ChannelSubscription,
    QuietHours,
    apprise_send,
    drain_channels,
    sanitize_text,
)
from agent.policy import conditional_orders
from agent.policy.cash_flows import balance_changes
from agent.policy.drift import alert_prices
from agent.policy.exits import disarm_command
from agent.policy.triggers import bands
from agent.policy.triggers.bands import format_band
from agent.store.alerts import AlertStore
from agent.units import BPS, Price, decimal_text, format_percent, parse_raw, price_text

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.app.documents.setup import AlertsDocument, AssetAlertDocument


# --- Alerts about drift and reviews: one message per cause, with trades, cost and the command to
# run.


UNMOVED_TOLERANCE = Fraction(1, 100)
"""An asset whose ratio of weight to target is within so much of the median did not move: others
did."""
MOST_NAMED = 3
OPEN = (OutcomeKind.HOLD, OutcomeKind.PLANNED, OutcomeKind.DECLINED)
"""Outcomes that leave the drift unchanged and have no alert."""


@dataclass(frozen=True, slots=True)
class AssetBand:
    """An asset and the prices at which it alone would leave its band; None if no price does."""

    drift: AssetDrift
    low: Price | None
    high: Price | None

    @property
    def side(self) -> str:
        """Side of its band: "below", "above", else "inside"; a band without width has no sides."""
        if self.drift.band_low_bps >= self.drift.band_high_bps or not self.drift.outside:
            return "inside"
        return "below" if self.drift.share * BPS < self.drift.band_low_bps else "above"


def asset_bands(drifts: tuple[AssetDrift, ...]) -> tuple[AssetBand, ...]:
    """Bands of every asset with its alert prices, from agent/policy/drift.py."""
    prices = alert_prices(drifts)
    return tuple(AssetBand(drift, *prices[drift.token]) for drift in drifts)


def drift_causes(found: Sequence[AssetBand], numeraire: str) -> tuple[AssetBand, ...]:
    """Return assets outside their bands that moved themselves, widest first; all outside if none
    stands out. Never the numeraire. Between rebalances units are constant, so weight over target
    moves with an asset's price against the portfolio. An asset at the median ratio did not move: it
    left its band because another did.
    """
    outside = [one for one in found if one.side != "inside" and one.drift.token != numeraire]
    ratios = sorted(_ratio(one) for one in found if one.drift.target_bps > 0)
    if not ratios:
        return tuple(outside)
    median = (ratios[len(ratios) // 2] + ratios[(len(ratios) - 1) // 2]) / 2
    moved = [
        one
        for one in outside
        if one.drift.target_bps == 0 or abs(_ratio(one) - median) > UNMOVED_TOLERANCE * median
    ]
    return tuple(
        sorted(moved or outside, key=lambda one: (-abs(one.drift.drift_bps), one.drift.token))
    )


def drift_alerts(found: StepOutcome) -> Iterator[Alert]:
    """Yield one alert for assets that left their bands, else one for a review. Rebalances, refusals
    and halts have their own alerts.
    """
    if found.kind not in OPEN:
        return
    portfolio = found.step_input.portfolio
    left = drift_causes(asset_bands(found.decided.drifts), portfolio.numeraire.address)
    trades = format_trades(found.plan, portfolio)
    planned = f" It would {trades}; run: trimtab rebalance --send" if trades else ""
    if left:
        named = "; ".join(_format_band(one, portfolio) for one in left[:MOST_NAMED])
        more = "" if len(left) <= MOST_NAMED else f"; and {len(left) - MOST_NAMED} more"
        key = ",".join(
            f"{one.drift.token}:{one.side}"
            for one in sorted(left[:MOST_NAMED], key=lambda one: one.drift.token)
        )
        yield Alert(
            AlertKind.PRICE,
            f"price:{key}",
            f"{named}{more}.{planned or ' See trimtab plan.'}",
            True,
        )
    elif found.kind is OutcomeKind.PLANNED:
        yield Alert(
            AlertKind.REVIEW, "planned", f"A rebalance is due: {found.reason}.{planned}", True
        )
    elif over := bands.overweight_assets(found.decided.drifts):
        named = "; ".join(
            f"{portfolio.token(one.token).label} is {format_percent(one.share)} of the portfolio,"
            f" limits.max_weight {(one.max_bps or 0) / 100:g} %"
            for one in over
        )
        key = ",".join(sorted(one.token for one in over))
        yield Alert(
            AlertKind.PRICE,
            f"max_weight:{key}",
            f"{named}; it is not brought down: {found.reason}. trimtab status",
            True,
        )
    elif found.decided.reviews:
        yield Alert(
            AlertKind.REVIEW,
            "review",
            f"Reviewed, nothing to trade: {found.reason}. trimtab status",
        )


def format_trades(
    plan: Plan | None, portfolio: Portfolio, tense: tuple[str, str] = ("sell", "buy")
) -> str:
    """Format the trade of every asset but the numeraire, and the cost: "sell 0.5 WETH, buy 0.01
    WBTC; cost 2.1 USDC (5 bps)".

    Empty without swaps.
    """
    if plan is None or not plan.legs:
        return ""
    moves: dict[str, int] = {}
    for leg in plan.legs:
        moves[leg.token_in] = moves.get(leg.token_in, 0) - leg.amount_in_raw
        moves[leg.token_out] = moves.get(leg.token_out, 0) + leg.amount_out_raw
    numeraire, words = portfolio.numeraire, []
    for asset in portfolio.assets:
        raw = moves.get(asset.token.address, 0)
        if raw and asset.token.address != numeraire.address:
            words.append(
                f"{tense[raw > 0]} {_amount(abs(raw), asset.token.decimals)} {asset.token.label}"
            )
    share = (
        f" ({decimal_text(round(plan.cost.total / plan.turnover * BPS * 10), 1)} bps)"
        if plan.turnover > 0
        else ""
    )
    return (
        f"{', '.join(words)}; cost {_amount(round(plan.cost.total), numeraire.decimals)}"
        f" {numeraire.label}{share}"
    )


def _ratio(one: AssetBand) -> Fraction:
    return one.drift.share * BPS / one.drift.target_bps


def _format_band(one: AssetBand, portfolio: Portfolio) -> str:
    drift, numeraire = one.drift, portfolio.numeraire
    limit = one.low if one.side == "below" else one.high
    token = portfolio.token(drift.token)
    text = (
        f"{token.label} is {one.side} its band: {format_percent(drift.share)} of the portfolio,"
        f" band {format_band(drift)}, price"
        f" {price_text(drift.price, token.decimals, numeraire.decimals, 6)} {numeraire.label}"
    )
    if limit is not None:
        text += (
            f", alert-{'low' if one.side == 'below' else 'high'}"
            f" {price_text(limit, token.decimals, numeraire.decimals, 6)}"
        )
    return text


def _amount(raw: int, decimals: int) -> str:
    """Format an amount, rounded down to six places."""
    cut = max(0, decimals - 6)
    return decimal_text(raw // 10**cut, decimals - cut)


LASTING_KINDS = frozenset(AlertKind) - {AlertKind.REBALANCE, AlertKind.ERROR, AlertKind.TEST}
ALWAYS_COVERED_KINDS = frozenset({AlertKind.PAUSED, AlertKind.HEARTBEAT})
"""Kinds that a failed cycle covers too."""
KILL_SWITCH = "kill_switch"
"""Guard whose sole refusal is reported as the pause that it is."""
FAILURES = "reverts_in_row"
"""This guard lets exits go on, which its owner should know."""
MOVING = (IntentKind.SWAP, IntentKind.LIQUIDITY, IntentKind.PAYOUT, IntentKind.UNWRAP)
_FIGURE = re.compile(r"[-+]?[0-9][0-9,.]* ?(%|bps|s|gwei|wei|blocks?)?")
_GUARD = re.compile(r"[a-z_]{1,40}")
LONGEST_KEY = 200
_STEP = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts besides the cycle's result: kill switch, reason for a missing heartbeat, low-gas
    threshold. `silent` is empty while the heartbeat is fine. `low_gas_wei` is None if not
    configured.
    """

    paused: bool
    silent: str
    low_gas_wei: int | None


def covered_kinds(found: StepOutcome | TrimtabError) -> frozenset[AlertKind]:
    """Alert kinds whose lasting conditions this cycle checked fully: a condition it does not report
    is over.
    """
    if isinstance(found, TrimtabError):
        return ALWAYS_COVERED_KINDS | (
            {AlertKind.REFUSAL} if isinstance(found, Refused) else frozenset()
        )
    return (
        LASTING_KINDS
        if found.decided.drifts and found.kind in OPEN
        else LASTING_KINDS - {AlertKind.PRICE, AlertKind.REVIEW}
    )


def cycle_alerts(found: StepOutcome | TrimtabError, facts: RunFacts) -> tuple[Alert, ...]:
    """Alerts of one cycle, in the order of the events."""
    return tuple(
        Alert(one.kind, one.key, sanitize_text(one.text), one.lasting)
        for one in _alerts(found, facts)
    )


def _alerts(found: StepOutcome | TrimtabError, facts: RunFacts) -> Iterator[Alert]:
    if isinstance(found, TrimtabError):
        yield from _failed(found)
    else:
        yield from drift_alerts(found)
        yield from _orders(found.after or found.step_input)
        yield from (_blocked_exit_alert(found.step_input, one) for one in found.decided.stuck)
        yield from _strategies(found.after or found.step_input)
        yield from _ended(found, facts.paused)
        yield from _unexplained(found)
        yield from _gas(found.after or found.step_input, facts.low_gas_wei)
    if facts.paused:
        yield Alert(
            AlertKind.PAUSED,
            "paused",
            "The kill switch is on: nothing is sent. trimtab resume switches it off.",
            True,
        )
    if facts.silent:
        yield Alert(AlertKind.HEARTBEAT, "heartbeat", facts.silent, True)


def _orders(step: StepInput) -> Iterator[Alert]:
    """Yield orders that fired; each lasts until its owner arms it anew."""
    for order in step.history.orders:
        if order.stage not in (OrderStage.FIRED, OrderStage.DONE):
            continue
        at = (
            ""
            if order.at is None
            else f" at {conditional_orders.format_order_price(step.portfolio, order.token, order.at)}"
        )
        then = "trimtab orders shows it and re-arms it" if order.is_exit else "it may be bought"
        what = conditional_orders.order_name(step.portfolio, order.terms)
        yield Alert(
            AlertKind.ORDER,
            f"order:{order.token}:{order.kind.value}",
            f"Fired: {what}{at}; {then}.",
            True,
        )


def _blocked_exit_alert(step: StepInput, one: BlockedExit) -> Alert:
    """Return the alert for a blocked exit, active until the exit is done or cancelled."""
    label = conditional_orders.order_subject(step.portfolio, one.token)
    text = (
        f"{label} cannot be sold although its order fired; everything else continues. trimtab"
        f" orders shows why; {disarm_command(step, one)}"
    )
    return Alert(AlertKind.ORDER, f"stuck:{one.token}", text, True)


def _unexplained(found: StepOutcome) -> Iterator[Alert]:
    """Yield unexplained changes that hold purchases back, and accepted deposits; a halt reports the
    first itself.
    """
    step = found.step_input
    if found.kind is not OutcomeKind.HALT and (held := balance_changes.halt_reason(step)):
        yield Alert(AlertKind.HALT, "halt", f"Nothing is bought or rebalanced: {held}", True)
    for flow in step.history.accepted:
        text = (
            f"{balance_changes.format_change(step, flow)}: accepted as a deposit, since it was"
            " never explained. trimtab flows --all"
        )
        yield Alert(AlertKind.HALT, f"accepted:{flow.id}", text, True)


def _strategies(step: StepInput) -> Iterator[Alert]:
    """Yield strategies cut by the health rule; each lasts until it is restored."""
    for one in step.history.sleeves.sleeves if step.history.sleeves is not None else ():
        if one.state.health is StrategyHealth.PAUSED:
            text = (
                f"Strategy {one.name} is paused and held in {step.portfolio.numeraire.label}:"
                f" {one.state.reason}. trimtab strategies"
            )
            yield Alert(AlertKind.ORDER, f"strategy:{one.name}", text, True)


def _ended(found: StepOutcome, paused: bool) -> Iterator[Alert]:
    step = (
        f"trimtab explain {found.step_id}" if _STEP.fullmatch(found.step_id) else "trimtab explain"
    )
    failing = [
        verdict
        for verdict in (*(found.plan.verdicts if found.plan else ()), *found.verdicts)
        if not verdict.passed
    ]
    match found.kind:
        case OutcomeKind.DONE:
            yield from _done(found, step)
        case OutcomeKind.FAILED:
            yield Alert(
                AlertKind.ERROR,
                "failed",
                f"A transaction did not succeed; nothing more was sent in that step. {step}",
            )
        case OutcomeKind.REFUSED if not (
            paused and {verdict.guard for verdict in failing} == {KILL_SWITCH}
        ):
            trades = format_trades(found.plan, found.step_input.portfolio)
            yield _refusal(failing, f"{f'It would {trades}. ' if trades else ''}{step}")
        case OutcomeKind.HALT if not paused:
            yield Alert(AlertKind.HALT, "halt", f"Nothing is traded: {found.reason}", True)
        case _:
            pass


def _done(found: StepOutcome, step: str) -> Iterator[Alert]:
    moved = [intent for intent in found.transactions if intent.kind in MOVING and intent.succeeded]
    if not moved:
        return
    what = (
        "A rebalance is done"
        if any(intent.kind is IntentKind.SWAP for intent in moved)
        else "The request is done"
    )
    blocks = [intent.receipt.block_number for intent in moved if intent.receipt is not None]
    at = f", last at block {max(blocks)}" if blocks else ""
    sent = len(found.transactions)
    trades = format_trades(found.plan, found.step_input.portfolio, ("sold", "bought"))
    text = (
        f"{what}: {sent} {'transaction' if sent == 1 else 'transactions'}{at}."
        f" {f'Planned: {trades}. ' if trades else ''}{step}"
    )
    yield Alert(AlertKind.REBALANCE, "rebalance", text)


def _refusal(failing: list[Verdict], step: str) -> Alert:
    """Alert for failing guards by name; measured values only if they are plain figures."""
    fields = {}
    for verdict in failing:
        name = verdict.guard if _GUARD.fullmatch(verdict.guard) else "a guard"
        figures = [text.strip() for text in (verdict.measured, verdict.limit)]
        fields[name] = (
            f"{name} ({figures[0]}, limit {figures[1]})"
            if all(map(_FIGURE.fullmatch, figures))
            else name
        )
    why = f"by {', '.join(fields.values())}" if fields else "before anything was sent"
    row = (
        " Too many transactions failed in a row: rebalances stop until trimtab resume; exits are"
        " retried at growing intervals."
        if FAILURES in fields
        else ""
    )
    return Alert(
        AlertKind.REFUSAL,
        f"refusal:{','.join(fields)}"[:LONGEST_KEY],
        f"A plan was refused {why}.{row} {step}",
        True,
    )


def _gas(step: StepInput, low_wei: int | None) -> Iterator[Alert]:
    found = step.snapshot.native_wei
    if low_wei is not None and found < low_wei:
        text = f"The wallet has {_coins(found)} of native coin for gas, below {_coins(low_wei)}."
        yield Alert(AlertKind.LOW_GAS, "low_gas", text, True)


def _failed(error: TrimtabError) -> Iterator[Alert]:
    """Yield alerts for an error. A single network failure is not reported: a lasting silence is."""
    if isinstance(error, Refused):
        yield _refusal(
            [verdict for verdict in error.verdicts if not verdict.passed],
            "See the log and trimtab doctor.",
        )
    elif not isinstance(error, Retryable):
        yield run_ended_alert(error)


def run_ended_alert(error: TrimtabError) -> Alert:
    """Alert for a run that ends by an error. Its message may quote a node, so it stays in the
    log.
    """
    who = (
        "an operator is needed"
        if error.exit_code == EXIT_OPERATOR
        else f"exit code {error.exit_code}"
    )
    return Alert(
        AlertKind.ERROR, "error", f"The run has ended: {who}. See the log and trimtab doctor."
    )


def run_hung_alert() -> Alert:
    """Alert for a cycle without a sign of life."""
    return Alert(
        AlertKind.ERROR, "hung", "A cycle hung and the run ended with exit code 13; restart it."
    )


def _coins(wei: int) -> str:
    """Format an amount of native coin, rounded down to six places."""
    return decimal_text(wei // 10**12, 6)


def price_distance(price: Price, limit: Price | None) -> Fraction | None:
    """Relative move of the price that reaches a limit, with sign; None without a limit or price."""
    return None if limit is None or price == 0 else limit / price - 1


# --- The notifier: targets from the environment, rules from [alerts], state from the store; and
# test messages.

TEST = "This is a test of trimtab's alerts."
SLACK_S = 10.0
"""Seconds that a test waits for a target beyond all its attempts."""


def open_notifier(
    table: AlertsTable, store: AlertStore, failed: Callable[[Delivery], None]
) -> AlertNotifier | None:
    """Build the notifier; None without alert targets. Raises ConfigError for a target whose
    variable is not set.
    """
    if not table.targets:
        return None
    return AlertNotifier(store, open_subscriptions(table), alert_rules(table), failed)


def open_subscriptions(table: AlertsTable) -> list[ChannelSubscription]:
    """Every alert target with its subscribed alert kinds."""
    return [
        ChannelSubscription(_open_channel(table, target), _kinds(target.events or table.events))
        for target in table.targets
    ]


def alert_rules(table: AlertsTable) -> AlertRules:
    """Rules of alerts: kinds, cooldowns, repeats, quiet hours."""
    minutes = table.quiet_minutes()
    return AlertRules(
        kinds=_kinds(table.events),
        cooldown_s=table.cooldown,
        cooldowns={AlertKind(event): seconds for event, seconds in table.cooldowns.items()},
        repeat_s=table.repeat,
        quiet=None if minutes is None else QuietHours(*minutes, ZoneInfo(table.timezone or "UTC")),
        urgent=_kinds(table.urgent),
    )


def low_gas_wei(loaded: LoadedConfig) -> int | None:
    """Return the low-gas threshold in wei; None if neither alerts.low_gas nor limits.native_floor
    is set.
    """
    text = loaded.config.alerts.low_gas or loaded.config.limits.native_floor
    return None if text is None else parse_raw(text, 18, "alerts.low_gas")


def alerts(agent: Agent) -> AlertsDocument:
    """Present alert prices of each asset, the active alerts, and the delivery record of each
    target.
    """
    standing = agent.status()
    table, store = agent.context.config.alerts, agent.context.store
    states, targets = store.alerts.states(), store.alerts.targets()
    names = {target.name for target in table.targets}
    sent = [state for state in states if state.told_s is not None]
    return {
        "block": standing.step_input.snapshot.head.number,
        "assets": [_asset(agent, one) for one in asset_bands(standing.decided.drifts)],
        "events": list(table.events),
        "quiet": (
            None
            if table.quiet is None
            else {"hours": table.quiet, "timezone": table.timezone, "urgent": list(table.urgent)}
        ),
        "cooldown_s": table.cooldown,
        "targets": [
            _target(target, targets.get(target.name, AlertTargetState(target.name)), table)
            for target in table.targets
        ],
        "forgotten_targets": sorted(set(targets) - names),
        "open": [
            fill(AlertDocument, state)
            for state in states
            if state.since_s is not None or state.untold
        ],
        "last": [
            fill(AlertDocument, state)
            for state in sorted(sent, key=lambda one: one.told_s or 0, reverse=True)[:10]
        ],
    }


def try_targets(config: LoadedConfig | Path | str) -> dict[str, Any]:
    """Send one test message to each target and wait for its result; uses neither chain nor store.
    Raises ConfigError without targets.
    """
    table = (config if isinstance(config, LoadedConfig) else load_config(config)).config.alerts
    if not table.targets:
        raise ConfigError(
            "alerts.targets: there is none",
            "write [[alerts.targets]] with name and url_env; see docs/alerts.md",
        )
    channels = [_open_channel(table, target) for target in table.targets]
    for number, channel in enumerate(channels):
        channel.put(AlertMessage(number, channel.name, AlertKind.TEST, TEST, int(time.time())))
    found = {
        one.message.target: one.why
        for one in drain_channels(channels, table.timeout * table.attempts + SLACK_S)
    }
    results = [(channel.name, found.get(channel.name, UNANSWERED)) for channel in channels]
    return {
        "reached": not any(why for _, why in results),
        "targets": [{"name": n, "delivered": not why, "why": why} for n, why in results],
    }


def _open_channel(table: AlertsTable, target: AlertTargetTable) -> AlertChannel:
    send = apprise_send(target.resolve(), target.url_env, float(table.timeout))
    return AlertChannel(target.name, send, table.attempts, table.label)


def _kinds(events: Sequence[str]) -> frozenset[AlertKind]:
    return frozenset(AlertKind(event) for event in events)


def _asset(agent: Agent, one: AssetBand) -> AssetAlertDocument:
    token, numeraire = agent.portfolio.token(one.drift.token), agent.portfolio.numeraire

    def price(value: Any) -> str | None:
        return None if value is None else price_text(value, token.decimals, numeraire.decimals)

    def away(limit: Any) -> int | None:
        found = price_distance(one.drift.price, limit)
        return None if found is None else round(found * 10_000)

    return {
        "symbol": token.label,
        "price": price(one.drift.price),
        "alert_low": price(one.low),
        "alert_high": price(one.high),
        "to_low_bps": away(one.low),
        "to_high_bps": away(one.high),
        "weight_bps": one.drift.weight_bps,
        "band_bps": [round(one.drift.band_low_bps), round(one.drift.band_high_bps)],
        "side": one.side,
    }


def _target(
    target: AlertTargetTable, state: AlertTargetState, table: AlertsTable
) -> AlertTargetDocument:
    try:
        target.resolve()
        ready = True
    except ConfigError:
        ready = False
    events = list(target.events or table.events)
    return fill(
        AlertTargetDocument,
        state,
        name=target.name,
        ready=ready,
        url_env=target.url_env,
        events=events,
    )
