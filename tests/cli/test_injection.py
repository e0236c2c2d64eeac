"""The corpus of foreign text through every command: a token on the chain and a token list carry it (T17).

A command that has no row here fails the first test: whoever adds one says what it is run with.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.cli.tools import CommandResult, Desk, attach
from tests.support.commands.options import every_command, takes
from tests.support.foreign_text import CORPUS, MARKS, all_logs

NAME = "".join(CORPUS.values())
LIST = "list.json"
ROWS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("init",): (
        *("--wallet", "0x" + "11" * 20, "--target", "WETH=50%", "--target", "GOOD=50%", "--numeraire", "WETH", "--price", "3000"),
        *("--rpc", "RPC_A=one", "--rpc", "RPC_B=two", "--token-list", LIST),
    ),
    ("templates",): (),
    ("export-profile",): ("out.profile",),
    ("import-profile",): ("out.profile",),
    ("deploy",): (),
    ("doctor",): (),
    ("trust",): ("--yes",),
    ("status",): (),
    ("quote",): ("--in", "ODD", "--out", "USDC", "--amount", "1"),
    ("plan",): ("--save-input", "input.json"),
    ("rebalance",): ("--send", "--yes"),
    ("swap",): ("--in", "USDC", "--out", "ODD", "--amount", "600"),
    ("run",): ("--once",),
    ("paper",): ("--once", "--value", "1000", "--record", "steps"),
    ("replay",): ("steps",),
    ("health",): (),
    ("history",): (),
    ("explain",): ("STEP",),
    ("lp",): (),
    ("lp", "take"): ("1",),
    ("lp", "forget"): ("1",),
    ("oracle",): (),
    ("txs",): (),
    ("cancel",): (),
    ("reconcile",): (),
    ("adopt",): ("--yes",),
    ("pnl",): ("--now",),
    ("export",): ("--out", "exported", "--force"),
    ("books", "check"): (),
    ("books", "journal"): (),
    ("books", "lots"): (),
    ("books", "open"): (),
    ("flows",): (),
    ("flows", "confirm"): ("all",),
    ("db", "backup"): ("backup.db",),
    ("db", "restore"): ("backup.db",),
    ("db", "check"): (),
    ("db", "copy"): ("sqlite:///copied.db",),
    ("worker",): (),
    ("token", "add"): ("reader", "--scope", "read"),
    ("token", "list"): (),
    ("token", "revoke"): ("reader",),
    ("user", "add"): ("someone",),
    ("user", "list"): (),
    ("user", "remove"): ("someone",),
    ("user", "log"): (),
    ("wallet", "create"): (),
    ("wallet", "address"): (),
    ("wallet", "import"): (),
    ("wallet", "change-password"): (),
    ("limit",): (),
    ("proposal", "list"): (),
    ("proposal", "show"): ("steps",),
    ("proposal", "sign"): ("--yes",),
    ("proposal", "collect"): ("0x12",),
    ("proposal", "execute"): (),
    ("proposal", "export"): (),
    ("positions",): (),
    ("margin",): (),
    ("funding",): (),
    ("deleverage",): ("--to", "1x"),
    ("hedge",): ("ODD",),
    ("delegate",): (),
    ("orders",): (),
    ("orders", "set"): ("ODD", "--stop-loss", "10%"),
    ("orders", "arm"): ("ODD",),
    ("orders", "disarm"): ("ODD",),
    ("prices",): (),
    ("prices", "import"): ("prices.csv",),
    ("prices", "fetch"): (),
    ("prices", "forget"): ("import",),
    ("strategies",): (),
    ("strategies", "apply"): (),
    ("strategies", "deposits-to"): ("all",),
    ("weights",): (),
    ("whatif",): ("--target", "ODD=50,USDC=50", "--value", "ODD=1,USDC=1"),
    ("backtest",): (),
    ("stress",): (),
    ("tune",): (),
    ("alerts",): (),
    ("alerts", "test"): (),
    ("invest",): ("--send", "--yes"),
    ("withdraw",): ("10",),
    ("edit",): ("--set", "policy.cooldown=2h"),
    ("revoke",): (),
    ("rehearse",): (),
    ("stop",): (),
    ("pause",): (),
    ("resume",): (),
    ("controls",): (),
    ("telegram",): (),
    ("install",): (),
    ("request",): ("rebalance",),
}
"""What each command is run with, twice: for text, and for its document."""
CODES: dict[tuple[str, ...], tuple[int, int]] = {
    ("export-profile",): (0, 2),  # the file exists by then
    ("health",): (15, 15),  # of a run that is none
    ("db", "backup"): (0, 2),
    ("db", "restore"): (2, 2),  # not over the present store
    ("db", "copy"): (0, 10),  # paused by the first copy
    ("token", "add"): (0, 2),
    ("request",): (10, 10),
    ("edit",): (2, 2),  # there is no terminal to confirm it
    ("resume",): (10, 10),  # what the copy took with it must be adopted
}
"""Exit codes that are not 0, for text and for the document."""
REFUSED = {
    ("lp", "take"), ("lp", "forget"), ("worker",), ("user", "add"), ("user", "remove"), ("proposal", "list"), ("proposal", "sign"),
    ("proposal", "collect"), ("proposal", "execute"), ("proposal", "export"), ("positions",), ("margin",), ("funding",), ("deleverage",),
    ("hedge",), ("delegate",), ("orders", "set"), ("orders", "arm"), ("orders", "disarm"), ("prices", "import"), ("strategies",),
    ("strategies", "apply"), ("weights",), ("backtest",), ("stress",), ("tune",), ("alerts", "test"), ("telegram",), ("wallet", "create"),
    ("wallet", "import"), ("wallet", "change-password"), ("proposal", "show"),
}  # fmt: skip
"""Commands that need what the desk does not have, such as futures: they say so with code 2."""
LAST = (("db", "copy"), ("pause",), ("resume",), ("db", "restore"), ("adopt",))


def planted(desk: Desk, folder: Path) -> LocalChain:
    """A token of that name in LINK's place, in a pool, held, drifted; a list whose names are the corpus."""
    chain = attach(desk)
    token = chain.add_token(NAME, 18, 15)
    chain.add_v2_pool(NAME, "USDC", 5_000_000)
    chain.set_balance(NAME, 80 * 10**18)
    tokens = desk.about["tokens"]
    feeds = desk.about["feeds"]
    desk.edit((f'symbol = "LINK"\naddress = "{tokens["LINK"]}"', f'symbol = "ODD"\naddress = "{token.address}"'))
    desk.edit((feeds["LINK"], chain.feed_addresses[NAME]), ('kind = ["feed", "twap"]', 'kind = ["feed"]'))
    entries = [
        {"chainId": 1, "symbol": symbol, "name": text, "address": "0x1f9840a85d5aF5bf1D1762F925BDADdC4201F984", "decimals": 18}
        for text in CORPUS.values()
        for symbol in (text, "GOOD")
    ]
    (folder / LIST).write_text(json.dumps({"name": NAME, "tokens": entries}))
    return chain


def harmful_marks(text: str) -> list[str]:
    return [mark for mark in MARKS if mark in text]


def test_every_command_has_its_row() -> None:
    assert set(ROWS) == set(every_command())


@pytest.mark.slow
def test_foreign_text__reaches_no_output_log_document_or_store(
    desk: Desk, bare: Callable[..., CommandResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planted(desk, tmp_path)
    shown_texts: list[tuple[tuple[str, ...], str]] = []
    with all_logs() as logs:
        for words, row in sorted(ROWS.items(), key=lambda row: row[0] in LAST):
            for form in ((), ("--json",)):
                step = desk.ask("history")["steps"][0]["step"] if row == ("STEP",) else ""
                args = tuple(step if answer == "STEP" else answer for answer in row)
                config = ("--config", str(tmp_path / f"new{len(form)}.toml")) if words == ("init",) else ()
                run = desk.run if takes(words, "--config") else bare
                result = run(*words, *args, *(form if takes(words, "--json") else ()), *config)
                codes = (2, 2) if words in REFUSED else CODES.get(words, (0, 0))
                assert "--help" not in result.err, f"usage, not the command: {words} {result.err}"
                assert result.code == codes[len(form)], (words, result.why)
                shown_texts.append((words, result.out + result.err))
    assert any("ODD" in text for _, text in shown_texts)
    assert not [(words, harmful_marks(text)) for words, text in shown_texts if harmful_marks(text)]
    assert not harmful_marks(logs.getvalue())
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != LIST:
            assert not harmful_marks(path.read_bytes().decode("latin-1")), path
    with sqlite3.connect(tmp_path / "trimtab.db") as store:
        queries = ("SELECT input_z FROM steps", "SELECT plan_z FROM steps", "SELECT grant_z FROM intents")
        blobs = [row[0] for query in queries for row in store.execute(query)]
    assert len(blobs) > 3
    assert not [harmful_marks(text) for blob in blobs if blob and harmful_marks(text := zlib.decompress(blob).decode())]
