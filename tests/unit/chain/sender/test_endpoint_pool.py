"""What several endpoints say of a transaction together: one that lies alone decides nothing, and nothing sent is ever taken for unsent."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.quorum import NoQuorum
from agent.chain.rpc import EndpointOverloaded, RpcFault
from agent.chain.sender import NonceUsed, QuorumSender, SendRefused
from agent.errors import OperatorNeeded, Retryable
from tests.support.chain_reads.senders import CHAIN_ID, HASH, LOW, POOR, RECEIPT, SIGNED, node, sender
from tests.support.dashboards import until
from tests.support.fakes.transport import HEAD_JSON
from tests.support.signing import CANCEL, WALLET
from tests.support.text import mentions, raises_code

DOWN = Retryable("it cannot be reached")


def against(**lies: object) -> tuple[QuorumSender, EndpointPool]:
    """Two honest operators and one that alters some answers."""
    panel = EndpointPool([node("liar", **lies), node("alpha"), node("beta")], 2, grace_s=0.5)
    return QuorumSender(panel, CHAIN_ID), panel


def why(panel: EndpointPool) -> str:
    return dict(panel.endpoint_states())["liar"].last_failure


def header(**changes: str) -> dict[str, str]:
    return HEAD_JSON | changes


# nonces
@pytest.mark.parametrize("lie", ["0x0", "0x4", "0x6", "0x77"])
def test_one_liar_moves_no_nonce(lie: str) -> None:
    lying, panel = against(eth_getTransactionCount=lie)
    assert lying.nonces(WALLET) == (5, 5)
    assert ("nonce" in why(panel)) == (int(lie, 16) > 5)


def test_nonces__are_the_lower_used_and_the_higher_pending() -> None:
    def counts(latest: str, pending: str) -> Any:
        return lambda params: latest if params[1] == "latest" else pending

    assert sender(node("a"), node("b", eth_getTransactionCount="0x4")).nonces(WALLET)[0] == 4
    assert sender(node("a"), node("b", eth_getTransactionCount=counts("0x5", "0x7"))).nonces(WALLET) == (5, 7)
    lying, _ = against(eth_getTransactionCount=counts("0x5", "0x7"))
    assert lying.nonces(WALLET) == (5, 5)


# headers
@pytest.mark.parametrize(
    "lie",
    [
        header(number="0xffffff"),
        header(number="0x1"),
        header(timestamp="0xffffffff"),
        header(hash="0x" + "ee" * 32),
        header(baseFeePerGas="0x1"),
    ],
    ids=["height", "behind", "time", "hash", "base fee"],
)
def test_one_liar_moves_no_header(lie: dict[str, str]) -> None:
    lying, panel = against(eth_getBlockByNumber=lie)
    head = lying.head()
    assert (head.number, head.timestamp_s, head.base_fee_wei) == (0x10, 0x64, 7)
    assert lying.block_hash(0x10) == HEAD_JSON["hash"]
    assert why(panel) or lie["number"] == "0xffffff"


def level(number: int) -> Any:
    """A node whose newest block is `number`; the hash of block n is n everywhere."""

    def block(params: list[Any]) -> dict[str, str] | None:
        height = number if params[0] == "latest" else int(params[0], 16)
        return header(number=hex(height), hash=f"0x{height:064x}") if height <= number else None

    return block


def test_uneven_endpoints__are_read_at_the_block_that_enough_have() -> None:
    blocks = [node(f"n{height}", eth_getBlockByNumber=level(height)) for height in (101, 100)]
    assert sender(*blocks).head().number == 100
    third = [*blocks, node("late", eth_getBlockByNumber=level(60))]
    panel = EndpointPool(third, 2, grace_s=0.5)
    assert QuorumSender(panel, CHAIN_ID).head().number == 100
    assert "40 blocks behind" in dict(panel.endpoint_states())["late"].last_failure
    assert sender(*blocks).simulate(CANCEL, WALLET).head.number == 100


def test_headers_that_differ_between_two_are_no_quorum() -> None:
    with raises_code(NoQuorum, "quorum", "16"):
        sender(node("a"), node("b", eth_getBlockByNumber=header(timestamp="0x1"))).head()
    with raises_code(NoQuorum, "quorum", "block 16"):
        sender(node("a"), node("b", eth_getBlockByNumber=header(hash="0x" + "ee" * 32))).block_hash(16)


def test_an_endpoint_of_another_chain_has_no_vote() -> None:
    lying, _ = against(eth_chainId="0x1")
    assert lying.head().chain_id == CHAIN_ID
    with raises_code(OperatorNeeded, "chain", "chain 1"):
        sender(node("a", eth_chainId="0x1"), minimum=1).head()


# simulation
@pytest.mark.parametrize(
    "lie",
    [{"eth_call": RpcFault(3, "execution reverted")}, {"eth_estimateGas": "0x1"}, {"eth_estimateGas": "0xffffffff"}],
    ids=["reverts", "little gas", "much gas"],
)
def test_one_liar_decides_no_simulation(lie: dict[str, object]) -> None:
    lying, _ = against(**lie)
    simulation = lying.simulate(CANCEL, WALLET)
    assert (simulation.ok, simulation.gas) == (True, 0x5208)


def test_one_liar_does_not_make_a_revert_a_success() -> None:
    reverts = {"eth_call": RpcFault(3, "execution reverted: STF")}
    simulation = sender(node("liar"), node("a", **reverts), node("b", **reverts)).simulate(CANCEL, WALLET)
    assert not simulation.ok
    assert "STF" in simulation.reason


def test_disagreement_on_a_simulation__sends_nothing_and_is_named() -> None:
    simulation = sender(node("a"), node("b", eth_call=RpcFault(3, "execution reverted: STF"))).simulate(CANCEL, WALLET)
    assert not simulation.ok
    assert "disagree (b: " in simulation.reason
    assert "succeeds for a" in simulation.reason


def test_contracts_refuse_only_by_the_word_of_enough_operators() -> None:
    reverts = {"eth_call": RpcFault(3, "execution reverted: STF")}
    assert sender(node("a", **reverts), node("b", **reverts)).simulate(CANCEL, WALLET).reverted
    for other in ({}, {"eth_call": POOR}):
        simulation = sender(node("a", **reverts), node("b", **other)).simulate(CANCEL, WALLET)
        assert (simulation.ok, simulation.reverted) == (False, False)


def test_of_two_estimates_the_higher_counts() -> None:
    assert sender(node("a"), node("b", eth_estimateGas="0x6000")).simulate(CANCEL, WALLET).gas == 0x6000


# receipts
@pytest.mark.parametrize(
    "lie", [{"status": "0x0"}, {"blockHash": "0x" + "ee" * 32}, {"gasUsed": "0x1"}, {"blockNumber": "0x9"}], ids=lambda lie: next(iter(lie))
)
def test_one_liar_falsifies_no_receipt(lie: dict[str, str]) -> None:
    lying, panel = against(eth_getTransactionReceipt=RECEIPT | lie)
    receipt = lying.status_of(HASH).receipt
    assert receipt is not None
    assert (receipt.status, receipt.block_number, receipt.gas_used) == (1, 0x10, 0x5208)
    assert mentions(why(panel), "a receipt")


def test_receipt_that_one_alone_shows__is_still_on_its_way() -> None:
    alone = sender(node("liar"), *(node(n, eth_getTransactionReceipt=None, eth_getTransactionByHash=None) for n in "ab"))
    assert (alone.status_of(HASH).state, alone.status_of(HASH).receipt) == ("pending", None)


def test_a_hash_is_unknown_only_when_nobody_knows_it() -> None:
    blank: dict[str, object] = {"eth_getTransactionReceipt": None, "eth_getTransactionByHash": None}
    assert sender(node("a", **blank), node("b", **blank)).status_of(HASH).state == "unknown"
    assert (
        sender(node("a", **blank), node("b", **blank), node("c", **(blank | {"eth_getTransactionByHash": {}}))).status_of(HASH).state
        == "pending"
    )
    with raises_code(Retryable, "operators", "1 of 2"):
        sender(node("a", **blank), node("b", **(blank | {"eth_getTransactionReceipt": DOWN}))).status_of(HASH)


def test_a_hash_that_a_slower_operator_knows_is_waited_for() -> None:
    blank: dict[str, object] = {"eth_getTransactionReceipt": None, "eth_getTransactionByHash": None}

    def know_late(_params: list[object]) -> dict[str, str]:
        time.sleep(0.1)
        return {"hash": HASH}

    nodes = [node("a", **blank), node("b", **blank), node("late", eth_getTransactionReceipt=None, eth_getTransactionByHash=know_late)]
    assert sender(*nodes).status_of(HASH).state == "pending"


def test_a_simulation_says_that_its_endpoints_are_not_level() -> None:
    far_apart = [node(f"n{height}", eth_getBlockByNumber=level(height)) for height in (100, 60)]
    assert "40 blocks" in sender(*far_apart).simulate(CANCEL, WALLET).height_disagreement
    assert sender(node("a"), node("b")).simulate(CANCEL, WALLET).height_disagreement == ""


# sending
def test_bytes__go_to_every_public_endpoint_and_one_suffices() -> None:
    nodes = [node("a"), node("b", eth_sendRawTransaction=RpcFault(-32000, "already known")), node("c", eth_sendRawTransaction=DOWN)]
    sender(*nodes).send(SIGNED)
    assert all(node.asked == ["eth_sendRawTransaction"] for node in nodes)
    sender(node("a", eth_sendRawTransaction=POOR), node("b", eth_sendRawTransaction=LOW), node("c")).send(SIGNED)


@pytest.mark.parametrize(
    "answers",
    [
        (DOWN, DOWN),
        (DOWN, POOR),
        (DOWN, LOW),
        (POOR, RpcFault(-32603, "internal")),
        (POOR, "0x" + "00" * 32),
        (DOWN, OperatorNeeded("no")),
        (POOR, OperatorNeeded("no")),
    ],
)
def test_a_fate_unknown_at_one_is_unknown_unless_another_took_it(answers: tuple[object, ...]) -> None:
    with raises_code(Retryable, "unknown_if_sent"):
        sender(*(node(f"n{n}", eth_sendRawTransaction=answer) for n, answer in enumerate(answers))).send(SIGNED)


def test_what_all_refuse_is_refused() -> None:
    with pytest.raises(SendRefused) as caught:
        sender(node("a", eth_sendRawTransaction=POOR), node("b", eth_sendRawTransaction=LOW)).send(SIGNED)
    assert caught.value.verdicts[0].guard == "send.no_funds"
    with pytest.raises(OperatorNeeded, match="no access"):
        sender(*(node(n, eth_sendRawTransaction=OperatorNeeded("no access")) for n in "ab")).send(SIGNED)


def test_used_nonce__is_ours_with_our_receipt_else_a_stranger_s() -> None:
    sender(*(node(n, eth_sendRawTransaction=LOW) for n in "ab")).send(SIGNED)
    blank: dict[str, object] = {"eth_sendRawTransaction": LOW, "eth_getTransactionReceipt": None, "eth_getTransactionByHash": None}
    with pytest.raises(NonceUsed):
        sender(*(node(n, **blank) for n in "ab")).send(SIGNED)


def test_with_a_private_endpoint_the_public_ones_get_nothing() -> None:
    public = [node("a"), node("b")]
    private = node("relay")
    sender(*public, submit=private).send(SIGNED)
    assert private.asked == ["eth_sendRawTransaction"]
    for failure in (DOWN, EndpointOverloaded("busy", retry_after_s=9), RpcFault(-32603, "internal")):
        with raises_code(Retryable, "unknown_if_sent"):
            sender(*public, submit=node("relay", eth_sendRawTransaction=failure)).send(SIGNED)
    with pytest.raises(SendRefused):
        sender(*public, submit=node("relay", eth_sendRawTransaction=POOR)).send(SIGNED)
    assert not any(endpoint.asked for endpoint in public)


def test_public_endpoints__get_a_private_refusal_by_permission() -> None:
    public = [node("a"), node("b")]
    sender(*public, submit=node("relay", eth_sendRawTransaction=DOWN), fallback=True).send(SIGNED)
    until(lambda: all(endpoint.asked for endpoint in public))  # one that accepts suffices: the other may be asked later
    assert all(endpoint.asked == ["eth_sendRawTransaction"] for endpoint in public)
    untouched = [node("a"), node("b")]
    sender(*untouched, submit=node("relay"), fallback=True).send(SIGNED)
    assert not any(endpoint.asked for endpoint in untouched)


def test_private_endpoint_that_says_used__is_checked() -> None:
    sender(node("a"), node("b"), submit=node("relay", eth_sendRawTransaction=LOW)).send(SIGNED)
