"""Replacement of transactions that stay pending too long: a higher fee, or a cancel (T7). Bumps pass
the same checks as a first send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from agent.chain.sender import NonceUsed, SendRefused, TipRefused
from agent.errors import ErrorCode, NotAccepted, PassingFault, Refused, Retryable
from agent.execution.submission.checks import guard_refusal
from agent.execution.submission.events import SubmissionEvent
from agent.execution.submission.submitter import Submitter
from agent.model import Head, Intent, IntentKind, IntentState, UnsignedTx
from agent.ports import Grant
from agent.signing.terms import GAS_PRICE_KEY, gas_keys
from agent.venues.gas_fees import MAX_GAS_MULTIPLE, cancellable_fee_wei, replacement_fees

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
        return self._launch(pending_intent, tx, grant, note, None)

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
            tx,
            grant,
            pending_intent.note,
            pending_intent.deadline_s,
        )

    def _launch(
        self,
        pending_intent: Intent,
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
            pending_intent.step_id, tx, grant, note, deadline_s, replaces=pending_intent.id
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
    of this transaction, else 0. A demanded gas price counts as none: unlike a tip it has no cap.
    """
    if ceiling_wei is not None:
        return ceiling_wei
    if pending_tx.gas_price_wei is None and pending_tx.tip_wei < min_tip_wei:
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
