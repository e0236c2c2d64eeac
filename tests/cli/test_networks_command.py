"""From `trimtab init --network` over doctor and trust to a plan, on a stand-in of each network, and what doctor says of a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import RpcCall
from agent.config.load import load_config
from agent.config.networks import NETWORKS, Network
from agent.model import DataFeeKind, data_fee_kind
from agent.signing.terms import tip_range_wei
from tests.cli.tools import CommandResult, blocks
from tests.support.networks import FEES_WEI, OWNER, ROLLUP_FEES_WEI, stand_in


@contextmanager
def answers_of(network: Network) -> Iterator[None]:
    """Let endpoints suggest the network's tip, and receipts of the OP Stack name the data fee: anvil suggests at least one gwei, and
    takes none.
    """
    ask = EndpointProvider._send_batch
    _, tip_wei = FEES_WEI.get(network.name, ROLLUP_FEES_WEI)

    def answer(self: EndpointProvider, calls: Sequence[RpcCall]) -> list[Any]:
        change_by_method: dict[str, Callable[[Any], Any]] = {"eth_maxPriorityFeePerGas": lambda _: hex(tip_wei)}
        if data_fee_kind(network.chain_id) is DataFeeKind.OP_STACK:
            change_by_method["eth_getTransactionReceipt"] = lambda receipt: receipt and receipt | {"l1Fee": "0x0"}
        return [
            change_by_method.get(method, lambda answer: answer)(answer) for (method, _), answer in zip(calls, ask(self, calls), strict=True)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EndpointProvider, "_send_batch", answer)
        yield


USD = {"ethereum": 20_000}
"""Dollars in the wallet where 500 are too few."""
OFTEN = ("base",)
Bare = Callable[..., CommandResult]


def init(network: Network, usd: int) -> list[str]:
    """The command that writes a config of two endpoints for the stand-in's wallet."""
    return [
        *("init", "--network", network.name, "--rpc", "RPC_A=one", "--rpc", "RPC_B=two"),
        *("--template", "60/40", "--ceiling", str(2 * usd), "--wallet", OWNER.address),
    ]


def states(result: CommandResult) -> dict[str, str]:
    """What doctor found, by check."""
    return {row["check"]: row["state"] for row in result.json["checks"]}


@pytest.mark.parametrize(
    "network",
    [pytest.param(network, id=network.name, marks=() if network.name in OFTEN else pytest.mark.slow) for network in NETWORKS],
)
def test_a_new_config_of_a_network_plans_a_trade(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    usd = USD.get(network.name, 500)
    with stand_in(network, usd) as chain, answers_of(network):
        for variable in ("RPC_A", "RPC_B"):
            monkeypatch.setenv(variable, str(chain.url))
        config = tmp_path / "trimtab.toml"

        def run(*command: str) -> CommandResult:
            return bare(*command, "--config", str(config), "--json")

        result = run(*init(network, usd))
        assert (result.code, result.json["chain_id"]) == (0, network.chain_id), result.err
        assert any("depeg" in warning for warning in result.json["warnings"]) == (not network.feeds)
        written = load_config(config).config
        assert (written.chain.finality_tag, written.limits.depeg is None) == (network.finality, not network.feeds)
        assert network.private_endpoint is None or network.private_endpoint in config.read_text()
        assert run("doctor").code == 0
        assert run("trust", "--yes").code == 0
        checked = run("doctor")
        assert (checked.code, set(states(checked).values()) <= {"ok", "warn"}) == (0, True), checked.out
        assert states(checked)["submission"] == ("ok" if network.is_sequenced else "warn")
        planned = run("plan")
        assert (planned.code, planned.json["outcome"]) == (0, "planned"), planned.why
        assert len(planned.json["legs"]) > 1
        assert (float(planned.json["cost"].get("data_fee", 0)) > 0) == (data_fee_kind(network.chain_id) is not DataFeeKind.PLAIN)
        chain.rpc("anvil_setChainId", 31_337)
        wrong = run("doctor")
        assert wrong.code == 12
        findings = {row["check"]: row["finding"] for row in wrong.json["checks"] if row["check"].startswith("endpoint")}
        chain_words = f"chain 31337, but chain.chain_id is {network.chain_id}"
        assert {name: chain_words in finding for name, finding in findings.items()} == {"endpoint one": True, "endpoint two": True}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["polygon", "bnb", "optimism", "unichain"])
def test_a_rebalance_is_sent_and_mined(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (network,) = [network for network in NETWORKS if network.name == name]
    with stand_in(network, 500) as chain, answers_of(network), blocks(str(chain.url)):
        for variable, value in (("RPC_A", chain.url), ("RPC_B", chain.url), ("TRIMTAB_KEY", OWNER.private_key)):
            monkeypatch.setenv(variable, str(value))
        config = tmp_path / "trimtab.toml"

        def run(*command: str) -> CommandResult:
            result = bare(*command, "--config", str(config), "--json")
            assert result.code == 0, result.why
            return result

        run(*init(network, 500))
        config.write_text(config.read_text().replace('keystore = "wallet.json"', 'key_env = "TRIMTAB_KEY"'))
        run("trust", "--yes")
        done = run("rebalance", "--send", "--yes")
        assert done.json["outcome"] == "done"
        sent = [chain.rpc("eth_getTransactionByHash", transaction["hash"]) for transaction in done.json["transactions"]]
        assert {transaction["kind"] for transaction in done.json["transactions"]} >= {"approve", "swap"}
        least_wei, most_wei = tip_range_wei(network.chain_id)
        assert [transaction for transaction in sent if not least_wei <= int(transaction["maxPriorityFeePerGas"], 16) <= most_wei] == []
        deployed = run("deploy", "--send", "--yes")
        assert (deployed.json["outcome"], deployed.json["deployed"]) == ("done", True)
        assert (float(deployed.json["most_data_fee_native"]) > 0) == (data_fee_kind(network.chain_id) is not DataFeeKind.PLAIN)
