"""`trimtab mcp` as an assistant's program runs it: the SDK's client over stdio. Each document is its command's, and nothing acts."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("mcp") is None and not os.environ.get("CI"):
    pytest.skip("trimtab mcp needs its extra", allow_module_level=True)

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, TextResourceContents

from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.store.files.secret import secret_path
from agent.web.api import assistant
from agent.web.api.assistant import DATA_NOTICE, Assistant, build_server, escape_texts, instructions
from tests.cli.tools import SECRET, Desk
from tests.support.commands.documents import without_latency
from tests.support.dashboards import InProcessAppProcess
from tests.support.stores import install_later_version
from tests.support.text import raises_field

PROGRAM = """
import atexit, sys
from agent.cli.main import main
watched = ("agent.signing", "agent.wiring", "agent.config", "agent.store", "eth_", "keyring")
atexit.register(lambda: print([name for name in sys.modules if name.startswith(watched)], file=sys.stderr))
main()
"""
"""`trimtab`, which says at its end what it has loaded of all that signs."""


def test_assistant__gets_documents_as_data_and_changes_nothing(desk: Desk, tmp_path: Any) -> None:
    desk.ask("rebalance", "--send", "--yes")
    stand_still(desk)
    log_path = tmp_path / "said.txt"
    before = sent_state(desk)
    secret_path(desk.config.with_name("trimtab.db")).unlink()
    files = files_of(desk)
    files_before = dict[str, Any]()

    async def talk() -> None:
        program = StdioServerParameters(
            command=sys.executable, args=["-c", PROGRAM, "mcp", "--config", str(desk.config)], env=dict(os.environ)
        )
        with log_path.open("w") as errors:
            async with stdio_client(program, errlog=errors) as (read, write), ClientSession(read, write) as session:
                began = await session.initialize()
                assert began.instructions == instructions(allow_controls=False)
                tools = (await session.list_tools()).tools
                assert {tool.name for tool in tools} == {"status", "plan", "explain", "history", "pnl", "controls"}
                assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
                calls = {"status": {}, "plan": {}, "history": {"limit": 1}, "pnl": {"period": "day"}, "explain": {}, "controls": {}}
                for name, call in calls.items():
                    files_before[name] = await session.call_tool(name, call)
                refused = {
                    "rebalance": {},
                    "request_control": {"kind": "pause", "key": "a" * 8},
                    "status": {"send": True},
                    "history": {"limit": 0},
                    "explain": {"step": "../a"},
                }
                for name, call in refused.items():
                    assert (await session.call_tool(name, call)).is_error, name
                unknown = await session.call_tool("explain", {"step": "none"})
                assert unknown.is_error
                assert text_of(unknown).startswith("unknown: ")
                assert text_of(unknown).endswith(DATA_NOTICE)
                pages = (await session.list_resources()).resources
                assert {"api", "limits", "triggers"} <= {page.name for page in pages}
                (page,) = (await session.read_resource("trimtab://docs/limits")).contents
                assert isinstance(page, TextResourceContents)
                assert page.text.startswith("# ")
                for outside in ("trimtab://docs/../pyproject.toml", "file:///etc/passwd"):
                    with pytest.raises(Exception, match="no such page"):
                        await session.read_resource(outside)

    asyncio.run(talk())
    assert log_path.read_text() == "[]\n", "it loads nothing that signs, and says nothing"
    assert files_of(desk) == files, "reading makes no file"
    document_by_command = {
        "status": desk.ask("status"), "history": desk.ask("history", "--limit", "1"), "pnl": desk.ask("pnl", "--period", "day"),
        "explain": desk.ask("explain", files_before["explain"].structured_content["document"]["step"]), "plan": desk.ask("plan"),
    }  # fmt: skip
    for name, document in document_by_command.items():
        structured_content = files_before[name].structured_content
        assert structured_content["notice"] == DATA_NOTICE
        assert SECRET not in text_of(files_before[name])
        assert without_latency(structured_content["document"]) == without_latency(document), name
    assert sent_state(desk) == before


def files_of(desk: Desk) -> set[str]:
    return {path.name for path in desk.config.parent.rglob("*")} - {"said.txt"}


def stand_still(desk: Desk) -> None:
    """Keep the newest block of the local chain, which mines every 10 s while nothing happens."""
    desk.node.mine_at(int(time.time()))
    desk.node.rpc("evm_setAutomine", False)


def sent_state(desk: Desk) -> tuple[str, str]:
    """The newest block, and how many transactions the wallet has sent, those that wait included."""
    return desk.node.rpc("eth_blockNumber"), desk.node.rpc("eth_getTransactionCount", desk.about["wallet"], "pending")


def test_permitted_assistant__queues_a_shown_plan_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ask("plan")
    monkeypatch.setattr(assistant, "AppProcess", InProcessAppProcess)
    stand_still(desk)
    helper = Assistant(str(desk.config), allow_controls=True)
    before = sent_state(desk)

    def call(name: str, **arguments: Any) -> Any:
        return asyncio.run(helper.answer(name, arguments))["document"]

    for kind in ("resume", "withdraw", "edit", "stop"):
        with raises_field("kind"):
            call("request_control", kind=kind, key="12345678")
    with raises_field("key"):
        call("request_control", kind="pause")
    with pytest.raises(Refused) as unshown:
        call("request_control", kind="rebalance", plan_hash="0" * 64, key="12345678")
    assert unshown.value.code == "not_shown"
    result = call("preview_control", kind="rebalance")
    request = {"kind": "rebalance", "plan_hash": result["plan_hash"], "key": "23456789"}
    queued = call("request_control", **request)
    assert (queued["state"], queued["origin"], queued["requested_by"]) == ("queued", "assistant", "assistant")
    assert call("request_control", **request) == queued
    assert call("request_control", kind="pause", key="34567890")["state"] == "done"
    assert desk.ask("status")["paused"]
    assert call("controls")["queued"] == 1
    assert sent_state(desk) == before


@pytest.mark.slow
def test_a_store_of_an_earlier_version_is_left_to_the_owner(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    desk.ask("plan")
    install_later_version(monkeypatch, tmp_path_factory.mktemp("later"))
    monkeypatch.setattr(assistant, "AppProcess", InProcessAppProcess)  # the later version is installed in this process alone
    files = files_of(desk)
    reader = Assistant(str(desk.config))
    try:
        with pytest.raises(OperatorNeeded, match="older"):
            reader.require_store()
    finally:
        reader.close()
    assert files_of(desk) == files


def text_of(result: CallToolResult) -> str:
    return "".join(part.text for part in result.content if part.type == "text")


@pytest.mark.parametrize("allow_controls", [True, False], ids=["with controls", "without"])
def test_instructions__say_whether_a_tool_leads_to_trades(allow_controls: bool) -> None:
    served = build_server(Assistant("none.toml", allow_controls)).create_initialization_options().instructions
    assert served == instructions(allow_controls=allow_controls)
    assert DATA_NOTICE in served
    assert ("No tool leads to a transaction." in served) is not allow_controls
    assert ("request_control makes trimtab run trade: ask the owner first." in served) is allow_controls


@pytest.mark.parametrize(
    ("hostile", "text"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\u202eCDSU", "\\u202eCDSU"),
        ("US\u200bDC", "US\\u200bDC"),
        ("\U000e0049\U000e0067", "\\U000e0049\\U000e0067"),
    ],
)
def test_invisible_text__is_escaped_for_an_assistant_too(hostile: str, text: str) -> None:
    assert escape_texts({hostile: [{"reason": hostile, "raw": "1", "count": 2, "none": None}]}) == {
        text: [{"reason": text, "raw": "1", "count": 2, "none": None}]
    }


def test_without_the_extra_the_remedy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.stdio", None)
    with pytest.raises(ConfigError) as missing:
        assistant.serve_assistant("none.toml", False)
    assert "trimtab[mcp]" in missing.value.remedy
