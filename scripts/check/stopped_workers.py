"""SIGSTOP of workers in the midst of rebalances on anvil: another worker takes over, the stopped one
goes on later, and each wallet has swapped exactly once. Prints the figures as JSON.

In each round a worker begins to rebalance many wallets, whose stores are in one database and whose keys
are at a remote signer. It is stopped when a share of their transactions, drawn from a seed, has been
written, or with `--at` exactly at moments of tests/faults/probe.py, in turn. A second worker finishes
the work, and the first is let go again. Exit code 1 if the chain and the journal of a wallet differ, or
if it has not swapped exactly once.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from eth_account import Account

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.localchain import LocalChain, open_anvil
from agent.model import IntentKind, IntentState
from tests.support.fleets import add_wallet_portfolio
from tests.support.postgresql import Server, running_server
from tests.support.stopping import is_stopped
from tests.support.workers import has_swapped, journals, served_counts, until, worker

TOO_MUCH_WETH = {"WETH": 8_000, "USDC": 2_000}
TRANSACTIONS_PER_WALLET = 2
"""An approval and the swap."""
SETTLE_S = 8.0
"""Time for the first worker, let go again, to notice that it was replaced and to take its share."""
PATIENCE_S = 300.0


def private_key(number: int) -> str:
    """Return the key of a wallet of this script."""
    return f"0x{0xF1EE7000 + number:064x}"


class SignerHandler(BaseHTTPRequestHandler):
    """Signs transactions of this script's wallets, as a remote signer does."""

    protocol_version = "HTTP/1.1"
    key_by_address: dict[str, str]

    def do_POST(self) -> None:
        """Answer eth_signTransaction."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (fields,) = request["params"]
        key = self.key_by_address[fields.pop("from")]
        signed = Account.sign_transaction({**fields, "type": "0x2"}, key)
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": "0x" + bytes(signed[0]).hex()}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write no log."""


@contextmanager
def running_signer(wallet_count: int) -> Iterator[str]:
    """Run a remote signer for this many wallets; yield its URL."""
    keys = [private_key(number) for number in range(wallet_count)]
    SignerHandler.key_by_address = {Account.from_key(key).address: key for key in keys}
    server = ThreadingHTTPServer(("127.0.0.1", 0), SignerHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def write_folder(chain: LocalChain, root: Path, url: str, wallets: Sequence[str]) -> Path:
    """Write the configs of wallets that need a rebalance, in one folder."""
    folder = root / "clients"
    folder.mkdir()
    for number, wallet in enumerate(wallets):
        chain.set_native(10**18, wallet)
        changes = {
            "store.url": url,
            "wallet.test_account": None,
            "wallet.signer_url_env": "TRIMTAB_SIGNER",
        }
        name = f"p{number}"
        path = add_wallet_portfolio(chain, root, name, wallet, TOO_MUCH_WETH, changes)
        path.rename(folder / path.name)
        path.with_name("trimtab.store.secret").rename(folder / f"{name}.store.secret")
    return folder


def run_round(
    chain: LocalChain,
    server: Server,
    root: Path,
    signer_url: str,
    seed: int,
    wallet_count: int,
    moment: str = "",
) -> list[str]:
    """Stop a worker among these wallets once, at the moment if given; return what was wrong at the
    end.
    """
    generator = random.Random(f"stop {seed}")
    keys = [private_key(seed * wallet_count + number) for number in range(wallet_count)]
    wallets = [Account.from_key(key).address for key in keys]
    url = server.new_database(f"stop{seed}")
    folder = write_folder(chain, root, url, wallets)
    names = [f"p{number}" for number in range(wallet_count)]
    written_at_stop = generator.randrange(1, wallet_count * TRANSACTIONS_PER_WALLET)
    variables = {"TRIMTAB_SIGNER": signer_url}

    def written_count() -> int:
        return sum(len(intents) for intents in journals(folder, names))

    prefix = (sys.executable, "-m", "tests.support.stopping", moment) if moment else ()
    with worker(folder, root / "first.log", variables=variables, prefix=prefix) as first:
        if moment:
            until(lambda: is_stopped(first.pid), PATIENCE_S)
        else:
            until(lambda: written_count() >= written_at_stop, PATIENCE_S)
            first.send_signal(signal.SIGSTOP)
        with worker(folder, root / "second.log", variables=variables):
            until(lambda: wallet_count in served_counts(url, wallets).values(), PATIENCE_S)
            until(lambda: all(map(has_swapped, journals(folder, names))), PATIENCE_S)
            first.send_signal(signal.SIGCONT)
            time.sleep(SETTLE_S)
    return [
        text
        for wallet, intents in zip(wallets, journals(folder, names), strict=True)
        for text in faults_of(chain, wallet, intents)
    ]


def faults_of(chain: LocalChain, wallet: str, intents: Sequence[Any]) -> list[str]:
    """Return what the chain and the journal of a wallet say differently, or swaps other than one."""
    mined = [intent for intent in intents if intent.state is IntentState.FINAL]
    sent_count = chain.w3.eth.get_transaction_count(wallet)  # type: ignore[arg-type]  # an address
    swap_count = sum(intent.kind is IntentKind.SWAP for intent in mined)
    faults = []
    if sent_count != len(mined):
        faults.append(f"{wallet}: {sent_count} sent, {len(mined)} in the journal")
    if swap_count != 1:
        faults.append(f"{wallet}: {swap_count} swaps")
    return faults


def main() -> int:
    """Run the rounds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--wallets", type=int, default=25, help="wallets of a round")
    parser.add_argument(
        "--at",
        action="append",
        metavar="MOMENT",
        help="stop there, such as before:send#1; may be given several times",
    )
    parser.add_argument("--first", type=int, default=0, help="the first round")
    options = parser.parse_args()
    began_s = time.monotonic()
    violations: list[str] = []
    seeds = range(options.first, options.first + options.rounds)
    with (
        running_server() as server,
        running_signer(seeds.stop * options.wallets) as signer_url,
    ):
        for seed in seeds:
            root = Path(tempfile.mkdtemp())
            with open_anvil() as chain:  # what the wallets of one round sell moves the pools
                moment = options.at[seed % len(options.at)] if options.at else ""
                faults = run_round(chain, server, root, signer_url, seed, options.wallets, moment)
            violations += [f"round {seed}: {fault}" for fault in faults]
            print(f"round {seed} {moment}: {faults or 'no violation'}", file=sys.stderr, flush=True)
            if not faults:
                shutil.rmtree(root)
    figures = {
        "stops": options.rounds,
        "wallets_stopped": options.rounds * options.wallets,
        "violations": violations,
        "duration_s": round(time.monotonic() - began_s),
    }
    print(json.dumps(figures, indent=1))
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
