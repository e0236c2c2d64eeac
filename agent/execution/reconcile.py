"""Resolves what an earlier run left open: looks at the chain, and finishes, resends the same bytes, or cancels."""

from __future__ import annotations

from agent.chain.fees import Fees
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution.carrier import Carrier
from agent.execution.replacing import Replacer
from agent.execution.rewinding import Rewinder
from agent.model import Intent, IntentEvent, IntentKind, IntentState
from agent.ports import NamesTakers
from agent.store.journal import family
from agent.store.transitions import ENDED_IN_BLOCK, OPEN

_LOOKS = 3
"""Times a used nonce without a known hash is looked at before it counts as foreign: endpoints behind one address lag."""


class Reconciler:
    """One nonce after the other, oldest first: a nonce is done only when one known hash is final."""

    def __init__(self, carrier: Carrier, replacer: Replacer) -> None:
        self._carrier = carrier
        self._replacer = replacer
        self._rewinder = Rewinder(carrier)
        self._journal = carrier.journal
        self._sender = carrier.sender

    def run(self, *, may_send: bool) -> list[Intent]:
        """Resolves every open intent, what a reorganisation opened again among them; returns them as they stand then."""
        self._rewinder.run()
        open_before = self._journal.open_intents()
        for intent in open_before:
            if intent.state is IntentState.PLANNED:
                self._carrier.drop(intent, "the process ended before it was signed")
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._resolve(nonce, may_send)
        if not self._carrier.unfinished():
            self.require_known_nonce()
        return [self._now(intent) for intent in open_before]

    def abandon(self, why: str) -> list[Intent]:
        """Takes back all that is in no block: drops what never left, takes the nonce of what waits; returns them as they stand then.

        For a kill switch at hard, which is read again before each cancel leaves.
        """
        open_before = self._journal.open_intents()
        for nonce in sorted({intent.tx.nonce for intent in open_before}):
            self._give_up(nonce, why)
        self.run(may_send=True)
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
            self._replacer.cancel(flying[0], why)

    def require_known_nonce(self) -> int:
        """The chain's next nonce, when it is the one the journal expects; on first use the chain's is adopted.

        Raises OperatorNeeded when something else used the wallet, Retryable when the endpoint is behind the journal.
        """
        latest, pending = self._nonces()
        expected = self._journal.expected_nonce()
        if expected is not None and latest < expected:  # what is pending there may be ours
            self._rewinder.require_possible(expected - 1)
            raise Retryable(
                f"the endpoint's next nonce is {latest}, the journal's {expected}: it is behind our transaction of nonce {expected - 1}, "
                "or the chain was started anew",
                "try again; a local chain started anew needs a new file in store.url, one that took blocks back: trimtab adopt",
            )
        if pending > latest:
            raise OperatorNeeded(
                f"nonce {latest} of {self._carrier.signer.address} carries a pending transaction that this store does not know"
                f"{self._named(latest)}",
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
        for intent in self._journal.undecided_at(nonce):
            self._carrier.move(intent, IntentState.BROADCAST, "what took its nonce lost its block", event=IntentEvent.REOPEN)
        group = self._journal.intents_at(nonce)
        winners = [end for end in group if end.state in ENDED_IN_BLOCK]
        decided = next((end for end in winners if any(intent.state in OPEN for intent in family(group, end.id))), None)
        if decided is not None:  # killed between ending the winner and the others
            self._carrier.close(decided)
            return
        alive = [intent for intent in group if intent.state in (IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)]
        if not alive:
            return
        seen = self._look(alive, nonce)
        if seen == "unknown":
            if may_send and self._may_leave(alive[-1]):
                self._bring_back(alive)
                if self._carrier.flying(nonce):
                    self._follow(nonce, may_send)
        elif not self._follow(nonce, may_send) and may_send and self._carrier.is_paused() is False:
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

    def _follow(self, nonce: int, may_send: bool) -> bool:
        """Waits for a block and its confirmations; True unless nothing was mined in time or a reorganisation undid it."""
        waiting = [self._replacer.while_waiting(nonce)] if may_send else []
        mined = self._carrier.await_mined(nonce, *waiting)
        return mined is not None and self._carrier.await_final(mined).state is not IntentState.BROADCAST

    def _bring_back(self, alive: list[Intent]) -> None:
        """No node knows our transactions at this nonce: the newest goes out again as it was, for more, or is cancelled."""
        for intent in reversed(alive):
            if intent.state is IntentState.BROADCAST and self._too_cheap(intent):
                self._replacer.hurry(intent.tx.nonce)
                return
            try:
                simulation = self._carrier.rehearse(intent.tx, intent.deadline_s, self._journal.grant(intent.id))
                signed = self._carrier.sign_again(intent, simulation.head.timestamp_s)
                self._carrier.require_running(self._journal.grant(intent.id))
            except Refused as error:
                if intent.state is IntentState.SIGNED:  # BROADCAST is written before bytes leave: these never did
                    self._carrier.drop(intent, error.message)
                    continue
                if (self._carrier.is_paused() is False or self._carrier.is_hard()) and self._still_unknown(alive):
                    self._replacer.cancel(intent, error.message)
                return
            self._carrier.send(intent, signed)
            return

    def _may_leave(self, intent: Intent) -> bool:
        """Whether the kill switch lets its bytes leave now: at hard a cancel that was lost goes out again."""
        try:
            self._carrier.require_running(self._journal.grant(intent.id))
        except Refused:
            return False
        return True

    def _too_cheap(self, intent: Intent) -> bool:
        """Whether no block takes it at the base fee of now: the same bytes would only wait."""
        base_fee_wei = self._sender.head().base_fee_wei
        fees = Fees(intent.tx.max_fee_wei, intent.tx.max_priority_fee_wei, intent.tx.gas_price_wei)
        return base_fee_wei is not None and fees.most_wei < base_fee_wei

    def _still_unknown(self, alive: list[Intent]) -> bool:
        """A rehearsal also fails because the transaction was mined a moment ago."""
        return all(self._sender.look(str(intent.tx_hash)).state == "unknown" for intent in alive)

    def _cancel_late(self, nonce: int) -> None:
        """A pending transaction whose deadline is over would only burn gas: its nonce is taken back."""
        flying = self._carrier.flying(nonce)
        if not flying or any(intent.kind is IntentKind.CANCEL for intent in flying):
            return
        now_s, deadline_s = self._sender.head().timestamp_s, flying[0].deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            self._replacer.cancel(flying[0], f"still pending at chain time {now_s}, after its deadline {deadline_s}")
            self._follow(nonce, may_send=True)

    def _foreign(self, nonce: int, latest: int) -> OperatorNeeded:
        known = [str(intent.tx_hash) for intent in self._journal.intents_at(nonce) if intent.tx_hash is not None]
        hashes = f"none of ours is in a block: {', '.join(dict.fromkeys(known))}" if known else "this store sent nothing there"
        return OperatorNeeded(
            f"nonce {nonce} of {self._carrier.signer.address} was used by a transaction that this store does not know"
            f"{self._named(nonce)} (the chain's next is {latest}; {hashes})",
            "something else uses this wallet, or this store is a restored copy: stop the other, check the balances, then trimtab adopt",
        )

    def _named(self, nonce: int) -> str:
        """Its hash behind a colon, where an endpoint can tell what has the nonce."""
        if not isinstance(self._sender, NamesTakers):
            return ""
        try:
            found = self._sender.taker(self._carrier.signer.address, nonce)
        except TrimtabError:
            return ""
        return "" if found is None else f": {found}"
