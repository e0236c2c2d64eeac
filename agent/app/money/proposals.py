"""Proposals to the owners of a Safe: list them, sign as an owner, collect signatures, export."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.documents import fill, money_text
from agent.app.documents.past.step_history import proposal_end_text
from agent.app.documents.plans import LegDocument
from agent.app.documents.proposals import (
    EXECUTED_PREFIX,
    CollectedSignaturesDocument,
    ProposalCallDocument,
    ProposalDocument,
    ProposalsDocument,
    SignatureDocument,
)
from agent.app.money.call_words import CallWords, config_names
from agent.app.money.safe_service import configured_service
from agent.app.money.signature_files import NO_HEX, parse_signatures, signature_bytes
from agent.app.money.transaction_builder import builder_file
from agent.chain.safe import SafeContract, SafeOwnersSigner
from agent.config.loaded import LoadedConfig
from agent.config.secrets.env_file import ENV_PREFIX
from agent.config.secrets.key_sources import key_source
from agent.config.tables.fields import parse_keyring, parse_variable
from agent.errors import READ_FAILURES, ConfigError, ErrorCode, OperatorNeeded, Refused, Retryable
from agent.execution.evaluation import minimums_fault
from agent.execution.executor import ProposingExecutor, ReadOnlySigner, rejection_of
from agent.execution.settlement import originating_step
from agent.execution.shortfall import proposal_reason
from agent.execution.submission.checks import guard_refusal
from agent.execution.submission.held_up_exits import held_up_text
from agent.execution.submission.proposal_words import (
    DO_NOT_SIGN,
    chain_deadline_s,
    is_dropped,
    rejected_advice,
)
from agent.execution.submission.submitter import Submitter
from agent.guards import FaultKind, ProposalFault
from agent.guards.sandwich import plan_worst_case
from agent.model import Intent, Portfolio
from agent.ports import Grant, Simulation
from agent.signing import keys
from agent.signing.batches import BatchedCall, is_batch, plain_calls
from agent.signing.calldata import (
    Approve,
    Multicall,
    RebalanceCall,
    TransferCall,
    UndecodableCalldata,
    WithdrawWeth9,
    decode,
)
from agent.signing.safe_tx import signature_owner
from agent.signing.secret import PrivateKey
from agent.signing.swap_rules import ROUTER_ITSELF
from agent.store.files.recorder import FileOutbox
from agent.store.store import Store
from agent.units import NATIVE, Token, share_of
from agent.wiring.waiting_proposals import proposal_fault, renewing_command, settling_text

AnyProposalDocument = TypeVar("AnyProposalDocument")
Confirm = Callable[[Any], bool]
"""Asks the user about a document; True sends, or signs."""


@dataclass(frozen=True, slots=True)
class SafeProposal:
    """A proposal as the journal has it, with the Safe's next nonce, its owners, and the simulation
    of the call now. `signature_by_owner` are those of present owners. `submitter` is that of the
    account which executes.
    """

    agent: Agent
    owners_signer: SafeOwnersSigner
    submitter: Submitter
    outbox: FileOutbox
    intent: Intent
    grant: Grant
    safe_tx_hash: str
    safe_nonce: int
    owners: tuple[str, ...]
    threshold: int
    signature_by_owner: Mapping[str, bytes]
    simulation: Simulation

    @property
    def safe(self) -> SafeContract:
        """The Safe."""
        return self.owners_signer.safe

    @property
    def calls(self) -> tuple[BatchedCall, ...]:
        """The plain calls that it makes: its only one, or those of a batch."""
        return plain_calls(self.intent.tx.to, self.intent.tx.data)

    @property
    def state(self) -> str:
        """State as in ProposalDocument."""
        deadline_s = self.intent.deadline_s
        if self.safe_nonce > self.intent.tx.nonce:
            return "used"
        if deadline_s is not None and self.simulation.head.timestamp_s >= deadline_s:
            return "expired"
        return "waiting" if self.simulation.ok else "failing"

    @property
    def paused(self) -> bool:
        """True while a pause forbids to sign and execute it here."""
        return not self.submitter.is_running(self.grant)

    @property
    def renewal_advice(self) -> str:
        """How its place is freed for a new proposal."""
        command = renewing_command(self.agent.context, self.intent)
        if len(self.signature_by_owner) < self.threshold:
            return f"trimtab cancel --send withdraws it, and {command} plans anew"
        return (
            "since enough signatures exist, trimtab cancel --send proposes its rejection; once that is"
            f" executed, or this has expired, {command} plans anew"
        )

    @property
    def executable_until_s(self) -> int | None:
        """Unix seconds until which the chain accepts it; None for at any time."""
        return chain_deadline_s(self.intent, self.grant)

    @property
    def age_s(self) -> int:
        """Seconds since it was proposed."""
        return max(0, self.agent.context.clock.now_s() - self.intent.created_s)

    def document(
        self, document_type: type[AnyProposalDocument], **fields: object
    ) -> AnyProposalDocument:
        """Return a document of the proposal with further fields."""
        plan = self.grant.plan
        portfolio = self.agent.portfolio
        legs = () if plan is None else plan.legs
        tokens = {token.address: token for token in portfolio.tokens}
        words = CallWords(
            self.safe.address,
            portfolio.wrapped_native,
            config_names(self.agent.context.config),
            tokens,
        )
        leg_documents = [fill(LegDocument, leg, portfolio) for leg in legs]
        value_wei = self.intent.tx.value_wei  # a batch sends none
        calls = [
            _call_document(self.safe.address, call, value_wei, portfolio) for call in self.calls
        ]
        call_fields: dict[str, object] = {
            name: value
            for name, value in calls[0].items()
            if name in ("to", "function", "spender", "recipients")
        }
        if is_batch(self.intent.tx.to, self.intent.tx.data):
            recipients = {recipient for call in calls for recipient in call["recipients"]}
            call_fields = {
                "to": self.intent.tx.to,
                "function": "multiSend",
                "spender": None,
                "recipients": sorted(recipients),
            }
        return fill(
            document_type,
            self,
            portfolio,
            legs=leg_documents,
            calls=calls,
            in_words=words.lines(self.intent.tx),
            numeraire=portfolio.numeraire.label,
            **self._plan_fields(),
            **call_fields,
            **fields,
        )

    def _plan_fields(self) -> dict[str, object]:
        """Return why the call is proposed, and what it costs and leaves, at the prices then."""
        portfolio = self.agent.portfolio
        plan = self.grant.plan
        why = proposal_reason(self.agent.context.store, self.intent)
        if plan is None:
            return {"why": why, "cost": None, "worst_case": None, "weights_after_bps": {}}
        step = originating_step(self.agent.context.store.steps, self.intent)
        worst_case = None if step is None else plan_worst_case(step, plan)
        return {
            "why": why,
            "cost": money_text(plan.cost.total, portfolio),
            "worst_case": None if worst_case is None else money_text(worst_case, portfolio),
            "weights_after_bps": {
                portfolio.token(token).label: bps for token, bps in plan.weights_after_bps
            },
        }

    @property
    def ending(self) -> str:
        """What used the Safe's nonce; empty while it is free, or if the endpoints do not say."""
        if self.state != "used":
            return ""
        proposals = self.agent.context.store.proposals
        since_block = proposals.proposal_blocks()[self.intent.id]
        mined_tx = None
        with suppress(*READ_FAILURES):
            mined_tx = self.owners_signer.mined_at_nonce(self.intent.tx, since_block)
        if mined_tx is None:
            return ""
        if not mined_tx.is_proposal:
            rejection_tx = rejection_of(self.intent.tx, self.safe.address)
            with suppress(*READ_FAILURES):
                mined_rejection = self.owners_signer.mined_at_nonce(rejection_tx, since_block)
                if mined_rejection is not None and mined_rejection.is_proposal:
                    return f"rejected in {mined_rejection.tx_hash}, an empty call at its nonce"
                if (executed_id := self._executed_peer_id()) is not None:
                    return f"not executed: {mined_tx.tx_hash} executed the proposal {executed_id} at its nonce"
            return f"not executed: {mined_tx.tx_hash} is another call at its nonce"
        execution = proposals.execution(self.intent.id)
        attempts = () if execution is None else execution.attempts
        is_sent_here = any(mined_tx.tx_hash in attempt.hashes for attempt in attempts)
        sender_text = "from here" if is_sent_here else "by somebody else"
        return f"{EXECUTED_PREFIX}{sender_text} in {mined_tx.tx_hash}"

    def _executed_peer_id(self) -> str | None:
        """Return the id of another proposal at its nonce that was executed, a withdrawn one too."""
        store = self.agent.context.store
        since_block_by_id = store.proposals.proposal_blocks()
        for peer in store.journal.intents_at(self.intent.tx.nonce):
            if peer.id in since_block_by_id and peer.id != self.intent.id:
                mined_tx = self.owners_signer.mined_at_nonce(peer.tx, since_block_by_id[peer.id])
                if mined_tx is not None and mined_tx.is_proposal:
                    return peer.id
        return None

    def require_current(self) -> None:
        """Raise Refused if the Safe's nonce is used, or the deadline has passed."""
        if self.state in ("used", "expired"):
            raise guard_refusal(
                "proposal",
                self.state,
                "waiting",
                f"the proposal {self.intent.id} is {': '.join(filter(None, (self.state, self.ending)))}",
                settling_text(self.agent.context, self.intent, is_used=self.state == "used"),
            )

    def fault(self) -> ProposalFault | None:
        """Return what `proposal_fault` says of it now. While minimums are low, its executor could
        keep the difference. Reads the chain.
        """
        context = self.agent.context
        fault_of_minimums = minimums_fault(context.readers, self.grant.plan)
        now_s = self.simulation.head.timestamp_s
        return proposal_fault(context, self.intent, self.owners_signer, now_s, fault_of_minimums)

    def judged_document(
        self, document_type: type[AnyProposalDocument], **fields: object
    ) -> AnyProposalDocument:
        """Return its document as `document`, judged at the prices now. Reads the chain."""
        fault = self.fault() if self.state in ("waiting", "failing") else None
        is_judged = self.state == "waiting" or (fault and fault.kind is FaultKind.NOT_ALLOWED)
        if fault and is_judged:
            state = "stale" if fault.is_stale else "unchecked"
            return self.document(document_type, state=state, failure=fault.reason, **fields)
        return self.document(document_type, **fields)

    def require_signable(self) -> None:
        """Raise Refused while paused (a hard pause allows a rejection and the reset of an allowance),
        and unless the proposal is current, would succeed, has
        minimums that fit the prices now, and the rules of a signer allow it; OperatorNeeded if its
        file has another call than the journal.
        """
        self.submitter.require_running(self.grant)
        self.require_current()
        if self.state == "failing":
            raise guard_refusal(
                "simulation",
                self.simulation.reason,
                "succeeds at the head",
                f"the proposal {self.intent.id} would fail now: {self.simulation.reason}",
                f"{DO_NOT_SIGN}: {self.renewal_advice}",
            )
        if fault := self.fault():
            if fault.kind is FaultKind.NOT_ALLOWED:
                raise guard_refusal(
                    "proposal",
                    fault.reason,
                    "its order is open, and the signer's rules allow it",
                    f"the proposal {self.intent.id} {fault.text}",
                    self.renewal_advice,
                )
            raise guard_refusal(
                "minimums",
                fault.reason,
                "at least what the limits require at the prices now",
                f"the proposal {self.intent.id} {fault.text}",
                self.renewal_advice if fault.is_stale else "try again once the prices can be read",
            )
        file_fields = self.outbox.read_proposal(self.intent.id)
        signing_json = self.owners_signer.signing_json(self.intent.tx)
        if file_fields and not signing_json.items() <= file_fields.items():
            raise OperatorNeeded(
                f"the file of the proposal {self.intent.id} has another call than the journal",
                "find out who changed it and remove it; trimtab rebalance --send writes it again",
                code=ErrorCode.FILE,
            )

    def require_owner(self, key: PrivateKey) -> None:
        """Raise ConfigError unless the key is an owner's."""
        if key.address not in self.owners:
            raise ConfigError(
                f"--key: {key.address} is not an owner of the Safe {self.safe.address}",
                f"use the key of one of {', '.join(self.owners)}",
            )

    def executing_signatures(self) -> dict[str, bytes]:
        """Return as many signatures by owner as an execution needs. Raises Refused for too few."""
        count = len(self.signature_by_owner)
        if count < self.threshold:
            raise guard_refusal(
                "signatures",
                str(count),
                str(self.threshold),
                f"{count} of {self.threshold} signatures are collected",
                f"trimtab proposal sign {self.intent.id}, or trimtab proposal collect",
            )
        return dict(list(self.signature_by_owner.items())[: self.threshold])

    def read_again(self) -> SafeProposal:
        """Return it as chain and store have it now, for example after a question. Raises ConfigChanged if
        another config was confirmed since.
        """
        context = self.agent.context
        context.store.configs.require_current(context.loaded_config.digest, context.confirmed_hash)
        return _read_proposal(
            self.agent, self.owners_signer, self.submitter, self.outbox, self.intent
        )

    def owner_of(self, signature: bytes) -> str:
        """Return the owner whose signature of the call it is. Raises ConfigError if it is none."""
        owner = signature_owner(self.safe.address, self.intent.tx, signature)
        if owner not in self.owners:
            self._require_no_earlier_proposal_of(signature)
            raise ConfigError(
                f"signature: it is by {owner}, which is not an owner of the Safe, or signs another"
                f" hash than {self.safe_tx_hash}",
                f"let an owner sign what trimtab proposal sign {self.intent.id} --export prints, by"
                " eth_signTypedData_v4 and not by personal_sign",
            )
        return owner

    def _require_no_earlier_proposal_of(self, signature: bytes) -> None:
        """Raise ConfigError if an owner signed another proposal at this nonce."""
        store = self.agent.context.store
        proposed_ids = store.proposals.proposal_blocks()
        for peer in store.journal.intents_at(self.intent.tx.nonce):
            owner = signature_owner(self.safe.address, peer.tx, signature)
            if peer.id in proposed_ids and owner in self.owners:
                raise ConfigError(
                    f"signature: it is by {owner}, of the earlier proposal {peer.id}"
                    f' ("{peer.note}") at the same nonce',
                    f"let that owner sign the one that waits: trimtab proposal sign {self.intent.id},"
                    f" or what trimtab proposal sign {self.intent.id} --export prints",
                )

    def add_signatures(self, signature_by_owner: Mapping[str, bytes]) -> SafeProposal:
        """Record signatures and return the proposal with them."""
        store = self.agent.context.store
        store.proposals.add_signatures(self.intent.id, signature_by_owner)
        return replace(self, signature_by_owner={**self.signature_by_owner, **signature_by_owner})


@contextmanager
def open_proposals(
    agent: Agent,
    executor: str = NATIVE,
    progress: Progress = ignore_progress,
    executed_intents: Sequence[Intent] = (),
) -> Iterator[list[SafeProposal]]:
    """Yield `executed_intents` and the open proposals, oldest first, for the account `executor`, under
    the wallet's lock. Raises ConfigError unless the wallet is a Safe.
    """
    with wiring.open_transactor(agent.context, never_confirm, progress, signs=False) as transactor:
        proposing = transactor.executor
        if not isinstance(proposing, ProposingExecutor) or not isinstance(
            owners_signer := proposing.external_signer, SafeOwnersSigner
        ):
            raise ConfigError(
                "wallet.safe: the wallet is no Safe, so its proposals have no owners",
                'write mode = "propose" and safe = true, or sign the transaction in its file',
            )
        submitter = proposing.submitter_of(ReadOnlySigner(executor), owners_signer.sender.sender)
        yield [
            _read_proposal(agent, owners_signer, submitter, proposing.outbox, intent)
            for intent in (*executed_intents, *proposing.unsigned_intents())
        ]


def _read_proposal(
    agent: Agent,
    owners_signer: SafeOwnersSigner,
    submitter: Submitter,
    outbox: FileOutbox,
    intent: Intent,
) -> SafeProposal:
    store = agent.context.store
    safe = owners_signer.safe
    owners = safe.owners()
    signature_by_owner = store.proposals.signatures(intent.id)
    return SafeProposal(
        agent,
        owners_signer,
        submitter,
        outbox,
        intent,
        store.journal.grant(intent.id),
        safe.require_hash(intent.tx),
        safe.nonce(),
        owners,
        safe.threshold(),
        {owner: signature_by_owner[owner] for owner in signature_by_owner if owner in owners},
        owners_signer.sender.simulate(intent.tx, safe.address),
    )


@contextmanager
def open_proposal(agent: Agent, proposal_id: str | None = None) -> Iterator[SafeProposal]:
    """Yield the open proposal as `open_proposals`, a rejection in place of what it rejects. Raises
    Refused if there is none, ConfigError if it is another than `proposal_id`.
    """
    with open_proposals(agent) as proposals:
        yield _newest_proposal(agent.context.store, proposals, proposal_id)


@contextmanager
def open_or_executed_proposal(
    agent: Agent, proposal_id: str | None, executor: str, progress: Progress
) -> Iterator[SafeProposal]:
    """Yield the executed proposal with this id, else the open one as `open_proposal`, or without an id
    and an open one the newest, if it is executed.
    """
    executed_intents = _executed_intents(agent.context.store, proposal_id)
    with open_proposals(agent, executor, progress, executed_intents) as proposals:
        is_named = bool(executed_intents) and proposal_id is not None
        if is_named:
            yield proposals[0]
        else:
            yield _newest_proposal(agent.context.store, proposals, proposal_id)


def _newest_proposal(
    store: Store, proposals: Sequence[SafeProposal], proposal_id: str | None
) -> SafeProposal:
    """Return the last one. Raises Refused without one, or if that with `proposal_id` has ended
    or waits for its rejection, ConfigError if `proposal_id` is another's.
    """
    waiting_ids = [proposal.intent.id for proposal in proposals]
    if proposals and proposal_id in (None, waiting_ids[-1]):
        return proposals[-1]
    if proposal_id in waiting_ids:
        raise guard_refusal(
            "proposal",
            "rejected",
            "waiting",
            f"the proposal {proposal_id} waits for its rejection, {waiting_ids[-1]}",
            rejected_advice(proposals[-1].intent),
        )
    waiting_text = f"the proposal {waiting_ids[-1]} waits" if proposals else "no proposal waits"
    if (ended_intent := _newest_intent(store, proposal_id)) is not None:
        end_text = proposal_end_text(store, ended_intent)
        is_free = ended_intent.tx.nonce >= (store.journal.expected_nonce() or 0)
        remedy = "see trimtab status"
        if not proposals and is_free and is_dropped(ended_intent):
            remedy = "trimtab cancel --send can reject it if owners have signed it"
        raise Refused(
            f'{waiting_text}; {ended_intent.id} ("{ended_intent.note}") {end_text}',
            remedy=remedy,
            code=ErrorCode.EMPTY,
        )
    if not proposals:
        raise Refused(waiting_text, remedy="see trimtab status", code=ErrorCode.EMPTY)
    raise ConfigError(
        f"PROPOSAL: {str(proposal_id)[:40]!r} is not the proposal that waits, {waiting_ids[-1]}",
        f"see trimtab proposal list; if you mean that one, write {waiting_ids[-1]}",
    )


def _executed_intents(store: Store, proposal_id: str | None) -> list[Intent]:
    """Return the proposal with this id, or the newest, if it is known to be executed."""
    intent = _newest_intent(store, proposal_id)
    return [] if intent is None or not intent.succeeded else [intent]


def _newest_intent(store: Store, proposal_id: str | None) -> Intent | None:
    """Return the proposal with this id, or the newest; None if there is none."""
    proposed_ids = store.proposals.proposal_blocks()
    return next(
        (
            intent
            for intent in store.journal.intents()
            if intent.id in proposed_ids and proposal_id in (None, intent.id)
        ),
        None,
    )


def list_proposals(agent: Agent) -> ProposalsDocument:
    """Return the open proposals with their signatures. Raises ConfigError unless the wallet is a
    Safe.
    """
    with open_proposals(agent) as proposals:
        return {
            "proposals": [proposal.judged_document(ProposalDocument) for proposal in proposals],
            "held_up": _held_up_text(agent, proposals[-1].grant) if proposals else "",
        }


def _held_up_text(agent: Agent, grant: Grant) -> str:
    """Return `held_up_text` of the chain as it is now, or that it is unread; "" without orders."""
    if not agent.context.store.orders.orders_and_version()[0]:
        return ""
    try:
        return held_up_text(agent.step_input(), grant)
    except READ_FAILURES as error:
        return f"whether it holds up an order that has fired could not be checked: {error.message}"


def sign_proposal(
    agent: Agent, key_fields: Mapping[str, Any], proposal_id: str | None, confirm: Confirm
) -> SignatureDocument:
    """Sign the open proposal with the key of an owner and record the signature. `key_fields` is the
    key of `[wallet]` that names a key source; empty for a prompt. The Safe's transaction service gets
    the signature too, if one is configured.

    Raises Refused if the proposal may not be signed, ConfigError for a key that is no owner's,
    Retryable once the signature is recorded but the service does not accept it.
    """
    service = configured_service(agent.context.loaded_config)
    with open_proposal(agent, proposal_id) as shown_proposal:
        shown_proposal.require_signable()
        key = load_named_key(agent.context.loaded_config, key_fields)
        shown_proposal.require_owner(key)
        document = shown_proposal.document(SignatureDocument, owner=key.address, signature="")
        if not confirm(document):
            return document
        proposal = shown_proposal.read_again()
        proposal.require_signable()
        proposal.require_owner(key)
        signature = key.sign_safe_tx(proposal.safe.address, proposal.intent.tx)
        signed_proposal = proposal.add_signatures({key.address: signature})
        if service is not None:
            try:
                service.offer(
                    proposal.safe.address,
                    proposal.intent.tx,
                    proposal.safe_tx_hash,
                    key.address,
                    signature,
                )
            except Retryable as error:
                count = len(signed_proposal.signature_by_owner)
                count_text = share_of(count, proposal.threshold, " signatures")
                raise Retryable(
                    f"signed by {key.address}, and recorded here: {count_text}; but {error.message}",
                    "check wallet.safe_service, then run the command again to offer it; the other owners"
                    f" can also sign here, with trimtab proposal sign {proposal.intent.id}",
                    code=error.code,
                ) from None
        return signed_proposal.document(
            SignatureDocument, owner=key.address, signature="0x" + signature.hex()
        )


def proposal_typed_data(agent: Agent, proposal_id: str | None) -> dict[str, Any]:
    """Return the EIP-712 data that the owners sign with `eth_signTypedData_v4`."""
    with open_proposal(agent, proposal_id) as proposal:
        proposal.require_signable()
        return dict(proposal.owners_signer.signing_json(proposal.intent.tx)["typed_data"])


def collect_signatures(agent: Agent, texts: Sequence[str]) -> CollectedSignaturesDocument:
    """Add signatures of other owners: each as 0x-hex, or a file with some or with the JSON of
    `proposal sign`. Leaves out those that are there already. Adds none and raises ConfigError if one
    is not of an owner or signs another hash, or if none is new.
    """
    with open_proposal(agent) as proposal:
        proposal.require_current()
        signature_by_owner: dict[str, bytes] = {}
        left_out: list[str] = []
        signatures = [
            signature
            for text in texts
            for signature in parse_signatures(text, proposal.safe_tx_hash)
        ]
        for signature in signatures:
            owner = proposal.owner_of(signature)
            if owner in {*proposal.signature_by_owner, *signature_by_owner}:
                left_out.append(f"signature: {owner} has signed already")
            else:
                signature_by_owner[owner] = signature
        if left_out and not signature_by_owner:
            raise ConfigError(left_out[0], "collect those of other owners")
        signed_proposal = proposal.add_signatures(signature_by_owner)
        added_owners = list(signature_by_owner)
        return signed_proposal.judged_document(
            CollectedSignaturesDocument, added=added_owners, left_out=left_out
        )


def collect_from_service(agent: Agent) -> CollectedSignaturesDocument:
    """Add the signatures of other owners that the Safe's transaction service has, and leave out what
    is none of them. Raises ConfigError without a service, Retryable if it does not answer.
    """
    service = configured_service(agent.context.loaded_config)
    if service is None:
        raise ConfigError(
            "wallet.safe_service: no transaction service is configured",
            "write its address, or give signatures or files with them",
        )
    with open_proposal(agent) as proposal:
        proposal.require_current()
        signature_by_owner: dict[str, bytes] = {}
        left_out: list[str] = []
        for text in service.signatures(proposal.safe_tx_hash):
            try:
                signature = signature_bytes(text)
                owner = proposal.owner_of(signature)
            except ValueError:
                left_out.append(f"signature: {NO_HEX}")
            except ConfigError as error:
                left_out.append(error.message)
            else:
                if owner not in proposal.signature_by_owner:
                    signature_by_owner[owner] = signature
        signed_proposal = proposal.add_signatures(signature_by_owner)
        added_owners = list(signature_by_owner)
        return signed_proposal.judged_document(
            CollectedSignaturesDocument, added=added_owners, left_out=left_out
        )


def export_proposal(agent: Agent, proposal_id: str | None = None) -> dict[str, Any]:
    """Return the open proposal as a file of the Safe's Transaction Builder. Raises Refused if it may
    not be signed, ConfigError if it is another than `proposal_id`.
    """
    with open_proposal(agent, proposal_id) as proposal:
        proposal.require_signable()
        return builder_file(proposal.intent, proposal.document(ProposalDocument), proposal.calls)


def _call_document(
    safe: str, call: BatchedCall, value_wei: int, portfolio: Portfolio
) -> ProposalCallDocument:
    token: Token | None = None
    amount_raw: int | None = None
    function = call.data_hex[:10]
    spender: str | None = None
    recipients: list[str] = [call.to] if value_wei and not call.data else []
    with suppress(UndecodableCalldata):
        decoded_call = decode(call.data)
        match decoded_call:
            case Approve():
                function = "approve"
                spender = decoded_call.spender
                amount_raw = decoded_call.raw
            case TransferCall():
                function = "transfer"
                recipients = [decoded_call.recipient]
                amount_raw = decoded_call.raw
            case WithdrawWeth9():
                function = "withdraw"
                amount_raw = decoded_call.raw
            case Multicall():
                function = "multicall"
                recipients = [
                    item.recipient for item in decoded_call.calls if hasattr(item, "recipient")
                ]
            case RebalanceCall():
                function = "rebalance"
                recipients = [safe]  # the contract pays its caller only
    if amount_raw is not None:
        token = portfolio.find_token(call.to)
    return {
        "to": call.to,
        "function": function,
        "value_wei": str(value_wei),
        "spender": spender,
        "recipients": sorted({*recipients} - {ROUTER_ITSELF}),
        "token": None if token is None else token.label,
        "decimals": None if token is None else token.decimals,
        "amount_raw": None if amount_raw is None else str(amount_raw),
    }


def load_named_key(loaded_config: LoadedConfig, key_fields: Mapping[str, Any]) -> PrivateKey:
    """Load the key of the source that `key_fields` names as `[wallet]` would; typed at a prompt if it
    names none. Raises ConfigError.
    """
    if len(key_fields) > 1:
        raise ConfigError(f"--key: {', '.join(key_fields)} exclude each other", "keep one")
    if "keyring" in key_fields:
        parse_keyring(key_fields["keyring"], "--key keyring")
    if "key_env" in key_fields:
        variable = parse_variable(key_fields["key_env"], "--key key_env")
        if variable not in loaded_config.variables and not variable.startswith(ENV_PREFIX):
            raise ConfigError(
                f"--key key_env: {variable} is not read, since its name does not begin with"
                f" {ENV_PREFIX}",
                f"export the key as {ENV_PREFIX}{variable} and name that",
            )
    config = loaded_config.config
    wallet_table = config.wallet.model_copy(update=dict(key_fields) or {"prompt": True})
    key_config = config.model_copy(update={"wallet": wallet_table})
    try:
        key = keys.load_key(
            key_source(replace(loaded_config, config=key_config)),
            config.chain.chain_id,
            ask=getpass.getpass if sys.stdin.isatty() else None,
            is_fork=config.chain.fork,
        )
    except ConfigError as error:
        message, remedy = (
            re.sub(r"wallet\.(?=keystore|key_env|keyring|test_account)", "--key ", text)
            for text in (error.message, error.remedy)
        )
        raise ConfigError(message, remedy) from None
    return cast(PrivateKey, key)
