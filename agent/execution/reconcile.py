"""Reconcile open transactions with the chain: finish, resend the same bytes, replace, or cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from agent.chain.sender import NonceUsed, SendRefused, TipRefused
from agent.errors import (
    ErrorCode,
    NotAccepted,
    OperatorNeeded,
    PassingFault,
    Refused,
    Retryable,
    TrimtabError,
)
from agent.execution.submitter import (
    IN_FLIGHT_STATES,
    ReorgHandler,
    SubmissionEvent,
    Submitter,
    guard_refusal,
    open_transactions,
    unseen_transaction_error,
)
from agent.model import Head, Intent, IntentEvent, IntentKind, IntentState, UnsignedTx
from agent.ports import ConflictingTransactionFinder, Grant
from agent.signing.terms import GAS_PRICE_KEY, gas_keys
from agent.store.journal import replacement_family
from agent.store.transitions import ENDED_IN_BLOCK_STATES, OPEN_STATES
from agent.venues.gas_fees import cancellable_fee_wei, replacement_fees

# --- Replacement of transactions that stay pending too long: a higher fee, or a cancel (T7). Bumps
# pass the same checks as a first send.


MAX_GAS_MULTIPLE = 4
"""Maximum gas cost of a transaction after all bumps and cancels, as a multiple of its initial gas
cost.
"""
MAX_TIP_RAISES = 8
"""Maximum replacements in a row that pay a higher tip, because nodes refuse the one before."""
_MIN_GAS = 21_000


class TxReplacer:
    """Decides on replacement transactions and sends them."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._journal = submitter.journal

    def replacement_callback(self, nonce: int) -> Callable[[float], None]:
        """Return a callback for each poll of `nonce`; it takes the seconds waited so far and bumps
        or cancels every `bump_after_s`. A refusal is reported as an event, and waiting continues;
        a cancel that fails in its simulation ends it by PassingFault.
        """
        bump_after_s = self._submitter.settings.bump_after_s
        last_try_s: float | None = None

        def replace_if_due(waited_s: float) -> None:
            nonlocal last_try_s
            newest_intent = None if bump_after_s is None else self._newest_intent(nonce)
            if bump_after_s is None or newest_intent is None:
                return
            if last_try_s is None:  # an earlier process may have sent it: its age counts too
                pending_s = max(waited_s, self._submitter.clock.now_s() - newest_intent.created_s)
            else:
                pending_s = waited_s - last_try_s
            if pending_s < bump_after_s:
                return
            last_try_s = waited_s
            try:
                self.bump_or_cancel(nonce)
            except (Refused, Retryable) as error:
                self._submitter.on_event(
                    SubmissionEvent(
                        "waiting", newest_intent, f"nonce {nonce} is still pending: {error.message}"
                    )
                )

        return replace_if_due

    def raise_tip(self, nonce: int, refusal: TipRefused) -> None:
        """Replace the transaction at `nonce`, which every node refused for its tip, until one takes
        the tip. Raises the last refusal, and as `bump_or_cancel`.
        """
        for _ in range(MAX_TIP_RAISES):
            next_refusal = self.bump_or_cancel(nonce)
            if next_refusal is None:
                return
            refusal = next_refusal
        raise refusal

    @contextmanager
    def settling_refusals(self, intent: Intent) -> Iterator[None]:
        """Run what sends the transaction; if every node refuses its tip, raise that. Raises
        NotAccepted in place of Refused once its bytes may have been sent.
        """
        nonce = intent.tx.nonce
        try:
            try:
                yield
            except TipRefused as refusal:
                self.raise_tip(nonce, refusal)
        except Refused as refusal:
            for sent_intent in self._submitter.in_flight_intents(nonce):
                subject = f"{intent.note}: transaction {sent_intent.tx_hash}"
                raise NotAccepted(subject, refusal) from refusal
            raise

    def bump_or_cancel(self, nonce: int) -> TipRefused | None:
        """Replace the pending transaction at `nonce` at a higher fee, else cancel it. Do nothing if
        it is in a block, or the nonce is used. Return the nodes' refusal of the replacement's tip;
        None otherwise. Raises Refused if neither may be sent now (kill switch, gas caps),
        OperatorNeeded if a cancel fails.
        """
        newest_intent = self._newest_intent(nonce)
        if newest_intent is None or self._submitter.is_nonce_used(nonce):
            return None
        self._submitter.require_running(_cancel_grant(0, 0, 0))
        if newest_intent.kind is IntentKind.CANCEL:
            return self.cancel(newest_intent, "")
        try:
            return self._bump(newest_intent)
        except Refused as error:
            # A simulation also fails if the transaction has just been mined.
            if self._submitter.record_mined(nonce) is not None:
                return None
            # A bump has been sent if the tip that its refusal demands is above what is signed.
            newest_intent = self._newest_intent(nonce)
            return None if newest_intent is None else self.cancel(newest_intent, error.message)

    def cancel(self, pending_intent: Intent, why: str) -> TipRefused | None:
        """Cancel with a transfer of zero to ourselves at the same nonce and a higher fee; replace a
        pending cancel with another at a higher fee. Do nothing if the nonce is used. Returns as
        `bump_or_cancel`.

        Raises Refused above the ceiling or the gas caps, PassingFault if its simulation fails.
        """
        submitter = self._submitter
        pending_grant = self._journal.grant(pending_intent.id)
        if submitter.is_nonce_used(pending_intent.tx.nonce):
            return None
        ceiling_wei, _ = submitter.settings.gas_ceilings_of(pending_grant)
        head = submitter.sender.head()
        min_tip_wei = submitter.demanded_tip_wei
        tx = cancel_transaction(
            pending_intent.tx,
            submitter.signer.address,
            head,
            ceiling_wei,
            min_tip_wei,
            limit_key=gas_keys(pending_grant.is_emergency)[0],
        )
        simulation = submitter.sender.simulate(tx, submitter.signer.address)
        if not simulation.ok:
            raise PassingFault(
                f"{pending_intent.note} ({pending_intent.tx_hash}) can be neither resent ({why}) nor cancelled:"
                f" {simulation.reason}",
                "send the wallet native coin for gas, then run the command again",
                code=ErrorCode.CANNOT_CANCEL,
            )
        tx = replace(tx, gas=max(_MIN_GAS, simulation.gas * 6 // 5))
        now_s = simulation.head.timestamp_s
        max_cost_wei = MAX_GAS_MULTIPLE * self._first_granted_wei(pending_intent)
        # A cancel beyond the initial gas budget may cost up to the owner's ceiling.
        max_price_wei = _max_price_wei(pending_intent.tx, head, min_tip_wei, ceiling_wei)
        max_cost_wei = max(max_cost_wei, tx.gas * max_price_wei)
        self._require_gas_caps(tx, pending_intent, max_cost_wei, now_s)
        grant = _cancel_grant(now_s, max(pending_grant.deadline_s, now_s), max_cost_wei)
        grant = grant.as_cancel_of(pending_grant)
        note = pending_intent.note
        if pending_intent.kind is not IntentKind.CANCEL:
            note = f"cancel of {pending_intent.note}: {why}"
        return self._launch(pending_intent, IntentKind.CANCEL, tx, grant, note, None)

    def _bump(self, pending_intent: Intent) -> TipRefused | None:
        """Send the same payload at a higher fee. Returns as `bump_or_cancel`. Raises Refused if it
        may not be sent.
        """
        pending_grant = self._journal.grant(pending_intent.id)
        self._submitter.require_running(pending_grant)
        head = self._submitter.sender.head()
        max_cost_wei = MAX_GAS_MULTIPLE * self._first_granted_wei(pending_intent)
        ceiling_wei, _ = self._submitter.settings.gas_ceilings_of(pending_grant)
        min_tip_wei = self._submitter.demanded_tip_wei
        if pending_intent.tx.tip_wei < min_tip_wei and _may_cost_the_ceiling(pending_grant):
            max_price_wei = _max_price_wei(pending_intent.tx, head, min_tip_wei, ceiling_wei)
            max_cost_wei = max(max_cost_wei, pending_intent.tx.gas * max_price_wei)
        tx = with_higher_fees(
            pending_intent.tx,
            head,
            min_tip_wei,
            None if ceiling_wei is None else cancellable_fee_wei(ceiling_wei),
            max_cost_wei // pending_intent.tx.gas,
            limit_key=gas_keys(pending_grant.is_emergency)[0],
        )
        simulation = self._submitter.simulate(tx, pending_intent.deadline_s, pending_grant)
        now_s = simulation.head.timestamp_s
        self._require_gas_caps(tx, pending_intent, max_cost_wei, now_s)
        grant = replace(pending_grant, now_s=now_s, max_gas_wei=tx.max_gas_cost_wei)
        return self._launch(
            pending_intent,
            pending_intent.kind,
            tx,
            grant,
            pending_intent.note,
            pending_intent.deadline_s,
        )

    def _launch(
        self,
        pending_intent: Intent,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        deadline_s: int | None,
    ) -> TipRefused | None:
        """Record and send a replacement of `pending_intent`. The next poll detects a nonce that was
        used meanwhile. Returns as `bump_or_cancel`.
        """
        submitter = self._submitter
        for intent in self._journal.intents_at(tx.nonce):
            # left by a process that ended before sending
            if intent.state in (IntentState.PLANNED, IntentState.SIGNED):
                submitter.drop(intent, "another transaction is pending at its nonce")
        intent = submitter.record_intent(
            pending_intent.step_id, kind, tx, grant, note, deadline_s, replaces=pending_intent.id
        )
        try:
            submitter.launch(intent, grant, deadline_s)
        except (NonceUsed, SendRefused) as error:
            submitter.on_event(SubmissionEvent("not-taken", intent, error.message))
            return error if isinstance(error, TipRefused) else None
        return None

    def _newest_intent(self, nonce: int) -> Intent | None:
        """Return the newest sent intent at `nonce`; None if there is none, or one is mined."""
        in_flight_intents = self._submitter.in_flight_intents(nonce)
        if any(intent.state is not IntentState.BROADCAST for intent in in_flight_intents):
            return None
        return next(iter(in_flight_intents), None)

    def _first_granted_wei(self, pending_intent: Intent) -> int:
        """Return the gas cost granted to the first transaction in this series of replacements."""
        replaces_by_id = {
            intent.id: intent.replaced_intent_id
            for intent in self._journal.intents_at(pending_intent.tx.nonce)
        }
        first_id = pending_intent.id
        while (older_id := replaces_by_id.get(first_id)) is not None:
            first_id = older_id
        return self._journal.grant(first_id).max_gas_wei

    def _require_gas_caps(
        self, tx: UnsignedTx, pending_intent: Intent, max_cost_wei: int, now_s: int
    ) -> None:
        """Enforce the gas caps, per transaction and per day of chain time. Only one transaction per
        nonce is mined, so the most expensive one counts.
        """
        pending_grant = self._journal.grant(pending_intent.id)
        tx_max_cost_wei = tx.max_gas_cost_wei
        _, day_limit_wei = self._submitter.settings.gas_ceilings_of(pending_grant)
        if tx_max_cost_wei > max_cost_wei:
            raise guard_refusal(
                "gas_cost",
                f"{tx_max_cost_wei} wei",
                f"{max_cost_wei} wei",
                "a resend would exceed the gas cost allowed for one transaction",
                "wait",
            )
        if day_limit_wei is None or tx_max_cost_wei <= max(
            intent.tx.max_gas_cost_wei
            for intent in self._submitter.in_flight_intents(pending_intent.tx.nonce)
        ):
            return
        unbooked_gas_wei = sum(
            intent.receipt.gas_cost_wei
            for intent in self._journal.unbooked_intents()
            if intent.receipt is not None
        )
        history = self._submitter.budgets.history(now_s)
        spent_gas_wei = (
            history.emergency_gas_24h_wei
            if pending_grant.is_emergency
            else history.budgets.gas_24h_wei
        )
        day_gas_wei = (
            spent_gas_wei
            + unbooked_gas_wei
            + tx_max_cost_wei
            + (pending_grant.max_data_fee_wei or 0)
        )
        if day_gas_wei > day_limit_wei:
            _, day_key = gas_keys(pending_grant.is_emergency)
            raise guard_refusal(
                "gas_per_day",
                f"{day_gas_wei} wei",
                f"{day_limit_wei} wei",
                f"a resend could exceed {day_key}",
                f"wait, or raise {day_key}",
            )


def with_bumped_fees(
    pending_tx: UnsignedTx,
    head: Head,
    limit_wei: int | None,
    soft_limit_wei: int | None = None,
    *,
    limit_key: str = GAS_PRICE_KEY,
) -> UnsignedTx:
    """Return the transaction with every fee at least 12.5 % higher.

    The maximum fee is raised to twice the base fee of `head` plus the tip, enough for the next five
    full blocks, but not above `limit_wei` or `soft_limit_wei` per gas. Raises Refused above
    `limit_wei`, the limit `limit_key`, or if that is below the base fee.
    """
    bumped_fees = replacement_fees(pending_tx)
    if bumped_fees.max_fee_wei is not None and head.base_fee_wei is not None:
        sufficient_fee_wei = 2 * head.base_fee_wei + (bumped_fees.max_priority_fee_wei or 0)
        for fee_cap_wei in (limit_wei, soft_limit_wei):
            if fee_cap_wei is not None:
                sufficient_fee_wei = min(sufficient_fee_wei, fee_cap_wei)
        bumped_fees = replace(
            bumped_fees, max_fee_wei=max(bumped_fees.max_fee_wei, sufficient_fee_wei)
        )
    if (
        limit_wei is not None
        and max(bumped_fees.max_gas_price_wei, head.base_fee_wei or 0) > limit_wei
    ):
        raise guard_refusal(
            "gas_price",
            f"{max(bumped_fees.max_gas_price_wei, head.base_fee_wei or 0)} wei",
            f"{limit_wei} wei",
            "the replacement needs a gas price above the limit",
            f"raise {limit_key}, or wait",
        )
    return replace(
        pending_tx,
        max_fee_wei=bumped_fees.max_fee_wei,
        max_priority_fee_wei=bumped_fees.max_priority_fee_wei,
        gas_price_wei=bumped_fees.gas_price_wei,
    )


def with_higher_fees(
    pending_tx: UnsignedTx,
    head: Head,
    min_tip_wei: int,
    limit_wei: int | None,
    soft_limit_wei: int | None = None,
    *,
    limit_key: str = GAS_PRICE_KEY,
) -> UnsignedTx:
    """Return the transaction with `min_tip_wei`, which nodes demand; with every fee at least 12.5 %
    higher if it pays that already. Raises Refused like either.
    """
    if pending_tx.tip_wei < min_tip_wei:
        return with_demanded_tip(
            pending_tx, head, min_tip_wei, limit_wei, soft_limit_wei, limit_key=limit_key
        )
    return with_bumped_fees(pending_tx, head, limit_wei, soft_limit_wei, limit_key=limit_key)


def with_demanded_tip(
    pending_tx: UnsignedTx,
    head: Head,
    tip_wei: int,
    limit_wei: int | None,
    soft_limit_wei: int | None = None,
    *,
    limit_key: str = GAS_PRICE_KEY,
) -> UnsignedTx:
    """Return the transaction with this tip, which nodes demand; a node that took it without may
    refuse the replacement until its next bump, because not every fee is 12.5 % higher. The maximum
    fee is at least the base fee of `head` plus the tip, and twice the base fee plus the tip where
    `limit_wei`, the limit `limit_key`, and `soft_limit_wei` per gas allow that. Raises Refused above
    them.
    """
    base_fee_wei = head.base_fee_wei or 0
    needed_fee_wei = base_fee_wei + tip_wei
    fee_wei = 2 * base_fee_wei + tip_wei
    for fee_cap_wei in (limit_wei, soft_limit_wei):
        if fee_cap_wei is None:
            continue
        if needed_fee_wei > fee_cap_wei:
            raise guard_refusal(
                "gas_price",
                f"{needed_fee_wei} wei",
                f"{fee_cap_wei} wei",
                f"the node demands a tip of {tip_wei} wei per gas, and the transaction may pay"
                f" {fee_cap_wei} wei with the base fee of {base_fee_wei} wei",
                f"raise {limit_key}, or wait",
            )
        fee_wei = min(fee_wei, fee_cap_wei)
    if pending_tx.gas_price_wei is not None:
        return replace(pending_tx, gas_price_wei=max(pending_tx.gas_price_wei, tip_wei))
    max_fee_wei = max(pending_tx.max_fee_wei or 0, fee_wei)
    return replace(pending_tx, max_fee_wei=max_fee_wei, max_priority_fee_wei=tip_wei)


def cancel_transaction(
    pending_tx: UnsignedTx,
    wallet: str,
    head: Head,
    limit_wei: int | None,
    min_tip_wei: int = 0,
    *,
    limit_key: str = GAS_PRICE_KEY,
) -> UnsignedTx:
    """Return a transfer of zero to ourselves at the nonce of `pending_tx`, with higher fees. `gas`
    is 0, still to be estimated. Raises Refused above `limit_wei` per gas, the limit `limit_key`.
    """
    replacement_tx = with_higher_fees(pending_tx, head, min_tip_wei, limit_wei, limit_key=limit_key)
    return replace(replacement_tx, to=wallet, value_wei=0, data="0x", gas=0)


def _max_price_wei(
    pending_tx: UnsignedTx, head: Head, min_tip_wei: int, ceiling_wei: int | None
) -> int:
    """Return the owner's ceiling per unit of gas; without one the price with a tip that nodes demand
    of this transaction, else 0.
    """
    if ceiling_wei is not None:
        return ceiling_wei
    if pending_tx.tip_wei < min_tip_wei:
        return 2 * (head.base_fee_wei or 0) + min_tip_wei
    return 0


def _may_cost_the_ceiling(grant: Grant) -> bool:
    """True for an exit, an emergency or an approval: one that no node takes is worth what the
    owner's ceiling allows.
    """
    is_exit = grant.plan is not None and grant.plan.is_exit
    return is_exit or grant.is_emergency or grant.kind is IntentKind.APPROVE


def _cancel_grant(now_s: int, deadline_s: int, max_cost_wei: int) -> Grant:
    return Grant(IntentKind.CANCEL, now_s, deadline_s, max_cost_wei)


# --- Reconciliation: every open nonce, oldest first.


_NONCE_CHECKS = 3
"""Number of times that a used nonce without a receipt of ours is checked before its transaction is
searched for: nodes behind one address can lag.
"""


class Reconciler:
    """Resolves nonces one by one, oldest first. A nonce is resolved once one of our transactions is
    final.
    """

    def __init__(self, submitter: Submitter, replacer: TxReplacer) -> None:
        self._submitter = submitter
        self._replacer = replacer
        self._reorg_handler = ReorgHandler(submitter)
        self._journal = submitter.journal
        self._sender = submitter.sender

    def run(self, *, may_send: bool) -> list[Intent]:
        """Resolve every open intent, including those reopened by a reorg; return them in their new
        state.
        """
        self._reorg_handler.follow_reorgs()
        initial_open_intents = open_transactions(self._journal)
        for intent in initial_open_intents:
            if intent.state is IntentState.PLANNED:
                self._submitter.drop(intent, "the process ended before signing")
        for nonce in sorted({intent.tx.nonce for intent in initial_open_intents}):
            self._resolve(nonce, may_send)
        if not initial_open_intents or not self._submitter.unfinished_intents():
            self.require_or_adopt_nonce()
        return [self._journal.stored_intent(intent) for intent in initial_open_intents]

    def cancel_pending(self, why: str) -> list[Intent]:
        """Drop unsent intents and cancel pending ones; return them in their new state. Used at a
        hard kill switch, which is read again before each cancel.
        """
        initial_open_intents = open_transactions(self._journal)
        for nonce in sorted({intent.tx.nonce for intent in initial_open_intents}):
            self._cancel_at(nonce, why)
        self.run(may_send=True)
        return [self._journal.stored_intent(intent) for intent in initial_open_intents]

    def _cancel_at(self, nonce: int, why: str) -> None:
        unmined_intents = [
            intent
            for intent in self._journal.intents_at(nonce)
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST)
        ]
        if not unmined_intents or self._record_chain_state(unmined_intents, nonce) == "mined":
            return
        for intent in self._journal.intents_at(nonce):
            if intent.state is IntentState.SIGNED:
                self._submitter.drop(intent, why)
        in_flight_intents = self._submitter.in_flight_intents(nonce)
        if in_flight_intents and not any(
            intent.kind is IntentKind.CANCEL for intent in in_flight_intents
        ):
            self._replacer.cancel(in_flight_intents[0], why)

    def require_or_adopt_nonce(self) -> int:
        """Return the chain's next nonce if the journal expects it; a new journal adopts it. Raises
        OperatorNeeded if another sender used the wallet, PassingFault while its transaction is
        pending or not shown, Retryable if the endpoint is behind the journal.
        """
        next_nonce, next_pending_nonce = self._nonces()
        expected_nonce = self._journal.expected_nonce()
        if (
            expected_nonce is not None and next_nonce < expected_nonce
        ):  # pending transactions may be ours
            self._reorg_handler.require_no_deep_reorg(expected_nonce - 1)
            raise Retryable(
                f"the endpoint's next nonce is {next_nonce}, the journal's "
                f"{expected_nonce}: the endpoint lags "
                f"behind our transaction at nonce {expected_nonce - 1}, or the chain was restarted",
                "try again; after a restart of a local chain set a new file in store.url; "
                "if the chain dropped blocks, run trimtab adopt",
                code=ErrorCode.LAG,
            )
        if next_pending_nonce > next_nonce:
            raise PassingFault(
                f"nonce {next_nonce} of {self._submitter.signer.address} has a pending transaction that"
                f" is not in this store{self._conflicting_hash_text(next_nonce)}",
                "another program uses this wallet, or this store is a restored copy: stop the other"
                " sender, wait until it is mined, then run trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        if expected_nonce is None:
            self._journal.adopt_nonce(next_nonce, self._submitter.clock.now_s())
            return next_nonce
        if next_nonce > expected_nonce:
            raise self._used_nonce_error(expected_nonce, next_nonce)
        return next_nonce

    def resync_nonce(self) -> int:
        """Adopt the chain's nonce, and end intents that foreign transactions replaced; only on the
        operator's command.

        Raises Retryable while any transaction of the wallet may still be mined.
        """
        next_nonce, next_pending_nonce = self._nonces()
        if next_pending_nonce > next_nonce:
            raise Retryable(
                f"a transaction at nonce {next_nonce} is pending",
                "wait until it is mined, then run trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        unfinished_intents = [
            intent
            for intent in open_transactions(self._journal)
            if intent.state is not IntentState.MINED
        ]
        for intent in unfinished_intents:
            is_known = intent.tx_hash is not None and (
                self._sender.status_of(intent.tx_hash).state != "unknown"
                or self._submitter.mined_hash(intent.tx.nonce) == intent.tx_hash
            )
            if is_known or intent.tx.nonce >= next_nonce:
                raise Retryable(
                    f"{intent.note} ({intent.tx_hash}) is open",
                    "run the command that resolves it first, then trimtab adopt",
                    code=ErrorCode.OPEN_TRANSACTION,
                )
        # The nonce first: the journal accepts a foreign winner only below the expected nonce.
        self._journal.adopt_nonce(next_nonce, self._submitter.clock.now_s())
        why = "a foreign transaction took the nonce; adopted by the operator"
        for intent in unfinished_intents:
            if intent.state is IntentState.BROADCAST:
                self._submitter.move(intent, IntentState.REPLACED, why)
            else:
                self._submitter.drop(intent, why)
        return next_nonce

    def _nonces(self) -> tuple[int, int]:
        return self._sender.nonces(self._submitter.signer.address)

    def _resolve(self, nonce: int, may_send: bool) -> None:
        for intent in self._journal.reopenable_intents_at(nonce):
            self._submitter.move(
                intent,
                IntentState.BROADCAST,
                "the transaction that took its nonce lost its block",
                event=IntentEvent.REOPEN,
            )
        intents_at_nonce = self._journal.intents_at(nonce)
        winning_intents = [
            intent for intent in intents_at_nonce if intent.state in ENDED_IN_BLOCK_STATES
        ]
        for winning_intent in winning_intents:
            if any(
                intent.state in OPEN_STATES
                for intent in replacement_family(intents_at_nonce, winning_intent.id)
            ):
                # An earlier process was killed between ending the winner and the others.
                self._submitter.settle_nonce(winning_intent)
                return
        unfinished_intents = [
            intent
            for intent in intents_at_nonce
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)
        ]
        if not unfinished_intents:
            return
        if self._record_chain_state(unfinished_intents, nonce) == "unknown":
            if may_send and self._may_resend(unfinished_intents[-1]):
                with self._replacer.settling_refusals(unfinished_intents[-1]):
                    self._resend_or_cancel(unfinished_intents)
                if self._submitter.in_flight_intents(nonce):
                    self._await_final(nonce, may_send)
        elif (
            not self._await_final(nonce, may_send)
            and may_send
            and self._submitter.is_paused() is False
        ):
            self._cancel_expired(nonce)

    def _record_chain_state(self, unfinished_intents: list[Intent], nonce: int) -> str:
        """Return "mined", "pending" or "unknown": the furthest state of our transactions at
        `nonce`. A signed transaction known to a node moves to BROADCAST. Raises if the nonce is
        used and no receipt of ours shows by what (`_used_nonce_error`).
        """
        next_nonce = 0
        for attempt in range(_NONCE_CHECKS):
            if attempt:
                self._submitter.clock.sleep(self._submitter.settings.poll_s)
            next_nonce, _ = self._nonces()
            state_by_id = {
                intent.id: self._sender.status_of(str(intent.tx_hash)).state
                for intent in unfinished_intents
            }
            for intent in unfinished_intents:
                # sent by a copy of this store
                if state_by_id[intent.id] != "unknown" and intent.state is IntentState.SIGNED:
                    self._submitter.move(intent, IntentState.BROADCAST, "found on the chain")
            if "mined" in state_by_id.values():
                return "mined"
            if "pending" in state_by_id.values() and next_nonce <= nonce:
                return "pending"
            if any(intent.state is IntentState.MINED for intent in unfinished_intents):
                return "mined"
            if next_nonce <= nonce:
                break
        if next_nonce > nonce:
            raise self._used_nonce_error(nonce, next_nonce)
        if next_nonce < nonce:
            raise Retryable(
                f"the endpoint's next nonce is {next_nonce}, a transaction of ours has {nonce}: the"
                " endpoint lags",
                "try again",
                code=ErrorCode.LAG,
            )
        return "unknown"

    def _await_final(self, nonce: int, may_send: bool) -> bool:
        """Wait for a block and its confirmations; False if nothing was mined in time, or a reorg
        removed the block.
        """
        poll_callbacks = [self._replacer.replacement_callback(nonce)] if may_send else []
        mined_intent = self._submitter.await_mined(nonce, *poll_callbacks)
        return (
            mined_intent is not None
            and self._submitter.await_final(mined_intent).state is not IntentState.BROADCAST
        )

    def _resend_or_cancel(self, unfinished_intents: list[Intent]) -> None:
        """Resend a transaction that no node knows, unchanged or at a higher fee, else cancel it."""
        for intent in reversed(unfinished_intents):
            if intent.state is IntentState.BROADCAST and self._is_below_base_fee(intent):
                self._replacer.bump_or_cancel(intent.tx.nonce)
                return
            grant = self._journal.grant(intent.id)
            try:
                simulation = self._submitter.simulate(intent.tx, intent.deadline_s, grant)
                signed_tx = self._submitter.sign_again(intent, simulation.head.timestamp_s)
                self._submitter.require_running(grant)
            except Refused as error:
                if intent.state is IntentState.SIGNED:
                    # BROADCAST is written before bytes are sent, so these were never sent.
                    self._submitter.drop(intent, error.message)
                    continue
                if (
                    self._submitter.is_paused() is False or self._submitter.is_hard_pause()
                ) and self._is_unknown_to_nodes(unfinished_intents):
                    self._replacer.cancel(intent, error.message)
                return
            self._submitter.send(intent, signed_tx, grant)
            return

    def _may_resend(self, intent: Intent) -> bool:
        """True if the kill switch permits a resend; at hard it permits only cancels and
        revocations.
        """
        return self._submitter.is_running(self._journal.grant(intent.id))

    def _is_below_base_fee(self, intent: Intent) -> bool:
        """True if its fee is below the base fee, so the same bytes would stay pending."""
        base_fee_wei = self._sender.head().base_fee_wei
        return base_fee_wei is not None and intent.tx.max_gas_price_wei < base_fee_wei

    def _is_unknown_to_nodes(self, unfinished_intents: list[Intent]) -> bool:
        """True if no node knows a transaction at the nonce: a simulation also fails for one mined
        just now.
        """
        return all(
            self._sender.status_of(str(intent.tx_hash)).state == "unknown"
            for intent in unfinished_intents
        )

    def _cancel_expired(self, nonce: int) -> None:
        """Cancel a pending transaction past its deadline, because it would only burn gas."""
        in_flight_intents = self._submitter.in_flight_intents(nonce)
        if not in_flight_intents or any(
            intent.kind is IntentKind.CANCEL for intent in in_flight_intents
        ):
            return
        now_s = self._sender.head().timestamp_s
        deadline_s = in_flight_intents[0].deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            why = f"still pending at chain time {now_s}, after its deadline {deadline_s}"
            with self._replacer.settling_refusals(in_flight_intents[0]):
                self._replacer.cancel(in_flight_intents[0], why)
            self._await_final(nonce, may_send=True)

    def _used_nonce_error(self, nonce: int, next_nonce: int) -> OperatorNeeded | Retryable:
        """Return the error for a used nonce without a receipt of ours. Receipts can be hidden for a
        while: Retryable if a block has one of our hashes, or if ours may be in one and the
        endpoints show none. OperatorNeeded if a block has another; without one the nonce alone says
        so, and may be an endpoint's mistake: PassingFault.
        """
        owner = self._submitter.signer.address
        own_hashes = self._submitter.own_hashes(nonce)
        own_hashes_text = ", ".join(own_hashes)
        mined_hash = self._submitter.mined_hash(nonce)
        if mined_hash in own_hashes:
            return Retryable(
                f"our transaction {mined_hash} is in a block, but the endpoints do not show its receipt",
                "wait; the next run settles it",
                code=ErrorCode.LAG,
            )
        if mined_hash is None and self._may_be_ours(nonce):
            return unseen_transaction_error(owner, nonce, own_hashes_text)
        own_hashes_note = "this store has no sent transaction at that nonce"
        if own_hashes:
            own_hashes_note = f"none of ours is in a block: {own_hashes_text}"
        mined_hash_text = (
            self._conflicting_hash_text(nonce) if mined_hash is None else f": {mined_hash}"
        )
        error_type = PassingFault if mined_hash is None else OperatorNeeded
        return error_type(
            f"nonce {nonce} of {owner} was used by a transaction that is not in this"
            f" store{mined_hash_text} (the chain's next is {next_nonce}; {own_hashes_note})",
            "another program uses this wallet, or this store is a restored copy: stop the other"
            " sender, check the balances, then run trimtab adopt",
            code=ErrorCode.FOREIGN_NONCE,
        )

    def _may_be_ours(self, nonce: int) -> bool:
        """Return whether bytes of ours may have reached a node: sent by us, or by an external
        signer.
        """
        proposed_ids = self._submitter.proposed_ids()
        return any(
            intent.state in IN_FLIGHT_STATES
            or (intent.id in proposed_ids and intent.tx_hash is not None)
            for intent in self._journal.intents_at(nonce)
        )

    def _conflicting_hash_text(self, nonce: int) -> str:
        """Return ": " and the hash of the transaction at that nonce, "" if no endpoint
        knows one.
        """
        if not isinstance(self._sender, ConflictingTransactionFinder):
            return ""
        try:
            tx_hash = self._sender.conflicting_tx_hash(self._submitter.signer.address, nonce)
        except TrimtabError:
            return ""
        return "" if tx_hash is None else f": {tx_hash}"
