"""Every order of original, bump, cancel, block, loss, reorganisation and crash at one nonce, walked state by state (T7)."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import Refused, Retryable
from agent.execution import JournaledExecutor, SubmissionSettings
from agent.execution.submission.submitter import Submitter
from agent.model import Intent, IntentKind, IntentState
from agent.signing.terms import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.store.transitions import ENDED_IN_BLOCK_STATES, NONCE_USED_STATES
from tests.support.constants import GWEI
from tests.support.fakes.clock import START_S, FakeClock
from tests.support.movements import movements
from tests.support.samples import slow
from tests.support.transactions import Killed, Memory, ScriptedChain, ScriptedSigner, World, grant, late, record_sent, tx

CEILING_WEI = 15 * GWEI
"""Room, from 10 gwei on, for one bump, one cancel, and one bump of that."""
CONFIRMATIONS = 2
KILLS = ("after:signed", "before:send", "after:final", "before:signed", "after:mined")
"""Each leaves another state: signed, broadcast but not sent, ended before the others of its nonce, planned, mined."""
DEEP = 3
SETTINGS = SubmissionSettings(CONFIRMATIONS, 1, 1, 1, CEILING_WEI, bump_after_s=1, gas_per_day_wei=None)


class Walk:
    """Applies acts to worlds, and checks each world after every act."""

    def __init__(self, folder: Path) -> None:
        self.memory = Memory(folder)
        self.store = self.memory.store

    def start(self) -> World:
        """Return a world with an original that was sent and is pending."""
        chain = ScriptedChain(automine=False)
        self.store.steps.begin("s", START_S, "{}")
        self.store.journal.adopt_nonce(0, START_S)
        intent = self.store.journal.add_intent("s", tx(0), grant(), "swap", START_S, START_S + 90)
        signed = ScriptedSigner(chain).sign(tx(0), grant())
        record_sent(self.store.journal, intent, signed.hash)
        chain.send(signed)
        return World(self.memory.connection.serialize(), chain)

    def acts(self, world: World, *, whole: bool) -> Iterator[tuple[str, Callable[[World], None]]]:
        """Yield all possible next acts. `whole` adds a market move, which forces a cancel like a deadline, and more kills."""
        chain = world.chain
        mined = mined_at_nonce(chain)
        yield "look", self._look(None)
        for moment in KILLS if whole else KILLS[:3]:
            yield f"look, killed {moment}", self._look(moment)
        if mined is None:
            for number, tx_hash in enumerate(dict.fromkeys(chain.sent)):
                yield f"block takes {number}", mining(tx_hash)
            if chain.pool:
                yield "nodes forget", lambda world: world.chain.pool.clear()
        elif mined[1] < DEEP:
            yield "bury", lambda world: world.chain.blocks.append({})
        if mined is not None:
            yield "reorganisation forgets it", reorganising()
            yield "reorganisation leaves it pending", reorganising(pending=True)
            yield "reorganisation moves it", reorganising(moved=True)
        if not world.late:
            yield "deadline passes", late
        if whole and not chain.simulation:
            yield "market turns", turn_market

    def after(self, world: World, name: str, act: Callable[[World], None]) -> World:
        """Return a copy of the world after an act. Raises AssertionError if an invariant is broken."""
        next_world = World(world.data, copy.deepcopy(world.chain), world.late, (*world.path, name))
        self.memory.connection.deserialize(next_world.data)
        act(next_world)
        next_world.data = self.memory.connection.serialize()
        self.judge(next_world)
        return next_world

    def _look(self, kill: str | None) -> Callable[[World], None]:
        def look(world: World) -> None:
            chain = world.chain
            before = len(world.chain.sent)
            try:
                self._executor(chain, kill, START_S + 10_000).reconcile()
            except Killed:
                return
            except (Retryable, Refused):
                pass
            for intent in self.store.journal.unbooked_intents():
                assert intent.receipt is not None
                self.store.budgets.book_intent(intent, Fraction(1), Fraction(1), intent.receipt.gas_cost_wei, START_S)
            kinds = {str(intent.tx_hash): intent.kind for intent in self.store.journal.intents()}
            if world.late or chain.simulation:
                assert all(kinds[tx_hash] is IntentKind.CANCEL for tx_hash in chain.sent[before:]), "an old floor was sent again"
            self.require_agreement(chain)

        return look

    def _executor(self, chain: ScriptedChain, kill: str | None, now_s: int) -> JournaledExecutor:
        def tell(moment: object) -> None:
            if kill is not None and getattr(moment, "name", "") == kill:
                raise Killed

        return JournaledExecutor(
            Submitter(self.store.journal, self.store.budgets, ScriptedSigner(chain), chain, FakeClock(now_s), SETTINGS, lambda: False, tell)
        )

    def require_agreement(self, chain: ScriptedChain) -> None:
        """Assert, after a completed cycle, that chain and journal agree in state, budgets, movements and next nonce."""
        mined = mined_at_nonce(chain)
        consumed = [intent for intent in self.store.journal.intents() if intent.state in NONCE_USED_STATES]
        assert [intent.tx_hash for intent in consumed] == ([] if mined is None else [mined[0]])
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in consumed if intent.receipt is not None)
        history = self.store.budgets.history(START_S)
        assert (history.budgets.gas_24h_wei, history.budgets.loss_24h) == (gas_wei, len(consumed))
        assert {movement.tx_hash for movement in movements(self.store)} == {str(intent.tx_hash) for intent in consumed}
        assert self.store.journal.expected_nonce() == (0 if mined is None else 1)
        swapped = any(intent.kind is IntentKind.SWAP for intent in consumed)
        assert (history.reviews.last_rebalance_s is not None) == swapped
        if mined is not None and mined[1] >= CONFIRMATIONS:
            assert not self.store.journal.open_intents()

    def judge(self, world: World) -> None:
        """Assert the invariants of every moment, even after a crash."""
        intents = list(reversed(self.store.journal.intents()))
        broadcast_intents = [
            intent
            for intent in intents
            if any(move.new_state is IntentState.BROADCAST for move in self.store.journal.transitions(intent.id))
        ]
        assert set(world.chain.sent) <= {str(intent.tx_hash) for intent in broadcast_intents}, (
            "something was sent that the journal does not hold"
        )
        assert len([intent for intent in intents if intent.state in ENDED_IN_BLOCK_STATES]) <= 1, (
            "two transactions of one nonce ended in a block"
        )
        for intent in intents:
            assert intent.tx.max_fee_wei is not None
            assert intent.tx.max_fee_wei <= CEILING_WEI
            older = next((earlier_intent for earlier_intent in intents if earlier_intent.id == intent.replaced_intent_id), None)
            if older is not None:
                assert intent.tx.max_fee_wei * BUMP_DENOMINATOR >= (older.tx.max_fee_wei or 0) * BUMP_NUMERATOR
                assert intent.kind in (older.kind, IntentKind.CANCEL)
        if (mined := mined_at_nonce(world.chain)) is not None:
            self._require_in_reach(broadcast_intents, mined[0])

    def _require_in_reach(self, intents: list[Intent], tx_hash: str) -> None:
        """Assert that the next cycle will query a mined transaction: it is open, or ended with its own block."""
        (own_intent,) = [intent for intent in intents if intent.tx_hash == tx_hash]
        others = [intent for intent in intents if intent.id != own_intent.id]
        decided = any(intent.state in ENDED_IN_BLOCK_STATES for intent in others)
        assert own_intent.state not in (IntentState.REPLACED, IntentState.CANCELLED) or decided or any(is_open(intent) for intent in others)

    def calm(self, world: World) -> None:
        """Mine the newest pending transaction from now on, and assert that the nonce ends once, as the chain has it, and is booked so."""
        calm_world = world
        for _ in range(4):
            calm_world = self.after(calm_world, "look", self._look(None))
            waiting = [str(intent.tx_hash) for intent in self.store.journal.intents() if intent.state is IntentState.BROADCAST]
            if mined_at_nonce(calm_world.chain) is None and waiting:
                calm_world = self.after(calm_world, "block takes the newest", mining(waiting[0]))
            calm_world = self.after(calm_world, "bury", lambda world: world.chain.blocks.extend([{}, {}]))
        self.memory.connection.deserialize(calm_world.data)
        assert self.store.journal.open_intents() == (), calm_world.path
        assert len([intent for intent in self.store.journal.intents() if intent.state is IntentState.FINAL]) == 1

    def key(self, world: World) -> tuple[object, ...]:
        """Return everything that the future depends on."""
        self.memory.connection.deserialize(world.data)
        intents = list(reversed(self.store.journal.intents()))
        number = {intent.id: at for at, intent in enumerate(intents)}
        hashes = {str(intent.tx_hash): at for at, intent in enumerate(intents)}
        chain = world.chain
        mined = mined_at_nonce(world.chain)
        booked = {movement.tx_hash for movement in movements(self.store)}
        rows = tuple(
            (
                intent.kind.value,
                intent.state.value,
                None if intent.replaced_intent_id is None else number[intent.replaced_intent_id],
                intent.receipt is not None and current(chain, intent),
                intent.tx_hash in booked,
                intent.tx_hash in chain.sent,
            )
            for intent in intents
        )
        place = None if mined is None else (hashes[mined[0]], min(mined[1], DEEP))
        return rows, frozenset(hashes[tx_hash] for tx_hash in chain.pool), place, world.late, bool(chain.simulation)


def is_open(intent: Intent) -> bool:
    """Return whether the next cycle resolves the intent."""
    return intent.state in (IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)


def mined_at_nonce(chain: ScriptedChain) -> tuple[str, int] | None:
    """Return the mined transaction of the nonce and the depth of its block, if any."""
    return next(((tx_hash, len(chain.blocks) - at) for at, block in enumerate(chain.blocks) for tx_hash in block), None)


def current(chain: ScriptedChain, intent: Intent) -> bool:
    """Return whether its receipt is of the present chain."""
    return intent.receipt is not None and chain.block_hash(intent.receipt.block_number) == intent.receipt.block_hash


def mining(tx_hash: str) -> Callable[[World], None]:
    """Return an act that mines a transaction, even one that nodes have forgotten, since anyone may have kept it."""

    def mine(world: World) -> None:
        stamp = world.chain.timestamp_s
        world.chain.mine(tx_hash)
        world.chain.timestamp_s = stamp

    return mine


def reorganising(*, pending: bool = False, moved: bool = False) -> Callable[[World], None]:
    """Return an act that removes its block; nodes forget the transaction, have it pending again, or in another block."""

    def reorganise(world: World) -> None:
        tx_hash, depth = mined_at_nonce(world.chain) or ("", 0)
        world.chain.reorg(depth)
        if pending:
            world.chain.pool[tx_hash] = 0
        if moved:
            world.chain.blocks[-1] = {tx_hash: 0}

    return reorganise


def turn_market(world: World) -> None:
    """Move the market so that the swap would fail."""
    world.chain.simulation = "Too little received"


WHOLE = "TRIMTAB_ORDERS_DEPTH" in os.environ
DEPTHS = [(int(os.environ["TRIMTAB_ORDERS_DEPTH"]), 200)] if WHOLE else [(3, 80), *slow([(4, 200)])]
"""How many acts deep, and how many states at least that finds; a depth of 99 walks until nothing new is found."""
CALMED = 1 if WHOLE else 10
"""From every so many of the states the nonce is brought to its end."""


@pytest.mark.parametrize(("depth", "least"), DEPTHS)
def test_nonce_ends_exactly_once_in_every_order_of_acts(tmp_path: Path, depth: int, least: int) -> None:
    walk = Walk(tmp_path)
    first = walk.start()
    keys = {walk.key(first)}
    edge = [first]
    acts = 0
    for _ in range(depth):
        next_edge: list[World] = []
        for world in edge:
            for name, act in walk.acts(world, whole=WHOLE):
                acts += 1
                try:
                    next_world = walk.after(world, name, act)
                    key = walk.key(next_world)
                    if key not in keys:
                        keys.add(key)
                        next_edge.append(next_world)
                        if len(keys) % CALMED == 0:
                            walk.calm(next_world)
                except Exception as error:
                    raise AssertionError(f"after {' · '.join((*world.path, name))}: {error}") from error
        edge = next_edge

    print(f"{len(keys)} states, {acts} acts")

    assert len(keys) > least
