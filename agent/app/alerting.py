"""Alerts that a cycle raises, including those of futures. Messages have fixed wording, without text
from nodes or names of unknown tokens; of foreign text only plain reasons of the futures venue (T17).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.app.controls.messages import worst_case_and_tax
from agent.app.positions.futures_alerts import (
    account_alerts,
    actions_text,
    agent_key_alerts,
    funding_alerts,
    futures_alerts,
    net_exposure_alerts,
    net_exposure_shares,
    stale_read_alerts,
    unnamed_market_alerts,
)
from agent.errors import EXIT_OPERATOR, NotAccepted, Refused, Retryable, TrimtabError
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.submission.proposal_words import (
    DO_NOT_SIGN,
    WITHDRAWAL_ADVICE,
    fault_advice,
)
from agent.figures import WITH_THE_OTHERS, as_sentence, format_figure, reader_text
from agent.layers.futures.execution.cycle import hedge_comparisons_of
from agent.layers.futures.execution.venue_executor import VENUE_ACCEPTANCE
from agent.layers.futures.policy.hedges import comparison_text
from agent.layers.futures.state import futures_policy, planned_futures
from agent.layers.signals.state import SignalState
from agent.layers.strategies.policy.accounting import paused_strategies
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import (
    PRICE_ALERTS,
    Alert,
    AlertKind,
    AssetDrift,
    ConditionalOrder,
    ExternalTransferKind,
    Halt,
    IntentKind,
    OrderStage,
    Plan,
    Portfolio,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.model.alerts import (
    DEPOSIT_ACCEPTED,
    PROPOSAL_FAILS,
    PROPOSAL_IS_STALE,
    PROPOSAL_IS_UNCHECKED,
)
from agent.observe.notify import sanitize_text
from agent.policy.cash_flows import balance_changes
from agent.policy.drift import band_edge_prices
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.blocked_exits import disarm_command
from agent.policy.triggers import bands
from agent.policy.triggers.bands import format_band
from agent.units import (
    BPS,
    Price,
    decimal_text,
    format_bps,
    format_percent,
    format_time,
    shortened_text,
    shown_price_text,
    value_text,
)
from agent.venues.allowances import unread_allowance_items

UNMOVED_TOLERANCE = Fraction(1, 100)
"""An asset counts as unmoved if its ratio of weight to target differs from the median ratio by at
most this share.
"""
MAX_NAMED_ASSETS = 3
"""Maximum number of assets named in one alert."""
UNCHANGED_OUTCOMES = (OutcomeKind.HOLD, OutcomeKind.PLANNED, OutcomeKind.DECLINED)
"""Outcomes that leave the drift unchanged and have no alert of their own."""


NO_BAND = "no band"
OUTSIDE_SIDES = ("below", "above", WITH_THE_OTHERS)


@dataclass(frozen=True, slots=True)
class AssetBand:
    """Drift of an asset, and the prices at which it would leave its band if no other price moved
    (None if there is none).
    """

    drift: AssetDrift
    alert_low_price: Price | None
    alert_high_price: Price | None

    @property
    def side(self) -> str:
        """Position against the band: "below", "above" or "inside"; WITH_THE_OTHERS if only they
        bring it beyond; NO_BAND for a band without width or from 0 to 100 %, and within that of a
        target of 0 %.
        """
        asset_range = bands.range_of(self.drift)
        if asset_range.others_text:
            return WITH_THE_OTHERS
        if not asset_range.is_own:
            return NO_BAND
        if not self.drift.is_outside_band:
            return "inside"
        return "below" if self.drift.share * BPS < self.drift.band_low_bps else "above"


def asset_bands(drifts: tuple[AssetDrift, ...], numeraire: str) -> tuple[AssetBand, ...]:
    """Return each asset with its alert prices; the numeraire has none."""
    prices_by_token = band_edge_prices(drifts, numeraire)
    return tuple(AssetBand(drift, *prices_by_token[drift.token]) for drift in drifts)


def drift_causes(assets: Sequence[AssetBand], numeraire: str) -> tuple[AssetBand, ...]:
    """Return the assets outside their bands whose own price moved, largest drift first; all assets
    outside if none stands out. Never the numeraire.

    Between rebalances the amounts are constant, so an asset's ratio of weight to target moves with
    its price against the portfolio. An asset at the median ratio did not move: it left its band
    because another asset moved.
    """
    assets_outside = [asset_band for asset_band in assets if asset_band.side in OUTSIDE_SIDES]
    assets_outside = [
        asset_band for asset_band in assets_outside if asset_band.drift.token != numeraire
    ]
    ratios = sorted(
        _weight_ratio(asset_band) for asset_band in assets if asset_band.drift.target_bps > 0
    )
    if not ratios:
        return tuple(assets_outside)
    median_ratio = (ratios[len(ratios) // 2] + ratios[(len(ratios) - 1) // 2]) / 2
    moved_assets = [
        asset_band
        for asset_band in assets_outside
        if asset_band.drift.target_bps == 0
        or abs(_weight_ratio(asset_band) - median_ratio) > UNMOVED_TOLERANCE * median_ratio
    ]
    return tuple(
        sorted(
            moved_assets or assets_outside,
            key=lambda asset_band: (-abs(asset_band.drift.drift_bps), asset_band.drift.token),
        )
    )


def drift_alerts(outcome: StepOutcome) -> Iterator[Alert]:
    """Yield at most one alert: for assets outside their bands, a due rebalance, an overweight asset
    or a review. Rebalances, refusals and halts have their own alerts.
    """
    if outcome.kind not in UNCHANGED_OUTCOMES:
        return
    portfolio = outcome.step_input.portfolio
    numeraire = portfolio.numeraire.address
    causes = drift_causes(asset_bands(outcome.decision_result.drifts, numeraire), numeraire)
    trades_text = _planned_trades(outcome)
    plan_text = f" It would {trades_text}; run: trimtab rebalance --send" if trades_text else ""
    if causes:
        yield _band_alert(causes, outcome.step_input, outcome.decision_result.drifts, plan_text)
    elif outcome.kind is OutcomeKind.PLANNED and not (
        (futures_plan := planned_futures(outcome.plan)) is not None and futures_plan.is_reducing
    ):  # a reduction of futures has an alert of its own
        yield Alert(
            AlertKind.REVIEW, "planned", f"A rebalance is due: {outcome.reason}.{plan_text}", True
        )
    elif overweight_drifts := bands.overweight_assets(outcome.decision_result.drifts):
        overweight_text = "; ".join(
            f"{portfolio.token(drift.token).label} is {drift.weight_text} of the"
            f" portfolio, limits.max_weight {format_bps(drift.max_bps or 0)}"
            for drift in overweight_drifts
        )
        tokens_key = ",".join(sorted(drift.token for drift in overweight_drifts))
        yield Alert(
            AlertKind.PRICE,
            f"max_weight:{tokens_key}",
            f"{overweight_text}; no sale reduces it: {outcome.reason}. trimtab status",
            True,
        )
    elif outcome.decision_result.due_schedules:
        yield Alert(
            AlertKind.REVIEW,
            "review",
            f"Reviewed, nothing to trade: {outcome.reason}. trimtab status",
        )


def _band_alert(
    causes: Sequence[AssetBand], step: StepInput, drifts: Sequence[AssetDrift], plan_text: str
) -> Alert:
    """Return the alert for assets outside their bands, with their net exposure where they have
    futures; beyond MAX_NAMED_ASSETS, only their number.
    """
    shown_causes = causes[:MAX_NAMED_ASSETS]
    exposures = net_exposure_shares(step, drifts)
    bands_text = "; ".join(
        _format_band(asset_band, step.portfolio, exposures) for asset_band in shown_causes
    )
    if len(causes) > MAX_NAMED_ASSETS:
        bands_text += f"; and {len(causes) - MAX_NAMED_ASSETS} more"
    assets_key = ",".join(
        sorted(f"{asset_band.drift.token}:{asset_band.side}" for asset_band in shown_causes)
    )
    return Alert(
        AlertKind.PRICE,
        f"price:{assets_key}",
        f"{bands_text}.{plan_text or ' See trimtab plan.'}",
        True,
    )


def format_trades(
    plan: Plan | None, portfolio: Portfolio, verbs: tuple[str, str] = ("sell", "buy")
) -> str:
    """Format the trades of a plan without the numeraire's, and the cost: "sell 0.5 WETH, buy 0.01
    WBTC; cost 2.1 USDC (5 bps)". Empty without swaps.
    """
    if plan is None or not plan.legs:
        return ""
    changes_raw: dict[str, int] = {}
    for leg in plan.legs:
        changes_raw[leg.token_in] = changes_raw.get(leg.token_in, 0) - leg.amount_in_raw
        changes_raw[leg.token_out] = changes_raw.get(leg.token_out, 0) + leg.amount_out_raw
    numeraire = portfolio.numeraire
    trade_texts = []
    for asset in portfolio.assets:
        change_raw = changes_raw.get(asset.token.address, 0)
        if change_raw and asset.token.address != numeraire.address:
            trade_texts.append(
                f"{verbs[change_raw > 0]} {shortened_text(abs(change_raw), asset.token.decimals)} {asset.token.label}"
            )
    cost_share_text = ""
    if plan.turnover > 0:
        cost_share_text = (
            f" ({decimal_text(round(plan.cost.total / plan.turnover * BPS * 10), 1)} bps)"
        )
    return (
        f"{', '.join(trade_texts)}; cost {format_figure(value_text(plan.cost.total, numeraire.decimals), 'cost', '-')}"
        f" {numeraire.label}{cost_share_text}"
    )


def _planned_trades(outcome: StepOutcome, *, is_done: bool = False) -> str:
    """Format the swaps, or the futures actions, of an outcome's plan, with the comparisons of sale
    and hedge; empty if there are none.
    """
    step = outcome.step_input
    plan = outcome.plan
    if (futures_plan := planned_futures(plan)) is not None:
        trades_text = actions_text(
            step.snapshot, step.portfolio, futures_policy(step), futures_plan, is_done=is_done
        )
    else:
        verbs = ("sold", "bought") if is_done else ("sell", "buy")
        trades_text = format_trades(plan, step.portfolio, verbs)
        if plan is not None and trades_text and not is_done:
            trades_text += worst_case_and_tax(step, plan)
    portfolio = step.portfolio
    comparison_texts = [
        comparison_text(
            comparison, portfolio.token(comparison.token).label, portfolio.numeraire.decimals
        )
        for comparison in hedge_comparisons_of(outcome)
    ]
    return "; ".join(part_text for part_text in (trades_text, *comparison_texts) if part_text)


def _weight_ratio(asset_band: AssetBand) -> Fraction:
    return asset_band.drift.share * BPS / asset_band.drift.target_bps


def _format_band(
    asset_band: AssetBand, portfolio: Portfolio, exposures: Mapping[str, Fraction]
) -> str:
    drift = asset_band.drift
    numeraire = portfolio.numeraire
    token = portfolio.token(drift.token)
    if others_text := bands.range_of(drift).others_text:
        return f"{bands.weight_and_target_text(drift)}: {others_text}"
    band_text = (
        f"{token.label} is {asset_band.side} its band: {drift.weight_text} of the portfolio,"
        f" band {format_band(drift)}, price"
        f" {shown_price_text(drift.price, token.decimals, numeraire.decimals)} {numeraire.label}"
    )
    if token.label in exposures:
        band_text += f", net exposure {format_percent(exposures[token.label])}"
    edge_name, alert_price = (
        ("low", asset_band.alert_low_price)
        if asset_band.side == "below"
        else ("high", asset_band.alert_high_price)
    )
    if alert_price is not None:
        band_text += f", alert-{edge_name} {shown_price_text(alert_price, token.decimals, numeraire.decimals)}"
    return band_text


EVENT_KINDS = {
    AlertKind.REBALANCE,
    AlertKind.ERROR,
    AlertKind.CONTROL,
    AlertKind.DIGEST,
    AlertKind.TEST,
}
LASTING_KINDS = frozenset(AlertKind) - EVENT_KINDS
ALWAYS_CHECKED_KINDS = frozenset({AlertKind.PAUSED, AlertKind.HEARTBEAT})
"""Kinds that even a failed cycle checks."""
KILL_SWITCH_GUARD = "kill_switch"
"""If this guard is the only one that refuses, a pause is reported instead of a refusal."""
REVERTS_GUARD = "reverts_in_row"
"""Guard that stops rebalances but not exits, which the alert mentions."""
MOVING_INTENT_KINDS = (
    IntentKind.SWAP,
    IntentKind.LIQUIDITY,
    IntentKind.PAYOUT,
    IntentKind.UNWRAP,
    IntentKind.FUTURES,
)
"""Transactions that trade or pay; approvals and the like do not."""
_FIGURE_PATTERN = re.compile(r"[-+]?[0-9][0-9,.]* ?(%|bps|s|gwei|wei|blocks?)?")
_PLAIN_SENTENCE_PATTERN = re.compile(
    r"(?!.*(?:0x[0-9a-fA-F]{6}|\.[A-Za-z]|\d\.\d+\.\d))[A-Za-z][A-Za-z0-9 ,.'$%()/-]{2,119}"
)
"""Reasons of the futures venue that go into an alert: no address, no domain and no markup (T17)."""
_GUARD_NAME_PATTERN = re.compile(r"[a-z_]{1,40}")
MAX_KEY_LENGTH = 200
_STEP_ID_PATTERN = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """State of the run in addition to the cycle's result.

    `paused` is the kill switch, `heartbeat_fault` why the heartbeat fails (empty if it succeeds),
    `low_gas_wei` the threshold (None if not configured). `shortfalls` has (step, token labels) of
    mined transactions that brought less than their minimum and were not reported yet.
    """

    paused: bool
    heartbeat_fault: str
    low_gas_wei: int | None
    shortfalls: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unsettled_orders: tuple[tuple[str, str], ...] = ()
    """Client order id and note of each order of a futures venue that is overdue: the venue no
    longer lists it as open, and its fills do not add up."""


def covered_kinds(outcome_or_error: StepOutcome | TrimtabError) -> frozenset[AlertKind]:
    """Return the kinds that this cycle checked completely. Their lasting conditions have ended
    unless the cycle reports them.
    """
    if isinstance(outcome_or_error, Refused | NotAccepted):
        return ALWAYS_CHECKED_KINDS | {AlertKind.REFUSAL}
    if isinstance(outcome_or_error, AwaitingExternalSignature) and (
        outcome_or_error.reverts is not None
    ):
        return ALWAYS_CHECKED_KINDS | {AlertKind.PROPOSAL}
    if isinstance(outcome_or_error, TrimtabError):
        return ALWAYS_CHECKED_KINDS
    if outcome_or_error.decision_result.drifts and outcome_or_error.kind in UNCHANGED_OUTCOMES:
        return LASTING_KINDS
    return LASTING_KINDS - {AlertKind.PRICE, AlertKind.REVIEW}


def cycle_alerts(
    outcome_or_error: StepOutcome | TrimtabError, run_facts: RunFacts
) -> tuple[Alert, ...]:
    """Return the alerts of one cycle, in the order of the events."""
    return tuple(
        replace(alert, text=sanitize_text(reader_text(alert.text)))
        for alert in _unsanitized_alerts(outcome_or_error, run_facts)
    )


def _unsanitized_alerts(
    outcome_or_error: StepOutcome | TrimtabError, run_facts: RunFacts
) -> Iterator[Alert]:
    if isinstance(outcome_or_error, TrimtabError):
        yield from _error_alerts(outcome_or_error)
    else:
        latest_input = outcome_or_error.input_after or outcome_or_error.step_input
        yield from drift_alerts(outcome_or_error)
        yield from _order_alerts(latest_input.portfolio, latest_input.history.orders.states)
        for blocked_exit in outcome_or_error.decision_result.blocked_exits:
            step = outcome_or_error.step_input
            order_label = conditional_orders.order_subject(step.portfolio, blocked_exit.token)
            alert_text = (
                f"{order_label} cannot be sold although its order fired; everything else continues. trimtab"
                f" orders shows why; {disarm_command(step.portfolio, step.history.orders, blocked_exit.token)}"
            )
            yield Alert(AlertKind.ORDER, f"blocked:{blocked_exit.token}", alert_text, True)
        for strategy_name, why in paused_strategies(
            latest_input.portfolio,
            latest_input.config(CapitalSplit),
            latest_input.layer(StrategiesState),
        ).items():
            yield Alert(AlertKind.ORDER, f"strategy:{strategy_name}", why, True)
        if due_alerts := tuple(futures_alerts(outcome_or_error)):
            yield from due_alerts
        else:  # a due reduction names the net exposure itself
            yield from net_exposure_alerts(outcome_or_error)
        yield from funding_alerts(latest_input.snapshot, futures_policy(latest_input))
        yield from agent_key_alerts(latest_input.snapshot)
        yield from unnamed_market_alerts(latest_input.snapshot)
        yield from account_alerts(latest_input.snapshot)
        yield from stale_read_alerts(latest_input.snapshot)
        yield from _signal_alerts(outcome_or_error)
        yield from _outcome_alerts(outcome_or_error, run_facts.paused)
        yield from _transfer_alerts(outcome_or_error)
        yield from _gas_alerts(latest_input.snapshot, run_facts.low_gas_wei)
    cycle_step_id = (
        outcome_or_error.step_id
        if isinstance(outcome_or_error, StepOutcome) and outcome_or_error.shortfall_tokens
        else ""
    )
    for step_id, token_labels in run_facts.shortfalls:
        if step_id != cycle_step_id:
            yield shortfall_alert(step_id, token_labels)
    for cloid, note in run_facts.unsettled_orders:
        alert_text = (
            f"The outcome of a futures order is not known although its time has passed: {note}. No"
            " other order is sent in its market meanwhile. Check it on the venue's site; trimtab txs"
        )
        yield Alert(AlertKind.HALT, f"futures:unsettled:{cloid}", alert_text, True)
    if run_facts.paused:
        yield Alert(
            AlertKind.PAUSED,
            "paused",
            "The kill switch is on: nothing is sent. trimtab resume switches it off.",
            True,
        )
    if run_facts.heartbeat_fault:
        yield Alert(AlertKind.HEARTBEAT, "heartbeat", run_facts.heartbeat_fault, True)


def _order_alerts(portfolio: Portfolio, orders: Iterable[ConditionalOrder]) -> Iterator[Alert]:
    """Yield an alert for each fired order, active until the order is armed again. An exit or price
    alert has a key of its own each time it fires; a price alert is not repeated.
    """
    for order in orders:
        if order.stage not in (OrderStage.FIRED, OrderStage.DONE):
            continue
        if order.kind in PRICE_ALERTS:
            alert_key = f"{order.kind.value}:{order.token}:{order.since_s}"
            alert_text = conditional_orders.format_price_alert(portfolio, order)
            yield Alert(AlertKind.PRICE, alert_key, f"{alert_text}.", True, repeats=False)
            continue
        fired_text = ""
        if order.event_price is not None:
            fired_text = f" at {conditional_orders.format_order_price(portfolio, order.token, order.event_price)}"
        advice = "trimtab orders arm re-arms it" if order.is_exit else "the asset may be bought"
        order_label = conditional_orders.order_name(portfolio, order.terms)
        firing_key = f":{order.since_s}" if order.is_exit else ""
        yield Alert(
            AlertKind.ORDER,
            f"order:{order.token}:{order.kind.value}{firing_key}",
            f"Fired: {order_label}{fired_text}; {advice}.",
            True,
        )


def _signal_alerts(outcome: StepOutcome) -> Iterator[Alert]:
    """Yield an alert for each signal without targets, whose last weights apply; a halt names it
    itself.
    """
    if outcome.has_halted:
        return
    for answer in outcome.step_input.layer(SignalState).faults:
        alert_text = f"Signal {answer.name} gives no new weights: {answer.why}. trimtab weights"
        if answer == outcome.step_input.layer(SignalState).trigger:
            alert_text = f"The trigger {answer.name} gives no answer: {answer.why}. trimtab doctor"
        yield Alert(AlertKind.HALT, f"signal:{answer.name}", alert_text, True)


def _transfer_alerts(outcome: StepOutcome) -> Iterator[Alert]:
    """Yield alerts for unexplained balance changes that block purchases, unless the outcome is the
    halt that reports them, and for rises accepted as deposits.
    """
    step = outcome.step_input
    if not outcome.has_halted and (
        reason := balance_changes.halt_reason(step.portfolio, step.limits, step.history.cash_flows)
    ):
        yield Alert(AlertKind.HALT, "halt", f"Nothing is bought or rebalanced: {reason}", True)
    for transfer in step.history.cash_flows.accepted_deposits:
        reason = "since it was never explained"
        if transfer.kind is ExternalTransferKind.AUTOMATIC:
            reason = "within limits.deposit_auto"
        alert_text = (
            f"{DEPOSIT_ACCEPTED}, {reason}: {balance_changes.format_change(step.portfolio, transfer)}."
            " trimtab flows --all"
        )
        yield Alert(AlertKind.HALT, f"accepted:{transfer.id}", alert_text, True)


def shortfall_key(step_id: str) -> str:
    """Return the key of the alert for a step whose transaction brought less than its minimum."""
    return f"short:{step_id}"


def shortfall_alert(step_id: str, token_labels: Sequence[str]) -> Alert:
    """Return the alert for a step whose transaction brought less than its minimum."""
    alert_text = (
        f"A transaction brought less than its minimum: {', '.join(token_labels)}. Check the token before"
        f" its next trade. trimtab explain {step_id}"
    )
    return Alert(AlertKind.ERROR, shortfall_key(step_id), alert_text)


def _outcome_alerts(outcome: StepOutcome, is_paused: bool) -> Iterator[Alert]:
    explain_command = "trimtab explain"
    if _STEP_ID_PATTERN.fullmatch(outcome.step_id):
        explain_command += f" {outcome.step_id}"
    verdicts = (*outcome.plan_verdicts, *outcome.refusal_verdicts)
    failing_verdicts = [verdict for verdict in verdicts if not verdict.passed]
    is_only_paused = is_paused and {verdict.guard for verdict in failing_verdicts} == {
        KILL_SWITCH_GUARD
    }
    match outcome.kind:
        case OutcomeKind.DONE:
            yield from _done_alert(outcome, explain_command)
        case OutcomeKind.FAILED if outcome.shortfall_tokens:
            token_of = outcome.step_input.portfolio.token
            yield shortfall_alert(
                outcome.step_id, [token_of(token).label for token in outcome.shortfall_tokens]
            )
        case OutcomeKind.FAILED if isinstance(outcome.decision_result.decision, Halt):
            step_after = outcome.input_after or outcome.step_input
            unread_texts = [
                f" The {unread_item.subject} cannot be read, so it may be open."
                for unread_item in unread_allowance_items(step_after)
            ]
            alert_text = f"The hard pause is not complete.{''.join(unread_texts)} {explain_command}"
            yield Alert(AlertKind.ERROR, "failed", alert_text)
        case OutcomeKind.FAILED:
            yield Alert(
                AlertKind.ERROR,
                "failed",
                "A transaction failed or an exit could not be sent; nothing was bought"
                f" afterwards.{_venue_reasons_text(outcome)} {explain_command}",
            )
        case OutcomeKind.REFUSED if not is_only_paused:
            trades_text = _planned_trades(outcome)
            would_text = f"It would {trades_text}." if trades_text else ""
            venue_text = _venue_reasons_text(outcome, failing_verdicts).strip()
            sentences = filter(None, (would_text, venue_text, explain_command))
            yield _refusal_alert(failing_verdicts, " ".join(sentences))
        case OutcomeKind.HALT if outcome.has_halted:
            yield Alert(AlertKind.HALT, "halt", f"Nothing is traded: {outcome.reason}", True)
        case _:
            pass


def _venue_reasons_text(outcome: StepOutcome, verdicts: Sequence[Verdict] = ()) -> str:
    """Return the futures venue's reasons for orders that it rejected, as far as they are plain
    sentences; empty without one.
    """
    reasons = [intent.failure_reason for intent in outcome.transactions]
    reasons += [verdict.measured_text for verdict in verdicts if verdict.limit == VENUE_ACCEPTANCE]
    plain_reasons = dict.fromkeys(
        reason.rstrip(".") for reason in reasons if _PLAIN_SENTENCE_PATTERN.fullmatch(reason)
    )
    return f" The venue: {'; '.join(plain_reasons)}." if plain_reasons else ""


def _done_alert(outcome: StepOutcome, explain_command: str) -> Iterator[Alert]:
    moving_intents = [
        transaction
        for transaction in outcome.transactions
        if transaction.kind in MOVING_INTENT_KINDS and transaction.succeeded
    ]
    if not moving_intents:
        return
    has_swapped = any(intent.kind is IntentKind.SWAP for intent in moving_intents)
    title = "Rebalance completed" if has_swapped else "Request completed"
    blocks = [
        intent.receipt.block_number for intent in moving_intents if intent.receipt is not None
    ]
    block_text = f", last in block {max(blocks)}" if blocks else ""
    transaction_count = len(outcome.transactions)
    trades_text = _planned_trades(outcome, is_done=True)
    alert_text = (
        f"{title}: {transaction_count} {'transaction' if transaction_count == 1 else 'transactions'}{block_text}."
        f" {f'Planned: {trades_text}. ' if trades_text else ''}{explain_command}"
    )
    yield Alert(AlertKind.REBALANCE, "rebalance", alert_text)


def _refusal_alert(failing_verdicts: list[Verdict], advice: str) -> Alert:
    """Return the alert for failing guards by name; with measured value and limit only if both are
    plain figures.
    """
    guard_texts: dict[str, str] = {}
    for verdict in failing_verdicts:
        guard_name = verdict.guard if _GUARD_NAME_PATTERN.fullmatch(verdict.guard) else "a guard"
        measured_text = verdict.measured_text.strip()
        limit_text = verdict.limit.strip()
        guard_texts[guard_name] = guard_name
        if _FIGURE_PATTERN.fullmatch(measured_text) and _FIGURE_PATTERN.fullmatch(limit_text):
            guard_texts[guard_name] = f"{guard_name} ({measured_text}, limit {limit_text})"
    alert_text = "A plan was refused before anything was sent."
    if guard_texts:
        alert_text = f"A plan was refused by {', '.join(guard_texts.values())}."
    if REVERTS_GUARD in guard_texts:
        alert_text += (
            " Too many transactions failed in a row: rebalances stop until trimtab resume; exits"
            " are retried at growing intervals."
        )
    alert_key = f"refusal:{','.join(guard_texts)}"[:MAX_KEY_LENGTH]
    return Alert(AlertKind.REFUSAL, alert_key, f"{alert_text} {advice}", True)


def _gas_alerts(snapshot: Snapshot, threshold_wei: int | None) -> Iterator[Alert]:
    native_wei = snapshot.native_wei
    if threshold_wei is not None and native_wei < threshold_wei:
        alert_text = (
            f"The wallet has {shortened_text(native_wei, 18)} of native coin for gas, below"
            f" {shortened_text(threshold_wei, 18)}."
        )
        yield Alert(AlertKind.LOW_GAS, "low_gas", alert_text, True)


def _error_alerts(error: TrimtabError) -> Iterator[Alert]:
    """Yield the alerts for an error; none for a transient one, which only a missing heartbeat
    reports.
    """
    if isinstance(error, AwaitingExternalSignature):
        yield from _proposal_alerts(error)
    elif isinstance(error, Refused | NotAccepted):
        yield _refusal_alert(
            [verdict for verdict in error.verdicts if not verdict.passed],
            "See the log and trimtab doctor.",
        )
    elif not isinstance(error, Retryable):
        yield run_ended_alert(error)


def _proposal_alerts(waiting: AwaitingExternalSignature) -> Iterator[Alert]:
    """Yield alerts for a proposal that waits, and while it would revert; each is sent once."""
    proposal = waiting.proposal
    proposal_id = proposal["id"]
    description = proposal["description"]
    expires_s = proposal["expires_s"]
    until_text = "" if expires_s is None else f" until {format_time(expires_s)}"
    instruction = waiting.how_to_sign
    if waiting.reverts is not False or waiting.fault is not None:
        instruction = f"{DO_NOT_SIGN}, until trimtab status asks for it"
    yield Alert(
        AlertKind.PROPOSAL,
        f"proposal:{proposal_id}",
        f"Proposed{until_text}: {description} ({proposal_id}). {as_sentence(instruction)}.",
        True,
        repeats=False,
    )
    if waiting.reverts:
        alert_text = (
            f"{PROPOSAL_FAILS}, for example because prices left its minimums: {description}"
            f" ({proposal_id}). It stays proposed{until_text}, and nothing else is sent meanwhile;"
            f" {WITHDRAWAL_ADVICE}."
        )
        yield Alert(
            AlertKind.PROPOSAL, f"proposal_reverts:{proposal_id}", alert_text, True, repeats=False
        )

    if waiting.held_up_text:
        alert_text = (
            f"The proposal {proposal_id} waits: {description}. {as_sentence(waiting.held_up_text)}."
        )
        yield Alert(
            AlertKind.PROPOSAL, f"proposal_holds_up:{proposal_id}", alert_text, True, repeats=False
        )
    if (fault := waiting.fault) is not None:
        reason_text = (
            f"{PROPOSAL_IS_STALE}, {fault.reason}"
            if fault.is_stale
            else f"{PROPOSAL_IS_UNCHECKED}, {fault.reason}"
        )
        advice = as_sentence(fault_advice(fault))
        alert_text = f"{reason_text}: {description} ({proposal_id}). {advice}."
        key = f"proposal_{'stale' if fault.is_stale else 'unchecked'}:{proposal_id}"
        yield Alert(AlertKind.PROPOSAL, key, alert_text, True, repeats=False)


def run_ended_alert(error: TrimtabError) -> Alert:
    """Return the alert for a run that ends with an error. The error's message stays in the log,
    because it may quote a node.
    """
    why = f"exit code {error.exit_code}"
    if error.exit_code == EXIT_OPERATOR:
        why = "an operator is needed"
    return Alert(
        AlertKind.ERROR, "error", f"The run has ended: {why}. See the log and trimtab doctor."
    )


def run_hung_alert() -> Alert:
    """Return the alert for a cycle that hung."""
    return Alert(
        AlertKind.ERROR, "hung", "A cycle hung and the run ended with exit code 13; restart it."
    )


def price_distance(price: Price, alert_price: Price | None) -> Fraction | None:
    """Return the signed relative move from the price to the alert price; None without either."""
    return None if alert_price is None or price == 0 else alert_price / price - 1
