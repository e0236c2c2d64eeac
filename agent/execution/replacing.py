"""Brings what waits too long to an end: the same once more for a higher fee, or its nonce taken back (T7).

A bump is judged like a first send: kill switch, deadline, a fresh simulation at the head, caps on gas money. Where it may not
be, a cancel takes the nonce: a transfer of nothing to ourselves, which may be bumped in its turn. Both are intents of their
own, written down with their hash before they leave; whichever of all known hashes gets into a block has the nonce.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.chain.fees import Fees, bumped
from agent.chain.judging import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.chain.sender import NonceUsed, SendRefused
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution.carrier import Carrier, refusal
from agent.execution.settings import Event
from agent.model import Head, Intent, IntentKind, IntentState, UnsignedTx
from agent.ports import Grant

GAS_FOLD = 4
"""How many times its first gas money one transaction may cost after all bumps, cancels included."""
RESERVED_STEPS = 2
"""Steps of 12.5 % below the ceiling that bumps leave free, so that a cancel, and a bump of it, can still be paid."""
_MIN_GAS = 21_000


class Replacer:
    """Decides and sends replacements through a carrier."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._journal = carrier.journal

    def while_waiting(self, nonce: int) -> Callable[[float], None]:
        """For each look while `nonce` is waited for, with the seconds waited so far: every `bump_after_s` it is hurried.

        What may not be sent now is told as an event; the waiting goes on.
        """
        after_s = self._carrier.settings.bump_after_s
        tried_s: float | None = None

        def look_after(waited_s: float) -> None:
            nonlocal tried_s
            newest = None if after_s is None else self._newest(nonce)
            if after_s is None or newest is None:
                return
            age_s = self._carrier.clock.now_s() - newest.created_s  # at first: what an earlier process left waits since then
            if (max(waited_s, age_s) if tried_s is None else waited_s - tried_s) < after_s:
                return
            tried_s = waited_s
            try:
                self.hurry(nonce)
            except (Refused, Retryable) as error:
                self._carrier.tell(Event("waiting", newest, f"nonce {nonce} waits on: {error.message}"))

        return look_after

    def hurry(self, nonce: int) -> None:
        """Sends what waits at `nonce` again for more; where that may not be, cancels it. Nothing, when it is in a block already.

        Raises Refused where neither may be sent now (kill switch, caps on gas money), OperatorNeeded where a cancel fails.
        """
        newest = self._newest(nonce)
        if newest is None:
            return
        self._carrier.require_running(_cancel_grant(0, 0, 0))
        if newest.kind is IntentKind.CANCEL:
            self.cancel(newest, "")
            return
        try:
            self._bump(newest)
        except Refused as error:
            if self._carrier.find_mined(nonce) is None:  # a rehearsal also fails because it was mined a moment ago
                self.cancel(newest, error.message)

    def cancel(self, waiting: Intent, why: str) -> None:
        """Takes the nonce back by a transfer of nothing to ourselves that pays more; of a cancel, a dearer one.

        Raises Refused above the ceiling or the caps on gas money, OperatorNeeded when the chain refuses it.
        """
        carrier, settings = self._carrier, self._carrier.settings
        tx = cancelling(waiting.tx, carrier.signer.address, carrier.sender.head(), settings.max_fee_wei)
        simulation = carrier.sender.simulate(tx, carrier.signer.address)
        if not simulation.ok:
            raise OperatorNeeded(
                f"{waiting.note} ({waiting.tx_hash}) cannot be sent again ({why}) nor cancelled: {simulation.reason}",
                "send the wallet native coin for gas, then run the command again",
            )
        tx = replace(tx, gas=max(_MIN_GAS, simulation.gas * 6 // 5))
        now_s, ceiling_wei = simulation.head.timestamp_s, settings.max_fee_wei
        # a cancel that the first gas money cannot pay for may cost what the owner's ceiling allows
        most_wei = max(GAS_FOLD * self._first_gas_wei(waiting), 0 if ceiling_wei is None else tx.gas * ceiling_wei)
        self._require_gas_money(tx, waiting, most_wei, now_s)
        grant = _cancel_grant(now_s, max(self._journal.grant(waiting.id).deadline_s, now_s), most_wei)
        note = waiting.note if waiting.kind is IntentKind.CANCEL else f"cancel of {waiting.note}: {why}"
        self._launch(waiting, IntentKind.CANCEL, tx, grant, note, None)

    def _bump(self, waiting: Intent) -> None:
        """The same payload for a higher fee. Raises Refused naming what stands against it."""
        granted = self._journal.grant(waiting.id)
        self._carrier.require_running(granted)
        head = self._carrier.sender.head()
        most_wei = GAS_FOLD * self._first_gas_wei(waiting)
        tx = dearer(waiting.tx, head, _room(self._carrier.settings.max_fee_wei), most_wei // waiting.tx.gas)
        simulation = self._carrier.rehearse(tx, waiting.deadline_s, granted)
        now_s = simulation.head.timestamp_s
        self._require_gas_money(tx, waiting, most_wei, now_s)
        grant = replace(granted, now_s=now_s, max_gas_wei=_worst_wei(tx))
        self._launch(waiting, waiting.kind, tx, grant, waiting.note, waiting.deadline_s)

    def _launch(self, waiting: Intent, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str, deadline_s: int | None) -> None:
        """Writes it down in the place of `waiting`, and sends it. That the nonce is used by now is for the next look to find."""
        carrier = self._carrier
        for intent in self._journal.intents_at(tx.nonce):
            if intent.state in (IntentState.PLANNED, IntentState.SIGNED):  # left by a process that ended before it could send
                carrier.drop(intent, "another of its nonce waits")
        intent = carrier.plan(waiting.step_id, kind, tx, grant, note, deadline_s, replaces=waiting.id)
        try:
            carrier.launch(intent, grant, deadline_s)
        except (NonceUsed, SendRefused) as error:
            carrier.tell(Event("not-taken", intent, error.message))

    def _newest(self, nonce: int) -> Intent | None:
        """The newest at `nonce` whose bytes are out; None when there is none, or one is in a block."""
        flying = self._carrier.flying(nonce)
        return flying[0] if flying and all(intent.state is IntentState.BROADCAST for intent in flying) else None

    def _first_gas_wei(self, waiting: Intent) -> int:
        """Gas money that the first of those that replace one another was granted."""
        place = {intent.id: intent.replaces for intent in self._journal.intents_at(waiting.tx.nonce)}
        first = waiting.id
        while (older := place.get(first)) is not None:
            first = older
        return self._journal.grant(first).max_gas_wei

    def _require_gas_money(self, tx: UnsignedTx, waiting: Intent, most_wei: int, now_s: int) -> None:
        """Caps on gas money, for this transaction and for the day of chain time. One of a nonce is mined: what is at stake counts once."""
        worst_wei, day_wei = _worst_wei(tx), self._carrier.settings.gas_per_day_wei
        if worst_wei > most_wei:
            raise refusal("gas_cost", f"{worst_wei} wei", f"{most_wei} wei", "sent again it would cost more gas money than one may", "wait")
        if day_wei is None or worst_wei <= max(_worst_wei(intent.tx) for intent in self._carrier.flying(waiting.tx.nonce)):
            return
        unbooked_wei = sum(intent.receipt.gas_cost_wei for intent in self._journal.unbooked() if intent.receipt is not None)
        total_wei = self._journal.history(now_s).gas_24h_wei + unbooked_wei + worst_wei
        if total_wei > day_wei:
            message = "sent again it could burn more gas money than a day may"
            raise refusal("gas_per_day", f"{total_wei} wei", f"{day_wei} wei", message, "wait, or raise limits.gas_per_day")


def dearer(paid: UnsignedTx, head: Head, limit_wei: int | None, aim_wei: int | None = None) -> UnsignedTx:
    """The same with every fee at least 12.5 % more, and enough for six full blocks from `head` where limit and aim allow.

    Raises Refused above `limit_wei` per gas, or where that is below the base fee.
    """
    more = bumped(Fees(paid.max_fee_wei, paid.max_priority_fee_wei, paid.gas_price_wei), limit_wei=None)
    if more.max_fee_wei is not None and head.base_fee_wei is not None:
        enough = 2 * head.base_fee_wei + (more.max_priority_fee_wei or 0)
        enough = min(enough, *(wei for wei in (limit_wei, aim_wei) if wei is not None), enough)
        more = replace(more, max_fee_wei=max(more.max_fee_wei, enough))
    if limit_wei is not None and max(more.most_wei, head.base_fee_wei or 0) > limit_wei:
        raise refusal(
            "gas_price",
            f"{max(more.most_wei, head.base_fee_wei or 0)} wei",
            f"{limit_wei} wei",
            "what replaces it must pay more than the limit",
            "raise limits.gas_price, or wait",
        )
    return replace(paid, max_fee_wei=more.max_fee_wei, max_priority_fee_wei=more.max_priority_fee_wei, gas_price_wei=more.gas_price_wei)


def cancelling(original: UnsignedTx, wallet: str, head: Head, limit_wei: int | None) -> UnsignedTx:
    """A transfer of nothing to ourselves at the nonce of `original`: every fee at least 12.5 % more, and enough for now.

    Raises Refused above `limit_wei` per gas. `gas` is 0: still to be estimated.
    """
    return replace(dearer(original, head, limit_wei), to=wallet, value_wei=0, data="0x", gas=0)


def _room(ceiling_wei: int | None) -> int | None:
    """The ceiling of bumps: so far below the owner's that a cancel, and a bump of it, still fit."""
    return None if ceiling_wei is None else ceiling_wei * BUMP_DENOMINATOR**RESERVED_STEPS // BUMP_NUMERATOR**RESERVED_STEPS


def _cancel_grant(now_s: int, deadline_s: int, most_wei: int) -> Grant:
    return Grant(IntentKind.CANCEL, now_s, deadline_s, most_wei)


def _worst_wei(tx: UnsignedTx) -> int:
    """The most that it can cost."""
    return tx.gas * Fees(tx.max_fee_wei, tx.max_priority_fee_wei, tx.gas_price_wei).most_wei
