"""One nonce in a small world that can be copied: tests walk every order of original, bump, cancel, block, loss, reorganisation and crash.

The store is the real one, in memory. A world is its bytes and the scripted chain, so that each state is reached once and left in every
possible way. Two worlds with the same `key` behave alike and are walked once.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from agent.errors import Retryable
from agent.execution import JournaledExecutor, SubmissionEvent, SubmissionSettings
from agent.execution.submission.submitter import Submitter
from agent.model import Head, Intent, IntentKind, IntentState, LiquidityAdded, Receipt, SignedTx, Transfer, UnsignedTx
from agent.ports import Grant, Simulation, TransactionStatus
from agent.signing.terms import BUMP_DENOMINATOR, BUMP_NUMERATOR
from agent.store import Store, open_memory_store, open_store
from agent.store.database.connection import Database
from agent.store.journal.intents import IntentStore
from tests.support.constants import GWEI, WALLET
from tests.support.fakes.clock import START_S, FakeClock

# --- A chain of one wallet in memory, for the executor's state machine alone; tests that move money use real nodes.


CHAIN_ID = 31337
OTHER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


def tx(nonce: int, data: str = "0x01", max_fee_wei: int = 10 * GWEI) -> UnsignedTx:
    return UnsignedTx(CHAIN_ID, nonce, OTHER, 0, data, 100_000, max_fee_wei, GWEI, None)


def grant(kind: IntentKind = IntentKind.SWAP, deadline_s: int = START_S + 90) -> Grant:
    return Grant(kind, START_S, deadline_s, 10**18)


def receipt(tx_hash: str, block: int, block_hash: str, status: int = 1) -> Receipt:
    return Receipt(tx_hash, status, block, block_hash, 50_000, 2 * GWEI, ())


def record_sent(journal: IntentStore, intent: Intent, tx_hash: str, at_s: int = START_S, receipt: Receipt | None = None) -> Intent:
    """Record that a planned intent was signed and sent, and with a receipt that it is in a block; return it."""
    journal.advance(intent.id, IntentState.SIGNED, at_s, tx_hash=tx_hash)
    sent = journal.advance(intent.id, IntentState.BROADCAST, at_s)
    return sent if receipt is None else journal.advance(intent.id, IntentState.MINED, at_s, receipt=receipt)


def liquidity_receipt(*added: LiquidityAdded, block: int = 16, status: int = 1, transfers: tuple[Transfer, ...] = ()) -> Receipt:
    """Return a receipt with these events of the position manager, and these transfers."""
    return replace(receipt("0x01", block, "0xb", status), liquidity_added=added, transfers=transfers)


class ScriptedSigner:
    """A signer that is deterministic unless `drifting`. Its signed bytes are recognisable, so that tests can search for them."""

    address = WALLET

    def __init__(self, chain: ScriptedChain) -> None:
        self.chain = chain
        self.signed: list[SignedTx] = []
        self.refuse: Exception | None = None
        self.drifting = False

    def sign(self, unsigned: UnsignedTx, _grant: Grant) -> SignedTx:
        if self.refuse is not None:
            raise self.refuse
        salt = str(len(self.signed)) if self.drifting else ""
        raw = hashlib.sha512((repr(unsigned) + salt).encode()).digest()
        self.signed.append(SignedTx(raw, "0x" + hashlib.sha256(raw).hexdigest()))
        self.chain.nonces_of[self.signed[-1].hash] = unsigned.nonce
        return self.signed[-1]


@dataclass
class ScriptedChain:
    """ports.Sender over a list of blocks. With `automine` each sent transaction is mined at once in its own block."""

    automine: bool = True
    timestamp_s: int = START_S
    pool: dict[str, int] = field(default_factory=dict)
    blocks: list[dict[str, int]] = field(default_factory=lambda: [{}])
    salt: int = 0
    forks: list[tuple[int, int]] = field(default_factory=list)
    base_nonce: int = 0
    sent: list[str] = field(default_factory=list)
    nonces_of: dict[str, int] = field(default_factory=dict)
    foreign: dict[int, str] = field(default_factory=dict)
    simulation: str = ""
    height_disagreement: str = ""
    base_fee_wei: int = GWEI
    status: int = 1
    gas_used: int = 50_000
    gas_price_wei: int = 2 * GWEI
    send_error: Exception | None = None
    lose: bool = False
    offline: int = 0
    tagged: dict[str, int] = field(default_factory=dict)
    hides_receipts: bool = False
    hides_hashes: bool = False
    hides_bodies: bool = False

    def mine(self, *hashes: str) -> None:
        """Mine a block with these transactions, by default with the whole pool."""
        chosen = hashes or tuple(self.pool)
        self.blocks.append({h: self.nonces_of[h] for h in chosen})
        used = {n for block in self.blocks for n in block.values()}
        self.pool = {h: n for h, n in self.pool.items() if n not in used}
        self.timestamp_s += 12

    def reorg(self, depth: int) -> None:
        """Replace the newest blocks by empty ones; their transactions are forgotten."""
        start = len(self.blocks) - depth
        self.blocks[start:] = [{} for _ in range(depth)]
        self.salt += 1
        self.forks = [fork for fork in self.forks if fork[0] < start] + [(start, self.salt)]

    def _hash(self, number: int) -> str:
        salt = next((salt for start, salt in reversed(self.forks) if number >= start), 0)
        return f"0x{number:060x}{salt:04x}"

    def head(self) -> Head:
        self._online()
        return Head(CHAIN_ID, len(self.blocks) - 1, self._hash(len(self.blocks) - 1), self.timestamp_s, self.base_fee_wei)

    def simulate(self, unsigned: UnsignedTx, _sender: str) -> Simulation:
        cancels = unsigned.data == "0x"
        head = self.head()
        if (unsigned.max_fee_wei or 0) < self.base_fee_wei:
            return Simulation(False, "its fee is below the base fee", 0, head)
        ok = cancels or not self.simulation
        return Simulation(
            ok, "" if ok else self.simulation, 21_000 if cancels else 60_000, head, height_disagreement=self.height_disagreement
        )

    def send(self, signed: SignedTx) -> None:
        self.sent.append(signed.hash)
        if not self.lose:
            self.pool[signed.hash] = self.nonces_of[signed.hash]
            if self.automine:
                self.mine(signed.hash)
        if self.send_error is not None:
            error, self.send_error = self.send_error, None
            raise error

    def status_of(self, tx_hash: str) -> TransactionStatus:
        self._online()
        for number, block in enumerate(self.blocks):
            if tx_hash in block and self.hides_receipts:
                return TransactionStatus("unknown" if self.hides_hashes else "pending", None)
            if tx_hash in block:
                mined_receipt = receipt(tx_hash, number, self._hash(number), self.status)
                mined_receipt = replace(mined_receipt, gas_used=self.gas_used, effective_gas_price_wei=self.gas_price_wei)
                return TransactionStatus("mined", mined_receipt)
        return TransactionStatus("pending" if tx_hash in self.pool else "unknown", None)

    def nonces(self, _owner: str) -> tuple[int, int]:
        self._online()
        latest = max([self.base_nonce, *(n + 1 for block in self.blocks for n in block.values())])
        return latest, max([latest, *(n + 1 for n in self.pool.values())])

    def mined_tx_hash(self, _owner: str, nonce: int) -> str | None:
        """Return the hash by the bodies of the blocks; none while they are hidden, too."""
        if self.hides_bodies:
            return None
        mined = (tx_hash for block in self.blocks for tx_hash, used in block.items() if used == nonce)
        return next(mined, self.foreign.get(nonce))

    def conflicting_tx_hash(self, _owner: str, nonce: int) -> str | None:
        return self.foreign.get(nonce)

    def block_hash(self, number: int) -> str | None:
        return self._hash(number) if number < len(self.blocks) else None

    def tagged_height(self, tag: str) -> int:
        """A tag that no test has set is one that the nodes do not know."""
        if tag not in self.tagged:
            raise Retryable(f"no block is {tag}")
        return self.tagged[tag]

    def _online(self) -> None:
        if self.offline:
            self.offline -= 1
            raise Retryable("endpoint is down")


@dataclass
class Bench:
    """Store, signer, chain and clock around one executor. `restart` opens a new process on the same store and chain."""

    path: Path
    chain: ScriptedChain
    signer: ScriptedSigner
    clock: FakeClock
    store: Store
    settings: SubmissionSettings
    paused: bool | None = False
    hard: bool = False
    events: list[SubmissionEvent] = field(default_factory=list)
    on_event: object = None

    def executor(self) -> JournaledExecutor:
        def tell(event: SubmissionEvent) -> None:
            self.events.append(event)
            if callable(self.on_event):
                self.on_event(event)

        return JournaledExecutor(
            Submitter(
                self.store.journal,
                self.store.budgets,
                self.signer,
                self.chain,
                self.clock,
                self.settings,
                lambda: self.paused,
                tell,
                lambda: self.hard,
            )
        )

    def run(self, nonce: int = 0, **changes: object):
        unsigned = replace(tx(nonce), **changes)
        step_id = f"step{len(self.store.steps.newest(1000))}"
        self.store.steps.begin(step_id, self.clock.now_s(), "{}")
        return self.executor().run(step_id, unsigned, grant(deadline_s=self.chain.timestamp_s + 90), "swap")

    def restart(self) -> None:
        self.store.close()
        self.on_event = None
        self.store = open_store(f"sqlite:///{self.path}", CHAIN_ID, WALLET)


def bench(folder: Path, *, automine: bool = True, confirmations: int = 1) -> Bench:
    path = folder / "trimtab.db"
    settings = SubmissionSettings(confirmations, poll_s=1, mined_timeout_s=5, final_timeout_s=5, max_fee_wei=100 * GWEI)
    chain = ScriptedChain(automine)
    return Bench(path, chain, ScriptedSigner(chain), FakeClock(), open_store(f"sqlite:///{path}", CHAIN_ID, WALLET), settings)


class Killed(BaseException):
    """Simulated end of the process."""


def killed_at(submitter_bench: Bench, name: str) -> None:
    """Run until `name`, end the process there, and open the store again."""

    def die(event) -> None:
        if event.name == name:
            raise Killed

    submitter_bench.on_event = die
    with pytest.raises(Killed):
        submitter_bench.run()
    submitter_bench.restart()


def lost_in_broadcast(folder: Path) -> Bench:
    """Return a bench with a transaction that was sent but that no node knows."""
    lost_bench = bench(folder)
    lost_bench.chain.lose = True
    killed_at(lost_bench, "after:send")
    lost_bench.chain.lose = False
    return lost_bench


STORES = ("file", "memory")


def new_store(kind: str, folder: Path, wallet: str = WALLET, wrapped_native: str = "", chain_id: int = CHAIN_ID) -> Store:
    """Open a new store of that kind; the repositories of both kinds have one contract."""
    if kind == "memory":
        return open_memory_store(chain_id, wallet, wrapped_native)
    return open_store(f"sqlite:///{folder}/trimtab.db", chain_id, wallet, wrapped_native)


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
        self.store = Store(Database(engine, WALLET))


@dataclass
class World:
    """The copied state: the store's bytes, the chain, and the acts so far."""

    data: bytes
    chain: ScriptedChain
    late: bool = False
    path: tuple[str, ...] = ()


def late(world: World) -> None:
    """Advance chain time past the deadline."""
    world.late, world.chain.timestamp_s = True, START_S + 1_000


# --- A bench without automatic mining in which pending transactions are bumped; and the invariants of every replacement.


def patient(folder: Path, **settings: object) -> Bench:
    """Return a bench without automatic mining, in which pending transactions are bumped every two seconds, for a minute."""
    waiting_bench = bench(folder, automine=False)
    waiting_bench.settings = replace(waiting_bench.settings, **{"bump_after_s": 2, "mined_timeout_s": 60, **settings})
    return waiting_bench


def states(submitter_bench: Bench) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(submitter_bench.store.journal.intents())]


def when_sent(submitter_bench: Bench, count: int, act: Callable[[], object]) -> None:
    """Call `act` at each sleep once `count` transactions were sent."""

    def each() -> None:
        if len(submitter_bench.chain.sent) >= count:
            act()

    submitter_bench.clock.on_sleep = each


def require_dearer(intents: Sequence[Intent]) -> None:
    """Assert that each transaction replaces the one before, and pays at least an eighth more in both fee fields."""
    for before, after in pairwise(intents):
        for fee in ("max_fee_wei", "max_priority_fee_wei"):
            assert getattr(after.tx, fee) * BUMP_DENOMINATOR >= getattr(before.tx, fee) * BUMP_NUMERATOR
        assert after.replaced_intent_id == before.id
        assert after.tx.nonce == before.tx.nonce
