"""Libraries that bench_quotes.py compares, each in its own process, which answers JSON lines.

As a program, `python quote_peers.py trimtab|first|degenbot`, it is such a process. The first line of
its input describes the pools. Then {"do": "answers", "case": …} returns its quotes, and {"do": "run",
"case": …, "seconds": …} the quotes per second.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.amm.v2 import V2Pool
from agent.amm.v3.math import price_limit
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.model import Pool

ROOT = Path(__file__).resolve().parent.parent
Quote = Callable[[int], int]
DEGENBOT = "degenbot==0.3.0"
SDKS = ("@uniswap/v3-sdk@3.31.5", "@uniswap/v2-sdk@4.21.4")
INSTALL_S = 300
ENDED = "its process ended"


@dataclass(frozen=True)
class Rival:
    """Functions of a library for one pool: one quote, and many in a row without our code between
    them.
    """

    quote: Quote
    sweep: Callable[[list[int]], None]


class Missing(Exception):
    """Raised with the reason if a peer cannot be installed or run."""


class Worker:
    """One process that quotes."""

    def __init__(self, command: list[str], folder: Path) -> None:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process, self._in, self._out = process, process.stdin, process.stdout

    def _ask(self, line: str) -> Any:
        """Return the answer to one line. Raises Missing if the process has ended."""
        try:
            self._in.write(line + "\n")
            self._in.flush()
        except BrokenPipeError:
            raise Missing(ENDED) from None
        answer = self._out.readline()
        if not answer:
            raise Missing(ENDED)
        return json.loads(answer)

    def begin(self, setup: str, amounts: int) -> None:
        """Send the pools, as JSON, and the number of amounts per case."""
        self._ask(json.dumps({"cases": json.loads(setup), "amounts": amounts}))

    def answers(self, case: str) -> list[int]:
        """Return the quotes of every amount of a case."""
        return [int(answer) for answer in self._ask(json.dumps({"do": "answers", "case": case}))]

    def run(self, case: str, seconds: float) -> float:
        """Return the quotes per second of a case."""
        return float(self._ask(json.dumps({"do": "run", "case": case, "seconds": seconds})))

    def close(self) -> None:
        """End the process."""
        self._in.close()
        self._process.wait(timeout=10)


@dataclass(frozen=True)
class Peer:
    """A library by name, with the function that installs and starts it in a folder, or raises
    Missing.
    """

    name: str
    start: Callable[[Path], Worker]


def our_worker(which: str) -> Worker:
    """Start a process of our own quotes, in this interpreter."""
    return Worker([sys.executable, __file__, which], ROOT)


def start_degenbot(folder: Path) -> Worker:
    """Install degenbot from PyPI with this interpreter, and start it. It cannot share an environment
    with our web3.
    """
    install([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder)
    python = str(folder / "venv" / "bin" / "python")
    install(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            DEGENBOT,
        ],
        folder,
    )
    return Worker([python, __file__, "degenbot"], folder)


def start_sdks(folder: Path) -> Worker:
    """Install Uniswap's own libraries by npm, and start them in node."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise Missing("node and npm are not on the path")
    install(
        [
            npm,
            "install",
            "--ignore-scripts",
            "--legacy-peer-deps",
            "--no-audit",
            "--no-fund",
            "--no-save",
            *SDKS,
        ],
        folder,
    )
    shutil.copy(ROOT / "scripts" / "quote_peers.cjs", folder)
    return Worker([node, "quote_peers.cjs"], folder)


PEERS = (
    Peer(DEGENBOT.replace("==", " "), start_degenbot),
    Peer("uniswap v3-sdk 3.31.5, v2-sdk 4.21.4", start_sdks),
)


def install(command: list[str], folder: Path) -> None:
    """Run an installer. Raises Missing with the end of its output."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{Path(command[0]).name} took longer than {INSTALL_S} s") from None
    if done.returncode != 0:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Missing(
            f"{' '.join([Path(command[0]).name, *command[1:4]])} failed:"
            f" {' '.join(words[-3:])[:400] or 'no output'}"
        )


def as_json(state: Pool) -> dict[str, Any]:
    """Return a pool for another process, with integers beyond JavaScript's range as text."""
    plain = asdict(state)
    plain["ticks"] = (
        [[tick.index, str(tick.liquidity_net)] for tick in state.ticks]
        if isinstance(state, V3Pool)
        else None
    )
    for name in ("reserve0", "reserve1", "sqrt_price_x96", "liquidity"):
        if name in plain:
            plain[name] = str(plain[name])
    return plain


def from_json(plain: dict[str, Any]) -> Pool:
    """Return the pool that as_json wrote."""
    ticks = plain.pop("ticks")
    for name in ("reserve0", "reserve1", "sqrt_price_x96", "liquidity"):
        if name in plain:
            plain[name] = int(plain[name])
    return (
        V2Pool(**plain)
        if ticks is None
        else V3Pool(ticks=tuple(TickLiquidity(index, int(net)) for index, net in ticks), **plain)
    )


def ours(state: Pool) -> Rival:
    """Quote one state many times."""
    return repeated(state.quoter(state.token0))


def ours_first(state: Pool) -> Rival:
    """Quote a new state with new ticks each time: more states than the caches keep tables for."""
    copies = (
        [replace(state, ticks=(*state.ticks,)) for _ in range(600)]
        if isinstance(state, V3Pool)
        else [state]
    )
    unseen = cycle(copies)
    return repeated(lambda amount: next(unseen).quote(state.token0, amount))


def degenbot(state: Pool) -> Rival:
    """Call the functions of degenbot directly. Its pool is filled in here, since its constructor reads
    from a node.
    """
    from degenbot.uniswap.types import UniswapV3LiquidityAtTick, UniswapV3PoolState
    from degenbot.uniswap.v2_functions import constant_product_calc_exact_in
    from degenbot.uniswap.v3_liquidity_pool import UniswapV3Pool

    if isinstance(state, V2Pool):
        reserve_in, reserve_out, fee = (
            state.reserve0,
            state.reserve1,
            Fraction(state.fee_pips, 10**6),
        )

        def sweep_v2(amounts: list[int]) -> None:
            for amount in amounts:
                constant_product_calc_exact_in(amount, reserve_in, reserve_out, fee)

        return Rival(
            lambda amount: constant_product_calc_exact_in(amount, reserve_in, reserve_out, fee),
            sweep_v2,
        )
    data = {
        tick.index: UniswapV3LiquidityAtTick(tick.liquidity_net, abs(tick.liquidity_net))
        for tick in state.ticks
    }
    held = UniswapV3PoolState(
        state.address, state.liquidity, state.sqrt_price_x96, state.tick, {}, data
    )
    pool = object.__new__(UniswapV3Pool)
    pool.fee, pool.tick_spacing, pool.sparse_liquidity_map = (
        state.fee_pips,
        state.tick_spacing,
        False,
    )
    limit, swap = price_limit(True), pool._calculate_swap

    def sweep_v3(amounts: list[int]) -> None:
        for amount in amounts:
            swap(True, amount, limit, held)

    return Rival(lambda amount: -swap(True, amount, limit, held)[1], sweep_v3)


def repeated(quote: Quote) -> Rival:
    """Return a quote function together with its loop over many amounts."""

    def sweep(amounts: list[int]) -> None:
        for amount in amounts:
            quote(amount)

    return Rival(quote, sweep)


def per_second(sweep: Callable[[list[int]], None], amounts: list[int], seconds: float) -> float:
    """Return the quotes per second. The clock is read after each eighth of the amounts, so that slow
    quotes overrun the time only a little.
    """
    part = max(1, len(amounts) // 8)
    parts = cycle([amounts[i : i + part] for i in range(0, len(amounts), part)])
    done, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds:
        some = next(parts)
        sweep(some)
        done += len(some)
    return done / spent


def serve(rival_of: Callable[[Pool], Rival]) -> None:
    """Answer line by line until the input is closed."""
    setup = json.loads(sys.stdin.readline())
    rivals = {case: rival_of(from_json(given["pool"])) for case, given in setup["cases"].items()}
    amounts = {
        case: [int(given["amount"]) - i for i in range(setup["amounts"])]
        for case, given in setup["cases"].items()
    }
    print("true", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        rival, given = rivals[asked["case"]], amounts[asked["case"]]
        answer = (
            [str(rival.quote(n)) for n in given]
            if asked["do"] == "answers"
            else per_second(rival.sweep, given, asked["seconds"])
        )
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve({"trimtab": ours, "first": ours_first, "degenbot": degenbot}[sys.argv[1]])
