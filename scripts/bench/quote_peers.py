"""Libraries that bench_quotes.py compares, each in its own process, which answers JSON lines.

As a program, `python quote_peers.py trimtab|degenbot`, it is such a process. The first line of its
input describes the pools. Then {"do": "answers", "case": …, "uses_new_states": …} returns its quotes,
and {"do": "run", "case": …, "uses_new_states": …, "seconds": …} the quotes per second: of one state
again and again, or, with "uses_new_states", of states that were not quoted before.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import cycle
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import price_limit
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.model import Pool

ROOT = Path(__file__).resolve().parents[2]
QuoteFunction = Callable[[int], int]
DEGENBOT = "degenbot==0.3.0"
SDKS = ("@uniswap/v3-sdk@3.31.5", "@uniswap/v2-sdk@4.21.4")
INSTALL_TIMEOUT_S = 300
ENDED = "its process ended"


STATE_COUNT = 2048
"""Number of states that are each quoted once before the first one is quoted again: more than
degenbot's caches hold.
"""


class PeerMissing(Exception):
    """Raised with the reason if a peer cannot be installed or run."""


class Worker:
    """One process that quotes."""

    def __init__(self, command: list[str], folder: Path) -> None:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process = process
        self._in = process.stdin
        self._out = process.stdout

    def _ask(self, line: str) -> Any:
        """Return the answer to one line. Raises PeerMissing if the process has ended."""
        try:
            self._in.write(line + "\n")
            self._in.flush()
        except BrokenPipeError:
            raise PeerMissing(ENDED) from None
        answer = self._out.readline()
        if not answer:
            raise PeerMissing(ENDED)
        return json.loads(answer)

    def begin(self, setup: str, amounts: int) -> None:
        """Send the pools, as JSON, and the number of amounts per case."""
        self._ask(json.dumps({"cases": json.loads(setup), "amounts": amounts}))

    def answers(self, case: str, uses_new_states: bool = False) -> list[int]:
        """Return the quotes of every amount of a case; of one state, or each of another new state."""
        request = {"do": "answers", "case": case, "uses_new_states": uses_new_states}
        return [int(answer) for answer in self._ask(json.dumps(request))]

    def run(self, case: str, seconds: float, uses_new_states: bool = False) -> float:
        """Return the quotes per second of a case; see `answers`."""
        request = {
            "do": "run",
            "case": case,
            "uses_new_states": uses_new_states,
            "seconds": seconds,
        }
        return float(self._ask(json.dumps(request)))

    def close(self) -> None:
        """End the process."""
        self._in.close()
        self._process.wait(timeout=10)


@dataclass(frozen=True)
class Peer:
    """A library by name, with the function that installs and starts it in a folder, or raises
    PeerMissing. `quotes_new_states` is true if its process also quotes new states.
    """

    name: str
    start: Callable[[Path], Worker]
    quotes_new_states: bool = True


def our_worker() -> Worker:
    """Start a process of our own quotes, in this interpreter."""
    return Worker([sys.executable, __file__, "trimtab"], ROOT)


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
    npm = shutil.which("npm")
    node = shutil.which("node")
    if npm is None or node is None:
        raise PeerMissing("node and npm are not on the path")
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
    shutil.copy(ROOT / "scripts" / "bench" / "quote_peers.cjs", folder)
    return Worker([node, "quote_peers.cjs"], folder)


PEERS = (
    Peer(DEGENBOT.replace("==", " "), start_degenbot),
    Peer("uniswap v3-sdk 3.31.5, v2-sdk 4.21.4", start_sdks, quotes_new_states=False),
)


def install(command: list[str], folder: Path) -> None:
    """Run an installer. Raises PeerMissing with the end of its output."""
    try:
        process = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerMissing(
            f"{Path(command[0]).name} took longer than {INSTALL_TIMEOUT_S} s"
        ) from None
    if process.returncode != 0:
        output_lines = [
            line for line in (process.stderr + process.stdout).splitlines() if line.strip()
        ]
        raise PeerMissing(
            f"{' '.join([Path(command[0]).name, *command[1:4]])} failed:"
            f" {' '.join(output_lines[-3:])[:400] or 'no output'}"
        )


def as_json(state: Pool) -> dict[str, Any]:
    """Return a pool for another process, with integers beyond JavaScript's range as text."""
    fields = asdict(state)
    fields["ticks"] = (
        [[tick.index, str(tick.liquidity_net)] for tick in state.ticks]
        if isinstance(state, V3Pool)
        else None
    )
    for name in ("reserve0", "reserve1", "sqrt_price_x96", "liquidity"):
        if name in fields:
            fields[name] = str(fields[name])
    return fields


def from_json(fields: dict[str, Any]) -> Pool:
    """Return the pool that as_json wrote."""
    ticks = fields.pop("ticks")
    for name in ("reserve0", "reserve1", "sqrt_price_x96", "liquidity"):
        if name in fields:
            fields[name] = int(fields[name])
    return (
        V2Pool(**fields)
        if ticks is None
        else V3Pool(ticks=tuple(TickLiquidity(index, int(net)) for index, net in ticks), **fields)
    )


def new_states(state: Pool) -> list[Pool]:
    """Return STATE_COUNT states of the pool that differ in liquidity, with the same ticks."""
    if isinstance(state, V3Pool):
        return [replace(state, liquidity=state.liquidity + i) for i in range(STATE_COUNT)]
    return [replace(state, reserve0=state.reserve0 + i) for i in range(STATE_COUNT)]


def our_quotes(states: Sequence[Pool]) -> list[QuoteFunction]:
    """Return our function for many quotes of each state."""
    return [state.quoter(state.token0) for state in states]


def our_first_quotes(states: Sequence[Pool]) -> list[QuoteFunction]:
    """Return our function for one quote of each state."""
    return [partial(state.quote, state.token0) for state in states]


def degenbot_quotes(states: Sequence[Pool]) -> list[QuoteFunction]:
    """Return degenbot's own functions, without our code between. Its pools are filled in here, since
    their constructor reads from a node. The states share their ticks.
    """
    from degenbot.uniswap.types import UniswapV3LiquidityAtTick, UniswapV3PoolState
    from degenbot.uniswap.v2_functions import constant_product_calc_exact_in
    from degenbot.uniswap.v3_liquidity_pool import UniswapV3Pool

    first_state = states[0]
    if not isinstance(first_state, V3Pool):
        fee = Fraction(first_state.fee_pips, 10**6)
        return [
            partial(
                constant_product_calc_exact_in,
                reserves_in=state.reserve0,
                reserves_out=state.reserve1,
                fee=fee,
            )
            for state in states
        ]
    ticks = {
        tick.index: UniswapV3LiquidityAtTick(tick.liquidity_net, abs(tick.liquidity_net))
        for tick in first_state.ticks
    }
    pool = object.__new__(UniswapV3Pool)
    pool.fee = first_state.fee_pips
    pool.tick_spacing = first_state.tick_spacing
    pool.sparse_liquidity_map = False
    return [
        partial(
            pool._calculate_swap,
            True,
            sqrt_price_limit_x96=price_limit(True),
            override_state=UniswapV3PoolState(
                state.address, state.liquidity, state.sqrt_price_x96, state.tick, {}, ticks
            ),
        )
        for state in states
    ]


def output_of(answer: Any) -> int:
    """Return the output of a quote: degenbot answers a V3 swap with both amounts and the state."""
    return -answer[1] if isinstance(answer, tuple) else answer


def per_second(quotes: Sequence[tuple[QuoteFunction, int]], seconds: float) -> float:
    """Return the quotes per second of processor time, which other programs affect little. The clock
    is read after each eighth of the quotes, so that slow quotes overrun the time only a little.
    """
    batch_size = max(1, len(quotes) // 8)
    batches = cycle([quotes[i : i + batch_size] for i in range(0, len(quotes), batch_size)])
    quote_count = 0
    began_s = process_time()
    while (spent_s := process_time() - began_s) < seconds:
        batch = next(batches)
        for quote, amount in batch:
            quote(amount)
        quote_count += len(batch)
    return quote_count / spent_s


def serve(
    make_warm_quotes: Callable[[Sequence[Pool]], list[QuoteFunction]],
    make_first_quotes: Callable[[Sequence[Pool]], list[QuoteFunction]],
) -> None:
    """Answer line by line until the input is closed."""
    setup = json.loads(sys.stdin.readline())
    quotes: dict[tuple[str, bool], list[tuple[QuoteFunction, int]]] = {}
    for case, case_setup in setup["cases"].items():
        state = from_json(case_setup["pool"])
        amount = int(case_setup["amount"])
        [quote] = make_warm_quotes([state])
        quotes[case, False] = [(quote, amount - i) for i in range(setup["amounts"])]
        quotes[case, True] = [
            (quote, amount - i) for i, quote in enumerate(make_first_quotes(new_states(state)))
        ]
    print("true", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        requested_quotes = quotes[request["case"], request["uses_new_states"]]
        answer = (
            [str(output_of(quote(amount))) for quote, amount in requested_quotes]
            if request["do"] == "answers"
            else per_second(requested_quotes, request["seconds"])
        )
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(
        *{
            "trimtab": (our_quotes, our_first_quotes),
            "degenbot": (degenbot_quotes, degenbot_quotes),
        }[sys.argv[1]]
    )
