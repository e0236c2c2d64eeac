"""Deposits and withdrawals of a running bot. Deposits: find them, invest them after confirmation,
and classify external transfers. Withdrawals: sell assets to raise a shortfall, reserve the amount,
and pay it to a confirmed address exactly once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from agent import engine, wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.documents import fill
from agent.app.documents.decisions import transfer_document
from agent.app.documents.owner import (
    InvestmentDocument,
    RequestedPaymentDocument,
    WithdrawalRequestDocument,
)
from agent.app.documents.plans import (
    TransactionDocument,
    plan_document,
    rebalance_document,
    transaction_document,
)
from agent.app.money import withdrawal_payments
from agent.app.money.repeated_withdrawals import (
    RECENT_S,
    find_repeated,
    paid_in_text,
    repeat_refusal,
    repeat_text,
)
from agent.app.withdrawals import withdrawal_run
from agent.app.withdrawals.payment_states import paid_hashes, payment_states
from agent.app.withdrawals.withdrawal_run import (
    Confirm,
    RequestOrigin,
    WithdrawalReport,
    WithdrawalRun,
    WithdrawalState,
    step_without_deposits,
)
from agent.config.load import load_config
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError, ErrorCode
from agent.execution import evaluation
from agent.execution.approvals import current_step_input, settled_step_input
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.model import (
    ExternalTransfer,
    ExternalTransferKind,
    History,
    Invest,
    OwnerRequest,
    Payment,
    Portfolio,
    PurchaseProgress,
    RequestKind,
    RequestState,
    Snapshot,
    StepInput,
)
from agent.planning.requests import proposer
from agent.policy.cash_flows import balance_changes, cash_limit, transfers
from agent.units import NATIVE, parse_raw, whole_number
from agent.wiring.waiting_proposals import used_nonce_text

if TYPE_CHECKING:
    from agent.app.documents.records import ConfirmedTransfersDocument, TransfersDocument


@dataclass(frozen=True, slots=True)
class InvestmentReport:
    """New deposits, and the plan that invests them or its result.

    `outcome` is None without deposits. `uninvested_deposits` are deposits that are not invested,
    for lack of room in portfolio.max_live_value or because the owner selected others. `is_recorded`
    is True once the deposits are recorded. `open_top_up` is the unfinished top-up, None once
    everything is invested.
    """

    step_input: StepInput
    deposits: tuple[ExternalTransfer, ...]
    outcome: StepOutcome | None
    is_recorded: bool = False
    open_top_up: PurchaseProgress | None = None
    uninvested_deposits: tuple[ExternalTransfer, ...] = ()

    @property
    def wallet(self) -> str:
        """Address to deposit to: the agent's own wallet."""
        return self.step_input.snapshot.owner


ConfirmInvestment = Callable[[InvestmentReport], bool]


def invest(
    agent: Agent,
    *,
    transfer_ids: Collection[int] = (),
    send: bool = False,
    confirm: ConfirmInvestment,
    progress: Progress = ignore_progress,
) -> InvestmentReport:
    """Find deposits since the last comparison of balances, and plan their investment.

    With `send` and a confirmation they are recorded and invested. Losses are handled by `trimtab
    flows`. If portfolio.max_live_value has no room for all deposits, the oldest that fit are
    invested; `transfer_ids` selects others instead. Raises Refused if none fits, ConfigError for an
    id that does not belong to a deposit.
    """
    context = agent.context
    if not send:
        report = _find_deposits(current_step_input(context.readers, context.store), transfer_ids)
        if not report.deposits:
            return _with_open_top_up(report)
        readers = _deposit_readers(context.readers, report)
        return replace(
            report, outcome=evaluation.evaluate(readers, proposer(_invest_request(report)))
        )
    is_recorded = False

    def record_if_confirmed(outcome: StepOutcome) -> bool:
        nonlocal is_recorded
        if not confirm(replace(report, outcome=outcome)):
            return False
        for transfer in report.deposits:  # recorded once, before any of them is spent
            if transfer.id and not is_recorded:
                agent.context.store.balances.classify(
                    transfer.id, ExternalTransferKind.DEPOSIT, agent.context.clock.now_s()
                )
        is_recorded = True
        return True

    def confirm_plan(outcome: StepOutcome) -> bool:
        return outcome.kind is OutcomeKind.PLANNED and record_if_confirmed(outcome)

    with wiring.open_transactor(context, confirm_plan, progress) as transactor:
        transactor.executor.reconcile()
        report = _find_deposits(current_step_input(context.readers, context.store), transfer_ids)
        if not report.deposits:
            return _with_open_top_up(report)
        outcome = engine.run_cycle(
            _deposit_readers(context.readers, report),
            _invest_request(report),
            context.store,
            transactor,
        )
        # too small for a trade, but still a deposit
        if outcome.kind is OutcomeKind.HOLD and not is_recorded:
            record_if_confirmed(outcome)
        return replace(
            report,
            outcome=outcome,
            is_recorded=is_recorded,
            open_top_up=_open_top_up(agent, outcome),
        )


def _with_open_top_up(report: InvestmentReport) -> InvestmentReport:
    return replace(report, open_top_up=report.step_input.history.cash_flows.purchase)


def _invest_request(report: InvestmentReport) -> Invest:
    purchase = report.step_input.history.cash_flows.purchase
    amounts_raw = tuple(_raw_by_asset(report.step_input.portfolio, report.deposits).items())
    return Invest(amounts_raw, "" if purchase is None else purchase.id)


def _open_top_up(agent: Agent, outcome: StepOutcome) -> PurchaseProgress | None:
    """Return the unfinished top-up, if any."""
    snapshot = (outcome.input_after or outcome.step_input).snapshot
    return agent.context.readers.step_input_at(snapshot).history.cash_flows.purchase


def _find_deposits(step: StepInput, transfer_ids: Collection[int]) -> InvestmentReport:
    asset_by_token = {asset.token.address: asset for asset in step.portfolio.assets}
    takes_native = (
        step.portfolio.wrapped_native in asset_by_token
        and asset_by_token[step.portfolio.wrapped_native].includes_native
    )
    deposits = tuple(
        transfer
        for transfer in step.history.cash_flows.unexplained_transfers
        if transfer.delta_raw > 0
        and (transfer.token in asset_by_token or (takes_native and transfer.token == NATIVE))
    )
    if unknown_ids := sorted({*transfer_ids} - {transfer.id for transfer in deposits}):
        raise ConfigError(
            f"--flow {unknown_ids[0]}: no unexplained deposit has this number",
            "trimtab flows lists them",
        )
    investable_deposits = transfers.investable_deposits(
        step, [transfer for transfer in deposits if not transfer_ids or transfer.id in transfer_ids]
    )
    return InvestmentReport(
        step,
        investable_deposits,
        None,
        uninvested_deposits=tuple(
            transfer for transfer in deposits if transfer not in investable_deposits
        ),
    )


def _raw_by_asset(portfolio: Portfolio, deposits: tuple[ExternalTransfer, ...]) -> dict[str, int]:
    """Return the base units of each asset in these transfers; native coin counts as its wrapped
    token.
    """
    raw_by_asset: dict[str, int] = {}
    for transfer in deposits:
        token = portfolio.pricing_token(transfer.token)
        raw_by_asset[token] = raw_by_asset.get(token, 0) + transfer.delta_raw
    return raw_by_asset


def _deposit_readers(readers: StepReaders, report: InvestmentReport) -> StepReaders:
    """Return readers that treat these transfers as deposits before the owner has classified them.

    Other deposits are ignored, whatever their value: they are not invested and do not block the
    investment. Losses are unaffected.
    """
    deposit_ids = {transfer.id for transfer in (*report.deposits, *report.uninvested_deposits)}
    uninvested_raw_by_token = _raw_by_asset(report.step_input.portfolio, report.uninvested_deposits)

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        step = cash_limit.restore_excluded_amounts(readers.assemble(snapshot, history))
        unexplained_transfers = step.history.cash_flows.unexplained_transfers
        unexplained_ids = {transfer.id for transfer in unexplained_transfers}
        deposited_raw_by_token = Counter[str]()
        for transfer in report.deposits:
            # once recorded as a deposit, no rise counts it
            if not transfer.id or transfer.id in unexplained_ids:
                deposited_raw_by_token[transfer.token] += transfer.delta_raw
        rises = tuple(
            (token, rise_raw - deposited_raw_by_token[token])
            for token, rise_raw in step.history.cash_flows.unexplained_increases_raw
        )
        other_transfers = tuple(
            transfer for transfer in unexplained_transfers if transfer.id not in deposit_ids
        )
        step = replace(
            step,
            history=replace(
                step.history,
                cash_flows=replace(
                    step.history.cash_flows,
                    unexplained_transfers=other_transfers,
                    unexplained_increases_raw=rises,
                    excluded_increases_raw=rises,
                ),
            ),
            exclusions=replace(step.exclusions, raw_by_token=()),
        )
        return cash_limit.exclude_unexplained_increases(
            cash_limit.exclude_amounts(step, uninvested_raw_by_token, cash_limit.NOT_IN_INVESTMENT)
        )

    return replace(readers, assemble=assemble)


ASSIGNABLE_KIND_NAMES = tuple(
    kind.value
    for kind in (
        ExternalTransferKind.DEPOSIT,
        ExternalTransferKind.WITHDRAWAL,
        ExternalTransferKind.GIFT,
        ExternalTransferKind.LOSS,
    )
)
"""Kinds that the owner may assign."""


LISTED_TRANSFERS = 1_000
"""Newest transfers among which the classified ones are listed."""


def list_transfers(agent: Agent, include_classified: bool = False) -> TransfersDocument:
    """Compare the balances now, record unexplained changes, and list all open transfers; with
    `include_classified` also the classified ones among the newest. Newest first.
    """
    readers = agent.context.readers
    store = agent.context.store
    step = settled_step_input(readers, store, readers.reader.snapshot())
    transfer_by_id = {transfer.id: transfer for transfer in store.balances.unexplained_transfers()}
    if include_classified:
        transfer_by_id |= {
            transfer.id: transfer for transfer in store.balances.transfers(LISTED_TRANSFERS)
        }
    stored_transfers = [transfer_by_id[number] for number in sorted(transfer_by_id, reverse=True)]
    unrecorded_transfers = [
        transfer for transfer in step.history.cash_flows.unexplained_transfers if transfer.id == 0
    ]
    return {
        "block": step.snapshot.head.number,
        "numeraire": step.portfolio.numeraire.label,
        "halts": balance_changes.halt_reason(step.portfolio, step.limits, step.history.cash_flows)
        or used_nonce_text(agent.context, step.snapshot.nonce_latest),
        "flows": [
            transfer_document(transfer, step.portfolio)
            for transfer in (*unrecorded_transfers, *stored_transfers)
        ],
    }


def classify_transfers(
    config: Path | str, number_or_all: str, kind: str | None = None
) -> ConfirmedTransfersDocument:
    """Record the owner's classification of open transfers; `number_or_all` is an id or "all".
    Raises ConfigError for an invalid number or kind.
    """
    transfer_id = whole_number(number_or_all)
    if number_or_all != "all" and transfer_id is None:
        raise ConfigError(
            f"flow: {number_or_all!r} is not the id of a transfer",
            "see trimtab flows, or write all",
        )
    if kind is not None and kind not in ASSIGNABLE_KIND_NAMES:
        raise ConfigError(
            f"--as: {kind!r} is unknown", f"choose from {', '.join(ASSIGNABLE_KIND_NAMES)}"
        )
    with wiring.open_store_offline(load_config(config)) as (store, _):
        classified_transfers = store.balances.classify(
            transfer_id,
            None if kind is None else ExternalTransferKind(kind),
            int(time.time()),
        )
    return {
        "confirmed": [
            {"id": transfer.id, "as": transfer.kind.value if transfer.kind else None}
            for transfer in classified_transfers
        ]
    }


def single_payment(agent: Agent, step: StepInput, amount: str, symbol: str | None) -> Payment:
    """Return one payment of one asset. Raises ConfigError for an unknown asset, Refused if the
    amount exceeds the value of all free holdings, or an asset has no reference price.
    """
    token = agent.portfolio.numeraire if symbol is None else agent.token(symbol, "--in")
    asset = step.portfolio.find_asset(token.address)
    if asset is None:
        raise ConfigError(
            f"--in: {token.label} is not an asset of the portfolio",
            "trimtab status lists the assets",
        )
    payment_raw = _require_above_zero(parse_raw(amount, token.decimals, "AMOUNT"))
    drift_by_token = {drift.token: drift for drift in transfers.priced_drifts(step)}
    own_drift = drift_by_token.pop(token.address)
    asset_value = own_drift.investable_raw * own_drift.price
    shortfall_value = payment_raw * own_drift.price - asset_value
    other_assets_value = sum(
        (drift.investable_raw * drift.price for drift in drift_by_token.values()), Fraction(0)
    )
    if shortfall_value > other_assets_value:
        raise transfers.insufficient_balance_refusal(
            step.portfolio,
            step.limits,
            step.history.cash_flows,
            shortfall_value,
            other_assets_value,
            asset_value,
        )
    return Payment(token.address, payment_raw, asset.includes_native)


def pro_rata_payments(step: StepInput, total_raw: int) -> tuple[Payment, ...]:
    """Return payments of the same share of every asset, together worth `total_raw` base units of the
    numeraire.
    """
    native_tokens = {
        asset.token.address for asset in step.portfolio.assets if asset.includes_native
    }
    return tuple(
        Payment(token, payment_raw, token in native_tokens)
        for token, payment_raw in transfers.proportional_amounts(step, Fraction(total_raw)).items()
    )


def _require_above_zero(amount_raw: int) -> int:
    if amount_raw == 0:
        raise ConfigError("AMOUNT must be above 0", "for example trimtab withdraw 500")
    return amount_raw


@dataclass(frozen=True, slots=True)
class WithdrawalRequest:
    """A withdrawal as entered: `amount` whole coins of one token (default the numeraire), or with
    `pro_rata` the same share of every asset, together worth `amount`.

    Without `to` the amount stays in the wallet as a reserve until paid or released. With `again` an
    equal one may be open, or paid within the hour. `control_id` is the control that requests it.
    """

    amount: str
    token: str | None = None
    pro_rata: bool = False
    to: str | None = None
    again: bool = False
    control_id: str = ""


def withdraw(
    agent: Agent,
    request: WithdrawalRequest,
    *,
    send: bool = False,
    confirm: Confirm,
    progress: Progress = ignore_progress,
) -> WithdrawalReport:
    """Pay a withdrawal. A shortfall is raised by selling the most overweight assets first. Raises
    Refused if the balance is smaller, or for an unwanted repetition; ConfigError for invalid input.
    """
    if request.pro_rata and request.token is not None:
        raise ConfigError("--in and --pro-rata cannot be combined", "use one of them")
    payout_address = None if request.to is None else parse_address(request.to, "--to")
    pro_rata_raw = 0
    if request.pro_rata:
        decimals = agent.portfolio.numeraire.decimals
        pro_rata_raw = _require_above_zero(parse_raw(request.amount, decimals, "AMOUNT"))
    store = agent.context.store

    def repeated_withdrawal(step: StepInput, payments: tuple[Payment, ...]) -> OwnerRequest | None:
        now_s = step.snapshot.head.timestamp_s
        requests = store.requests.newest()
        paid_of_released = withdrawal_payments.paid_of_released(store, requests, now_s - RECENT_S)
        return find_repeated(
            requests,
            payments,
            payout_address,
            now_s,
            paid_of_released,
            pro_rata_raw,
            store.requests.released_by_adoption(),
        )

    def new_run(step: StepInput, *, settles_first: bool = False) -> WithdrawalRun:
        if pro_rata_raw:
            payments = pro_rata_payments(step, pro_rata_raw)
        else:
            payments = (single_payment(agent, step, request.amount, request.token),)
        withdrawal_run.require_no_open_withdrawal(step, (payment.token for payment in payments))
        repeated = repeated_withdrawal(step, payments)
        is_refused = send and not request.again and repeated is not None
        if repeated is not None and is_refused and settles_first:
            withdrawal_payments.settle_payments(agent.context, repeated.id, progress)
            repeated = repeated_withdrawal(step, payments) or repeated
        repeats = ""
        if repeated is not None:
            payouts = store.requests.payouts(repeated.id)
            repeat_terms = (
                repeated,
                paid_hashes(repeated, payouts),
                withdrawal_payments.recorded_s(store, payouts),
                repeated.id in store.requests.released_by_adoption(),
            )
            if is_refused:
                raise repeat_refusal(*repeat_terms)
            repeats = repeat_text(*repeat_terms)
        return WithdrawalRun(
            agent.context,
            payments,
            payout_address,
            origin=RequestOrigin(request.control_id, pro_rata_raw),
            repeats=repeats,
        )

    step = transfers.reserve_pending_deposits(agent.step_input())
    if not send:
        return new_run(step).report(step)
    # an impossible one is refused before waiting for the wallet, or for a proposal
    new_run(step, settles_first=True).require_confirmed_address(step)
    with wiring.open_transactor(
        agent.context, lambda outcome: run.confirm_and_record_sale(outcome, confirm), progress
    ) as transactor:
        try:
            transactor.executor.reconcile()
        except AwaitingExternalSignature as awaiting:
            awaiting.message = (
                f"the withdrawal is not recorded: an earlier proposal waits; {awaiting.message}"
            )
            awaiting.remedy += "; then ask for the withdrawal again"
            raise
        run = new_run(step_without_deposits(agent.context))
        return run.execute(transactor, confirm)


def resume_withdrawal(
    agent: Agent,
    withdrawal_id: int,
    *,
    to: str | None = None,
    send: bool = False,
    confirm: Confirm,
    progress: Progress = ignore_progress,
) -> WithdrawalReport:
    """Resume an open withdrawal: raise its shortfall, pay its unpaid part; `to` is the address for
    a reserved withdrawal. One whose payments are all in a block is reported as paid or waiting.
    """

    def new_run(step: StepInput) -> WithdrawalRun:
        request = _find_open_request(agent, withdrawal_id)
        if to is not None:
            if request.to is not None and request.to != parse_address(to, "--to"):
                raise ConfigError(
                    f"--to: withdrawal {withdrawal_id} goes to {request.to}",
                    "release it and start a new withdrawal",
                )
            request = replace(request, to=parse_address(to, "--to"))
        claims = step.history.cash_flows.pending_payments
        unpaid_payments = tuple(
            claim.payment for claim in claims if claim.request_id == withdrawal_id
        )
        return WithdrawalRun(agent.context, unpaid_payments, request.to, request)

    if not send:
        withdrawal_payments.settle_payments(agent.context, withdrawal_id, progress)
    step = transfers.reserve_pending_deposits(agent.step_input())
    if (paid_report := _paid_report(agent, step, withdrawal_id, progress)) is not None:
        return paid_report
    run = new_run(step)
    if not send:
        return run.report(step)
    run.require_confirmed_address(step)
    with wiring.open_transactor(
        agent.context, lambda outcome: run.confirm_and_record_sale(outcome, confirm), progress
    ) as transactor:
        transactor.executor.reconcile()
        step = step_without_deposits(agent.context)
        if (paid_report := _paid_report(agent, step, withdrawal_id, progress)) is not None:
            return paid_report
        run = new_run(step)  # another process may have released it
        if run.is_set_aside(step):
            return run.report(step)
        withdrawal_run.require_part_due(run.request, step)
        return run.execute(transactor, confirm)


def list_withdrawals(agent: Agent) -> list[WithdrawalRequestDocument]:
    """Return the newest withdrawals, oldest first, and end those whose payments are final."""
    store = agent.context.store
    store.requests.end_paid_withdrawals(agent.context.clock.now_s())
    payouts = store.requests.payouts()
    return [
        fill(
            WithdrawalRequestDocument,
            request,
            agent.portfolio,
            payments=[
                fill(
                    RequestedPaymentDocument,
                    payment,
                    agent.portfolio,
                    paid_in=tx_hash,
                    state=state,
                )
                for payment, tx_hash, state in zip(
                    request.payments,
                    paid_hashes(request, payouts),
                    payment_states(store, request, payouts),
                    strict=True,
                )
            ],
        )
        for request in store.requests.newest()
        if request.payments
    ]


def release_withdrawal(
    agent: Agent, withdrawal_id: int, progress: Progress = ignore_progress
) -> OwnerRequest:
    """Release a withdrawal: its unpaid part returns to the portfolio. Raises Refused for a paid one,
    Retryable while a payment is pending or signed, LockHeld while another process holds the wallet's
    lock, since it may be paying.
    """
    request = _find_open_request(agent, withdrawal_id)
    store = agent.context.store
    with suppress(AwaitingExternalSignature):
        withdrawal_payments.settle_payments(agent.context, withdrawal_id, progress)
    with wiring.open_transactor(agent.context, never_confirm, progress, signs=False) as transactor:
        withdrawal_payments.require_releasable(transactor.executor, store, request)
        request = _find_open_request(agent, withdrawal_id)
        if not store.requests.end(
            withdrawal_id, RequestState.RELEASED, agent.context.clock.now_s()
        ):
            raise _not_open_error(withdrawal_id)
    return replace(request, state=RequestState.RELEASED)


def _paid_report(
    agent: Agent, step: StepInput, withdrawal_id: int, progress: Progress
) -> WithdrawalReport | None:
    """Return the report of a withdrawal whose payments are all in a block; None for any other."""
    store = agent.context.store
    unpaid_ids = {claim.request_id for claim in step.history.cash_flows.pending_payments}
    for request in store.requests.newest(1_000):
        is_withdrawal = request.kind is RequestKind.WITHDRAW and request.id == withdrawal_id
        if not is_withdrawal or request.state is RequestState.RELEASED or request.id in unpaid_ids:
            continue
        payouts = store.requests.payouts(withdrawal_id)
        hashes = paid_hashes(request, payouts)
        paid_text = f"already paid{paid_in_text(hashes)}"
        state = WithdrawalState.PAID
        if request.state is RequestState.OPEN and not withdrawal_payments.is_final(
            agent.context, withdrawal_id, progress
        ):
            state = WithdrawalState.WAITING
            paid_text += f"; the withdrawal ends once that is final: trimtab withdraw --resume {withdrawal_id}"
        run = WithdrawalRun(agent.context, (), request.to, request)
        return run.report(step, state=state, reason=f"withdrawal {withdrawal_id}: {paid_text}")
    return None


def _find_open_request(agent: Agent, withdrawal_id: int) -> OwnerRequest:
    for request in agent.context.store.requests.newest(1_000, open_only=True):
        if request.id == withdrawal_id and request.kind is RequestKind.WITHDRAW:
            return request
    raise _not_open_error(withdrawal_id)


def _not_open_error(withdrawal_id: int) -> ConfigError:
    return ConfigError(
        f"withdrawal {withdrawal_id} is not open",
        "trimtab withdraw lists open withdrawals",
        code=ErrorCode.NOT_OPEN,
    )


def investment_document(
    report: InvestmentReport, agent: Agent, *, is_sent: bool
) -> InvestmentDocument:
    """Return the document of deposits and their investment."""
    outcome = report.outcome
    outcome_name = "nothing came"
    plan_fields = None
    transactions: list[TransactionDocument] = []
    if outcome is None:
        reason = cash_limit.use_cash_remedy(
            report.step_input.portfolio, report.step_input.history.cash_flows
        )
    else:
        reason = outcome.reason
        transactions = [transaction_document(intent) for intent in outcome.transactions]
        outcome_name = "part" if is_sent and report.open_top_up is not None else outcome.kind.value
        plan_fields = (
            rebalance_document(outcome, agent.realised_changes(outcome))
            if is_sent
            else plan_document(outcome)
        )
    return fill(
        InvestmentDocument,
        report,
        report.step_input.portfolio,
        outcome=outcome_name,
        reason=reason,
        plan=plan_fields,
        transactions=transactions,
    )
