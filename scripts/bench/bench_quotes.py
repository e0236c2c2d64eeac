"""Exact quotes per second: V2, and V3 within one tick, over 5 and over 50 ticks. Warm quotes are of one
state again and again, first quotes of states that were not quoted before.

`--peers` also measures degenbot and the Uniswap SDKs, each installed by pip or npm into a temporary
folder. All quote the same amounts in the same pools, and differing answers are counted. They take
turns in short rounds, so that a slower phase of the machine affects all of them. Reported are the
median of the rounds, and the median of the ratios within each round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.amm.v2_pool import V2Pool
from agent.amm.v3 import pool_swap
from agent.amm.v3.math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.model import Pool
from scripts.bench.quote_peers import (
    PEERS,
    Peer,
    PeerMissing,
    Worker,
    as_json,
    new_states,
    our_worker,
)

POOL, TOKEN0, TOKEN1 = (f"0x{number:040x}" for number in (10, 1, 2))
SPACING = 60
AMOUNTS = 512
"""Number of different amounts per case."""
KINDS = ("warm", "first")
OURS = Peer("trimtab", lambda _: our_worker())


def v3_pool() -> V3Pool:
    """Return a 0.3 % pool with a change of liquidity at each of 400 ticks, and a price between two of
    them.
    """
    ticks = tuple(
        TickLiquidity(i * SPACING, 10**15 * (1 if i < 0 else -1)) for i in range(-200, 200)
    )
    liquidity = sum(tick.liquidity_net for tick in ticks if tick.index <= 5)
    price = get_sqrt_ratio_at_tick(5) + 12_345_678
    return V3Pool(
        POOL,
        V3Pool.kind,
        TOKEN0,
        TOKEN1,
        3000,
        SPACING,
        price,
        5,
        liquidity,
        ticks,
        MIN_TICK,
        MAX_TICK,
    )


def workload() -> dict[str, tuple[Pool, int]]:
    """Return pool and base units of token0 by case. The V3 amounts that cross ticks end half a range
    beyond the last one.
    """
    v2_pool = V2Pool(POOL, V2Pool.kind, TOKEN0, TOKEN1, 5_000 * 10**18, 15_000_000 * 10**6)
    v3 = v3_pool()
    # The first tick downwards is at 0, so the fifth is at -4 spacings.
    amount_by_tick_count = {
        count: pool_swap.largest_in(
            v3, True, get_sqrt_ratio_at_tick(SPACING // 2 - count * SPACING)
        )
        for count in (5, 50)
    }
    return {
        "v2": (v2_pool, 10**18),
        "v3_within_one_tick": (v3, 10**12),
        "v3_over_5_ticks": (v3, amount_by_tick_count[5]),
        "v3_over_50_ticks": (v3, amount_by_tick_count[50]),
    }


def contract_outputs() -> dict[str, dict[str, list[int]]]:
    """Return the contract's output for every quote by kind and case."""
    outputs: dict[str, dict[str, list[int]]] = {kind: {} for kind in KINDS}
    for case, (state, amount_in) in workload().items():
        for kind, states in (("warm", [state] * AMOUNTS), ("first", new_states(state))):
            outputs[kind][case] = [
                state.swap(TOKEN0, amount_in - i).amount_out_raw for i, state in enumerate(states)
            ]
    return outputs


Rates = dict[tuple[str, str], dict[str, list[float]]]
"""Quotes per second by worker and kind, then by case: one per round."""


def measure(workers: Mapping[tuple[str, str], Worker], rounds: int, seconds: float) -> Rates:
    """Return the rates of all workers. Every round measures all of them, starting with another one
    each time.
    """
    worker_keys = list(workers)
    rates: Rates = {worker_key: {case: [] for case in workload()} for worker_key in worker_keys}
    for round_number in range(rounds):
        for case in workload():
            for worker_key in (
                worker_keys[round_number % len(worker_keys) :]
                + worker_keys[: round_number % len(worker_keys)]
            ):
                rates[worker_key][case].append(
                    workers[worker_key].run(case, seconds, worker_key[1] == "first")
                )
    return rates


def report(
    rates: Rates,
    wrong_counts: Mapping[tuple[str, str], Mapping[str, int]],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """Return the measurements as one document."""
    peers: dict[str, Any] = {name: {"missing": reason} for name, reason in missing.items()}
    for (name, kind), by_case in rates.items():
        if name == OURS.name:
            continue
        ratios = {
            case: [
                our_rate / peer_rate
                for our_rate, peer_rate in zip(
                    rates[OURS.name, kind][case], peer_rates, strict=True
                )
            ]
            for case, peer_rates in by_case.items()
        }
        peers.setdefault(name, {})[kind] = {
            "quotes_per_second": median_by_case(by_case),
            "ratio": {case: round(statistics.median(values), 1) for case, values in ratios.items()},
            "ratio_range": {
                case: [round(min(values), 1), round(max(values), 1)]
                for case, values in ratios.items()
            },
            "answers_unlike_the_contract": wrong_counts[name, kind],
        }
    return {
        "machine": machine_info(),
        "amounts": AMOUNTS,
        "ours": {kind: median_by_case(rates[OURS.name, kind]) for kind in KINDS},
        "peers": peers,
    }


def median_by_case(by_case: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Return the median by case."""
    return {case: round(statistics.median(values)) for case, values in by_case.items()}


def machine_info() -> dict[str, str | int | None]:
    """Return the machine that the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def compare(peers: Sequence[Peer], rounds: int, seconds: float) -> dict[str, Any]:
    """Start all workers, compare their answers with the contract's, and measure them. Raises
    ValueError if our answers are wrong.
    """
    pools_json = json.dumps(
        {
            case: {"pool": as_json(state), "amount": str(amount)}
            for case, (state, amount) in workload().items()
        }
    )
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[tuple[str, str], Worker] = {}
        for peer in (OURS, *peers):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-bench-")))
            try:
                worker = peer.start(folder)
                stack.callback(worker.close)
                worker.begin(pools_json, AMOUNTS)
            except PeerMissing as error:
                missing[peer.name] = str(error)
                continue
            for kind in KINDS if peer.quotes_new_states else KINDS[:1]:
                workers[peer.name, kind] = worker
        expected_outputs = contract_outputs()
        wrong_counts = {
            (name, kind): {
                case: sum(
                    peer_answer != expected_answer
                    for peer_answer, expected_answer in zip(
                        worker.answers(case, kind == "first"), answers, strict=True
                    )
                )
                for case, answers in expected_outputs[kind].items()
            }
            for (name, kind), worker in workers.items()
        }
        if any(any(wrong_counts[OURS.name, kind].values()) for kind in KINDS):
            raise ValueError(f"our quotes are not what the contract pays: {wrong_counts}")
        return report(measure(workers, rounds, seconds), wrong_counts, missing)


def document_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the document as lines of text."""
    lines_of_text = []
    for kind, by_case in document["ours"].items():
        for case, figure in by_case.items():
            statements = [f"{case:<20}{kind:<6}{figure:>10,} quotes/s"]
            for name, peer in document["peers"].items():
                if kind in peer:
                    wrong_count = peer[kind]["answers_unlike_the_contract"][case]
                    statements.append(
                        f"{name} {peer[kind]['quotes_per_second'][case]:,}"
                        f" ({peer[kind]['ratio'][case]}x"
                        f"{f', {wrong_count} answers differ' if wrong_count else ''})"
                    )
            lines_of_text.append("   ".join(statements))
    return lines_of_text + [
        f"{name} is missing: {peer['missing']}"
        for name, peer in document["peers"].items()
        if "missing" in peer
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON document: machine, ours, peers with ratios or why they are missing",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="install and measure other libraries too; without network access they are reported as missing",
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often each case is measured")
    parser.add_argument(
        "--seconds", type=float, default=0.1, help="how long each case runs in a round"
    )
    options = parser.parse_args()
    document = compare(PEERS if options.peers else (), options.rounds, options.seconds)
    print(json.dumps(document) if options.json else "\n".join(document_lines(document)))


if __name__ == "__main__":
    main()
