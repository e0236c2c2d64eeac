"""A chain of one wallet in memory, for the executor's state machine alone; whatever touches money runs against real nodes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.execution import JournaledExecutor, SubmissionEvent, SubmissionSettings
from agent.model import Head, IntentKind, Receipt, SignedTx, UnsignedTx
from agent.ports import Grant, Simulation, TransactionStatus
from agent.store import Store, open_store

CHAIN_ID = 31337
WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
OTHER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
START_S = 1_700_000_000
GWEI = 10**9


def tx(nonce: int, data: str = "0x01", max_fee_wei: int = 10 * GWEI) -> UnsignedTx:
    return UnsignedTx(CHAIN_ID, nonce, OTHER, 0, data, 100_000, max_fee_wei, GWEI, None)


def grant(kind: IntentKind = IntentKind.SWAP, deadline_s: int = START_S + 90) -> Grant:
    return Grant(kind, START_S, deadline_s, 10**18)


def receipt(tx_hash: str, block: int, block_hash: str, status: int = 1) -> Receipt:
    return Receipt(tx_hash, status, block, block_hash, 50_000, 2 * GWEI, ())


class ManualClock:
    """Sleeping moves the clock, and the chain too when `each` says how."""

    def __init__(self) -> None:
        self.now = START_S
        self.each = lambda: None

    def now_s(self) -> int:
        return int(self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.each()


class ScriptedSigner:
    """Deterministic unless `drifting`; the signed bytes are recognisable, so that they can be searched for."""

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
    """ports.Sender over a list of blocks. `automine` puts each sent transaction in a block of its own at once."""

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
    send_error: Exception | None = None
    lose: bool = False
    offline: int = 0

    def mine(self, *hashes: str) -> None:
        """A block with these of ours; all of the pool when none is named."""
        chosen = hashes or tuple(self.pool)
        self.blocks.append({h: self.nonces_of[h] for h in chosen})
        used = {n for block in self.blocks for n in block.values()}
        self.pool = {h: n for h, n in self.pool.items() if n not in used}
        self.timestamp_s += 12

    def reorg(self, depth: int) -> None:
        """Puts other blocks in the place of the newest; their transactions are forgotten."""
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
        cancels, head = unsigned.data == "0x", self.head()
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

    def look(self, tx_hash: str) -> TransactionStatus:
        self._online()
        for number, block in enumerate(self.blocks):
            if tx_hash in block:
                return TransactionStatus("mined", receipt(tx_hash, number, self._hash(number), self.status))
        return TransactionStatus("pending" if tx_hash in self.pool else "unknown", None)

    def nonces(self, _owner: str) -> tuple[int, int]:
        self._online()
        latest = max([self.base_nonce, *(n + 1 for block in self.blocks for n in block.values())])
        return latest, max([latest, *(n + 1 for n in self.pool.values())])

    def conflicting_tx(self, _owner: str, nonce: int) -> str | None:
        return self.foreign.get(nonce)

    def block_hash(self, number: int) -> str | None:
        return self._hash(number) if number < len(self.blocks) else None

    def _online(self) -> None:
        if self.offline:
            self.offline -= 1
            raise Retryable("endpoint is down")


@dataclass
class Bench:
    """Store, signer, chain and clock around one executor. `restart` is a new process on the same store and chain."""

    path: Path
    chain: ScriptedChain
    signer: ScriptedSigner
    clock: ManualClock
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
            self.store, self.signer, self.chain, self.clock, self.settings, lambda: self.paused, tell, lambda: self.hard
        )

    def run(self, nonce: int = 0, **changes: object):
        unsigned = replace(tx(nonce), **changes)
        step_id = f"step{len(self.store.steps(1000))}"
        self.store.begin_step(step_id, self.clock.now_s(), "{}")
        return self.executor().run(step_id, IntentKind.SWAP, unsigned, grant(deadline_s=self.chain.timestamp_s + 90), "swap")

    def restart(self) -> None:
        self.store.close()
        self.on_event = None
        self.store = open_store(f"sqlite:///{self.path}", CHAIN_ID, WALLET)


def bench(folder: Path, *, automine: bool = True, confirmations: int = 1) -> Bench:
    path = folder / "trimtab.db"
    settings = SubmissionSettings(confirmations, poll_s=1, mined_timeout_s=5, final_timeout_s=5, max_fee_wei=100 * GWEI)
    chain = ScriptedChain(automine)
    return Bench(path, chain, ScriptedSigner(chain), ManualClock(), open_store(f"sqlite:///{path}", CHAIN_ID, WALLET), settings)


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(made: Bench, name: str) -> None:
    """Runs until `name`, then the process ends; the store is opened anew."""

    def die(event) -> None:
        if event.name == name:
            raise Killed

    made.on_event = die
    with pytest.raises(Killed):
        made.run()
    made.restart()


def lost_in_broadcast(folder: Path) -> Bench:
    """A transaction that was sent and that no node knows."""
    made = bench(folder)
    made.chain.lose = True
    killed_at(made, "after:send")
    made.chain.lose = False
    return made
