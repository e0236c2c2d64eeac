"""Resolves what an earlier run left open: looks at the chain, and finishes, resends the same bytes, or cancels."""

from __future__ import annotations

from dataclasses import replace

from agent.chain.fees import Fees, bumped
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution.carrier import Carrier, refusal
from agent.model import Head, Intent, IntentKind, IntentState, UnsignedTx
from agent.ports import Grant
from agent.store.transitions import OPEN

_LOOKS = 3
"""Times a used nonce without a known hash is looked at before it counts as foreign: endpoints behind one address lag."""
_MIN_GAS = 21_000
_ENDS = (IntentState.FINAL, IntentState.REVERTED)


class Reconciler:
    """One nonce after the other, oldest first: a nonce is done only when one known hash is final."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._journal = carrier.journal
        self._sender = carrier.sender

    def run(self, *, may_send: bool) -> list[Intent]:
        """Resolves every open intent; returns them as they stand then."""
        open_before = self._journal.open_intents()
        for intent in open_before:
            if intent.state is IntentState.PLANNED:
                self._carrier.drop(intent, "the process ended before it was signed")
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._resolve(nonce, may_send)
        if all(intent.state is IntentState.MINED for intent in self._journal.open_intents()):
            self.require_known_nonce()
        return [self._now(intent) for intent in open_before]

    def abandon(self, why: str) -> list[Intent]:
        """Takes back all that is in no block: drops what never left, takes the nonce of what waits; returns them as they stand then.

        For a kill switch at hard, which is read again before each cancel leaves.
        """
        open_before = self._journal.open_intents()
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._give_up(nonce, why)
        self.run(may_send=False)
        return [self._now(intent) for intent in open_before]

    def _give_up(self, nonce: int, why: str) -> None:
        alive = [i for i in self._journal.intents_at(nonce) if i.state in (IntentState.SIGNED, IntentState.BROADCAST)]
        if not alive or self._look(alive, nonce) == "mined":
            return
        for intent in self._journal.intents_at(nonce):
            if intent.state is IntentState.SIGNED:
                self._carrier.drop(intent, why)
        flying = self._carrier.flying(nonce)
        if flying and not any(intent.kind is IntentKind.CANCEL for intent in flying):
            self._cancel(flying[0], why)

    def require_known_nonce(self) -> int:
        """The chain's next nonce, when it is the one the journal expects; on first use the chain's is adopted.

        Raises OperatorNeeded when something else used the wallet, Retryable when the endpoint is behind the journal.
        """
        latest, pending = self._nonces()
        expected = self._journal.expected_nonce()
        if expected is not None and latest < expected:  # what is pending there may be ours
            raise Retryable(
                f"the endpoint's next nonce is {latest}, the journal's {expected}: it is behind our transaction of nonce {expected - 1}, "
                "or the chain was started anew",
                "try again; a local chain started anew needs a new file in store.url, one that took blocks back: trimtab adopt",
            )
        if pending > latest:
            raise OperatorNeeded(
                f"nonce {latest} of {self._carrier.signer.address} carries a pending transaction that this store does not know",
                "something else uses this wallet, or this is a restored store: stop the other, wait until it is mined, then trimtab adopt",
            )
        if expected is None:
            self._journal.adopt_nonce(latest, self._carrier.clock.now_s())
            return latest
        if latest > expected:
            raise self._foreign(expected, latest)
        return latest

    def adopt(self) -> int:
        """Takes the chain's nonce for ours, and ends what foreign transactions replaced; only on the operator's word.

        Raises Retryable while a transaction of ours, or any at all, may still be mined.
        """
        latest, pending = self._nonces()
        if pending > latest:
            raise Retryable(f"a transaction at nonce {latest} is pending", "wait until it is mined, then trimtab adopt")
        unfinished = [intent for intent in self._journal.open_intents() if intent.state is not IntentState.MINED]
        for intent in unfinished:
            known = intent.tx_hash is not None and self._sender.look(intent.tx_hash).state != "unknown"
            if known or intent.tx.nonce >= latest:
                raise Retryable(f"{intent.note} ({intent.tx_hash}) is open", "run the command that resolves it first, then adopt")
        self._journal.adopt_nonce(latest, self._carrier.clock.now_s())  # first, since only then may a stranger's have won
        for intent in unfinished:
            if intent.state is IntentState.BROADCAST:
                self._carrier.move(intent, IntentState.REPLACED, "a foreign transaction took the nonce; adopted by the operator")
            else:
                self._carrier.drop(intent, "a foreign transaction took the nonce; adopted by the operator")
        return latest

    def _nonces(self) -> tuple[int, int]:
        return self._sender.nonces(self._carrier.signer.address)

    def _now(self, intent: Intent) -> Intent:
        return next(other for other in self._journal.intents_at(intent.tx.nonce) if other.id == intent.id)

    def _resolve(self, nonce: int, may_send: bool) -> None:
        group = self._journal.intents_at(nonce)
        waiting = [intent for intent in group if intent.state in OPEN]
        decided = next((end for end in group if end.state in _ENDS and any(_rivals(end, intent) for intent in waiting)), None)
        if decided is not None:  # killed between ending the winner and the others
            self._carrier.close(decided)
            return
        alive = [intent for intent in group if intent.state in (IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)]
        if not alive:
            return
        seen = self._look(alive, nonce)
        if seen == "unknown":
            if may_send and self._carrier.is_paused() is False:
                self._bring_back(alive)
                self._follow(nonce)
        elif not self._follow(nonce) and may_send and self._carrier.is_paused() is False:
            self._cancel_late(nonce)

    def _look(self, alive: list[Intent], nonce: int) -> str:
        """Where the best known transaction at `nonce` stands; a hash seen on the chain counts as broadcast from then on."""
        latest = 0
        for attempt in range(_LOOKS):
            if attempt:
                self._carrier.clock.sleep(self._carrier.settings.poll_s)
            latest, _ = self._nonces()
            states = {intent.id: self._sender.look(str(intent.tx_hash)).state for intent in alive}
            for intent in alive:
                if states[intent.id] != "unknown" and intent.state is IntentState.SIGNED:  # sent by a copy of this store
                    self._carrier.move(intent, IntentState.BROADCAST, "found on the chain")
            if any(state != "unknown" for state in states.values()):
                return "mined" if "mined" in states.values() else "pending"
            if any(intent.state is IntentState.MINED for intent in alive):
                return "mined"
            if latest <= nonce:
                break
        if latest > nonce:
            raise self._foreign(nonce, latest)
        if latest < nonce:
            raise Retryable(f"the endpoint's next nonce is {latest}, a transaction of ours has {nonce}: it is behind", "try again")
        return "unknown"

    def _follow(self, nonce: int) -> bool:
        """Waits for a block and its confirmations; True unless nothing was mined in time or a reorganisation undid it."""
        mined = self._carrier.await_mined(nonce)
        return mined is not None and self._carrier.await_final(mined).state is not IntentState.BROADCAST

    def _bring_back(self, alive: list[Intent]) -> None:
        """No node knows our transactions at this nonce: the newest goes out again as it was, or is cancelled."""
        for intent in reversed(alive):
            try:
                simulation = self._carrier.rehearse(intent.tx, intent.deadline_s)
                signed = self._carrier.sign_again(intent, simulation.head.timestamp_s)
                self._carrier.require_running()
            except Refused as error:
                if intent.state is IntentState.SIGNED:  # BROADCAST is written before bytes leave: these never did
                    self._carrier.drop(intent, error.message)
                    continue
                if self._carrier.is_paused() is False and self._still_unknown(alive):
                    self._cancel(intent, error.message)
                return
            self._carrier.send(intent, signed)
            return

    def _still_unknown(self, alive: list[Intent]) -> bool:
        """A rehearsal also fails because the transaction was mined a moment ago."""
        return all(self._sender.look(str(intent.tx_hash)).state == "unknown" for intent in alive)

    def _cancel_late(self, nonce: int) -> None:
        """A pending transaction whose deadline is over would only burn gas: its nonce is taken back."""
        flying = self._carrier.flying(nonce)
        if any(intent.kind is IntentKind.CANCEL for intent in flying):
            return
        for intent in flying:
            now_s = self._sender.head().timestamp_s
            if intent.deadline_s is not None and now_s >= intent.deadline_s:
                self._cancel(intent, f"still pending at chain time {now_s}, after its deadline {intent.deadline_s}")
                self._follow(nonce)
                return

    def _cancel(self, original: Intent, why: str) -> None:
        """Takes the nonce back by a transfer of nothing to ourselves that pays more."""
        if original.kind is IntentKind.CANCEL:
            raise OperatorNeeded(f"the cancel {original.tx_hash} at nonce {original.tx.nonce} is lost and cannot be sent again: {why}")
        carrier, granted = self._carrier, self._journal.grant(original.id)
        tx = cancelling(original.tx, carrier.signer.address, self._sender.head(), carrier.settings.max_fee_wei)
        simulation = self._sender.simulate(tx, carrier.signer.address)
        if not simulation.ok:
            raise OperatorNeeded(
                f"{original.note} ({original.tx_hash}) cannot be sent again ({why}) nor cancelled: {simulation.reason}",
                "send the wallet native coin for gas, then run the command again",
            )
        tx = replace(tx, gas=max(_MIN_GAS, simulation.gas * 6 // 5))
        now_s, limit_wei = simulation.head.timestamp_s, carrier.settings.max_fee_wei
        # a cancel that the original's gas money cannot pay for may cost what the owner's ceiling allows
        most_wei = max(granted.max_gas_wei, tx.gas * limit_wei if limit_wei is not None else 0)
        grant = Grant(IntentKind.CANCEL, now_s, max(granted.deadline_s, now_s), most_wei)
        cancel = carrier.plan(original.step_id, IntentKind.CANCEL, tx, grant, f"cancel of {original.note}: {why}", None)
        carrier.launch(cancel, grant, None)

    def _foreign(self, nonce: int, latest: int) -> OperatorNeeded:
        known = [str(intent.tx_hash) for intent in self._journal.intents_at(nonce) if intent.tx_hash is not None]
        hashes = f"none of ours is in a block: {', '.join(known)}" if known else "this store sent nothing there"
        return OperatorNeeded(
            f"nonce {nonce} of {self._carrier.signer.address} was used by a transaction that this store does not know "
            f"(the chain's next is {latest}; {hashes})",
            "something else uses this wallet, or this store is a restored copy: stop the other, check the balances, then trimtab adopt",
        )


def _rivals(one: Intent, other: Intent) -> bool:
    """Whether one is the other's cancel. What a chain took back long ago has the same nonce and decides nothing."""
    return one.id == other.replaces or other.id == one.replaces


def cancelling(original: UnsignedTx, wallet: str, head: Head, limit_wei: int | None) -> UnsignedTx:
    """A transfer of nothing to ourselves at the nonce of `original`: every fee at least 12.5 % more, and enough for now.

    Raises Refused above `limit_wei` per gas. `gas` is 0: still to be estimated.
    """
    more = bumped(Fees(original.max_fee_wei, original.max_priority_fee_wei, original.gas_price_wei), limit_wei=None)
    if more.max_fee_wei is not None and head.base_fee_wei is not None:
        enough = min(2 * head.base_fee_wei + (more.max_priority_fee_wei or 0), limit_wei or 2**256)
        more = replace(more, max_fee_wei=max(more.max_fee_wei, enough))
    if limit_wei is not None and more.most_wei > limit_wei:
        raise refusal(
            "gas_price",
            f"{more.most_wei} wei",
            f"{limit_wei} wei",
            "a cancel must pay more than the limit",
            "raise limits.gas_price, or wait",
        )
    return UnsignedTx(
        chain_id=original.chain_id,
        nonce=original.nonce,
        to=wallet,
        value_wei=0,
        data="0x",
        gas=0,
        max_fee_wei=more.max_fee_wei,
        max_priority_fee_wei=more.max_priority_fee_wei,
        gas_price_wei=more.gas_price_wei,
    )
