"""Faults of PostgreSQL at random statements of live rebalances on anvil: each rebalance must be carried
out exactly once, and every error must be one that passes. Prints the figures, also as JSON.

A look rebalances a wallet whose store is on PostgreSQL. Before a statement drawn from a seed all
sessions are ended, as by an operator or a fail-over, or the server is restarted, or turns into a
standby that takes no writes, or the answer to the next commit is lost. Then looks go on until one
holds. Exit code 1 if a swap was sent twice or not at all, or an error asked for the operator.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.pool import PoolProxiedConnection

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent import wiring
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import PassingFault, Retryable, TrimtabError
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain, open_anvil
from agent.model import IntentKind, IntentState
from agent.store import Store
from agent.store.files.locks import LockHeld
from agent.store.postgresql import fencing, session
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config, yes
from tests.support.postgresql import Server, running_server

HELD = {"WETH": 50_000, "WBTC": 10_000, "USDC": 30_000}
MAX_LOOKS = 12
USUAL_STATEMENTS = 260
"""About as many statements a rebalance with its approvals makes."""
KINDS = (
    ("sessions ended",) * 6 + ("answer lost",) * 6 + ("server restarted", "standby for a second")
)


def stand_by(server: Server, database: str) -> None:
    """Take no writes for a second, as a standby before it is promoted."""
    server.run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    server.end_sessions()
    time.sleep(1)
    server.run(f"ALTER DATABASE {database} RESET default_transaction_read_only")


def lose_next_answer(store: Store, is_made: bool) -> None:
    """Break the connection at the next commit, after the server has made it or before."""
    dialect = store.db.engine.dialect
    commit = dialect.do_commit

    def broken(connection: PoolProxiedConnection) -> None:
        dialect.do_commit = commit  # type: ignore[method-assign]  # hook of the dialect
        if is_made:
            commit(connection)
        driver_connection: Any = connection.dbapi_connection
        driver_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    dialect.do_commit = broken  # type: ignore[method-assign]  # hook of the dialect


def strike_before(store: Store, number: int, strike: Callable[[], object]) -> list[int]:
    """Let a fault happen before the statement of that number; return a list with the count so far."""
    count = [0]

    def check(*_: object) -> None:
        count[0] += 1
        if count[0] == number:
            strike()

    event.listen(store.db.engine, "before_cursor_execute", check)
    return count


def rebalance(
    chain: LocalChain, server: Server, folder: Path, seed: int
) -> tuple[str, bool, list[str]]:
    """Return the kind of fault, whether it struck, and what was wrong at the end."""
    generator = random.Random(f"database {seed}")
    kind = generator.choice(KINDS)
    database = f"run{seed}"
    changes = {**ROOMY, "store.url": server.new_database(database)}
    fund(chain, HELD)
    loaded = trusted_config(chain, folder, changes)
    nonce_before = chain.w3.eth.get_transaction_count(chain.wallet.address)
    number = generator.randrange(1, USUAL_STATEMENTS)
    is_made = generator.random() < 0.5
    wrong = []
    count = [0]
    for look in range(MAX_LOOKS):
        try:
            with reopened_agent(chain, load_config(loaded.path)) as agent:
                if look == 0:
                    store = agent.context.store
                    strikes = {
                        "sessions ended": server.end_sessions,
                        "answer lost": partial(lose_next_answer, store, is_made),
                        "server restarted": partial(server.control, "restart", "-m", "immediate"),
                        "standby for a second": partial(stand_by, server, database),
                    }
                    count = strike_before(store, number, strikes[kind])
                outcome = agent.rebalance(send=True, confirm=yes)
        except (PassingFault, Retryable, LockHeld):
            continue
        except TrimtabError as error:
            wrong.append(f"{type(error).__name__}: {error.message}")
            continue
        if outcome.kind is OutcomeKind.HOLD:
            break
    else:
        wrong.append("no look held at the end")
    wrong += faults_of_end(chain, loaded, nonce_before)
    release(server, database)
    return kind, count[0] >= number, wrong


def faults_of_end(chain: LocalChain, loaded: LoadedConfig, nonce_before: int) -> list[str]:
    """Return what the chain and the journal say differently, or a swap that is not there once."""
    with wiring.open_store_offline(loaded) as (store, _):
        mined = [intent for intent in store.journal.intents() if intent.state is IntentState.FINAL]
    sent_count = chain.w3.eth.get_transaction_count(chain.wallet.address) - nonce_before
    swap_count = sum(intent.kind is IntentKind.SWAP for intent in mined)
    wrong = []
    if sent_count != len(mined):
        wrong.append(f"{sent_count} transactions on the chain, {len(mined)} in the journal")
    if swap_count != 1:
        wrong.append(f"{swap_count} swaps")
    return wrong


def release(server: Server, database: str) -> None:
    """Close what the process has open, and drop the database."""
    for lock_session in fencing._sessions.values():
        lock_session.close()
    fencing._sessions.clear()
    for address in list(session._engines):
        session._engines.pop(address).dispose()
    server.run(f"DROP DATABASE {database} WITH (FORCE)")


def run_share(first_seed: int, step: int, run_count: int) -> list[tuple[int, str, bool, list[str]]]:
    """Run every `step`-th rebalance from `first_seed` on a chain and a server of its own."""
    results = []
    with (
        open_anvil() as chain,
        running_server() as server,
        tempfile.TemporaryDirectory() as folder_name,
    ):
        for seed in range(first_seed, run_count, step):
            state = chain.node.snapshot()
            results.append((seed, *rebalance(chain, server, Path(folder_name) / str(seed), seed)))
            chain.node.revert(state)
            if results[-1][3]:
                print(f"VIOLATION {results[-1]}", flush=True)
    return results


def main() -> int:
    """Run the rebalances; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="rebalances")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="run the rebalance of this seed alone")
    options = parser.parse_args()
    began_s = time.monotonic()
    if options.seed is not None:
        results = run_share(options.seed, 1, options.seed + 1)
    else:
        shares = [(first, options.jobs, options.runs) for first in range(options.jobs)]
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            results = [row for rows in pool.starmap(run_share, shares) for row in rows]
    violations = [row for row in results if row[3]]
    figures = {
        "rebalances": len(results),
        "struck": sum(row[2] for row in results),
        "struck_by_kind": Counter(row[1] for row in results if row[2]),
        "violations": violations,
        "duration_s": round(time.monotonic() - began_s),
    }
    print(json.dumps(figures, indent=1))
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
