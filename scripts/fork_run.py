#!/usr/bin/env python3
"""One rebalance on a local fork of a live chain: nothing real is spent. Tip and data fee are those of
the forked endpoint.

    RPC_URL=https://… .venv/bin/python scripts/fork_run.py trimtab.toml --native 10 [--json]

Starts an anvil that forks RPC_URL, gives a published test account native coin, and wraps --native of
it. Then pins the contracts of the config as they are on the fork, and runs one step towards the
config's targets with --send. The config's own wallet, endpoints and store are not used. Its limits of size
(turnover, managed value) apply.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
import tomlkit
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from agent import app as api
from agent.app.documents import plans
from agent.app.documents.status import status_document
from agent.app.start.trust import pin_all
from agent.chain.fees import data_fees
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import RpcCall, RpcFault, hex_data, parse_bytes, require_result
from agent.cli.display.terminal import format_stage, note
from agent.config.load import load_config
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError, TrimtabError
from agent.localchain import run_anvil
from agent.localchain.front import serve_front
from agent.localchain.nodes import AnvilNode
from agent.localchain.world import WALLET_INDEX, dev_accounts
from agent.model import DataFeeKind, data_fee_kind
from agent.units import parse_raw

DEPOSIT = "0xd0e30db0"
"""Selector of WETH9.deposit()."""


def fork_config(path: Path, url: str, folder: Path) -> Path:
    """Return the config with the fork as its only endpoint, a test account as its wallet, a separate
    store, and the wrapped native coin that the account gets as an asset to be sold, if it is none.
    """
    document = tomlkit.parse(path.read_text())
    chain = document["chain"]
    chain["fork"] = True
    chain["confirmations"] = 1
    chain["rpc"] = [{"url": url, "operator": "fork"}]
    document["wallet"] = {
        "address": dev_accounts()[WALLET_INDEX].address,
        "test_account": WALLET_INDEX,
    }
    _add_wrapped_native(document["portfolio"], str(chain["wrapped_native"]))
    document["store"] = {"url": "sqlite:///trimtab.db"}
    document["execution"]["submit_url"] = ""
    config_path = folder / "trimtab.toml"
    config_path.write_text(tomlkit.dumps(document))
    return config_path


def _add_wrapped_native(portfolio: dict, address: str) -> None:
    """Make the wrapped native coin an asset with target 0 %, unless it is one; a hub moves."""

    def is_wrapped_native(table: dict) -> bool:
        return str(table["address"]).lower() in (address.lower(), "native")

    if any(is_wrapped_native(asset) for asset in portfolio["assets"]):
        return
    hubs = portfolio.get("hubs", [])
    hub = next((table for table in hubs if is_wrapped_native(table)), {"symbol": "WNATIVE"})
    portfolio["hubs"] = [table for table in hubs if not is_wrapped_native(table)]
    portfolio["assets"].append({**hub, "address": address, "target": "0%", "reserve": "0"})


def fund(node: AnvilNode, wrapped_native: str, wei: int) -> None:
    """Give the test account `wei` to wrap and the same amount for gas, and wrap it."""
    wallet = dev_accounts()[WALLET_INDEX].address
    node.set_native(wallet, 2 * wei + 10**18)
    node.rpc("anvil_impersonateAccount", wallet)
    node.rpc(
        "eth_sendTransaction",
        {
            "from": wallet,
            "to": wrapped_native,
            "value": hex(wei),
            "data": DEPOSIT,
            "gas": hex(200_000),
        },
    )
    node.rpc("anvil_stopImpersonatingAccount", wallet)
    node.mine(1)


@contextmanager
def relay(upstream: str) -> Iterator[str]:
    """Serve a local address that forwards requests to `upstream`, whose URL is a secret: anvil's
    arguments are visible to every user of the machine. anvil only reads, so a failed request is
    repeated.
    """
    session = requests.Session()
    retries = Retry(3, allowed_methods=None, backoff_factor=0.2)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=32, max_retries=retries))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                response = session.post(
                    upstream, data=body, headers={"Content-Type": "application/json"}, timeout=60
                )
                status = response.status_code
                answer = response.content
            except requests.RequestException:
                status = 502
                answer = b""
            with suppress(OSError):  # anvil may have ended in the meantime
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def fork(upstream: EndpointProvider, relay_url: str, chain_id: int) -> Iterator[str]:
    """Run an anvil that forks the endpoint served at `relay_url`; yield its URL.

    anvil itself suggests a tip of at least one gwei, and lacks Arbitrum's precompile with the data
    fee; the OP Stack's contracts are forked like any other.
    """
    tip_call: RpcCall = ("eth_maxPriorityFeePerGas", [])
    fee_calls = data_fees.fee_calls(data_fee_kind(chain_id), "latest")
    tip_answer, *fee_answers = upstream.batch([tip_call, *fee_calls])
    tip_json = (
        {"error": {"code": tip_answer.code, "message": tip_answer.message}}
        if isinstance(tip_answer, RpcFault)
        else {"result": tip_answer}
    )

    def adapt_answer(method: str, answer: dict) -> dict:
        return {"jsonrpc": "2.0", **tip_json} if method == tip_call[0] else answer

    with run_anvil(flags=["--fork-url", relay_url, "--no-storage-caching"]) as anvil_url:
        if data_fee_kind(chain_id) is DataFeeKind.ARBITRUM:
            prices = parse_bytes(require_result("upstream", "eth_call", fee_answers[0]), "prices")
            code = constant_code(prices)
            AnvilNode(anvil_url).rpc("anvil_setCode", data_fees.ARB_GAS_INFO, hex_data(code))
        with serve_front(anvil_url, adapt_answer) as url:
            yield url


def constant_code(answer: bytes) -> bytes:
    """Return code of a contract that answers every call with these words: a stand-in of a
    precompile, at most 255 bytes of answer.
    """
    stores = b"".join(
        b"\x7f"
        + answer[offset : offset + 32].ljust(32, b"\0")
        + b"\x60"
        + bytes([offset])
        + b"\x52"
        for offset in range(0, len(answer), 32)
    )
    return stores + b"\x60" + bytes([len(answer)]) + b"\x60\x00\xf3"


def run(config: Path, upstream_url: str, native: str) -> dict:
    """Run everything; return the status before, the rebalance, and the weights after."""
    chain_id = load_config(config).config.chain.chain_id
    upstream = EndpointProvider(upstream_url, "upstream")
    endpoint_chain_id = int(upstream.call("eth_chainId", []), 16)
    if endpoint_chain_id != chain_id:
        raise ConfigError(
            f"RPC_URL is on chain {endpoint_chain_id}, the config on {chain_id}",
            "name an endpoint of the config's chain",
        )
    with (
        tempfile.TemporaryDirectory(prefix="trimtab-fork-") as folder,
        relay(upstream_url) as relay_url,
        fork(upstream, relay_url, chain_id) as url,
    ):
        loaded = load_config(fork_config(config, url, Path(folder)))
        fund(
            AnvilNode(url),
            parse_address(loaded.config.chain.wrapped_native),
            parse_raw(native, 18, "--native"),
        )
        pin_all(loaded)
        with api.open_agent(loaded) as agent:
            status_before = status_document(agent.status())
            outcome = agent.rebalance(
                send=True, confirm=lambda _: True, progress=lambda stage: note(format_stage(stage))
            )
            rebalance = plans.rebalance_document(outcome, agent.realised_changes(outcome))
            status_after = status_document(agent.status())
    return {"before": status_before, "rebalance": rebalance, "after": status_after}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--native", default="10", help="initial amount of native coin")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        upstream = os.environ.get("RPC_URL")
        if not upstream:
            raise ConfigError(
                "RPC_URL is not set", "export RPC_URL with an archive or full node's address"
            )
        document = run(args.config, upstream, args.native)
    except TrimtabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(document, indent=2))
        return 0
    for name in ("before", "after"):
        holdings_text = ", ".join(
            f"{holding['symbol']} {holding['weight_bps'] / 100:.2f} %"
            for holding in document[name]["holdings"]
        )
        print(
            f"{name}: {document[name]['total_value']} {document[name]['numeraire']}: {holdings_text}"
        )
    for transaction in document["rebalance"]["transactions"]:
        print(
            f"{transaction['kind']}: {transaction['status']}, {transaction['gas_used']} gas, {transaction['hash']}"
        )
    print(f"{document['rebalance']['outcome']}: {document['rebalance']['reason']}")
    return 0 if document["rebalance"]["outcome"] in ("done", "hold") else 10


if __name__ == "__main__":
    sys.exit(main())
