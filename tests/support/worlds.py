"""Worlds and empty stores that are built once for all processes of a test run, kept, and reused."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from eth_keys.backends.native import ecdsa, jacobian
from eth_keys.constants import SECPK1_G, SECPK1_N
from filelock import FileLock
from sqlalchemy import URL, Engine
from web3.contract.contract import ContractFunction
from web3.utils import abi as abis

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import MAX_TICK
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.artifacts import npm_artifact
from agent.chain import second_quote
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import RpcCall, Transport
from agent.chain.second_quote import QuotedVenue
from agent.localchain import DEFAULT_WORLD, LocalChain, LocalPool, open_eth_tester, run_anvil
from agent.localchain.chain import V2_PAIR_ARTIFACT, V3_POOL_ARTIFACT
from agent.localchain.nodes import CHAIN_ID, AnvilNode, LocalNode, TesterNode, read_views
from agent.model import Pool
from agent.store import opening

# --- Building of worlds for tests: pool states read directly from the contracts, the recorded mainnet pool.


DATA = Path(__file__).parents[1] / "data"
MAINNET_POOL = DATA / "uniswap_v3_wbtc_weth_3000_block_24407242.json"
Jacobian = tuple[int, int, int]
NOTHING: Jacobian = (0, 0, 1)
"""Zero times a point, as eth_keys writes it."""


ANVIL_OFTEN = pytest.mark.parametrize("local_chain", ["anvil", pytest.param("eth-tester", marks=pytest.mark.slow)], indirect=True)
"""Marks a test that is slow on eth-tester and repeats there what others show: by default it runs on anvil alone."""


SHORTCUTS = os.environ.get("TRIMTAB_TEST_SHORTCUTS") != "off"
"""False in the part of `make slow` that takes no shortcut: libraries multiply points, compile statements, check ABIs and build routers
themselves, and each command solves its own planning problems.
"""


@contextmanager
def shortcuts() -> Iterator[None]:
    """During the block, replace what libraries repeat in each test by what they found once."""
    if not SHORTCUTS:
        yield
        return
    with compiled_once(), multiplied_by_tables(), checked_once():
        yield


def read_view(node: LocalNode, call: ContractFunction) -> tuple[Any, ...]:
    """Return the values of a bound view function at the newest block."""
    (values,) = read_views(node, [call])
    return values


def missing(why: str) -> None:
    """Skip the test for a missing tool; in CI fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"under CI nothing may be missing: {why}")
    pytest.skip(why)


def pool_contract(chain: LocalChain, pool: LocalPool) -> Any:
    """Return the contract of the pair or pool."""
    return chain.contract(pool.address, npm_artifact(V2_PAIR_ARTIFACT if pool.version == 2 else V3_POOL_ARTIFACT))


def read_pool(chain: LocalChain, name: str) -> Pool:
    """Return the whole state of a pool, every initialised tick included, read from the contract itself and not by the lens."""
    pool = chain.deployed_world.pool_by_name[name]
    return read_v2(chain, pool) if pool.version == 2 else read_v3(chain, pool)


def read_v2(chain: LocalChain, pool: LocalPool) -> V2Pool:
    """Return the reserves of a pair."""
    reserve0, reserve1, _ = read_view(chain.node, pool_contract(chain, pool).functions.getReserves())
    return V2Pool(pool.address, "uniswap_v2", pool.token0.address, pool.token1.address, reserve0, reserve1)


def read_v3(chain: LocalChain, pool: LocalPool) -> V3Pool:
    """Return slot 0, liquidity and all ticks of a pool. Tick indices come from the chain's records, the rest from the contract."""
    functions = pool_contract(chain, pool).functions
    answers = [
        (index, read_view(chain.node, functions.ticks(index)))
        for index in sorted(chain.deployed_world.range_ends_by_pool.get(pool.name, ()))
    ]
    slot0 = read_view(chain.node, functions.slot0())
    ticks = tuple(TickLiquidity(index, int(tick[1])) for index, tick in answers if tick[7])
    state = V3Pool(
        address=pool.address,
        venue="uniswap_v3",
        token0=pool.token0.address,
        token1=pool.token1.address,
        fee_pips=pool.fee_pips,
        tick_spacing=read_view(chain.node, functions.tickSpacing())[0],
        sqrt_price_x96=slot0[0],
        tick=slot0[1],
        liquidity=read_view(chain.node, functions.liquidity())[0],
        ticks=ticks,
        known_from_tick=-MAX_TICK,
        known_to_tick=MAX_TICK,
    )
    assert sum(t.liquidity_net for t in ticks if t.index <= state.tick) == state.liquidity, "a position that the books do not know"
    return state


def price_now(chain: LocalChain, name: str) -> Fraction:
    """Return the base units of token1 that a pool pays per base unit of token0 at the margin, fee excluded."""
    pool = chain.deployed_world.pool_by_name[name]
    functions = pool_contract(chain, pool).functions
    if pool.version == 2:
        reserve0, reserve1, _ = read_view(chain.node, functions.getReserves())
        return Fraction(reserve1, reserve0)
    return Fraction(read_view(chain.node, functions.slot0())[0] ** 2, 2**192)


@dataclass(frozen=True, slots=True)
class RecordedPool:
    """A pool as recorded on mainnet: price, liquidity, and liquidity_net by tick."""

    fee_pips: int
    tick_spacing: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    net_by_tick: Mapping[int, int]


def recorded_pool(path: Path = MAINNET_POOL) -> RecordedPool:
    """Return the recording; its tick entries are [liquidity_gross, liquidity_net, block]."""
    data = json.loads(path.read_text(encoding="utf-8"))
    scalars = data["scalars"]
    net = {int(tick): entry[1] for tick, entry in data["tick_data"].items()}
    return RecordedPool(
        scalars["fee"], scalars["tick_spacing"], scalars["sqrt_price_x96"], scalars["tick"], scalars["liquidity"], dict(sorted(net.items()))
    )


def mint_ticks(chain: LocalChain, pool: LocalPool, net_by_tick: Mapping[int, int]) -> None:
    """Give an empty pool these ticks: one position per gap between neighbours, with the sum of the nets below it as liquidity."""
    depth = 0
    positions = []
    for lower, upper in pairwise(sorted(net_by_tick)):
        depth += net_by_tick[lower]
        if depth > 0:
            positions.append((lower, upper, depth))
    chain.mint_positions(pool, positions)


def mint_mainnet_pool(chain: LocalChain) -> LocalPool:
    """Deploy the recorded WBTC/WETH pool between two new tokens of 8 and 18 decimals, in the recorded order."""
    recorded = recorded_pool()
    symbols: list[str] = []
    # A token's address is known only after deployment: deploy until one of 8 decimals sorts below one of 18.
    while True:
        number = len(symbols) // 2
        symbols += [f"MBTC{number}", f"METH{number}"]
        chain.add_token(symbols[-2], 8, Fraction(60_000))
        chain.add_token(symbols[-1], 18, Fraction(1_800))
        low = min((s for s in symbols if s.startswith("MBTC")), key=lambda s: int(chain.tokens[s].address, 16))
        high = max((s for s in symbols if s.startswith("METH")), key=lambda s: int(chain.tokens[s].address, 16))
        if int(chain.tokens[low].address, 16) < int(chain.tokens[high].address, 16):
            break
    for symbol in (low, high):
        chain.set_balance(symbol, 10**40, owner=chain.whale.address)
    pool = chain.add_v3_pool(low, high, recorded.fee_pips, Fraction(recorded.sqrt_price_x96**2, 2**192))
    mint_ticks(chain, pool, recorded.net_by_tick)
    return pool


RUN = "PYTEST_XDIST_TESTRUNUID"
_GENESIS_S = 1
"""Genesis time of a node whose chain is replaced by a kept one."""
_TURNS = count(0xC0FFEE)
_MOST_ABIS = 256


def tester_world(shared: Path) -> LocalChain:
    """Return a world on eth-tester, deployed by the first process of the run; `shared` is a folder of all processes."""
    run = os.environ.get(RUN)
    if run is None:  # a single process
        return _deployed()
    world_file = shared / f"eth-tester-{run}.pickle"
    with FileLock(world_file.with_suffix(".lock")):
        if world_file.exists():
            return _restored(world_file.read_bytes())
        chain = _deployed()
        world_file.write_bytes(_state(chain))
        return chain


_FORKS: dict[str, threading.Lock] = {}
"""Locks for requests to a fork, by its URL."""


@contextmanager
def forks_asked_by_turns() -> Iterator[None]:
    """Allow this process one request at a time to a fork of anvil.

    A call there that needs a slot of its origin holds the lock of its state. A second request that waits for that lock may hold the
    thread whose queue has the origin's answer, which no other thread processes: both then wait for ever.
    """
    once = EndpointProvider._send_batch

    def by_turns(self: EndpointProvider, calls: Sequence[RpcCall]) -> list[Any]:
        with _FORKS.get(self._url, nullcontext()):
            return once(self, calls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EndpointProvider, "_send_batch", by_turns)
        yield


@dataclass(frozen=True)
class Origin:
    """A world on anvil from which forks begin, and all of its state at the newest block. It must not change while forks are running."""

    world: LocalChain
    state: str
    end_s: int = 0
    """Time of the state, if it is later than the world's."""

    @classmethod
    def of(cls, world: LocalChain) -> Origin:
        """Return the origin without blocks and transactions, which a fork requests from the world."""
        return cls(world, _packed(_dumped(world) | {"blocks": [], "transactions": []}))

    def furnished(self, fork: LocalChain) -> Origin:
        """Return the origin whose forks begin with all that was added to this fork, at the block where the world ends."""
        return Origin(self.world, _packed(_unpacked(self.state) | {"accounts": _dumped(fork)["accounts"]}), fork.now_s())

    @contextmanager
    def forked(self) -> Iterator[LocalChain]:
        """Yield a chain on its own anvil that begins where the world ends, with the present time and fresh feeds.

        A fork of anvil computes no state roots, which are three quarters of a block's cost there.
        """
        head = self.world.w3.eth.get_block("latest")
        flags = ["--fork-url", self.world.url or "", "--fork-block-number", str(head["number"]), "--chain-id", str(CHAIN_ID)]
        flags += ["--no-storage-caching", "--threads", "8"]  # with one thread, two readers of an older block wait for each other for ever
        with run_anvil(flags=flags) as url:
            chain = LocalChain(AnvilNode(url), self.world.world)
            if chain.w3.eth.get_block("latest")["hash"] != head["hash"]:
                raise RuntimeError(f"another chain answers on {url}")
            _FORKS[url] = threading.Lock()
            chain.deployed_world, chain.addresses = self.world.deployed_world, self.world.addresses
            self._begin(chain)
            yield chain

    def begin_again(self, fork: LocalChain) -> None:
        """Take a fork back to its beginning, now at the present time; anvil forgets all of its blocks."""
        head = self.world.w3.eth.block_number
        _rpc(fork, "anvil_reset", {"forking": {"jsonRpcUrl": self.world.url, "blockNumber": head}})
        self._begin(fork)

    def _begin(self, fork: LocalChain) -> None:
        _rpc(fork, "anvil_loadState", self.state)  # otherwise the fork requests slot by slot
        if (late_s := max(int(time.time()), self.end_s) - fork.now_s()) > 0:
            fork.warp(late_s)


def _dumped(chain: LocalChain) -> dict[str, Any]:
    return _unpacked(_rpc(chain, "anvil_dumpState"))


def _unpacked(state: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress(bytes.fromhex(state[2:])))
    return document


def _packed(state: dict[str, Any]) -> str:
    return "0x" + gzip.compress(json.dumps(state).encode(), 1).hex()


@contextmanager
def one_case(chain: LocalChain) -> Iterator[None]:
    """Undo changes to a chain on anvil after the block; begin with a block of its own."""
    mark = chain.snapshot()
    perps = chain.perps
    _rpc(chain, "anvil_setCoinbase", f"0x{next(_TURNS):040x}")  # identical blocks would be forgotten together
    base_fee_wei = chain.w3.eth.get_block("latest")["baseFeePerGas"]
    _rpc(chain, "anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))  # a revert keeps the fee that the last test left
    chain.node.mine_at(chain.now_s() + 1)
    try:
        yield
    finally:
        _rpc(chain, "anvil_dropAllTransactions")  # pending transactions survive a revert to a snapshot
        _rpc(chain, "evm_setAutomine", True)
        _rpc(chain, "anvil_removeBlockTimestampInterval")  # nor does a revert end it, and it hides evm_increaseTime
        chain.revert(mark)
        chain.perps = perps


def _rpc(chain: LocalChain, method: str, *params: object) -> Any:
    assert isinstance(chain.node, AnvilNode)
    return chain.node.rpc(method, *params)


def _deployed() -> LocalChain:
    with open_eth_tester() as chain:
        return chain


def _state(chain: LocalChain) -> bytes:
    blocks = _blocks(chain)
    return pickle.dumps((dict(blocks.chaindb.db.wrapped_db.kv_store), blocks.header, chain.deployed_world, chain.addresses))


def _restored(state: bytes) -> LocalChain:
    stored, header, books, addresses = pickle.loads(state)
    chain = LocalChain(TesterNode(_GENESIS_S, DEFAULT_WORLD.wallet_native_wei), DEFAULT_WORLD)
    blocks, chain.deployed_world, chain.addresses = _blocks(chain), books, addresses
    database = blocks.chaindb.db.wrapped_db.kv_store
    database.clear()
    database.update(stored)
    blocks.header = header
    return chain


def _blocks(chain: LocalChain) -> Any:
    """Return py-evm's chain: the pending block's header, and an in-memory database for everything else."""
    assert isinstance(chain.node, TesterNode)
    return chain.node.tester.backend.chain


@contextmanager
def compiled_once() -> Iterator[None]:
    """During the block, let all stores on SQLite share SQLAlchemy's compiled statements and knowledge of the dialect, since there are
    many engines.
    """
    make = opening.create_engine
    first: dict[str, Engine] = {}

    def made(place: URL, **options: Any) -> Engine:
        engine = make(place, **options)
        known = first.setdefault(place.drivername, engine)
        if known is not engine:
            engine.dialect = engine.pool._dialect = known.dialect
            engine._compiled_cache = known._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "create_engine", made)
        yield


def _tables() -> list[list[Jacobian]]:
    """Return 16 multiples of secp256k1's generator for each four bits of a factor."""
    tables = []
    base = jacobian.to_jacobian(SECPK1_G)
    for _ in range(64):
        tables.append([NOTHING])
        for _ in range(15):
            tables[-1].append(jacobian.jacobian_add(tables[-1][-1], base))
        base = jacobian.jacobian_add(tables[-1][-1], base)
    return tables


@contextmanager
def multiplied_by_tables() -> Iterator[None]:
    """During the block, compute signatures and public keys in a sixth of the time: 64 additions from tables instead of 256 doublings."""
    plain = ecdsa.jacobian_multiply
    tables = _tables()
    generator = jacobian.to_jacobian(SECPK1_G)

    def multiplied(point: Jacobian, factor: int) -> Jacobian:
        if point != generator:
            return plain(point, factor)
        product = NOTHING
        rest = factor % SECPK1_N
        for multiples in tables:
            product = jacobian.jacobian_add(product, multiples[rest % 16])
            rest //= 16
        return product

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ecdsa, "jacobian_multiply", multiplied)
        patch.setattr(ecdsa, "fast_multiply", lambda point, factor: jacobian.from_jacobian(multiplied(jacobian.to_jacobian(point), factor)))
        yield


@contextmanager
def checked_once() -> Iterator[None]:
    """During the block, let web3 check each ABI for colliding selectors once, not at every call."""
    check: Callable[[Any], None] = abis.validate_abi
    good: dict[int, Any] = {}

    def checked(abi: Any) -> None:
        if good.get(id(abi)) is not abi:
            check(abi)
            if len(good) == _MOST_ABIS:
                good.clear()
            good[id(abi)] = abi

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abis, "validate_abi", checked)
        yield


@contextmanager
def opened_once() -> Iterator[None]:
    """During the block, let all agents of a thread share what uniswap-python builds from a venue's contracts, each with its own
    endpoints.
    """
    if not SHORTCUTS:
        yield
        return
    make = second_quote._open_library
    opener = threading.local()

    def opened(transport: Transport, block_hash: str, venue: QuotedVenue) -> Any:
        desks = vars(opener).setdefault("desks", {})
        if venue not in desks:
            desks[venue] = make(transport, block_hash, venue)
        return desks[venue]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_quote, "_open_library", opened)
        yield
