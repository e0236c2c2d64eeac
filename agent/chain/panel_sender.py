"""Talks to all endpoints about transactions: what counts is what enough operators say, and signed bytes go where they may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from agent.chain.ballot import NoQuorum, agreed, backed, needed, sufficing, vouched
from agent.chain.common import at_one_block
from agent.chain.panel import Endpoint, Panel, Resting, operators
from agent.chain.sender import NodeSender, NonceUsed, SendRefused
from agent.chain.taker import taker
from agent.errors import OperatorNeeded, Retryable
from agent.model import Head, SignedTx, UnsignedTx
from agent.ports import Simulation, TxSeen

T = TypeVar("T")
R = TypeVar("R")
Refusal = NonceUsed | SendRefused


class PanelSender:
    """Implements ports.Sender over a panel; with one endpoint it is that endpoint's word.

    Receipts, headers and block hashes must be alike from enough operators (a majority of those who answer, and the
    config's minimum). A used nonce and a height need enough who have seen as much; gas needed and nonces pending are the
    least that enough operators say is all. A simulation is made at one block and counts by majority: whoever lies alone
    neither stops the agent nor makes it send, and what a wrong simulation can cost is gas, since minimums and deadline
    stand in the transaction itself.
    """

    def __init__(self, panel: Panel, chain_id: int, submit: Endpoint | None = None, public_fallback: bool = False) -> None:
        """With `submit` signed bytes go there alone; with `public_fallback` also to the panel where `submit` does not take them."""
        self._panel = panel
        self._chain_id = chain_id
        self._submit = submit
        self._public_fallback = public_fallback

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """See ports.Sender; all at the newest block that enough operators have. Gas is that of the operators who say it succeeds."""
        asked = at_one_block(
            self._panel, lambda one, height: self._here(NodeSender(one).simulate(tx, sender, height)), lambda found: found.head
        )
        return replace(self._verdict(asked.said), uneven=asked.uneven)

    def _verdict(self, said: Sequence[tuple[Endpoint, Simulation]]) -> Simulation:
        enough = needed(len({endpoint.operator for endpoint, _ in said}), self._panel.min_operators)
        verdicts = backed((endpoint.operator, found.ok) for endpoint, found in said)
        good, bad = verdicts.get(True, set()), verdicts.get(False, set())
        self._blame(said, lambda found: (len(good) >= enough and not found.ok) or (len(bad) >= enough and found.ok), "the simulation")
        if len(good) >= enough:
            gas: dict[str, int] = {}
            for endpoint, found in said:
                if endpoint.operator in good:
                    gas[endpoint.operator] = max(gas.get(endpoint.operator, 0), found.gas)
            return Simulation(True, "", sufficing(gas, enough), said[0][1].head)
        failed = [(endpoint, found) for endpoint, found in said if not found.ok]
        if len(bad) >= enough:
            by_contracts = backed((endpoint.operator, found.reverted) for endpoint, found in failed).get(True, set())
            return replace(failed[0][1], reverted=len(by_contracts) >= enough)
        told = "; ".join(f"{endpoint.operator}: {found.reason}" for endpoint, found in failed)
        succeeded = ", ".join(sorted(good)) or "nobody"
        return Simulation(False, f"endpoints disagree ({told}; it succeeds for {succeeded})", 0, said[0][1].head)

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender. The same bytes go to every public endpoint at once, or to the private one alone.

        That is no second sending: a nonce is used once, whoever has the bytes. An endpoint that keeps them back, or says
        that it took them and did not, does not matter then. Taken by one is taken. A fate that is unknown at one is
        unknown, unless another took it. Refused is what all refuse; a nonce used is looked for before it is believed.
        """
        taken, refusals, lost = self._offer_all(signed)
        if taken:
            return
        unknown = [failure for failure in lost if not isinstance(failure, Resting)]
        if lost and not refusals and all(isinstance(failure, OperatorNeeded) for failure in lost):
            raise lost[0]
        if unknown or not refusals:
            told = "; ".join(failure.message for failure in lost)
            raise Retryable(
                f"whether transaction {signed.hash} was taken is unknown: {told}", "look for its hash before sending anything else"
            )
        refused = next((refusal for refusal in refusals if isinstance(refusal, SendRefused)), None)
        if refused is not None:
            raise refused
        if self.look(signed.hash).state == "unknown":
            raise refusals[0]

    def look(self, tx_hash: str) -> TxSeen:
        """See ports.Sender. Mined when enough operators show the same receipt; unknown only when nobody knows the hash."""
        heard = self._hear(lambda node: node.look(tx_hash), lambda answers: self._seen(answers).state != "unknown")
        found = self._seen(heard)
        if found.receipt is not None:
            mined = [(endpoint, said) for endpoint, said in heard.items() if said.receipt is not None]
            self._blame(mined, lambda said: said != found, "a receipt")
        return found

    def nonces(self, owner: str) -> tuple[int, int]:
        """See ports.Sender. Whoever says that a nonce is used vouches for all below it; what one pool alone holds is outvoted."""
        heard = self._hear(lambda node: node.nonces(owner), lambda answers: True)
        latest: dict[str, int] = {}
        pending: dict[str, int] = {}
        for endpoint, (used, queued) in heard.items():
            latest[endpoint.operator] = min(latest.get(endpoint.operator, used), used)
            pending[endpoint.operator] = max(pending.get(endpoint.operator, 0), queued if queued > used else 0)
        enough = needed(len(latest), self._panel.min_operators)
        common = vouched(latest, enough)
        self._blame(heard.items(), lambda said: said[0] > common, "the wallet's nonce")
        return common, max(common, sufficing(pending, enough))

    def head(self) -> Head:
        """See ports.Sender: the newest header that enough operators have alike."""
        return at_one_block(self._panel, lambda one, height: self._on_chain(NodeSender(one).head(height)), lambda head: head).said[0][1]

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender."""

        def vote(answers: Mapping[Endpoint, str | None]) -> str | None:
            said = [(endpoint.operator, found) for endpoint, found in answers.items()]
            return agreed(said, self._panel.min_operators, f"block {number}")

        heard = self._hear(lambda node: node.block_hash(number), lambda answers: _decided(vote, answers))
        found = vote(heard)
        self._blame(heard.items(), lambda said: said is not None and said != found, f"block {number}")
        return found

    def taker(self, owner: str, nonce: int) -> str | None:
        """See ports.NamesTakers."""
        return taker(self._panel, owner, nonce, self.head().number)

    def _hear(self, question: Callable[[NodeSender], T], settled: Callable[[Mapping[Endpoint, T]], bool]) -> dict[Endpoint, T]:
        """Answers of at least the operators that the config wants; `settled` says when the rest is not waited for."""
        wanted = needed(len(operators(self._panel.endpoints)), self._panel.min_operators)
        heard = self._panel.ask(
            lambda endpoint: question(NodeSender(endpoint)),
            enough=lambda answers: len(operators(answers)) >= wanted and settled(answers),
        )
        self._panel.require(heard)
        return heard.answers

    def _seen(self, answers: Mapping[Endpoint, TxSeen]) -> TxSeen:
        """What several looks at one hash amount to: a receipt that too few show is a transaction that is still on its way."""
        enough = needed(len(operators(answers)), self._panel.min_operators)
        for seen, behind in backed((endpoint.operator, found) for endpoint, found in answers.items()).items():
            if seen.receipt is not None and len(behind) >= enough:
                return seen
        known = any(found.state != "unknown" for found in answers.values())
        return TxSeen("pending" if known else "unknown", None)

    def _offer_all(self, signed: SignedTx) -> tuple[bool, list[Refusal], list[Retryable | OperatorNeeded]]:
        """Whether anybody took it; the refusals; the failures after which nobody knows."""
        refusals: list[Refusal] = []
        lost: list[Retryable | OperatorNeeded] = []
        targets = [Panel([self._submit], 1)] if self._submit is not None else []
        if self._submit is None or self._public_fallback:
            targets.append(self._panel)
        for target in targets:
            heard = target.ask(lambda endpoint: _offer(endpoint, signed), enough=lambda answers: None in answers.values())
            if None in heard.answers.values():
                return True, refusals, lost
            refusals += [refusal for refusal in heard.answers.values() if refusal is not None]
            lost += [failure for failure in heard.lost.values() if isinstance(failure, Retryable | OperatorNeeded)]
        return False, refusals, lost

    def _blame(self, said: Iterable[tuple[Endpoint, T]], wrong: Callable[[T], bool], what: str) -> None:
        for endpoint, found in said:
            if wrong(found):
                self._panel.blame(endpoint, f"differs in {what}")

    def _here(self, found: Simulation) -> Simulation:
        self._on_chain(found.head)
        return found

    def _on_chain(self, head: Head) -> Head:
        if head.chain_id != self._chain_id:
            raise OperatorNeeded(f"an endpoint is on chain {head.chain_id}, the config says {self._chain_id}", "fix the endpoint's url")
        return head


def _offer(endpoint: Endpoint, signed: SignedTx) -> Refusal | None:
    """None when the endpoint has the transaction now. Raises what leaves its fate unknown."""
    try:
        NodeSender(endpoint).offer(signed)
    except (NonceUsed, SendRefused) as refusal:
        return refusal
    return None


def _decided(vote: Callable[[Mapping[Endpoint, T]], R], answers: Mapping[Endpoint, T]) -> bool:
    try:
        vote(answers)
    except NoQuorum:
        return False
    return True
