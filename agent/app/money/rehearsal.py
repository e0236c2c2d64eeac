"""Test trade: the smallest round trip that the limits allow, compared with its prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent import engine, wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress
from agent.app.documents import fill
from agent.app.documents.owner import RehearsalDocument
from agent.app.documents.plans import plan_document, transaction_document
from agent.errors import ConfigError, Refused, TrimtabError
from agent.execution import evaluation
from agent.execution.approvals import current_step_input
from agent.execution.step_context import OutcomeKind, StepOutcome, StepTransactor
from agent.model import Intent, IntentKind, StepInput, Swap
from agent.planning import proposals
from agent.policy.cash_flows import transfers
from agent.reference import ReferencePrices, reference_prices
from agent.units import BPS, Token, Value, ceil_int, decimal_text

MAX_SIZES = 14
"""Maximum number of sizes tried. Each doubles the last, until the trade is worth its gas."""
SIZE_DEPENDENT_GUARDS = frozenset({"plan_cost", "min_trade"})
START_FACTOR = Fraction(104, 100)
"""Starting size as a multiple of min_trade, so that the return swap is not below min_trade."""


@dataclass(frozen=True, slots=True)
class RehearsalLeg:
    """One direction of the round trip. Amounts are in base units, `gas_value` in numeraire base
    units at prices before the swap; `slippage_bps` is the shortfall against the prediction.
    """

    token_in: Token
    token_out: Token
    amount_in_raw: int
    predicted_raw: int
    received_raw: int
    gas_predicted: int
    gas_used: int
    gas_value: Value
    slippage_bps: Fraction


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Result of the test trade.

    `state` is planned, declined, refused, done or failed. `cost` and `predicted_cost` are totals of
    both directions in numeraire base units, with the gas of approvals. The ledger books both as
    manual swaps, outside the strategy's performance.
    """

    outcomes: tuple[StepOutcome, ...]
    legs: tuple[RehearsalLeg, ...]
    state: str
    verdict: str
    cost: Value
    predicted_cost: Value

    @property
    def step_input(self) -> StepInput:
        """Step input that the first swap was planned from."""
        return self.outcomes[0].step_input


def rehearse_trade(
    agent: Agent,
    token: str | None = None,
    *,
    send: bool = False,
    confirm: Callable[[Rehearsal], bool],
    progress: Progress = ignore_progress,
) -> Rehearsal:
    """Buy the smallest tradable amount of an asset for the numeraire and sell it again; in reverse
    if the wallet has too little numeraire. One confirmation covers both swaps.
    """
    token_in, token_out, first_outcome, amount_in_raw = _plan_first_swap(
        agent, agent.step_input(), token
    )
    if not send or first_outcome.kind is not OutcomeKind.PLANNED or first_outcome.plan is None:
        return _preview(first_outcome)
    confirmations: list[bool] = []

    def confirm_once(outcome: StepOutcome) -> bool:
        if not confirmations:
            confirmations.append(confirm(_preview(outcome)))
        return confirmations[0]

    with wiring.open_transactor(agent.context, confirm_once, progress) as transactor:
        transactor.executor.reconcile()
        step = current_step_input(agent.context.readers, agent.context.store)
        token_in, token_out, first_outcome, amount_in_raw = _plan_first_swap(
            agent, step, token
        )  # plan again after the wait
        if first_outcome.kind is not OutcomeKind.PLANNED:
            return _preview(first_outcome)
        first_swap = Swap(token_in.address, token_out.address, amount_in_raw)
        first_swap_outcome = _run_swap(agent, transactor, first_swap, first_outcome)
        first_leg = _mined_leg(agent, first_swap_outcome, token_in, token_out, amount_in_raw)
        if first_leg is None or first_swap_outcome.kind is not OutcomeKind.DONE:
            state = "declined" if first_swap_outcome.kind is OutcomeKind.DECLINED else "failed"
            first_legs = () if first_leg is None else (first_leg,)
            first_text = _unsold_text(first_legs, first_swap_outcome.reason)
            return _rehearsal((first_swap_outcome,), first_legs, state, first_text)
        outcomes: tuple[StepOutcome, ...] = (first_swap_outcome,)
        legs: tuple[RehearsalLeg, ...] = (first_leg,)
        return_swap = Swap(token_out.address, token_in.address, first_leg.received_raw)
        try:
            return_swap_outcome = _run_swap(agent, transactor, return_swap, first_swap_outcome)
        except TrimtabError as error:
            return _rehearsal(outcomes, legs, "failed", _unsold_text(legs, str(error)))
        outcomes = (first_swap_outcome, return_swap_outcome)
        return_leg = _mined_leg(
            agent, return_swap_outcome, token_out, token_in, first_leg.received_raw
        )
        if return_leg is not None:
            legs = (first_leg, return_leg)
        if return_leg is None or return_swap_outcome.kind is not OutcomeKind.DONE:
            return_text = _unsold_text(legs, return_swap_outcome.reason)
            return _rehearsal(outcomes, legs, "failed", return_text)
    max_slippage_bps = step.limits.slippage_bps
    if any(max_slippage_bps is not None and leg.slippage_bps > max_slippage_bps for leg in legs):
        return _rehearsal(outcomes, legs, "failed", "slippage exceeds limits.slippage")
    is_exact = all(0 < leg.predicted_raw <= leg.received_raw for leg in legs)
    verdict = "as predicted" if is_exact else "within the limits"
    return _rehearsal(outcomes, legs, "done", verdict)


def _run_swap(
    agent: Agent, transactor: StepTransactor, swap: Swap, earlier_outcome: StepOutcome
) -> StepOutcome:
    """Return the outcome of a cycle with the swap. An error after the swap was mined is the reason
    of a failed outcome, with the input of `earlier_outcome`; others are raised.
    """
    journal = agent.context.store.journal
    earlier_ids = {intent.id for intent in journal.intents()}
    try:
        return engine.run_cycle(agent.context.readers, swap, agent.context.store, transactor)
    except TrimtabError as error:
        outcome = replace(
            earlier_outcome,
            kind=OutcomeKind.FAILED,
            reason=str(error),
            transactions=tuple(
                intent for intent in reversed(journal.intents()) if intent.id not in earlier_ids
            ),
        )
        swap_intent = _mined_swap(outcome)
        if swap_intent is None:
            raise
        return replace(outcome, plan=journal.grant(swap_intent.id).plan)


def _mined_swap(outcome: StepOutcome) -> Intent | None:
    return next(
        (
            intent
            for intent in outcome.transactions
            if intent.kind is IntentKind.SWAP and intent.succeeded
        ),
        None,
    )


def _unsold_text(legs: tuple[RehearsalLeg, ...], reason: str) -> str:
    """Return the reason, after what the wallet has from the first swap if nothing was sold back."""
    if len(legs) != 1 or not legs[0].received_raw:
        return reason
    (leg,) = legs
    bought = leg.token_out
    amount_text = decimal_text(leg.received_raw, bought.decimals)
    return (
        f"{amount_text} {bought.label} were bought and not sold back: {reason}; see trimtab history,"
        f" then trimtab swap --in {bought.label} --out {leg.token_in.label} --amount {amount_text}"
    )


def _plan_first_swap(
    agent: Agent, step: StepInput, token: str | None
) -> tuple[Token, Token, StepOutcome, int]:
    """Return the token sold first, the token bought, the plan, and the amount sold."""
    token_in = agent.portfolio.numeraire
    token_out = _asset_to_trade(agent, step, token)
    outcome, amount_in_raw = _smallest_trade(agent, step, token_in, token_out)
    if outcome.kind is OutcomeKind.PLANNED:
        return token_in, token_out, outcome, amount_in_raw
    if _free_value(step, token_out.address) > _free_value(step, token_in.address):
        token_in, token_out = token_out, token_in
        outcome, amount_in_raw = _smallest_trade(agent, step, token_in, token_out)
    return token_in, token_out, outcome, amount_in_raw


def _preview(outcome: StepOutcome) -> Rehearsal:
    """Return the planned test trade. The return swap is assumed to cost as much as the first."""
    state = "planned" if outcome.kind is OutcomeKind.PLANNED else "refused"
    predicted_cost = Fraction(0) if outcome.plan is None else 2 * outcome.plan.cost.total
    return Rehearsal((outcome,), (), state, outcome.reason, Fraction(0), predicted_cost)


def _rehearsal(
    outcomes: tuple[StepOutcome, ...], legs: tuple[RehearsalLeg, ...], state: str, verdict: str
) -> Rehearsal:
    step = outcomes[0].step_input
    predicted_cost = sum(
        (outcome.plan.cost.total for outcome in outcomes if outcome.plan is not None), Fraction(0)
    )
    cost = sum((_gas_value(swap_outcome) for swap_outcome in outcomes), Fraction(0))
    for leg in legs:
        cost += leg.amount_in_raw * _price(
            reference_prices(step), leg.token_in
        ) - leg.received_raw * _price(reference_prices(step), leg.token_out)
    return Rehearsal(outcomes, legs, state, verdict, cost, predicted_cost)


def _asset_to_trade(agent: Agent, step: StepInput, symbol: str | None) -> Token:
    """Return the named asset, by default the tradable asset with the largest target."""
    untradable_tokens = {
        screened_token.token for screened_token in step.targets.quarantined_tokens
    } | {agent.portfolio.numeraire.address}
    if symbol is not None:
        token = agent.token(symbol, "--token")
        if token.address in untradable_tokens:
            raise ConfigError(
                f"--token: {token.label} is the numeraire or in quarantine", "choose another asset"
            )
        return token
    assets = [
        asset for asset in step.effective_assets if asset.token.address not in untradable_tokens
    ]
    if not assets:
        raise Refused("no tradable asset other than the numeraire", remedy="see trimtab status")
    return max(assets, key=lambda asset: asset.target_bps).token


def _smallest_trade(
    agent: Agent, step: StepInput, token_in: Token, token_out: Token
) -> tuple[StepOutcome, int]:
    """Return the smallest trade that every guard allows, or the last refusal, with its amount."""
    token_in_price = _price(reference_prices(step), token_in)
    start_value = (
        step.limits.min_trade or Fraction(10**agent.portfolio.numeraire.decimals)
    ) * START_FACTOR
    free_raw = transfers.investable_balances(step).get(token_in.address, 0)
    amount_in_raw = min(max(1, ceil_int(start_value / token_in_price)), max(1, free_raw))
    for doubling in range(MAX_SIZES):
        if (
            doubling < MAX_SIZES - 1
            and amount_in_raw < free_raw
            and _exceeds_plan_cost(step, token_in, token_out, amount_in_raw)
        ):
            amount_in_raw = min(2 * amount_in_raw, free_raw)
            continue
        outcome = evaluation.evaluate_input(
            step,
            proposals.manual_swap_proposer(token_in.address, token_out.address, amount_in_raw),
            agent.context.readers.evidence_source,
        )
        verdicts = outcome.refusal_verdicts or outcome.plan_verdicts
        failing_guards = {verdict.guard for verdict in verdicts if not verdict.passed}
        is_decided = (
            outcome.kind is OutcomeKind.PLANNED
            or not failing_guards
            or not failing_guards <= SIZE_DEPENDENT_GUARDS
        )
        if is_decided or amount_in_raw >= free_raw or doubling == MAX_SIZES - 1:
            break
        amount_in_raw = min(2 * amount_in_raw, free_raw)
    return outcome, amount_in_raw


def _exceeds_plan_cost(
    step: StepInput, token_in: Token, token_out: Token, amount_in_raw: int
) -> bool:
    """Return whether the plan's own estimate exceeds limits.plan_cost, so that the size is skipped
    without evidence; the guard judges all others.
    """
    limit_bps = step.limits.plan_cost_bps
    try:
        plan = proposals.manual_swap_proposer(token_in.address, token_out.address, amount_in_raw)(
            step
        ).plan
    except Refused:
        return False
    return (
        plan is not None
        and limit_bps is not None
        and plan.cost.total * BPS > limit_bps * plan.turnover
    )


def _mined_leg(
    agent: Agent, outcome: StepOutcome, token_in: Token, token_out: Token, amount_in_raw: int
) -> RehearsalLeg | None:
    """Return the result of one direction, from its swap's receipt; None if no swap was mined."""
    swap_intent = _mined_swap(outcome)
    if swap_intent is None or swap_intent.receipt is None:
        return None
    receipt = swap_intent.receipt
    plan = outcome.plan
    wallet = outcome.step_input.snapshot.owner
    changes_raw = swap_intent.balance_changes(wallet, agent.portfolio.wrapped_native)
    received_raw = receipt.net_transfers(wallet).get(
        token_out.address, changes_raw.get(token_out.address, 0)
    )
    predicted_raw = sum(
        leg.amount_out_raw
        for leg in (() if plan is None else plan.legs)
        if leg.token_out == token_out.address and leg.sink.value == "wallet"
    )
    slippage_bps = (
        Fraction(predicted_raw - received_raw, predicted_raw) * BPS
        if predicted_raw
        else Fraction(0)
    )
    return RehearsalLeg(
        token_in,
        token_out,
        amount_in_raw,
        predicted_raw,
        received_raw,
        0 if plan is None else plan.gas_units,
        receipt.gas_used,
        _gas_value(outcome),
        slippage_bps,
    )


def _gas_value(outcome: StepOutcome) -> Value:
    """Return the value of the gas of all transactions, at prices before the swap."""
    step = outcome.step_input
    price = transfers.token_price(
        step.portfolio, reference_prices(step), step.portfolio.wrapped_native
    ) or Fraction(0)
    receipts = [intent.receipt for intent in outcome.transactions if intent.receipt is not None]
    return sum(receipt.gas_cost_wei for receipt in receipts) * price


def _price(references: ReferencePrices, token: Token) -> Fraction:
    reference_price = references.reference_by_token.get(token.address)
    if reference_price is None:
        raise Refused(f"{token.label} has no reference price", remedy="see trimtab doctor")
    return reference_price.price


def _free_value(step: StepInput, token: str) -> Value:
    return transfers.investable_balances(step).get(token, 0) * (
        transfers.token_price(step.portfolio, reference_prices(step), token) or Fraction(0)
    )


def rehearsal_document(rehearsal: Rehearsal, agent: Agent) -> RehearsalDocument:
    """Return the document of a test trade."""
    transactions = [
        transaction_document(intent)
        for outcome in rehearsal.outcomes
        for intent in outcome.transactions
    ]
    plan_of_first_swap = plan_document(rehearsal.outcomes[0])
    numeraire_label = agent.portfolio.numeraire.label
    return fill(
        RehearsalDocument,
        rehearsal,
        agent.portfolio,
        numeraire=numeraire_label,
        plan=plan_of_first_swap,
        transactions=transactions,
    )
