"""Execution of a Safe's proposal by an account that pays the gas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.documents.proposals import ProposalExecutionDocument
from agent.app.money.proposals import (
    Confirm,
    SafeProposal,
    load_named_key,
    open_or_executed_proposal,
)
from agent.app.records import maintenance
from agent.errors import ErrorCode, Retryable, TrimtabError
from agent.execution.submission.checks import stored_pause_check
from agent.execution.submission.replacement import with_bumped_fees
from agent.execution.submission.submitter import Submitter
from agent.model import (
    IntentKind,
    ProposalExecution,
    Receipt,
    UnsignedTx,
)
from agent.policy.native_coin import GAS_MARGIN
from agent.ports import Simulation
from agent.signing.terms import tip_range_wei
from agent.units import NATIVE, ceil_int
from agent.venues.gas_fees import gas_fees
from agent.wiring.waiting_proposals import next_command


def execute_proposal(
    agent: Agent,
    key_fields: Mapping[str, Any],
    proposal_id: str | None = None,
    *,
    send: bool = False,
    confirm: Confirm = never_confirm,
    progress: Progress = ignore_progress,
) -> ProposalExecutionDocument:
    """Simulate the call of the Safe, as in `open_or_executed_proposal`, with the collected signatures; with `send` send it from the
    account of a key as in `sign_proposal`, which pays the gas. The transaction is recorded before
    it is sent. While a node has it, it is replaced once the base fee is above its fee, and made
    beside it only by another account. A payment or rejection is settled. One that
    is mined is reported as executed, or failed, without `send` too, and once it is settled.

    Raises Refused if it may not be signed, signatures are missing or the simulation fails,
    Retryable if it is not mined in time.
    """
    key = load_named_key(agent.context.loaded_config, key_fields) if send else None
    executor = NATIVE if key is None else key.address
    with open_or_executed_proposal(agent, proposal_id, executor, progress) as shown_proposal:
        if shown_proposal.intent.succeeded:
            return _settled_document(shown_proposal)
        pending_execution = _pending_execution(shown_proposal, executor)
        execution = pending_execution
        if execution is not None and _needs_replacement(shown_proposal, execution):
            execution = None
        if execution is None:
            shown_proposal.require_signable()
            tx = _execution_tx(shown_proposal, pending_execution)
        else:
            tx = execution.tx
        document = shown_proposal.document(
            ProposalExecutionDocument,
            outcome="planned",
            executor=None if execution is None else execution.executor,
            transaction="" if execution is None else execution.tx_hash,
            gas=tx.gas,
            max_cost_wei=str(tx.max_gas_cost_wei),
            next_command=next_command(agent.context, shown_proposal.intent),
        )
        if execution is None:
            if key is None:
                return document
            _simulate_execution(
                shown_proposal, tx
            )  # with gas and fees, so that funds are checked too
            if not confirm(document):
                return {**document, "outcome": "declined"}
            proposal = shown_proposal.read_again()
            proposal.require_signable()
            proposal.executing_signatures()
            _simulate_execution(proposal, tx)
            signed_tx = key.sign_transaction(tx)
            replaced_hashes = () if pending_execution is None else pending_execution.hashes
            execution = ProposalExecution(
                key.address,
                tx,
                signed_tx.hash,
                replaced_hashes,
                _executions_beside(shown_proposal, (signed_tx.hash, *replaced_hashes)),
            )
            agent.context.store.proposals.record_execution(
                proposal.intent.id, execution, stored_pause_check(proposal.grant)
            )
            proposal.submitter.sender.send(signed_tx)
        elif key is None and _receipt(shown_proposal.submitter, execution) is None:
            return document
        receipt = await_receipt(shown_proposal.submitter, execution, progress)
    is_settled_now = shown_proposal.intent.kind in (IntentKind.PAYOUT, IntentKind.CANCEL)
    if receipt.status == 1 and is_settled_now:
        with suppress(TrimtabError):  # it is executed; the next command settles it
            maintenance.reconcile(agent, progress=progress)
    return {
        **document,
        "outcome": "executed" if receipt.status == 1 else "failed",
        "executor": next(
            attempt.executor for attempt in execution.attempts if receipt.tx_hash in attempt.hashes
        ),
        "transaction": receipt.tx_hash,
    }


def _settled_document(proposal: SafeProposal) -> ProposalExecutionDocument:
    """Return the document of a proposal that is known to be executed."""
    tx_hash = str(proposal.intent.tx_hash)
    execution = proposal.agent.context.store.proposals.execution(proposal.intent.id)
    attempts = () if execution is None else execution.attempts
    return proposal.document(
        ProposalExecutionDocument,
        outcome="executed",
        executor=next(
            (attempt.executor for attempt in attempts if tx_hash in attempt.hashes), None
        ),
        transaction=tx_hash,
        gas=proposal.intent.tx.gas,
        max_cost_wei="0",
        next_command=next_command(proposal.agent.context, proposal.intent),
    )


def _execution_tx(
    proposal: SafeProposal, pending_execution: ProposalExecution | None
) -> UnsignedTx:
    """Return the executor's transaction with as many signatures as needed, its gas estimated at the
    head; at the nonce of a pending one with higher fees. Raises Refused.
    """
    proposal.require_current()
    signature_by_owner = proposal.executing_signatures()
    context = proposal.agent.context
    snapshot = context.readers.reader.snapshot()
    least_tip_wei, max_tip_wei = tip_range_wei(snapshot.head.chain_id)
    fees = gas_fees(
        snapshot.head,
        max(least_tip_wei, snapshot.priority_fee_wei),
        snapshot.gas_price_wei,
        limit_wei=context.limits.gas_price_wei,
        priority_cap_wei=max_tip_wei,
    )
    submitter = proposal.submitter
    _, next_nonce = submitter.sender.nonces(submitter.signer.address)
    tx = UnsignedTx(
        chain_id=snapshot.head.chain_id,
        nonce=next_nonce,
        to=proposal.safe.address,
        value_wei=0,
        data=proposal.safe.execution_data(proposal.intent.tx, signature_by_owner),
        gas=0,
        max_fee_wei=fees.max_fee_wei,
        max_priority_fee_wei=fees.max_priority_fee_wei,
        gas_price_wei=fees.gas_price_wei,
    )
    if pending_execution is not None:
        pending_tx = replace(pending_execution.tx, data=tx.data, gas=0)
        tx = with_bumped_fees(pending_tx, snapshot.head, context.limits.gas_price_wei)
    return replace(tx, gas=ceil_int(_simulate_execution(proposal, tx).gas * GAS_MARGIN))


def _simulate_execution(proposal: SafeProposal, tx: UnsignedTx) -> Simulation:
    # the granted bound of a data fee is for what the Safe pays, and executors pay this one
    executor_grant = replace(proposal.grant, max_data_fee_wei=None)
    return proposal.submitter.simulate(tx, proposal.intent.deadline_s, executor_grant)


def _pending_execution(proposal: SafeProposal, executor: str) -> ProposalExecution | None:
    """Return the recorded execution by `executor`, or by any account for NATIVE, if nodes have it
    and it did not revert; an execution that is in a block, by whomever it is. A copy of another that
    is mined late reverts, since the Safe's nonce is used once.
    """
    execution = proposal.agent.context.store.proposals.execution(proposal.intent.id)
    if execution is None:
        return None
    receipt = _receipt(proposal.submitter, execution)
    if receipt is not None and receipt.status == 1:
        return execution
    sender = proposal.submitter.sender
    for attempt in execution.attempts:
        states = {sender.status_of(tx_hash).state for tx_hash in attempt.hashes}
        is_pending = "mined" not in states and states != {"unknown"}
        if is_pending and executor in (NATIVE, attempt.executor):
            return replace(attempt, beside=_executions_beside(proposal, attempt.hashes))
    return None


def _executions_beside(
    proposal: SafeProposal, hashes: Sequence[str]
) -> tuple[ProposalExecution, ...]:
    """Return the recorded executions, except one of these hashes."""
    execution = proposal.agent.context.store.proposals.execution(proposal.intent.id)
    attempts = () if execution is None else execution.attempts
    return tuple(
        replace(attempt, beside=()) for attempt in attempts if attempt.tx_hash not in hashes
    )


def _needs_replacement(proposal: SafeProposal, execution: ProposalExecution) -> bool:
    """True if a pending execution cannot get into the next block: its fee is below the base fee, or
    no node has taken it in place of the one that it replaces.
    """
    sender = proposal.submitter.sender
    if _receipt(proposal.submitter, execution) is not None:
        return False
    base_fee_wei = sender.head().base_fee_wei or 0
    is_unknown = sender.status_of(execution.tx_hash).state == "unknown"
    return is_unknown or execution.tx.max_gas_price_wei < base_fee_wei


def _receipt(submitter: Submitter, execution: ProposalExecution) -> Receipt | None:
    """Return the receipt of whichever transaction at the execution's nonce is in a block, unless it
    reverted and one beside it did not.
    """
    own_receipt = None
    for attempt in execution.attempts:
        for tx_hash in attempt.hashes:
            receipt = submitter.sender.status_of(tx_hash).receipt
            if receipt is not None and receipt.status == 1:
                return receipt
            if attempt is execution:
                own_receipt = own_receipt or receipt
    return own_receipt


def await_receipt(
    submitter: Submitter, execution: ProposalExecution, progress: Progress
) -> Receipt:
    """Wait for the receipt of an execution, of one that it replaces, or of one beside it that
    succeeds. Raises Retryable if there is none in time.
    """
    waited_s = 0.0
    while True:
        receipt = _receipt(submitter, execution)
        if receipt is not None:
            return receipt
        if waited_s >= submitter.settings.mined_timeout_s:
            raise Retryable(
                f"the execution {execution.tx_hash} was sent but not mined within {waited_s:.0f} s",
                "run the command again: it waits for this transaction, and replaces it once the base"
                " fee is above its fee; with the --key of another account it executes beside it",
                code=ErrorCode.NOT_MINED,
            )
        progress(f"waiting {waited_s:.0f} s for {execution.tx_hash}")
        submitter.clock.sleep(submitter.settings.poll_s)
        waited_s += submitter.settings.poll_s
