"""Tests of agent/chain/providers/one_block.py: contract calls that stay at the hash of a block, and answers of a certain size."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chain.providers.checked import open_web3
from agent.chain.providers.one_block import BlockProvider
from agent.chain.rpc import CallFailed, RpcFault, block_ref_at_hash
from agent.errors import Retryable, TrimtabError
from tests.support.builders import OWNER
from tests.support.fakes.transport import BLOCK, ScriptedTransport
from tests.support.text import raises_code

OTHER_BLOCK = "0x" + "ee" * 32
SEVEN = f"0x{7:064x}"
CALL: tuple[str, list[Any]] = ("eth_call", [{"to": OWNER, "data": "0x12", "gas": "0x1", "value": "0x2"}, "latest"])


def test_block_provider_calls_at_its_block_with_recipient_and_data() -> None:
    node = ScriptedTransport(eth_call=SEVEN)

    assert BlockProvider(node, BLOCK).batch([CALL]) == [SEVEN]

    assert node.calls == [("eth_call", [{"to": OWNER, "data": "0x12"}, block_ref_at_hash(BLOCK)])]


def test_block_provider_moves_to_another_block_and_endpoint() -> None:
    old_node = ScriptedTransport(eth_call=SEVEN)
    new_node = ScriptedTransport(eth_call=SEVEN)
    provider = BlockProvider(old_node, BLOCK)

    provider.move_to(new_node, OTHER_BLOCK)
    provider.batch([CALL])

    assert (old_node.calls, new_node.calls[0][1][1]) == ([], block_ref_at_hash(OTHER_BLOCK))


@pytest.mark.parametrize(
    ("answers", "sizes"),
    [
        pytest.param([SEVEN], (32,), id="of the size"),
        pytest.param([SEVEN, "0x12"], (32,), id="more calls than sizes"),
        pytest.param([RpcFault(3, "execution reverted")], (32,), id="a revert"),
        pytest.param(["0x12"], (), id="no sizes"),
    ],
)
def test_block_provider_returns_answers_of_their_size(answers: list[object], sizes: tuple[int, ...]) -> None:
    remaining = list(answers)
    node = ScriptedTransport(eth_call=lambda _params: remaining.pop(0))

    assert BlockProvider(node, BLOCK, sizes).batch([CALL] * len(answers)) == answers


@pytest.mark.parametrize("answer", ["0x" + "00" * 31, "0x" + "00" * 33, "0x"], ids=["a byte less", "a byte more", "nothing"])
def test_block_provider_refuses_an_answer_of_another_size(answer: str) -> None:
    with raises_code(Retryable, "answer", "is not 32 bytes"):
        BlockProvider(ScriptedTransport(eth_call=answer), BLOCK, (32,)).batch([CALL])


@pytest.mark.parametrize(("method", "result"), [("net_version", "1"), ("eth_getTransactionCount", "0x0")])
def test_block_provider_answers_what_the_library_asks_by_itself(method: Any, result: str) -> None:
    node = ScriptedTransport()

    assert BlockProvider(node, BLOCK).make_request(method, [OWNER])["result"] == result
    assert node.calls == []


@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getBalance", "eth_blockNumber"])
def test_block_provider_refuses_every_other_method(method: Any) -> None:
    with raises_code(TrimtabError, "method", method):
        BlockProvider(ScriptedTransport(), BLOCK).make_request(method, [])


def test_block_provider_raises_our_error_of_a_revert() -> None:
    w3 = open_web3(BlockProvider(ScriptedTransport(eth_call=RpcFault(3, "execution reverted")), BLOCK))

    with pytest.raises(CallFailed, match="refused eth_call: execution reverted"):
        w3.eth.call({"to": OWNER, "data": "0x"})  # type: ignore[typeddict-item]  # an address
