"""scripts/single_swap.py and scripts/fork_run.py as a user starts them, on the served chain and on a fork of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from eth_account import Account

from agent.app.documents.plans import RebalanceDocument
from agent.app.documents.status import StatusDocument
from agent.localchain.nodes import AnvilNode, free_port, run_anvil
from tests.cli.documents import misfits
from tests.cli.tools import SECRET, Desk
from tests.support.commands.scripts import SCRIPTS, run
from tests.support.commands.sending import nonce
from tests.support.text import mentions

PARENT_ID = 777
"""Of a chain that is not a development chain by its number."""


def test_a_single_swap_is_planned_first_and_sent_when_told(
    desk: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = (str(desk.config), "WETH", "USDC", "0.25")
    before = nonce(desk)
    dry = run("single_swap", *order, capfd=capfd, monkeypatch=monkeypatch)
    assert dry.code == 0
    assert "0.25 WETH" in dry.out
    assert mentions(dry.out, "planned", "0.25 WETH")
    assert nonce(desk) == before
    unasked = run("single_swap", *order, "--send", capfd=capfd, monkeypatch=monkeypatch)
    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert nonce(desk) == before
    weth = int(desk.holdings()["WETH"])
    capfd.readouterr()
    sent = run("single_swap", *order, "--send", "--yes", capfd=capfd, monkeypatch=monkeypatch)
    assert sent.code == 0
    assert "done:" in sent.out
    assert mentions(sent.out, "WETH", "-250000000000000000")
    assert weth - int(desk.holdings()["WETH"]) == 25 * 10**16


def test_a_single_swap_says_which_guard_refused(desk: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    desk.edit(('max_live_value = "100000"', 'max_live_value = "5"'))
    result = run("single_swap", str(desk.config), "WETH", "USDC", "0.25", "--send", "--yes", capfd=capfd, monkeypatch=monkeypatch)
    assert result.code == 10
    assert mentions(result.out, "refused", "max_live_value")
    wrong = run("single_swap", str(desk.config), "WETH", "NOSUCH", "1", capfd=capfd, monkeypatch=monkeypatch)
    assert (wrong.code, wrong.out) == (2, "")
    assert "NOSUCH" in wrong.err


def test_single_swap__stays_short_and_on_the_public_surface() -> None:
    text = (SCRIPTS / "single_swap.py").read_text()
    assert len(text.splitlines()) < 60
    imports = {line.split()[1] for line in text.splitlines() if line.startswith("from agent")}
    assert imports <= {"agent.app", "agent.engine", "agent.errors", "agent.units"}


@contextmanager
def parent(desk: Desk) -> Iterator[None]:
    """The served chain passes for a live one under another chain id; the config is that of an owner of such a chain."""
    desk.node.rpc("anvil_setChainId", PARENT_ID)
    owner = Account.from_key("0x" + "77" * 32).address
    desk.edit(
        ("chain_id = 31337", f'chain_id = {PARENT_ID}\nsingle_operator = "local"'),
        (f'address = "{desk.about["wallet"]}"\ntest_account = 0', f'address = "{owner}"\nkeystore = "wallet.json"'),
        ("sqlite:///trimtab.db", "sqlite:///owner.db"),
        # a wallet that holds nothing but wrapped native has much to trade
        ('turnover = "30%"', 'turnover = "off"'),
        ('daily_turnover = "60%"', 'daily_turnover = "off"'),
    )
    try:
        yield
    finally:
        desk.node.rpc("anvil_setChainId", 31337)


@pytest.mark.slow
@pytest.mark.parametrize("document", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["document", "words"])
def test_fork_run__rebalances_a_copy_and_leaves_the_parent(
    desk: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, document: bool
) -> None:
    with parent(desk):
        state = (desk.node.rpc("eth_blockNumber"), nonce(desk), desk.config.read_text())
        monkeypatch.setenv("RPC_URL", f"{desk.about['url']}/?key={SECRET}")
        result = run(
            "fork_run", str(desk.config), "--native", "2", *(("--json",) if document else ()), capfd=capfd, monkeypatch=monkeypatch
        )
        assert result.code == 0, result.err
        if document:
            run_document = json.loads(result.out)
            assert not misfits(StatusDocument, run_document["before"]) + misfits(RebalanceDocument, run_document["rebalance"])
            assert run_document["before"]["decision"]["kind"] == "rebalance"
            assert run_document["rebalance"]["outcome"] == "done"
            assert [sent["kind"] for sent in run_document["rebalance"]["transactions"]].count("swap") == 1
            assert run_document["after"]["decision"]["kind"] == "hold"
        else:
            assert "done:" in result.out
        assert nonce(desk) == state[1]
        assert desk.config.read_text() == state[2]
        assert not (desk.config.parent / "owner.db").exists()


def test_fork__keeps_its_parent_s_chain_id_and_takes_test_keys(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with parent(desk), run_anvil(flags=["--fork-url", desk.about["url"]]) as url:
        fork = AnvilNode(url)
        assert int(fork.rpc("eth_chainId"), 16) == PARENT_ID
        text = desk.config.read_text()
        endpoint = next(line for line in text.splitlines() if line.startswith("url = "))
        desk.config.write_text(text.replace(endpoint, f'url = "{url}"').replace("[[chain.rpc]]", "fork = true\n[[chain.rpc]]", 1))
        assert desk.run("trust", "--yes").code == 0
        keystore = desk.config.parent / "wallet.json"
        keystore.write_text(json.dumps(Account.encrypt("0x" + "77" * 32, "x", kdf="pbkdf2", iterations=1000)))
        keystore.chmod(0o600)
        monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", "x")
        error = desk.ask("rebalance", "--send", "--yes", want=2)["error"]
        assert "fork" in error["message"]
        assert f"chain {PARENT_ID}" in error["message"]
        assert int(fork.rpc("eth_getTransactionCount", Account.from_key("0x" + "77" * 32).address, "latest"), 16) == 0


def test_on_a_chain_that_is_not_a_fork_test_keys_are_refused(desk: Desk) -> None:
    with parent(desk):
        desk.edit(('keystore = "wallet.json"', "test_account = 0"))
        assert "local chains" in desk.ask("rebalance", "--send", "--yes", want=2)["error"]["message"]


def test_a_fork_run_needs_an_upstream(desk: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPC_URL", raising=False)
    result = run("fork_run", str(desk.config), capfd=capfd, monkeypatch=monkeypatch)
    assert result.code == 2
    assert "RPC_URL" in result.err
    monkeypatch.setenv("RPC_URL", f"http://127.0.0.1:{free_port()}/{SECRET}")
    down = run("fork_run", str(desk.config), capfd=capfd, monkeypatch=monkeypatch)
    assert down.code == 11
    assert "be reached" in down.err
    desk.edit(("chain_id = 31337", "chain_id = 1337"))
    monkeypatch.setenv("RPC_URL", desk.about["url"])
    other = run("fork_run", str(desk.config), capfd=capfd, monkeypatch=monkeypatch)
    assert other.code == 2
    assert mentions(other.err, "31337", "1337")


@pytest.mark.parametrize("name", ["fork_run", pytest.param("single_swap", marks=pytest.mark.slow)])
def test_the_scripts_run_as_programs(name: str) -> None:
    """Imports and usage; what they do is tested above."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), "--help"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0
    assert "config" in done.stdout
