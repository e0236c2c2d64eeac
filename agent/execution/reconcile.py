"""Reconcile open transactions with the chain: finish, resend the same bytes, replace, or cancel;
detect reorgs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.chain.sender import NonceUsed, SendRefused
from agent.errors import ErrorCode, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution.submitter import SubmissionEvent, Submitter, guard_refusal
from agent.model import Head, Intent, IntentEvent, IntentKind, IntentState, UnsignedTx
from agent.ports import ConflictingTransactionFinder, Grant
from agent.signing.base import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.store.journal import family
from agent.store.transitions import ENDED_IN_BLOCK, OPEN
from agent.venues.composer import GasFees, bump_fees

# --- Detection of final transactions that a reorg removed from the chain after their confirmations.


REORG_WATCH_BLOCKS = 64
"""Largest depth, its own block counted, at which a transaction is resent or cancelled after a
reorg. Below, an operator decides."""
_MOST = 256
"""Number of ended transactions checked: more than one wallet sends in that many blocks."""


class ReorgHandler:
    """Compares the blocks of ended transactions with the chain; remembers how far they were checked
    while the process runs.
    """

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._anchor: Head | None = None

    def run(self) -> None:
        """Move transactions whose block changed or vanished back to MINED or BROADCAST, oldest
        first; send nothing.

        Raises OperatorNeeded if even a transaction deeper than WATCHED_BLOCKS is gone.
        """
        ended = self._submitter.journal.ended_in_block(_MOST)
        unchecked = self._unchecked(ended)
        if not unchecked:
            return
        head = self._submitter.sender.head()
        gone: list[Intent] = []
        sure = True
        for intent in unchecked:
            depth = head.number - _block(intent)[0] + 1
            stands = self._canonical(intent)
            sure = sure and stands is not None
            if stands is False:
                if depth > REORG_WATCH_BLOCKS:
                    raise self._too_deep(intent, depth)
                gone.append(intent)
            elif (
                depth > REORG_WATCH_BLOCKS
            ):  # deeper blocks are ancestors of a block that is still there
                break
        for intent in reversed(gone):
            self._move_back(intent)
        self._anchor = head if sure and not gone else None

    def require_possible(self, nonce: int) -> None:
        """Raise OperatorNeeded if the chain has passed the block that our transaction at `nonce`
        was final in, and has another there.

        Otherwise a chain whose next nonce is behind ours may be an endpoint that lags.
        """
        head = self._submitter.sender.head()
        for intent in self._submitter.journal.ended_in_block(_MOST):
            depth = head.number - _block(intent)[0] + 1
            if (
                intent.tx.nonce == nonce
                and depth > REORG_WATCH_BLOCKS
                and self._canonical(intent) is False
            ):
                raise self._too_deep(intent, depth)

    def _unchecked(self, ended: Sequence[Intent]) -> Sequence[Intent]:
        """Return transactions not yet found in the present chain by an earlier check, newest
        first.
        """
        anchor = self._anchor
        if (
            not ended
            or anchor is None
            or self._submitter.sender.block_hash(anchor.number) != anchor.hash
        ):
            return ended
        return [intent for intent in ended if _block(intent)[0] > anchor.number]

    def _canonical(self, intent: Intent) -> bool | None:
        """True if its block is part of the chain; None if no endpoint has a block at its height,
        since it may lag.
        """
        number, block_hash = _block(intent)
        found = self._submitter.sender.block_hash(number)
        return None if found is None else found == block_hash

    def _move_back(self, intent: Intent) -> None:
        seen = self._submitter.sender.status_of(str(intent.tx_hash))
        if seen.receipt is None:
            self._submitter.move(
                intent,
                IntentState.BROADCAST,
                "its block is not in the chain any more",
                event=IntentEvent.UNMINE,
            )
        elif seen.receipt != intent.receipt:
            self._submitter.move(
                intent, IntentState.MINED, "moved to another block", receipt=seen.receipt
            )

    def _too_deep(self, intent: Intent, depth: int) -> OperatorNeeded:
        number, block_hash = _block(intent)
        return OperatorNeeded(
            f"transaction {intent.tx_hash} ({intent.note}) was {intent.state.value} in block"
            f" {number} ({block_hash}), {depth} deep, and the chain has another block there: a"
            f" reorg of more than {REORG_WATCH_BLOCKS} blocks, or another chain",
            "check the endpoints and the balances; to continue from the present chain: trimtab"
            " adopt",
            code=ErrorCode.DEEP_REORG,
        )


def _block(intent: Intent) -> tuple[int, str]:
    if intent.receipt is None:
        raise OperatorNeeded(
            f"store: transaction {intent.tx_hash} ended in a block but has no receipt",
            "restore a backup of the store",
            code=ErrorCode.RECEIPT,
        )
    return intent.receipt.block_number, intent.receipt.block_hash


# --- Replacement of transactions that stay pending too long: a higher fee, or a cancel (T7). A bump
# is judged like a first send.


MAX_GAS_MULTIPLE = 4
"""Largest multiple of the initial gas cost that a transaction may cost after all bumps, cancels
included.
"""
RESERVED_BUMPS = 2
"""Steps of 12.5 % below the ceiling that bumps leave free for a cancel and a bump of it."""
_MIN_GAS = 21_000


class TxReplacer:
    """Decides on replacement transactions and sends them."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._journal = submitter.journal

    def while_waiting(self, nonce: int) -> Callable[[float], None]:
        """Callback for each poll of `nonce`, with the seconds waited so far: every `bump_after_s`
        it bumps or cancels.

        A refusal to send is reported as an event; the waiting continues.
        """
        after_s = self._submitter.settings.bump_after_s
        tried_s: float | None = None

        def look_after(waited_s: float) -> None:
            nonlocal tried_s
            newest = None if after_s is None else self._newest(nonce)
            if after_s is None or newest is None:
                return
            age_s = (
                self._submitter.clock.now_s() - newest.created_s
            )  # initially: time that an earlier process left has passed since
            if (max(waited_s, age_s) if tried_s is None else waited_s - tried_s) < after_s:
                return
            tried_s = waited_s
            try:
                self.bump_or_cancel(nonce)
            except (Refused, Retryable) as error:
                self._submitter.tell(
                    SubmissionEvent("waiting", newest, f"nonce {nonce} waits on: {error.message}")
                )

        return look_after

    def bump_or_cancel(self, nonce: int) -> None:
        """Replace the pending transaction at `nonce` at a higher fee, else cancel it. Does nothing
        if it is in a block.

        Raises Refused if neither may be sent now (kill switch, caps on gas money), OperatorNeeded
        if a cancel fails.
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
            if (
                self._submitter.find_mined(nonce) is None
            ):  # a rehearsal also fails because it was mined a moment ago
                self.cancel(newest, error.message)

    def cancel(self, waiting: Intent, why: str) -> None:
        """Cancel by a transfer of zero to ourselves at the same nonce and a higher fee; replace a
        cancel by a dearer one.

        Raises Refused above the ceiling or the caps on gas money, OperatorNeeded if the chain
        refuses it.
        """
        submitter, settings = self._submitter, self._submitter.settings
        tx = cancel_transaction(
            waiting.tx, submitter.signer.address, submitter.sender.head(), settings.max_fee_wei
        )
        simulation = submitter.sender.simulate(tx, submitter.signer.address)
        if not simulation.ok:
            raise OperatorNeeded(
                f"{waiting.note} ({waiting.tx_hash}) cannot be sent again ({why}) nor cancelled:"
                f" {simulation.reason}",
                "send the wallet native coin for gas, then run the command again",
                code=ErrorCode.CANNOT_CANCEL,
            )
        tx = replace(tx, gas=max(_MIN_GAS, simulation.gas * 6 // 5))
        now_s, ceiling_wei = simulation.head.timestamp_s, settings.max_fee_wei
        # a cancel that the initial gas budget cannot pay for may cost up to the owner's ceiling
        most_wei = max(
            MAX_GAS_MULTIPLE * self._first_gas_wei(waiting),
            0 if ceiling_wei is None else tx.gas * ceiling_wei,
        )
        self._require_gas_money(tx, waiting, most_wei, now_s)
        grant = _cancel_grant(
            now_s, max(self._journal.grant(waiting.id).deadline_s, now_s), most_wei
        )
        note = (
            waiting.note
            if waiting.kind is IntentKind.CANCEL
            else f"cancel of {waiting.note}: {why}"
        )
        self._launch(waiting, IntentKind.CANCEL, tx, grant, note, None)

    def _bump(self, waiting: Intent) -> None:
        """Send the same payload at a higher fee. Raises Refused with the reason it may not be
        sent.
        """
        granted = self._journal.grant(waiting.id)
        self._submitter.require_running(granted)
        head = self._submitter.sender.head()
        most_wei = MAX_GAS_MULTIPLE * self._first_gas_wei(waiting)
        tx = with_bumped_fees(
            waiting.tx,
            head,
            _bump_ceiling_wei(self._submitter.settings.max_fee_wei),
            most_wei // waiting.tx.gas,
        )
        simulation = self._submitter.simulate(tx, waiting.deadline_s, granted)
        now_s = simulation.head.timestamp_s
        self._require_gas_money(tx, waiting, most_wei, now_s)
        grant = replace(granted, now_s=now_s, max_gas_wei=_worst_wei(tx))
        self._launch(waiting, waiting.kind, tx, grant, waiting.note, waiting.deadline_s)

    def _launch(
        self,
        waiting: Intent,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        deadline_s: int | None,
    ) -> None:
        """Record it in place of `waiting`, and send it. A nonce used meanwhile is found by the next
        poll.
        """
        submitter = self._submitter
        for intent in self._journal.intents_at(tx.nonce):
            if intent.state in (
                IntentState.PLANNED,
                IntentState.SIGNED,
            ):  # left by a process that ended before sending
                submitter.drop(intent, "another one of its nonce is pending")
        intent = submitter.plan(
            waiting.step_id, kind, tx, grant, note, deadline_s, replaces=waiting.id
        )
        try:
            submitter.launch(intent, grant, deadline_s)
        except (NonceUsed, SendRefused) as error:
            submitter.tell(SubmissionEvent("not-taken", intent, error.message))

    def _newest(self, nonce: int) -> Intent | None:
        """Return the newest sent intent at `nonce`; None if there is none, or one is mined."""
        flying = self._submitter.in_flight(nonce)
        return (
            flying[0]
            if flying and all(intent.state is IntentState.BROADCAST for intent in flying)
            else None
        )

    def _first_gas_wei(self, waiting: Intent) -> int:
        """Return the gas granted to the first transaction of this chain of replacements."""
        place = {
            intent.id: intent.replaces for intent in self._journal.intents_at(waiting.tx.nonce)
        }
        first = waiting.id
        while (older := place.get(first)) is not None:
            first = older
        return self._journal.grant(first).max_gas_wei

    def _require_gas_money(
        self, tx: UnsignedTx, waiting: Intent, most_wei: int, now_s: int
    ) -> None:
        """Enforce the caps on gas money, per transaction and per day of chain time. One per nonce
        is mined, so only the dearest counts.
        """
        worst_wei, day_wei = _worst_wei(tx), self._submitter.settings.gas_per_day_wei
        if worst_wei > most_wei:
            raise guard_refusal(
                "gas_cost",
                f"{worst_wei} wei",
                f"{most_wei} wei",
                "a resend would exceed the gas allowed for one transaction",
                "wait",
            )
        if day_wei is None or worst_wei <= max(
            _worst_wei(intent.tx) for intent in self._submitter.in_flight(waiting.tx.nonce)
        ):
            return
        unbooked_wei = sum(
            intent.receipt.gas_cost_wei
            for intent in self._journal.unbooked()
            if intent.receipt is not None
        )
        total_wei = self._submitter.budgets.history(now_s).gas_24h_wei + unbooked_wei + worst_wei
        if total_wei > day_wei:
            message = "a resend could exceed limits.gas_per_day"
            raise guard_refusal(
                "gas_per_day",
                f"{total_wei} wei",
                f"{day_wei} wei",
                message,
                "wait, or raise limits.gas_per_day",
            )


def with_bumped_fees(
    paid: UnsignedTx, head: Head, limit_wei: int | None, aim_wei: int | None = None
) -> UnsignedTx:
    """Return the transaction with every fee at least 12.5 % higher, enough for six full blocks from
    `head` if limit and aim allow.

    Raises Refused above `limit_wei` per gas, or if that is below the base fee.
    """
    more = bump_fees(
        GasFees(paid.max_fee_wei, paid.max_priority_fee_wei, paid.gas_price_wei), limit_wei=None
    )
    if more.max_fee_wei is not None and head.base_fee_wei is not None:
        enough = 2 * head.base_fee_wei + (more.max_priority_fee_wei or 0)
        enough = min(enough, *(wei for wei in (limit_wei, aim_wei) if wei is not None), enough)
        more = replace(more, max_fee_wei=max(more.max_fee_wei, enough))
    if limit_wei is not None and max(more.most_wei, head.base_fee_wei or 0) > limit_wei:
        raise guard_refusal(
            "gas_price",
            f"{max(more.most_wei, head.base_fee_wei or 0)} wei",
            f"{limit_wei} wei",
            "its replacement must pay more than the limit",
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
    """Return a transfer of zero to ourselves at the nonce of `original`: every fee at least 12.5 %
    higher, and enough for now.

    Raises Refused above `limit_wei` per gas. `gas` is 0: still to be estimated.
    """
    return replace(
        with_bumped_fees(original, head, limit_wei), to=wallet, value_wei=0, data="0x", gas=0
    )


def _bump_ceiling_wei(ceiling_wei: int | None) -> int | None:
    """Return the fee ceiling of bumps: below the owner's ceiling by the cost of a cancel and a bump
    of it.
    """
    return (
        None
        if ceiling_wei is None
        else ceiling_wei * BUMP_DENOMINATOR**RESERVED_BUMPS // BUMP_NUMERATOR**RESERVED_BUMPS
    )


def _cancel_grant(now_s: int, deadline_s: int, most_wei: int) -> Grant:
    return Grant(IntentKind.CANCEL, now_s, deadline_s, most_wei)


def _worst_wei(tx: UnsignedTx) -> int:
    """Largest possible cost of the transaction, wei."""
    return tx.gas * GasFees(tx.max_fee_wei, tx.max_priority_fee_wei, tx.gas_price_wei).most_wei


_NONCE_CHECKS = 3
"""Checks of a used nonce without a known hash before it counts as foreign: endpoints behind one
address lag."""


class Reconciler:
    """Resolves nonces one by one, oldest first: a nonce is done only once one known hash is
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
        open_before = self._journal.open_intents()
        for intent in open_before:
            if intent.state is IntentState.PLANNED:
                self._submitter.drop(intent, "the process ended before signing")
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._resolve(nonce, may_send)
        if not self._submitter.unfinished():
            self.require_known_nonce()
        return [self._now(intent) for intent in open_before]

    def cancel_pending(self, why: str) -> list[Intent]:
        """Drop unsent intents and cancel pending ones; return them in their new state. For a kill
        switch at hard, which is read again before each cancel is sent.
        """
        open_before = self._journal.open_intents()
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._give_up(nonce, why)
        self.run(may_send=True)
        return [self._now(intent) for intent in open_before]

    def _give_up(self, nonce: int, why: str) -> None:
        alive = [
            i
            for i in self._journal.intents_at(nonce)
            if i.state in (IntentState.SIGNED, IntentState.BROADCAST)
        ]
        if not alive or self._look(alive, nonce) == "mined":
            return
        for intent in self._journal.intents_at(nonce):
            if intent.state is IntentState.SIGNED:
                self._submitter.drop(intent, why)
        flying = self._submitter.in_flight(nonce)
        if flying and not any(intent.kind is IntentKind.CANCEL for intent in flying):
            self._replacer.cancel(flying[0], why)

    def require_known_nonce(self) -> int:
        """Return the chain's next nonce if it is the one the journal expects; on first use adopt
        the chain's. Raises OperatorNeeded if another sender used the wallet, Retryable if the
        endpoint is behind the journal.
        """
        latest, pending = self._nonces()
        expected = self._journal.expected_nonce()
        if expected is not None and latest < expected:  # pending transactions may be ours
            self._rewinder.require_possible(expected - 1)
            raise Retryable(
                f"the endpoint's next nonce is {latest}, the journal's {expected}: it lags behind"
                f" our transaction of nonce {expected - 1}, or the chain was restarted",
                "try again; a restarted local chain needs a new file in store.url, one that dropped"
                " blocks: trimtab adopt",
                code=ErrorCode.LAG,
            )
        if pending > latest:
            raise OperatorNeeded(
                f"nonce {latest} of {self._submitter.signer.address} carries a pending transaction"
                f" that this store does not know{self._named(latest)}",
                "something else uses this wallet, or this is a restored store: stop the other"
                " sender, wait until it is mined, then trimtab adopt",
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
        operator's word.

        Raises Retryable while any transaction of the wallet may still be mined.
        """
        latest, pending = self._nonces()
        if pending > latest:
            raise Retryable(
                f"a transaction at nonce {latest} is pending",
                "wait until it is mined, then trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        unfinished = [
            intent
            for intent in self._journal.open_intents()
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
                    "run the command that resolves it first, then adopt",
                    code=ErrorCode.OPEN_TRANSACTION,
                )
        self._journal.set_expected_nonce(
            latest, self._submitter.clock.now_s()
        )  # first, since only then may a stranger's have won
        for intent in unfinished:
            if intent.state is IntentState.BROADCAST:
                self._submitter.move(
                    intent,
                    IntentState.REPLACED,
                    "a foreign transaction took the nonce; adopted by the operator",
                )
            else:
                self._submitter.drop(
                    intent, "a foreign transaction took the nonce; adopted by the operator"
                )
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
                "what took its nonce lost its block",
                event=IntentEvent.REOPEN,
            )
        group = self._journal.intents_at(nonce)
        winners = [end for end in group if end.state in ENDED_IN_BLOCK]
        decided = next(
            (
                end
                for end in winners
                if any(intent.state in OPEN for intent in family(group, end.id))
            ),
            None,
        )
        if decided is not None:  # killed between ending the winner and the others
            self._submitter.close(decided)
            return
        alive = [
            intent
            for intent in group
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)
        ]
        if not alive:
            return
        seen = self._look(alive, nonce)
        if seen == "unknown":
            if may_send and self._may_leave(alive[-1]):
                self._bring_back(alive)
                if self._submitter.in_flight(nonce):
                    self._follow(nonce, may_send)
        elif (
            not self._follow(nonce, may_send) and may_send and self._submitter.is_paused() is False
        ):
            self._cancel_late(nonce)

    def _look(self, alive: list[Intent], nonce: int) -> str:
        """State of the best known transaction at `nonce`; a hash seen on the chain counts as
        broadcast from then on.
        """
        latest = 0
        for attempt in range(_NONCE_CHECKS):
            if attempt:
                self._submitter.clock.sleep(self._submitter.settings.poll_s)
            latest, _ = self._nonces()
            states = {
                intent.id: self._sender.status_of(str(intent.tx_hash)).state for intent in alive
            }
            for intent in alive:
                if (
                    states[intent.id] != "unknown" and intent.state is IntentState.SIGNED
                ):  # sent by a copy of this store
                    self._submitter.move(intent, IntentState.BROADCAST, "found on the chain")
            if any(state != "unknown" for state in states.values()):
                return "mined" if "mined" in states.values() else "pending"
            if any(intent.state is IntentState.MINED for intent in alive):
                return "mined"
            if latest <= nonce:
                break
        if latest > nonce:
            raise self._foreign(nonce, latest)
        if latest < nonce:
            raise Retryable(
                f"the endpoint's next nonce is {latest}, a transaction of ours has {nonce}: it lags"
                " behind",
                "try again",
                code=ErrorCode.LAG,
            )
        return "unknown"

    def _follow(self, nonce: int, may_send: bool) -> bool:
        """Wait for a block and its confirmations; False if nothing was mined in time or a reorg
        undid it.
        """
        waiting = [self._replacer.while_waiting(nonce)] if may_send else []
        mined = self._submitter.await_mined(nonce, *waiting)
        return (
            mined is not None
            and self._submitter.await_final(mined).state is not IntentState.BROADCAST
        )

    def _bring_back(self, alive: list[Intent]) -> None:
        """Resend or cancel a transaction that no node knows: unchanged, at a higher fee, or as a
        cancel.
        """
        for intent in reversed(alive):
            if intent.state is IntentState.BROADCAST and self._too_cheap(intent):
                self._replacer.bump_or_cancel(intent.tx.nonce)
                return
            try:
                simulation = self._submitter.simulate(
                    intent.tx, intent.deadline_s, self._journal.grant(intent.id)
                )
                signed = self._submitter.sign_again(intent, simulation.head.timestamp_s)
                self._submitter.require_running(self._journal.grant(intent.id))
            except Refused as error:
                if (
                    intent.state is IntentState.SIGNED
                ):  # BROADCAST is written before bytes leave: these never left
                    self._submitter.drop(intent, error.message)
                    continue
                if (
                    self._submitter.is_paused() is False or self._submitter.is_hard()
                ) and self._still_unknown(alive):
                    self._replacer.cancel(intent, error.message)
                return
            self._submitter.send(intent, signed)
            return

    def _may_leave(self, intent: Intent) -> bool:
        """True if the kill switch lets its bytes be sent now: at hard a lost cancel is sent
        again.
        """
        try:
            self._submitter.require_running(self._journal.grant(intent.id))
        except Refused:
            return False
        return True

    def _too_cheap(self, intent: Intent) -> bool:
        """True if its fee is below the present base fee: the same bytes would only stay pending."""
        base_fee_wei = self._sender.head().base_fee_wei
        fees = GasFees(
            intent.tx.max_fee_wei, intent.tx.max_priority_fee_wei, intent.tx.gas_price_wei
        )
        return base_fee_wei is not None and fees.most_wei < base_fee_wei

    def _still_unknown(self, alive: list[Intent]) -> bool:
        """True if no node knows it yet: a simulation also fails for a transaction mined just
        now.
        """
        return all(
            self._sender.status_of(str(intent.tx_hash)).state == "unknown" for intent in alive
        )

    def _cancel_late(self, nonce: int) -> None:
        """Cancel a pending transaction past its deadline: it would only burn gas."""
        flying = self._submitter.in_flight(nonce)
        if not flying or any(intent.kind is IntentKind.CANCEL for intent in flying):
            return
        now_s, deadline_s = self._sender.head().timestamp_s, flying[0].deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            self._replacer.cancel(
                flying[0], f"still pending at chain time {now_s}, after its deadline {deadline_s}"
            )
            self._follow(nonce, may_send=True)

    def _foreign(self, nonce: int, latest: int) -> OperatorNeeded:
        known = [
            str(intent.tx_hash)
            for intent in self._journal.intents_at(nonce)
            if intent.tx_hash is not None
        ]
        hashes = (
            f"none of ours is in a block: {', '.join(dict.fromkeys(known))}"
            if known
            else "this store sent nothing there"
        )
        return OperatorNeeded(
            f"nonce {nonce} of {self._submitter.signer.address} was used by a transaction that this"
            f" store does not know{self._named(nonce)} (the chain's next is {latest}; {hashes})",
            "something else uses this wallet, or this store is a restored copy: stop the other"
            " sender, check the balances, then trimtab adopt",
            code=ErrorCode.FOREIGN_NONCE,
        )

    def _named(self, nonce: int) -> str:
        """Hash of the transaction that has the nonce, after a colon; empty if no endpoint knows
        it.
        """
        if not isinstance(self._sender, ConflictingTransactionFinder):
            return ""
        try:
            found = self._sender.conflicting_tx(self._submitter.signer.address, nonce)
        except TrimtabError:
            return ""
        return "" if found is None else f": {found}"
