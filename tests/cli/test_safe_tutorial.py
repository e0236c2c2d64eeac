"""docs/safe.md: each of its commands is run on the chain of its first one, from the Safe's first proposal to the end of the rebalance."""

from __future__ import annotations

import json
import re
import shlex
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from agent.config.writing.template import SAFE_LINES
from agent.localchain.nodes import free_port
from agent.localchain.safe import OWNER_INDEXES
from agent.localchain.world import dev_accounts
from tests.cli.documents import require_declared
from tests.cli.tools import CommandResult, first_document, in_process, start

PAGE = Path(__file__).parents[2] / "docs" / "safe.md"


def commands() -> list[str]:
    """The lines of the page that are commands, in order, without comments; its last section is about other chains."""
    lines = PAGE.read_text().partition("## On a live chain")[0].splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("trimtab ")]


@pytest.fixture
def safe_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The chain of the page's first command, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    first = shlex.split(commands()[0])[1:]
    process = start(*first, "--port", str(free_port()), "--json")
    try:
        yield first_document(process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def sign_with_a_wallet(data: Path, answer: Path) -> None:
    """What a wallet with eth_signTypedData_v4 answers, of an owner who has not signed."""
    owner = dev_accounts()[OWNER_INDEXES[2]]
    signed = Account.sign_typed_data(owner.private_key, full_message=json.loads(data.read_text()))
    answer.write_text("0x" + bytes(signed.signature).hex())


def test_tutorial__leads_to_the_executed_rebalance_of_a_safe(
    safe_chain: dict[str, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_declared(("localchain",), safe_chain)
    assert safe_chain["owners"] == {str(index): dev_accounts()[index].address for index in OWNER_INDEXES}
    monkeypatch.setenv("COLUMNS", "100")

    def run(line: str) -> CommandResult:
        words, _, target = line.partition(" > ")
        result = in_process(capfd, monkeypatch, *shlex.split(words)[1:])
        if target:
            Path(target).write_text(result.out)
        return result

    *first_lines, last_line = commands()[1:]
    shown_id = None
    for page_line in (*first_lines, f"{last_line} --json"):
        line = page_line
        if shown_id is not None:
            line = page_line.replace(" ID", f" {shown_id[1]}")
        if "proposal collect" in line:
            sign_with_a_wallet(Path("typed.json"), Path("signature.txt"))
        result = run(line)
        assert result.code == 0 or (result.code == 11 and "rebalance" in line), (line, result.why)
        if "proposal list" in line:
            assert "signatures: 0 of 2" in result.out
            shown_id = re.search(r" \(waiting, (\w+)\)$", result.out, re.MULTILINE)
            assert shown_id, "the ID that the other lines of the page need"
            (proposal_path,) = Path("proposals").iterdir()
            shown_file = run(f"trimtab proposal show {proposal_path} --json").json
            call_lines = shown_file["calls"]
            assert shown_file["why"] == run("trimtab proposal list --json").json["proposals"][0]["why"] != ""
            assert ". Why: first rebalance; WETH at " in run(f"trimtab proposal export {shown_id[1]}").json["meta"]["description"]
            assert not [line for line in call_lines if "WARNING" in line], call_lines
            assert call_lines == run("trimtab proposal list --json").json["proposals"][0]["in_words"]
            assert "".join(f"  {line}\n" for line in call_lines) in result.out
            approved = re.search(r"^  lets 0x\w{40} \(uniswap_v3 router\) spend (\S+ WETH)$", result.out, re.MULTILINE)
            assert approved
            assert result.out.startswith(f"approve the router for {approved[1]}, then ")
            assert re.search(
                r"^  cost when proposed: \S+ USDC, at worst \S+ USDC \(minimums only, prices off by oracle_deviation\);"
                r" the gas in it is paid by who executes it;"
                r" weights after: \w+ [\d.]+ %",
                result.out,
                re.MULTILINE,
            )
            assert "  why: " in result.out
            assert "  2 calls, all or none, by 0x9641d764fc13c8B624c04430C7356C1C7C8102e2 (MultiSendCallOnly):" in result.out
        if "proposal sign ID --key" in page_line:
            count = re.search(r"(\d) of 2 signatures", result.out)
            assert count
            assert result.out.startswith("Signed by 0x"), result.out
            shown_id = re.search(r"\(waiting, (\w+)\)", result.err)
            assert shown_id, "the call is shown before it is signed"
            next_text = "another owner signs: trimtab proposal sign" if count[1] == "1" else "trimtab proposal execute"
            assert f"{next_text} {shown_id[1]}" in result.out
            assert run(line).out.startswith("Signed already by 0x")
        if "execute" in line and "--send" in line:
            assert "Executed in transaction 0x" in result.out, result.out
            assert "(executed, " in result.out, result.out
            assert "executable until" not in result.out, result.out
            assert "Already executed in transaction 0x" in run(line).out
    assert result.code == 0, "the last rebalance holds"
    (booked_text,) = result.json["booked_proposals"]
    assert booked_text.startswith("executed in 0x")
    assert run("trimtab proposal list --json").json == {"proposals": [], "held_up": ""}
    transactions = run("trimtab txs --json").json["transactions"]
    assert [(row["kind"], row["status"]) for row in transactions] == [("swap", "final")]
    again = run("trimtab proposal execute --json").json
    assert (again["outcome"], again["transaction"]) == ("executed", transactions[0]["hash"])
    for words, document_keys in (
        ("list", {"proposals", "held_up"}),
        ("sign --yes", {"error"}),
        ("collect 0x12", {"error"}),
        ("collect", {"error"}),
    ):
        assert run(f"trimtab proposal {words} --json").json.keys() == document_keys


def test_tutorial__shows_the_lines_of_a_new_config_of_a_safe() -> None:
    snippet = PAGE.read_text().partition("```toml\n")[2].partition("```")[0]
    values = [table.items() for table in tomllib.loads(snippet).values()]
    assert dict(pair for items in values for pair in items) == tomllib.loads("\n".join(SAFE_LINES.values()))


def test_tutorial__shows_every_command_about_proposals() -> None:
    words = set(re.findall(r"trimtab proposal (\w+)", PAGE.read_text()))
    assert words == {"list", "show", "sign", "collect", "execute", "export"}
