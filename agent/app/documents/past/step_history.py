"""Past steps from the store: listed with their costs, and explained."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from agent import codec, wiring
from agent.accounting.export import TokenNames, format_utc, weights_bps
from agent.accounting.futures import futures_sums
from agent.accounting.performance import performance_costs
from agent.app.describe import pool_names
from agent.app.documents import fill
from agent.app.documents.decisions import netting_document
from agent.app.documents.executions import GradualExecutionDocument
from agent.app.documents.futures import margin_figures_text
from agent.app.documents.past.executions import (
    execution_document,
    leg_documents,
    leg_sentences,
    mined_or_newest_swaps,
)
from agent.app.documents.past.waiting import newest_executions
from agent.app.documents.plans import tax_document
from agent.app.documents.records import (
    FuturesSumsDocument,
    PastStepDocument,
    PastTransactionDocument,
    RealisedCostsDocument,
)
from agent.config.load import load_config
from agent.config.loaded import ConfigSource
from agent.errors import ConfigError, ErrorCode
from agent.execution.bookkeeping import later_valuation
from agent.execution.shortfall import execution_reason, proposal_reason, shortfall_by_receipt
from agent.execution.step_context import OutcomeKind
from agent.execution.step_result import WAITING_OUTCOME
from agent.execution.submission.proposal_words import chain_deadline_s
from agent.figures import format_figure, replace_pool_addresses, waiting_time_text
from agent.layers import documents as layer_documents
from agent.layers.futures.notes import futures_action_note
from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.layers.liquidity.composer import action_note
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.margin.account import account_value_raw
from agent.model import (
    NATIVE_VENUE,
    AdjustFutures,
    AdjustLiquidity,
    AssetDrift,
    Decision,
    Halt,
    Hold,
    Intent,
    IntentKind,
    LayerDecision,
    Plan,
    Portfolio,
    Rebalance,
    StepInput,
    StepRequest,
    TopUp,
    as_lp_action,
)
from agent.planning import proposals, requests
from agent.policy.rebalance import buys_to_targets_first
from agent.policy.triggers.asset_range import AT_THESE_WEIGHTS
from agent.policy.triggers.bands import format_band, range_of
from agent.policy.triggers.no_trade_zone import ZoneView, intervals_at_targets
from agent.store.transitions import OPEN_STATES
from agent.units import (
    BPS,
    Token,
    Value,
    decimal_text,
    format_bps,
    format_duration,
    format_percent,
    utc_text,
    value_text,
)

if TYPE_CHECKING:
    from agent.app.documents.records import (
        ExecutionDocument,
        ExplanationDocument,
        HistoryDocument,
        ValuationDocument,
    )
    from agent.layers.strategies.policy.netting import NettingResult
    from agent.store.database.rows import StepRecord, StepSummary
    from agent.store.store import Store


class LedgerRecords:
    """What the ledger records of steps: costs, futures, swaps; and past valuations."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token_names: TokenNames | None = None
        if (ledger_tokens := store.ledger.ledger_tokens()) is not None:
            tokens = {token.address: token for token in ledger_tokens.tokens}
            self._token_names = TokenNames(tokens, ledger_tokens.numeraire)

    def cost(self, intents: Iterable[Intent]) -> RealisedCostsDocument | None:
        """Return fees, impact, gas and their sum in the numeraire; None if no transaction is
        final.
        """
        entries = self._store.ledger.entries_of(intent.id for intent in intents)
        if not entries or self._token_names is None:
            return None
        return fill(RealisedCostsDocument, performance_costs(entries), self._token_names)

    def futures_fields(self, intents: Iterable[Intent]) -> dict[str, FuturesSumsDocument]:
        """Return the key `futures` with fees, funding and realised profit of final
        transactions; empty without futures.
        """
        step_lines = futures_sums(self._store.ledger.entries_of(intent.id for intent in intents))
        if step_lines is None or self._token_names is None:
            return {}
        return {"futures": fill(FuturesSumsDocument, step_lines, self._token_names)}

    def execution(self, intents: Sequence[Intent]) -> ExecutionDocument | None:
        """Return the mined swaps against their plans, summed; None without any."""
        if self._token_names is None:
            return None
        plans_and_intents = mined_or_newest_swaps(self._store, intents)
        entries = self._store.ledger.entries_of(intent.id for _, intent in plans_and_intents)
        return execution_document(plans_and_intents, entries, self._token_names)

    def valuations(self, limit: int) -> list[ValuationDocument]:
        """Return the newest valuations, newest first, that of the newest step included: managed
        value, and weight of each token.
        """
        if self._token_names is None:
            return []
        token_names = self._token_names
        valuations = self._store.valuations.newest(limit)
        if valuations:
            step = self._store.steps.newest_input()
            newest_valuation = later_valuation(self._store, step, valuations[0])
            valuations = (
                valuations if newest_valuation is None else (newest_valuation, *valuations)[:limit]
            )
        return [
            {
                "time": format_utc(valuation.chain_s),
                "block": valuation.block,
                "value": value_text(valuation.managed_value, token_names.numeraire.decimals),
                "weights_bps": {
                    token_names.label(token): weight_bps
                    for token, weight_bps in weights_bps(valuation).items()
                },
            }
            for valuation in valuations
        ]


def execution_sentences(step: StepInput, plan: Plan | None) -> list[str]:
    """Describe the executions over several steps that a past step belongs to; empty without one."""
    sentences = []
    if (purchase := step.history.cash_flows.purchase) is not None:
        terms = purchase.terms
        moved_text, intended_text, lost_text = (
            step.portfolio.numeraire.money_text(purchase_value)
            for purchase_value in (purchase.moved_value, terms.value_to_move, purchase.lost_value)
        )
        sentences.append(
            f"A {terms.kind.value} has run since {utc_text(terms.began_s)}: {purchase.parts_done} of about"
            f" {terms.part_count} parts done, {moved_text} of {intended_text} moved, {lost_text} lost."
        )
    for layer in layer_documents.LAYERS:
        sentences += layer.sentences(step, plan)
    return sentences


def _netting_sentences(netting_result: NettingResult | None, portfolio: Portfolio) -> list[str]:
    """Describe the internal netting of strategies; empty for a single strategy."""
    netting_fields = netting_document(netting_result, portfolio)
    if netting_result is None or netting_fields is None:
        return []
    numeraire_label = portfolio.numeraire.label
    sentences = [
        f"Strategy {adjustment.name} {'acted' if adjustment.acts else 'waited'}: {adjustment.reason}."
        for adjustment in netting_result.adjustments
    ]
    sentences += [
        f"Capital of {capital_move['value']} {numeraire_label} moved from {capital_move['from']} to {capital_move['to']} internally."
        for capital_move in netting_fields["capital_moved"]
    ]
    sentences += [
        f"{netting['symbol']}: {netting['bought']} {numeraire_label} to buy, {netting['sold']} to sell, {netting['crossed']}"
        f" netted internally, {netting['net']} left for the market."
        for netting in netting_fields["netted"]
    ]
    if netting_result.saved_fees:
        sentences.append(
            f"That saved at least {netting_fields['saved_fees']} {numeraire_label} of pool fees."
        )
    return sentences


def _tax_sentences(step: StepInput, plan: Plan | None) -> list[str]:
    """Describe the taxable gain of a plan; empty without [tax] or without disposals."""
    tax_fields = tax_document(step, plan)
    if tax_fields is None or not tax_fields["disposals"]:
        return []
    year_limit_text = (
        "" if tax_fields["year_limit"] is None else f" of at most {tax_fields['year_limit']}"
    )
    currency = tax_fields["currency"]
    gain_text = f"{tax_fields['gain']} {currency}"
    if tax_fields["gain"] is None:
        gain_text = f"an unknown gain ({tax_fields['unknown']})"
    return [
        f"By {tax_fields['method']} it would realise {gain_text};"
        f" {tax_fields['realised_this_year']} {currency}{year_limit_text} was realised by then."
    ]


UNFINISHED = "unfinished"
APPROVED = "approved"
REJECTED = "rejected"
MAX_APPROVAL_STEPS = 20
"""Steps before a swap that are looked through for its approvals."""
COST_PLACES = 18
"""Places of a cost before it is rounded for a reader."""
NO_OUTCOME_REASON = (
    "no outcome is stored: the step is still running, or its process ended before it did"
)


def history(
    config: ConfigSource, limit: int = 20, before_step_id: str | None = None
) -> HistoryDocument:
    """Return the newest steps with transactions and costs, gradual executions and valuations,
    newest first. With `before_step_id` only steps, those before the step of this id; raises
    ConfigError for an unknown id.
    """
    with wiring.open_store_offline(load_config(config)) as (store, _):
        return store_history(store, limit, before_step_id)


def store_history(store: Store, limit: int, before_step_id: str | None = None) -> HistoryDocument:
    """Return the history of an open store, as `history`."""
    if before_step_id is not None and store.steps.get(before_step_id) is None:
        raise _unknown_step_error(before_step_id)
    ledger_records = LedgerRecords(store)
    proposed_ids = store.proposals.proposal_blocks()
    past_steps = [
        (summary, store.journal.intents(summary.id))
        for summary in store.steps.newest(limit, before_step_id)
    ]
    gradual_executions: list[GradualExecutionDocument] = []
    valuations: list[ValuationDocument] = []
    if not before_step_id:
        gradual_executions = newest_executions(store, limit)
        valuations = ledger_records.valuations(limit)
    return {
        "steps": [
            fill(
                PastStepDocument,
                summary,
                decision=summary.decision or UNFINISHED,
                outcome=_outcome_text(store, summary, intents),
                reason=_reason_text(store, summary, intents, proposed_ids),
                transactions=_transaction_documents(intents),
                cost=ledger_records.cost(intents),
                execution=ledger_records.execution(intents),
                **ledger_records.futures_fields(intents),
            )
            for summary, intents in past_steps
        ],
        "gradual_executions": gradual_executions,
        "values": valuations,
    }


def _outcome_text(store: Store, summary: StepSummary, intents: Sequence[Intent]) -> str:
    """Return a step's outcome; a plan whose approvals were sent is approved, and another step
    carries it out. One that waited for signatures has the outcome of its proposal.
    """
    is_only_approved = bool(intents) and all(
        intent.kind is IntentKind.APPROVE for intent in intents
    )
    if is_only_approved and summary.outcome == OutcomeKind.PLANNED.value:
        return APPROVED
    ended_intent = _ended_proposal(summary, intents)
    if ended_intent is None:
        return summary.outcome or UNFINISHED
    if not ended_intent.succeeded:
        return REJECTED if rejection_hash(store, ended_intent) else ended_intent.state.value
    failed = shortfall_by_receipt(store, ended_intent)
    outcome = OutcomeKind.FAILED if failed else OutcomeKind.DONE
    return outcome.value


def _reason_text(
    store: Store, summary: StepSummary, intents: Sequence[Intent], proposed_ids: Container[str]
) -> str:
    """Return a step's reason; of one that made proposals why, then what became of the last one."""
    whys = [
        why
        for intent in intents
        if intent.id in proposed_ids and (why := proposal_reason(store, intent))
    ]
    return "; ".join([*whys[-1:], _outcome_reason(store, summary, intents)])


def _outcome_reason(store: Store, summary: StepSummary, intents: Sequence[Intent]) -> str:
    """Return a step's reason; of one that waited for signatures, how its proposal ended, or that its
    execution was sent from here.
    """
    if (ended_intent := _ended_proposal(summary, intents)) is not None:
        if ended_intent.succeeded:
            return execution_reason(store, ended_intent)
        return f'"{ended_intent.note}" {proposal_end_text(store, ended_intent)}'
    for intent in intents if summary.outcome == WAITING_OUTCOME else ():
        execution = store.proposals.execution(intent.id)
        if execution is not None and intent.kind is not IntentKind.CANCEL:
            return (
                f'the execution of "{intent.note}" was sent in {execution.tx_hash}; the next cycle'
                " settles it"
            )
    return summary.reason or ("" if summary.outcome else NO_OUTCOME_REASON)


def _ended_proposal(summary: StepSummary, intents: Sequence[Intent]) -> Intent | None:
    """Return the proposal of a waiting step that was executed or ended; None if it still waits."""
    proposed_intents = [intent for intent in intents if intent.kind is not IntentKind.CANCEL]
    if summary.outcome != WAITING_OUTCOME or not proposed_intents:
        return None
    last_intent = proposed_intents[-1]
    has_ended = last_intent.state not in OPEN_STATES or last_intent.succeeded
    return last_intent if has_ended else None


def rejection_hash(store: Store, proposal: Intent) -> str:
    """Return the transaction of the owners' rejection that ended a proposal, or what the chain still
    accepted of one that was given up here; "" for another end.
    """
    last_note = _last_note(store, proposal)
    has_no_end = chain_deadline_s(proposal, store.journal.grant(proposal.id)) is None
    return next(
        (
            peer.tx_hash
            for peer in store.journal.intents_at(proposal.tx.nonce)
            if peer.kind is IntentKind.CANCEL and peer.tx_hash
            if peer.tx_hash in last_note or (has_no_end and peer.succeeded)
        ),
        "",
    )


def rejection_text(tx_hash: str) -> str:
    """Return what became of a proposal whose rejection was executed in a transaction."""
    return f"was rejected by the owners: {tx_hash} is an empty call at its nonce"


def proposal_end_text(store: Store, proposal: Intent) -> str:
    """Return what became of a proposal that waits no more."""
    if proposal.succeeded:
        return f"was executed in {proposal.tx_hash}"
    if rejection := rejection_hash(store, proposal):
        return rejection_text(rejection)
    return f"was not executed: {_last_note(store, proposal)}"


def _last_note(store: Store, intent: Intent) -> str:
    return store.journal.transitions(intent.id)[-1].note


def _unknown_step_error(step_id: str) -> ConfigError:
    return ConfigError(
        f"step: {step_id!r} is not in the store", "see trimtab history", code=ErrorCode.UNKNOWN
    )


def explain(config: ConfigSource, step_id: str | None = None) -> ExplanationDocument:
    """Explain a past step, by default the newest, in sentences; the decision of a policy's step
    without a plan is recomputed from the stored input. Raises ConfigError for an unknown id.
    """
    with wiring.open_store_offline(load_config(config)) as (store, _):
        if step_id is None:
            step_id = next((summary.id for summary in store.steps.newest(1)), None)
        if step_id is None:
            raise ConfigError(
                "step: the store has no steps yet",
                "trimtab plan records the first",
                code=ErrorCode.EMPTY,
            )
        step_record = store.steps.get(step_id)
        if step_record is None:
            raise _unknown_step_error(step_id)
        intents = store.journal.intents(step_id)
        executed_plans: list[tuple[Plan, Intent | None]] = [*mined_or_newest_swaps(store, intents)]
        summary = step_record.summary
        reason_text = _outcome_reason(store, summary, intents)
        outcome = _outcome_text(store, summary, intents)
        booked_sentences = _booked_cost_sentences(store, step_record, intents)
    step_input = codec.loads(StepInput, step_record.input_json)
    plan = codec.loads_optional(Plan, step_record.plan_json)
    decision_result = proposals.decision_after_plan(step_input)
    portfolio = step_input.portfolio
    head = step_input.snapshot.head
    request_json = step_record.request_json
    request = None if request_json is None else codec.loads(StepRequest, request_json)
    is_by_owner = requests.is_owner_step(request, summary.decision, summary.outcome, plan)
    if is_by_owner:
        sentences = [_owner_sentence(request, summary, plan)]
    else:
        sentences = _decision_sentences(decision_result.decision if plan is None else plan.decision)
    sentences.append(f"That was at {utc_text(summary.now_s)} UTC, at block {head.number}.")
    sentences += [f"Targets: {reason}." for reason in step_input.targets.reasons]
    numeraire = portfolio.numeraire
    sentences += [
        _weight_sentence(
            drift,
            numeraire,
            is_zone=decision_result.zone is not None,
            has_band=not buys_to_targets_first(step_input),
        )
        for drift in decision_result.drifts
    ]
    account = margin_account(step_input.snapshot)
    policy = futures_policy(step_input)
    if account is not None and policy is not None:
        account_value_text = value_text(
            Fraction(account_value_raw(account)), account.quote.decimals, 2
        )
        sentences.append(
            f"Futures: account value {account_value_text} {account.quote.label}, {margin_figures_text(account, policy)}."
        )
    if not is_by_owner:
        sentences += _zone_sentences(decision_result.zone, step_input)
    sentences += execution_sentences(step_input, plan)
    if not is_by_owner:
        sentences += _netting_sentences(
            decision_result.layer(StrategiesResult).netting, step_input.portfolio
        )
    if plan is not None:
        sentences += _plan_sentences(plan, step_input) + _tax_sentences(step_input, plan)
    sentences += [
        f"{intent.note_with_reason}: {intent.state.value}, transaction"
        f" {intent.tx_hash or 'not sent'}."
        for intent in intents
    ]
    if plan is not None and not executed_plans:
        executed_plans = [(plan, None)]
    pool_labels = pool_names(step_input.snapshot, step_input.portfolio)
    legs = [
        leg
        for executed_plan, swap_intent in executed_plans
        for leg in leg_documents(executed_plan, swap_intent, portfolio, pool_labels)
    ]
    sentences += leg_sentences(legs)
    sentences += booked_sentences
    sentences.append(f"Outcome: {outcome}: {reason_text}" if reason_text else f"Outcome: {outcome}")
    sentences.append(f"Step {step_id}: block {head.hash} of chain {head.chain_id}.")
    return {
        "step": step_id,
        "outcome": outcome,
        "sentences": sentences,
        "legs": legs,
        "transactions": _transaction_documents(intents),
    }


def _weight_sentence(drift: AssetDrift, numeraire: Token, *, is_zone: bool, has_band: bool) -> str:
    """Say weight, target and band of an asset; no band if it has none of its own, or before a first
    purchase, which no band bounds.
    """
    asset_range = range_of(drift)
    band_text = f" (band {format_band(drift)}{f' {AT_THESE_WEIGHTS}' if is_zone else ''})"
    if not has_band:
        band_text = ""
    elif is_zone and not asset_range.is_own:
        band_text = f" ({asset_range.others_text})" if asset_range.others_text else ""
    return (
        f"{drift.symbol}: {numeraire.money_text(drift.value)},"
        f" {drift.weight_bps / 100:.2f} % against {format_bps(drift.target_bps)}"
        f"{band_text}{', outside' if drift.is_outside_band and not asset_range.others_text else ''}."
    )


def _booked_cost_sentences(
    store: Store, step_record: StepRecord, intents: Sequence[Intent]
) -> list[str]:
    """Say what a step with a plan cost as booked; if it carried out the whole plan, its approvals in
    the steps directly before included, against what the first of these plans expected for all,
    without gas if a Safe's executor paid it. Empty before it is booked.
    """
    ledger_records = LedgerRecords(store)
    booked_cost = ledger_records.cost(intents)
    if booked_cost is None or step_record.plan_json is None:
        return []
    plan_json = step_record.plan_json
    numeraire = codec.loads(StepInput, step_record.input_json).portfolio.numeraire
    step_text = f"It cost {_cost_text(Fraction(booked_cost['total']))} {numeraire.label} as booked"
    has_acted = any(
        intent.succeeded and intent.kind not in (IntentKind.APPROVE, IntentKind.CANCEL)
        for intent in intents
    )
    if not has_acted or codec.loads(Plan, plan_json).action_count > 1:
        return [f"{step_text}."]
    approvals_cost = Fraction(0)
    for summary in store.steps.newest(MAX_APPROVAL_STEPS, step_record.summary.id):
        approvals = store.journal.intents(summary.id)
        cost = ledger_records.cost(approvals)
        approval_record = store.steps.get(summary.id)
        if _outcome_text(store, summary, approvals) != APPROVED or cost is None:
            break
        if approval_record is None or approval_record.plan_json is None:
            break
        plan_json = approval_record.plan_json
        approvals_cost += Fraction(cost["total"])
    plan_cost = codec.loads(Plan, plan_json).cost
    proposed_ids = store.proposals.proposal_blocks()
    is_gas_paid_by_others = any(
        intent.id in proposed_ids and intent.receipt is not None and not intent.receipt.gas_cost_wei
        for intent in intents
    )
    planned_total = plan_cost.without_gas if is_gas_paid_by_others else plan_cost.total
    planned_cost = planned_total / numeraire.unit
    total = Fraction(booked_cost["total"]) + approvals_cost
    approvals_text = (
        f" and {_cost_text(approvals_cost)} for its approvals" if approvals_cost else ""
    )
    gas_text = " without the gas, which its executor paid" if is_gas_paid_by_others else ""
    comparison_text = _against_expected(total, planned_cost, numeraire)
    return [f"{step_text}{approvals_text}{comparison_text}{gas_text}."]


def _against_expected(total: Fraction, expected: Fraction, numeraire: Token) -> str:
    """Compare a cost with the expected one, in coins; one that is shown alike is as expected."""
    if _cost_text(total) == _cost_text(expected):
        return ", as expected"
    return (
        f": {_cost_text(total - expected, '+')} {numeraire.label} against the"
        f" {_cost_text(expected)} that were expected"
    )


def _cost_text(cost: Fraction, sign: str = "") -> str:
    """Return a cost in coins of the numeraire, as tables and pages show it."""
    return format_figure(value_text(cost, 0, COST_PLACES), f"cost{sign}", "-")


def _cost_in_coins(value: Value, numeraire: Token) -> str:
    return f"{_cost_text(value / numeraire.unit)} {numeraire.label}"


def _owner_sentence(request: StepRequest | None, summary: StepSummary, plan: Plan | None) -> str:
    """Return what the owner asked for in a step."""
    if plan is not None:
        return f"Manual: {plan.decision.reason}."
    if summary.decision == "payout":
        return "By the owner: a payment of a withdrawal or a stop."
    return (
        "By the owner." if request is None else f"By the owner: {requests.requester_name(request)}."
    )


def _decision_sentences(decision: Decision) -> list[str]:
    match decision:
        case Hold(reason):
            return [f"It held: {reason}"]
        case Halt(reason):
            return [f"It halted: {reason}"]
        case Rebalance(reason):
            return [f"It decided to rebalance: {reason}"]
        case AdjustLiquidity(reason):
            return [f"It decided to move liquidity: {reason}"]
        case AdjustFutures(reason):
            return [f"It decided to send futures orders: {reason}"]
        case TopUp(reason):
            return [f"It decided to refill the gas money: {reason}"]
        case LayerDecision(reason):
            return [f"It decided to act: {reason}"]


def _transaction_documents(intents: Iterable[Intent]) -> list[PastTransactionDocument]:
    return [
        fill(
            PastTransactionDocument,
            intent,
            hash=intent.tx_hash or "",
            status="resting" if intent.is_resting else intent.state.value,
            block=intent.receipt.block_number if intent.receipt else None,
            note=intent.note_with_reason,
        )
        for intent in intents
    ]


def _zone_sentences(zone: ZoneView | None, step: StepInput) -> list[str]:
    """Describe the no-trade zone: risk cost of being off target, interval of each asset, and the
    plan's trade-off; empty without a zone.
    """
    if zone is None:
        return []
    portfolio = step.portfolio
    numeraire = portfolio.numeraire
    when = ""
    intervals = zone.intervals
    if buys_to_targets_first(step):
        sells_assets = any(
            interval.weight_bps > interval.target_bps
            for interval in intervals
            if interval.token != zone.numeraire
        )
        when = f"After the first {'rebalance' if sells_assets else 'purchase'}, "
        intervals = intervals_at_targets(zone)

    def coins_text(value: Value) -> str:
        return _cost_in_coins(value, numeraire)

    sentences = [
        f"Being off target was a risk valued at {coins_text(zone.risk_value)} within"
        f" {format_duration(zone.horizon_s)}, not money paid."
    ]
    sentences += [f"Measured: {zone.sample_text}."] if zone.sample_text else []
    for interval in intervals:
        label = portfolio.token(interval.token).label
        asset_range = interval.trigger_range
        if asset_range.low_bps <= 0 and asset_range.high_bps >= BPS:
            continue
        edge_texts = dict.fromkeys((format_percent(interval.low), format_percent(interval.high)))
        trigger_text = (
            f"{format_percent(interval.trigger_low)} or {format_percent(interval.trigger_high)}"
        )
        correction_text = ""
        if interval.correction is not None:
            correction_text = (
                f" Correcting it alone was estimated at {coins_text(interval.correction.cost)} once,"
                f" waiting costs as much in {waiting_time_text(interval.correction.cost, interval.correction.waiting_year)}."
            )
        range_text = (
            f" {when}{label} is moved beyond {trigger_text}{asset_range.condition_text}, and traded"
            f" to {' to '.join(edge_texts)}."
        )
        if asset_range.others_text:
            range_text = f" {label}: {asset_range.others_text}."
        elif asset_range.low_bps == asset_range.high_bps:
            range_text = f" {label} has no band {AT_THESE_WEIGHTS}."
        sentences.append(f"{range_text}{correction_text}".lstrip())
    tradeoff = zone.plan_tradeoff
    if tradeoff is not None:
        cost_text = (
            f"fees {coins_text(tradeoff.fees)}, impact {coins_text(tradeoff.impact)}, skew {coins_text(tradeoff.skew)},"
            f" gas {coins_text(tradeoff.gas)}"
            f"{f', approvals {coins_text(tradeoff.approval_gas)}' if tradeoff.approval_gas else ''}"
            f"{f', tax {coins_text(tradeoff.tax)}' if tradeoff.tax else ''}"
        )
        sentences.append(
            f"A plan was estimated to save {coins_text(tradeoff.saved_risk)} of risk and to cost"
            f" {coins_text(tradeoff.cost)}: {cost_text}."
        )
    return sentences


def _plan_sentences(plan: Plan, step_input: StepInput) -> list[str]:
    portfolio = step_input.portfolio
    numeraire = portfolio.numeraire
    pool_labels = pool_names(step_input.snapshot, step_input.portfolio)
    cost_text = _cost_in_coins(plan.cost.total, numeraire)
    turnover_text = numeraire.money_text(plan.turnover)
    if plan.layer_actions:
        count_text = (
            "1 action" if len(plan.layer_actions) == 1 else f"{len(plan.layer_actions)} actions"
        )
        sentences = [f"The plan: {count_text} with liquidity, expected cost {cost_text}, in gas."]
        sentences += [
            f"  {action_number}. {action_note(step_input.portfolio, action)}: {action.reason}."
            for action_number, action in enumerate(map(as_lp_action, plan.layer_actions), 1)
        ]
        return sentences + _refusal_and_skip_lines(plan, pool_labels)
    if (futures_plan := planned_futures(plan)) is not None:
        actions = futures_plan.actions
        noun = "order" if futures_plan.orders else "action"
        count_text = f"1 {noun}" if len(actions) == 1 else f"{len(actions)} {noun}s"
        sentences = [f"The plan: {count_text} of futures, expected cost {cost_text}."]
        sentences += [
            f"  {action_number}. {futures_action_note(step_input, action)}."
            for action_number, action in enumerate(actions, 1)
        ]
        return sentences + _refusal_and_skip_lines(plan, pool_labels)
    swap_count = sum(leg.venue != NATIVE_VENUE for leg in plan.legs)
    sentences = [
        f"The plan: {swap_count} {'swap' if swap_count == 1 else 'swaps'}, turnover {turnover_text}, expected cost {cost_text}."
    ]
    for leg_number, leg in enumerate(plan.legs, 1):
        token_in = portfolio.token(leg.token_in)
        token_out = portfolio.token(leg.token_out)
        if leg.venue == NATIVE_VENUE:
            sentences.append(
                f"  {leg_number}. {decimal_text(leg.amount_in_raw, token_in.decimals)} {token_in.label} becomes"
                f" {token_out.label}, one for one."
            )
            continue
        sentences.append(
            f"  {leg_number}. {decimal_text(leg.amount_in_raw, token_in.decimals)} {token_in.label} for"
            f" {decimal_text(leg.amount_out_raw, token_out.decimals)} {token_out.label}, at least"
            f" {decimal_text(leg.min_out_raw, token_out.decimals)} {token_out.label}, in"
            f" {pool_labels.get(leg.pool, leg.venue)} ({leg.pool}), impact {leg.impact_bps} bps."
        )
    return sentences + _refusal_and_skip_lines(plan, pool_labels)


def _refusal_and_skip_lines(plan: Plan, pool_labels: dict[str, str]) -> list[str]:
    refusal_lines = [
        f"Guard {verdict.guard} refused: {replace_pool_addresses(verdict.measured_text, pool_labels)} against {verdict.limit}."
        for verdict in plan.verdicts
        if not verdict.passed
    ]
    return refusal_lines + [
        f"Skipped {replace_pool_addresses(skipped_trade.subject, pool_labels, keeps_addresses=True)}:"
        f" {replace_pool_addresses(skipped_trade.why, pool_labels)}"
        for skipped_trade in plan.skipped
    ]
