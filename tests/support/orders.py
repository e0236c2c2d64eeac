"""One nonce in a small world that can be copied: every order of original, bump, cancel, block, loss, reorganisation and crash is walked.

The store is the real one, in memory; a world is its bytes and the scripted chain, so that each state is reached once and left
in every possible way. Two worlds with the same `key` behave alike and are walked once.
"""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from agent.errors import Refused, Retryable
from agent.execution import JournaledExecutor, SubmissionSettings
from agent.model import Intent, IntentKind, IntentState
from agent.signing.base import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.store import Store, open_store
from agent.store.transitions import CONSUMED, ENDED_IN_BLOCK
from tests.support.scripted import CHAIN_ID, GWEI, START_S, WALLET, Killed, ManualClock, ScriptedChain, ScriptedSigner, grant, tx

CEILING_WEI = 15 * GWEI
"""From 10 gwei on: room for one bump, one cancel, and one bump of it."""
CONFIRMATIONS = 2
KILLS = ("after:signed", "before:send", "after:final", "before:signed", "after:mined")
"""Each leaves another state behind: signed, broadcast and not sent, ended before the others of its nonce, planned, mined."""
DEEP = 3
SETTINGS = SubmissionSettings(CONFIRMATIONS, 1, 1, 1, CEILING_WEI, bump_after_s=1, gas_per_day_wei=None)


class Memory:
    """A store whose whole content is bytes."""

    def __init__(self, folder: Path) -> None:
        template = folder / "template.db"
        open_store(f"sqlite:///{template}", CHAIN_ID, WALLET).close()
        with sqlite3.connect(template) as plain:
            plain.execute("PRAGMA journal_mode = DELETE")
        plain.close()
        self.connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.empty = template.read_bytes()
        self.connection.deserialize(self.empty)
        engine = create_engine("sqlite://", creator=lambda: self.connection, poolclass=StaticPool)
        event.listen(engine, "begin", lambda opened: opened.exec_driver_sql("BEGIN"))
        self.store = Store(engine, WALLET)


@dataclass
class World:
    """What can be copied: the store's bytes, the chain, and what was seen so far."""

    data: bytes
    chain: ScriptedChain
    late: bool = False
    path: tuple[str, ...] = ()


class Walk:
    """Acts on worlds, and judges each after every act."""

    def __init__(self, folder: Path) -> None:
        self.memory = Memory(folder)
        self.store = self.memory.store

    def start(self) -> World:
        """An original that was sent and waits."""
        chain = ScriptedChain(automine=False)
        self.store.begin_step("s", START_S, "{}")
        self.store.set_expected_nonce(0, START_S)
        intent = self.store.intend("s", IntentKind.SWAP, tx(0), grant(), "swap", START_S, START_S + 90)
        signed = ScriptedSigner(chain).sign(tx(0), grant())
        self.store.advance(intent.id, IntentState.SIGNED, START_S, tx_hash=signed.hash)
        self.store.advance(intent.id, IntentState.BROADCAST, START_S)
        chain.send(signed)
        return World(self.memory.connection.serialize(), chain)

    def acts(self, world: World, *, whole: bool) -> Iterator[tuple[str, Callable[[World], None]]]:
        """Everything that can happen next. `whole` adds a market that turns, which forces a cancel as a deadline does, and more kills."""
        chain = world.chain
        mined = held(chain)
        yield "look", self._look(None)
        for moment in KILLS if whole else KILLS[:3]:
            yield f"look, killed {moment}", self._look(moment)
        if mined is None:
            for number, tx_hash in enumerate(dict.fromkeys(chain.sent)):
                yield f"block takes {number}", mining(tx_hash)
            if chain.pool:
                yield "nodes forget", lambda made: made.chain.pool.clear()
        elif mined[1] < DEEP:
            yield "bury", lambda made: made.chain.blocks.append({})
        if mined is not None:
            yield "reorganisation forgets it", reorganising(False)
            yield "reorganisation leaves it pending", reorganising(True)
            yield "reorganisation moves it", moving
        if not world.late:
            yield "deadline passes", late
        if whole and not chain.simulation:
            yield "market turns", turn

    def after(self, world: World, name: str, act: Callable[[World], None]) -> World:
        """A copy of the world, after an act; raises AssertionError where an invariant is broken."""
        made = World(world.data, copy.deepcopy(world.chain), world.late, (*world.path, name))
        self.memory.connection.deserialize(made.data)
        act(made)
        made.data = self.memory.connection.serialize()
        self.judge(made)
        return made

    def _look(self, kill: str | None) -> Callable[[World], None]:
        def look(made: World) -> None:
            chain, before = made.chain, len(made.chain.sent)
            try:
                self._executor(chain, kill, START_S + 10_000).reconcile()
            except Killed:
                return
            except (Retryable, Refused):
                pass
            for intent in self.store.unbooked():
                assert intent.receipt is not None
                self.store.book(intent, Fraction(1), Fraction(1), intent.receipt.gas_cost_wei, START_S)
            kinds = {str(intent.tx_hash): intent.kind for intent in self.store.intents()}
            if made.late or chain.simulation:
                assert all(kinds[tx_hash] is IntentKind.CANCEL for tx_hash in chain.sent[before:]), "an old floor was sent again"
            self.require_agreement(chain)

        return look

    def _executor(self, chain: ScriptedChain, kill: str | None, now_s: int) -> JournaledExecutor:
        clock = ManualClock()
        clock.now = now_s

        def tell(moment: object) -> None:
            if kill is not None and getattr(moment, "name", "") == kill:
                raise Killed

        return JournaledExecutor(self.store, ScriptedSigner(chain), chain, clock, SETTINGS, lambda: False, tell)

    def require_agreement(self, chain: ScriptedChain) -> None:
        """After a whole look: what the chain has is what the journal has, in state, budgets, movements and next nonce."""
        mined, intents = held(chain), self.store.intents()
        consumed = [intent for intent in intents if intent.state in CONSUMED]
        assert [intent.tx_hash for intent in consumed] == ([] if mined is None else [mined[0]])
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in consumed if intent.receipt is not None)
        found = self.store.history(START_S)
        assert (found.gas_24h_wei, found.loss_24h) == (gas_wei, len(consumed))
        assert {movement.tx_hash for movement in self.store.movements()} == {str(intent.tx_hash) for intent in consumed}
        assert self.store.expected_nonce() == (0 if mined is None else 1)
        swapped = any(intent.kind is IntentKind.SWAP for intent in consumed)
        assert (found.last_rebalance_s is not None) == swapped
        if mined is not None and mined[1] >= CONFIRMATIONS:
            assert not self.store.open_intents()

    def judge(self, world: World) -> None:
        """What must hold in every moment, also after a crash."""
        intents = list(reversed(self.store.intents()))
        left = [intent for intent in intents if any(move.after is IntentState.BROADCAST for move in self.store.transitions(intent.id))]
        assert set(world.chain.sent) <= {str(intent.tx_hash) for intent in left}, "something was sent that the journal does not hold"
        assert len([intent for intent in intents if intent.state in ENDED_IN_BLOCK]) <= 1, "two transactions of one nonce ended in a block"
        for intent in intents:
            assert intent.tx.max_fee_wei is not None and intent.tx.max_fee_wei <= CEILING_WEI
            older = next((one for one in intents if one.id == intent.replaces), None)
            if older is not None:
                assert intent.tx.max_fee_wei * BUMP_DENOMINATOR >= (older.tx.max_fee_wei or 0) * BUMP_NUMERATOR
                assert intent.kind in (older.kind, IntentKind.CANCEL)
        if (mined := held(world.chain)) is not None:
            self._require_in_reach(left, mined[0])

    def _require_in_reach(self, intents: list[Intent], tx_hash: str) -> None:
        """What a block has is something that the next look will ask for: open, or ended with its own block."""
        (found,) = [intent for intent in intents if intent.tx_hash == tx_hash]
        others = [intent for intent in intents if intent.id != found.id]
        decided = any(intent.state in ENDED_IN_BLOCK for intent in others)
        assert found.state not in (IntentState.REPLACED, IntentState.CANCELLED) or decided or any(is_open(intent) for intent in others)

    def calm(self, world: World) -> None:
        """From here on the newest that waits gets its block, and the nonce ends: once, by what the chain has, and booked so."""
        made = world
        for _ in range(4):
            made = self.after(made, "look", self._look(None))
            waiting = [str(intent.tx_hash) for intent in self.store.intents() if intent.state is IntentState.BROADCAST]
            if held(made.chain) is None and waiting:
                made = self.after(made, "block takes the newest", mining(waiting[0]))
            made = self.after(made, "bury", lambda found: found.chain.blocks.extend([{}, {}]))
        self.memory.connection.deserialize(made.data)
        assert self.store.open_intents() == (), made.path
        assert len([intent for intent in self.store.intents() if intent.state is IntentState.FINAL]) == 1

    def key(self, world: World) -> tuple[object, ...]:
        """All that the future depends on."""
        self.memory.connection.deserialize(world.data)
        intents = list(reversed(self.store.intents()))
        number = {intent.id: at for at, intent in enumerate(intents)}
        hashes = {str(intent.tx_hash): at for at, intent in enumerate(intents)}
        chain, mined = world.chain, held(world.chain)
        booked = {movement.tx_hash for movement in self.store.movements()}
        rows = tuple(
            (
                intent.kind.value,
                intent.state.value,
                None if intent.replaces is None else number[intent.replaces],
                intent.receipt is not None and current(chain, intent),
                intent.tx_hash in booked,
                intent.tx_hash in chain.sent,
            )
            for intent in intents
        )
        place = None if mined is None else (hashes[mined[0]], min(mined[1], DEEP))
        return rows, frozenset(hashes[tx_hash] for tx_hash in chain.pool), place, world.late, bool(chain.simulation)


def is_open(intent: Intent) -> bool:
    """Whether a look resolves it."""
    return intent.state in (IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)


def held(chain: ScriptedChain) -> tuple[str, int] | None:
    """What a block has at the nonce, and how deep it lies."""
    return next(((tx_hash, len(chain.blocks) - at) for at, block in enumerate(chain.blocks) for tx_hash in block), None)


def current(chain: ScriptedChain, intent: Intent) -> bool:
    """Whether its receipt is of the chain as it stands."""
    return intent.receipt is not None and chain.block_hash(intent.receipt.block_number) == intent.receipt.block_hash


def mining(tx_hash: str) -> Callable[[World], None]:
    """A block with a transaction that anybody may have kept, whether nodes still know it or not."""

    def mine(made: World) -> None:
        stamp = made.chain.timestamp_s
        made.chain.mine(tx_hash)
        made.chain.timestamp_s = stamp

    return mine


def reorganising(pending: bool) -> Callable[[World], None]:
    """Its block goes; nodes forget it, or have it pending again."""

    def reorganise(made: World) -> None:
        tx_hash, depth = held(made.chain) or ("", 0)
        made.chain.reorg(depth)
        if pending:
            made.chain.pool[tx_hash] = 0

    return reorganise


def moving(made: World) -> None:
    """Another block has it now."""
    tx_hash, depth = held(made.chain) or ("", 0)
    made.chain.reorg(depth)
    made.chain.blocks[-1] = {tx_hash: 0}


def late(made: World) -> None:
    """Chain time passes the deadline."""
    made.late, made.chain.timestamp_s = True, START_S + 1_000


def turn(made: World) -> None:
    """The swap would fail by now."""
    made.chain.simulation = "Too little received"
