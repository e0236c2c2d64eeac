"""Reconcile open transactions with the chain: finish, resend the same bytes, replace, or cancel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.chain.sender import NonceUsed, SendRefused
from agent.errors import ErrorCode, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution.submitter import (
    ReorgHandler,
    SubmissionEvent,
    Submitter,
    guard_refusal,
    open_transactions,
)
from agent.model import Head, Intent, IntentEvent, IntentKind, IntentState, UnsignedTx
from agent.ports import ConflictingTransactionFinder, Grant
from agent.signing.base import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.store.journal import family
from agent.store.transitions import ENDED_IN_BLOCK, OPEN
from agent.venues.gas_fees import bump_fees

# --- Replacement of transactions that stay pending too long: a higher fee, or a cancel (T7). Bumps
# pass the same checks as a first send.


MAX_GAS_MULTIPLE = 4
"""Maximum gas cost of a transaction after all bumps and cancels, as a multiple of its initial gas
cost.
"""
RESERVED_BUMPS = 2
"""Fee steps of 12.5 % below the ceiling, reserved for a cancel and one bump of the cancel."""
_MIN_GAS = 21_000


class TxReplacer:
    """Decides on replacement transactions and sends them."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._journal = submitter.journal

    def while_waiting(self, nonce: int) -> Callable[[float], None]:
        """Return a callback for each poll of `nonce`; it takes the seconds waited so far and bumps
        or cancels every `bump_after_s`. A refusal is reported as an event, and waiting continues.
        """
        after_s = self._submitter.settings.bump_after_s
        tried_s: float | None = None

        def replace_if_due(waited_s: float) -> None:
            nonlocal tried_s
            newest = None if after_s is None else self._newest(nonce)
            if after_s is None or newest is None:
                return
            if tried_s is None:  # an earlier process may have sent it: its age counts too
                pending_s = max(waited_s, self._submitter.clock.now_s() - newest.created_s)
            else:
                pending_s = waited_s - tried_s
            if pending_s < after_s:
                return
            tried_s = waited_s
            try:
                self.bump_or_cancel(nonce)
            except (Refused, Retryable) as error:
                self._submitter.tell(
                    SubmissionEvent(
                        "waiting", newest, f"nonce {nonce} is still pending: {error.message}"
                    )
                )

        return replace_if_due

    def bump_or_cancel(self, nonce: int) -> None:
        """Replace the pending transaction at `nonce` at a higher fee, else cancel it. Do nothing if
        it is in a block. Raises Refused if neither may be sent now (kill switch, gas caps),
        OperatorNeeded if a cancel fails.
        """
        newest = self._newest(nonce)
        if newest is None:
            return
        self._submitter.require_running(_cancel_grant(0, 0, 0))
        if newest.kind is IntentKind.CANCEL:
            self.cancel(newest, "")
            return
        try:
            self._bump(newest)
        except Refused as error:
            # A simulation also fails if the transaction has just been mined.
            if self._submitter.find_mined(nonce) is None:
                self.cancel(newest, error.message)

    def cancel(self, pending: Intent, why: str) -> None:
        """Cancel with a transfer of zero to ourselves at the same nonce and a higher fee; replace a
        pending cancel with another at a higher fee.

        Raises Refused above the ceiling or the gas caps, OperatorNeeded if its simulation fails.
        """
        submitter, granted = self._submitter, self._journal.grant(pending.id)
        ceiling_wei, _ = submitter.settings.ceilings_of(granted)
        tx = cancel_transaction(
            pending.tx, submitter.signer.address, submitter.sender.head(), ceiling_wei
        )
        simulation = submitter.sender.simulate(tx, submitter.signer.address)
        if not simulation.ok:
            raise OperatorNeeded(
                f"{pending.note} ({pending.tx_hash}) can be neither resent ({why}) nor cancelled:"
                f" {simulation.reason}",
                "send the wallet native coin for gas, then run the command again",
                code=ErrorCode.CANNOT_CANCEL,
            )
        tx = replace(tx, gas=max(_MIN_GAS, simulation.gas * 6 // 5))
        now_s = simulation.head.timestamp_s
        most_wei = MAX_GAS_MULTIPLE * self._first_gas_wei(pending)
        if ceiling_wei is not None:
            # A cancel beyond the initial gas budget may cost up to the owner's ceiling.
            most_wei = max(most_wei, tx.gas * ceiling_wei)
        self._require_gas_caps(tx, pending, most_wei, now_s)
        grant = _cancel_grant(now_s, max(granted.deadline_s, now_s), most_wei)
        grant = grant.as_cancel_of(granted)
        note = pending.note
        if pending.kind is not IntentKind.CANCEL:
            note = f"cancel of {pending.note}: {why}"
        self._launch(pending, IntentKind.CANCEL, tx, grant, note, None)

    def _bump(self, pending: Intent) -> None:
        """Send the same payload at a higher fee. Raises Refused if it may not be sent."""
        granted = self._journal.grant(pending.id)
        self._submitter.require_running(granted)
        head = self._submitter.sender.head()
        most_wei = MAX_GAS_MULTIPLE * self._first_gas_wei(pending)
        tx = with_bumped_fees(
            pending.tx,
            head,
            _bump_ceiling_wei(self._submitter.settings.ceilings_of(granted)[0]),
            most_wei // pending.tx.gas,
        )
        simulation = self._submitter.simulate(tx, pending.deadline_s, granted)
        now_s = simulation.head.timestamp_s
        self._require_gas_caps(tx, pending, most_wei, now_s)
        grant = replace(granted, now_s=now_s, max_gas_wei=tx.most_gas_wei)
        self._launch(pending, pending.kind, tx, grant, pending.note, pending.deadline_s)

    def _launch(
        self,
        pending: Intent,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        deadline_s: int | None,
    ) -> None:
        """Record and send a replacement of `pending`. The next poll detects a nonce that was used
        meanwhile.
        """
        submitter = self._submitter
        for intent in self._journal.intents_at(tx.nonce):
            # left by a process that ended before sending
            if intent.state in (IntentState.PLANNED, IntentState.SIGNED):
                submitter.drop(intent, "another transaction is pending at its nonce")
        intent = submitter.plan(
            pending.step_id, kind, tx, grant, note, deadline_s, replaces=pending.id
        )
        try:
            submitter.launch(intent, grant, deadline_s)
        except (NonceUsed, SendRefused) as error:
            submitter.tell(SubmissionEvent("not-taken", intent, error.message))

    def _newest(self, nonce: int) -> Intent | None:
        """Return the newest sent intent at `nonce`; None if there is none, or one is mined."""
        in_flight = self._submitter.in_flight(nonce)
        if any(intent.state is not IntentState.BROADCAST for intent in in_flight):
            return None
        return next(iter(in_flight), None)

    def _first_gas_wei(self, pending: Intent) -> int:
        """Return the gas cost granted to the first transaction in this series of replacements."""
        replaced_by = {
            intent.id: intent.replaces for intent in self._journal.intents_at(pending.tx.nonce)
        }
        first = pending.id
        while (older := replaced_by.get(first)) is not None:
            first = older
        return self._journal.grant(first).max_gas_wei

    def _require_gas_caps(self, tx: UnsignedTx, pending: Intent, most_wei: int, now_s: int) -> None:
        """Enforce the gas caps, per transaction and per day of chain time. Only one transaction per
        nonce is mined, so the most expensive one counts.
        """
        granted = self._journal.grant(pending.id)
        worst_wei = tx.most_gas_wei
        _, day_wei = self._submitter.settings.ceilings_of(granted)
        if worst_wei > most_wei:
            raise guard_refusal(
                "gas_cost",
                f"{worst_wei} wei",
                f"{most_wei} wei",
                "a resend would exceed the gas cost allowed for one transaction",
                "wait",
            )
        if day_wei is None or worst_wei <= max(
            intent.tx.most_gas_wei for intent in self._submitter.in_flight(pending.tx.nonce)
        ):
            return
        unbooked_wei = sum(
            intent.receipt.gas_cost_wei
            for intent in self._journal.unbooked()
            if intent.receipt is not None
        )
        history = self._submitter.budgets.history(now_s)
        spent_wei = (
            history.emergency_gas_24h_wei if granted.is_emergency else history.budgets.gas_24h_wei
        )
        total_wei = spent_wei + unbooked_wei + worst_wei + (granted.data_fee_wei or 0)
        if total_wei > day_wei:
            raise guard_refusal(
                "gas_per_day",
                f"{total_wei} wei",
                f"{day_wei} wei",
                "a resend could exceed limits.gas_per_day",
                "wait, or raise limits.gas_per_day",
            )


def with_bumped_fees(
    paid: UnsignedTx, head: Head, limit_wei: int | None, aim_wei: int | None = None
) -> UnsignedTx:
    """Return the transaction with every fee at least 12.5 % higher, and enough for six full blocks
    after `head` as far as `limit_wei` and `aim_wei` per gas allow.

    Raises Refused above `limit_wei`, or if that is below the base fee.
    """
    more = bump_fees(paid)
    if more.max_fee_wei is not None and head.base_fee_wei is not None:
        enough = 2 * head.base_fee_wei + (more.max_priority_fee_wei or 0)
        enough = min(enough, *(wei for wei in (limit_wei, aim_wei) if wei is not None), enough)
        more = replace(more, max_fee_wei=max(more.max_fee_wei, enough))
    if limit_wei is not None and max(more.most_wei, head.base_fee_wei or 0) > limit_wei:
        raise guard_refusal(
            "gas_price",
            f"{max(more.most_wei, head.base_fee_wei or 0)} wei",
            f"{limit_wei} wei",
            "the replacement needs a gas price above the limit",
            "raise limits.gas_price, or wait",
        )
    return replace(
        paid,
        max_fee_wei=more.max_fee_wei,
        max_priority_fee_wei=more.max_priority_fee_wei,
        gas_price_wei=more.gas_price_wei,
    )


def cancel_transaction(
    original: UnsignedTx, wallet: str, head: Head, limit_wei: int | None
) -> UnsignedTx:
    """Return a transfer of zero to ourselves at the nonce of `original`, every fee at least 12.5 %
    higher. `gas` is 0, still to be estimated. Raises Refused above `limit_wei` per gas.
    """
    return replace(
        with_bumped_fees(original, head, limit_wei), to=wallet, value_wei=0, data="0x", gas=0
    )


def _bump_ceiling_wei(ceiling_wei: int | None) -> int | None:
    """Return the fee ceiling of bumps: the owner's ceiling less the reserved steps."""
    if ceiling_wei is None:
        return None
    bumped: int = ceiling_wei * BUMP_DENOMINATOR**RESERVED_BUMPS // BUMP_NUMERATOR**RESERVED_BUMPS
    return bumped


def _cancel_grant(now_s: int, deadline_s: int, most_wei: int) -> Grant:
    return Grant(IntentKind.CANCEL, now_s, deadline_s, most_wei)


# --- Reconciliation: every open nonce, oldest first.


_NONCE_CHECKS = 3
"""Number of times that a used nonce without a known hash is checked before it counts as foreign:
nodes behind one address can lag.
"""


class Reconciler:
    """Resolves nonces one by one, oldest first. A nonce is resolved once one of our transactions is
    final.
    """

    def __init__(self, submitter: Submitter, replacer: TxReplacer) -> None:
        self._submitter = submitter
        self._replacer = replacer
        self._rewinder = ReorgHandler(submitter)
        self._journal = submitter.journal
        self._sender = submitter.sender

    def run(self, *, may_send: bool) -> list[Intent]:
        """Resolve every open intent, including those reopened by a reorg; return them in their new
        state.
        """
        self._rewinder.run()
        open_before = open_transactions(self._journal)
        for intent in open_before:
            if intent.state is IntentState.PLANNED:
                self._submitter.drop(intent, "the process ended before signing")
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._resolve(nonce, may_send)
        if not open_before or not self._submitter.unfinished():
            self.require_known_nonce()
        return [self._now(intent) for intent in open_before]

    def cancel_pending(self, why: str) -> list[Intent]:
        """Drop unsent intents and cancel pending ones; return them in their new state. Used at a
        hard kill switch, which is read again before each cancel.
        """
        open_before = open_transactions(self._journal)
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._cancel_at(nonce, why)
        self.run(may_send=True)
        return [self._now(intent) for intent in open_before]

    def _cancel_at(self, nonce: int, why: str) -> None:
        unmined = [
            intent
            for intent in self._journal.intents_at(nonce)
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST)
        ]
        if not unmined or self._chain_state(unmined, nonce) == "mined":
            return
        for intent in self._journal.intents_at(nonce):
            if intent.state is IntentState.SIGNED:
                self._submitter.drop(intent, why)
        in_flight = self._submitter.in_flight(nonce)
        if in_flight and not any(intent.kind is IntentKind.CANCEL for intent in in_flight):
            self._replacer.cancel(in_flight[0], why)

    def require_known_nonce(self) -> int:
        """Return the chain's next nonce if the journal expects it; a new journal adopts it. Raises
        OperatorNeeded if another sender used the wallet, Retryable if the endpoint is behind the
        journal.
        """
        latest, pending = self._nonces()
        expected = self._journal.expected_nonce()
        if expected is not None and latest < expected:  # pending transactions may be ours
            self._rewinder.require_possible(expected - 1)
            raise Retryable(
                f"the endpoint's next nonce is {latest}, the journal's "
                f"{expected}: the endpoint lags "
                f"behind our transaction at nonce {expected - 1}, or the chain was restarted",
                "try again; after a restart of a local chain set a new file in store.url; "
                "if the chain dropped blocks, run trimtab adopt",
                code=ErrorCode.LAG,
            )
        if pending > latest:
            raise OperatorNeeded(
                f"nonce {latest} of {self._submitter.signer.address} has a pending transaction that"
                f" is not in this store{self._conflicting_hash(latest)}",
                "another program uses this wallet, or this store is a restored copy: stop the other"
                " sender, wait until it is mined, then run trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        if expected is None:
            self._journal.set_expected_nonce(latest, self._submitter.clock.now_s())
            return latest
        if latest > expected:
            raise self._foreign(expected, latest)
        return latest

    def resync_nonce(self) -> int:
        """Adopt the chain's nonce, and end intents that foreign transactions replaced; only on the
        operator's command.

        Raises Retryable while any transaction of the wallet may still be mined.
        """
        latest, pending = self._nonces()
        if pending > latest:
            raise Retryable(
                f"a transaction at nonce {latest} is pending",
                "wait until it is mined, then run trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        unfinished = [
            intent
            for intent in open_transactions(self._journal)
            if intent.state is not IntentState.MINED
        ]
        for intent in unfinished:
            known = (
                intent.tx_hash is not None
                and self._sender.status_of(intent.tx_hash).state != "unknown"
            )
            if known or intent.tx.nonce >= latest:
                raise Retryable(
                    f"{intent.note} ({intent.tx_hash}) is open",
                    "run the command that resolves it first, then trimtab adopt",
                    code=ErrorCode.OPEN_TRANSACTION,
                )
        # The nonce first: the journal accepts a foreign winner only below the expected nonce.
        self._journal.set_expected_nonce(latest, self._submitter.clock.now_s())
        why = "a foreign transaction took the nonce; adopted by the operator"
        for intent in unfinished:
            if intent.state is IntentState.BROADCAST:
                self._submitter.move(intent, IntentState.REPLACED, why)
            else:
                self._submitter.drop(intent, why)
        return latest

    def _nonces(self) -> tuple[int, int]:
        return self._sender.nonces(self._submitter.signer.address)

    def _now(self, intent: Intent) -> Intent:
        return next(
            other for other in self._journal.intents_at(intent.tx.nonce) if other.id == intent.id
        )

    def _resolve(self, nonce: int, may_send: bool) -> None:
        for intent in self._journal.undecided_at(nonce):
            self._submitter.move(
                intent,
                IntentState.BROADCAST,
                "the transaction that took its nonce lost its block",
                event=IntentEvent.REOPEN,
            )
        group = self._journal.intents_at(nonce)
        winners = [end for end in group if end.state in ENDED_IN_BLOCK]
        for winner in winners:
            if any(intent.state in OPEN for intent in family(group, winner.id)):
                # An earlier process was killed between ending the winner and the others.
                self._submitter.close(winner)
                return
        unfinished = [
            intent
            for intent in group
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)
        ]
        if not unfinished:
            return
        if self._chain_state(unfinished, nonce) == "unknown":
            if may_send and self._may_resend(unfinished[-1]):
                self._resend_or_cancel(unfinished)
                if self._submitter.in_flight(nonce):
                    self._follow(nonce, may_send)
        elif (
            not self._follow(nonce, may_send) and may_send and self._submitter.is_paused() is False
        ):
            self._cancel_expired(nonce)

    def _chain_state(self, unfinished: list[Intent], nonce: int) -> str:
        """Return "mined", "pending" or "unknown": the furthest state of our transactions at
        `nonce`. A signed transaction known to a node moves to BROADCAST.
        """
        latest = 0
        for attempt in range(_NONCE_CHECKS):
            if attempt:
                self._submitter.clock.sleep(self._submitter.settings.poll_s)
            latest, _ = self._nonces()
            states = {
                intent.id: self._sender.status_of(str(intent.tx_hash)).state
                for intent in unfinished
            }
            for intent in unfinished:
                # sent by a copy of this store
                if states[intent.id] != "unknown" and intent.state is IntentState.SIGNED:
                    self._submitter.move(intent, IntentState.BROADCAST, "found on the chain")
            if "mined" in states.values():
                return "mined"
            if "pending" in states.values():
                return "pending"
            if any(intent.state is IntentState.MINED for intent in unfinished):
                return "mined"
            if latest <= nonce:
                break
        if latest > nonce:
            raise self._foreign(nonce, latest)
        if latest < nonce:
            raise Retryable(
                f"the endpoint's next nonce is {latest}, a transaction of ours has {nonce}: the"
                " endpoint lags",
                "try again",
                code=ErrorCode.LAG,
            )
        return "unknown"

    def _follow(self, nonce: int, may_send: bool) -> bool:
        """Wait for a block and its confirmations; False if nothing was mined in time, or a reorg
        removed the block.
        """
        meanwhile = [self._replacer.while_waiting(nonce)] if may_send else []
        mined = self._submitter.await_mined(nonce, *meanwhile)
        return (
            mined is not None
            and self._submitter.await_final(mined).state is not IntentState.BROADCAST
        )

    def _resend_or_cancel(self, unfinished: list[Intent]) -> None:
        """Resend a transaction that no node knows, unchanged or at a higher fee, else cancel it."""
        for intent in reversed(unfinished):
            if intent.state is IntentState.BROADCAST and self._below_base_fee(intent):
                self._replacer.bump_or_cancel(intent.tx.nonce)
                return
            try:
                simulation = self._submitter.simulate(
                    intent.tx, intent.deadline_s, self._journal.grant(intent.id)
                )
                signed = self._submitter.sign_again(intent, simulation.head.timestamp_s)
                self._submitter.require_running(self._journal.grant(intent.id))
            except Refused as error:
                if intent.state is IntentState.SIGNED:
                    # BROADCAST is written before bytes are sent, so these were never sent.
                    self._submitter.drop(intent, error.message)
                    continue
                if (
                    self._submitter.is_paused() is False or self._submitter.is_hard()
                ) and self._still_unknown(unfinished):
                    self._replacer.cancel(intent, error.message)
                return
            self._submitter.send(intent, signed)
            return

    def _may_resend(self, intent: Intent) -> bool:
        """True if the kill switch permits a resend; at hard it permits only cancels and
        revocations.
        """
        try:
            self._submitter.require_running(self._journal.grant(intent.id))
        except Refused:
            return False
        return True

    def _below_base_fee(self, intent: Intent) -> bool:
        """True if its fee is below the base fee, so the same bytes would stay pending."""
        base_fee_wei = self._sender.head().base_fee_wei
        return base_fee_wei is not None and intent.tx.most_price_wei < base_fee_wei

    def _still_unknown(self, unfinished: list[Intent]) -> bool:
        """True if no node knows a transaction at the nonce: a simulation also fails for one mined
        just now.
        """
        return all(
            self._sender.status_of(str(intent.tx_hash)).state == "unknown" for intent in unfinished
        )

    def _cancel_expired(self, nonce: int) -> None:
        """Cancel a pending transaction past its deadline, because it would only burn gas."""
        in_flight = self._submitter.in_flight(nonce)
        if not in_flight or any(intent.kind is IntentKind.CANCEL for intent in in_flight):
            return
        now_s, deadline_s = self._sender.head().timestamp_s, in_flight[0].deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            why = f"still pending at chain time {now_s}, after its deadline {deadline_s}"
            self._replacer.cancel(in_flight[0], why)
            self._follow(nonce, may_send=True)

    def _foreign(self, nonce: int, latest: int) -> OperatorNeeded:
        known = [
            str(intent.tx_hash)
            for intent in self._journal.intents_at(nonce)
            if intent.tx_hash is not None
        ]
        hashes = "this store has no sent transaction at that nonce"
        if known:
            hashes = f"none of ours is in a block: {', '.join(dict.fromkeys(known))}"
        return OperatorNeeded(
            f"nonce {nonce} of {self._submitter.signer.address} was used by a transaction that is"
            f" not in this store{self._conflicting_hash(nonce)} (the chain's next is {latest};"
            f" {hashes})",
            "another program uses this wallet, or this store is a restored copy: stop the other"
            " sender, check the balances, then run trimtab adopt",
            code=ErrorCode.FOREIGN_NONCE,
        )

    def _conflicting_hash(self, nonce: int) -> str:
        """Return ": " and the hash of the transaction at that nonce, "" if no endpoint
        knows one.
        """
        if not isinstance(self._sender, ConflictingTransactionFinder):
            return ""
        try:
            tx_hash = self._sender.conflicting_tx(self._submitter.signer.address, nonce)
        except TrimtabError:
            return ""
        return "" if tx_hash is None else f": {tx_hash}"
