"""Threat T2 on a real node: an endpoint that alters any single field alone is found out, named, and moves no money."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.chain.providers.endpoint import EndpointProvider
from agent.errors import ConfigError, OperatorNeeded, Refused, Retryable
from agent.localchain import LocalChain
from tests.support.endpoints import reader
from tests.support.fakes.transport import RecordingTransport
from tests.support.text import raises_code

Lie = Callable[[str, list[Any], Any], Any]


def honest(chain: LocalChain, operator: str) -> EndpointProvider:
    return EndpointProvider(chain.url or "", operator, 10, attempts=1)


def header(**changes: str) -> Lie:
    """Alters the header wherever it is told, so that the endpoint's own story holds together."""
    return lambda method, params, answer: {**(answer or {}), **changes} if method == "eth_getBlockByNumber" else answer


def lens(change: Callable[[bytearray], None]) -> Lie:
    def lie(method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_call":
            return answer
        page = bytearray.fromhex(answer[2:])
        change(page)
        return "0x" + page.hex()

    return lie


def flip(at: int) -> Lie:
    def change(page: bytearray) -> None:
        page[at] ^= 1

    return lens(change)


def answer_of(name: str, value: str) -> Lie:
    def lie(method: str, params: list[Any], answer: Any) -> Any:
        pinned = method != "eth_getTransactionCount" or params[1] != "pending"
        return value if method == name and pinned else answer

    return lie


FIELDS = {
    "timestamp": header(timestamp="0x1"),
    "base fee": header(baseFeePerGas="0x1"),
    "nonce": answer_of("eth_getTransactionCount", "0x77"),
    "native balance": answer_of("eth_getBalance", "0x1"),
    "a balance's last byte": flip(1 + 3 + 31),
    "the code hash's last byte": flip(-1),
}


@pytest.mark.parametrize("lie", FIELDS.values(), ids=FIELDS.keys())
def test_a_lie_about_any_single_field_is_refused_and_named(anvil_chain: LocalChain, lie: Lie) -> None:
    liar = RecordingTransport(honest(anvil_chain, "liar"), "liar", change=lie)
    with raises_code(Refused, "quorum", "liar") as caught:
        reader(anvil_chain, honest(anvil_chain, "alpha"), liar, min_operators=2).snapshot()
    assert [verdict.guard for verdict in caught.value.verdicts] == ["quorum"]


@pytest.mark.parametrize("lie", FIELDS.values(), ids=FIELDS.keys())
def test_a_liar_among_three_is_outvoted_and_named(anvil_chain: LocalChain, lie: Lie) -> None:
    alpha = honest(anvil_chain, "alpha")
    beta = honest(anvil_chain, "beta")
    truth = reader(anvil_chain, alpha, beta, min_operators=2).snapshot()
    snapshot = reader(
        anvil_chain, RecordingTransport(honest(anvil_chain, "liar"), "liar", change=lie), alpha, beta, min_operators=2
    ).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert [(q.subject, q.address) for q in snapshot.unreadable_items] == [("endpoint", "liar")]
    for field in ("head", "native_wei", "nonce_latest", "holdings", "allowances", "pools", "feeds", "code_hashes"):
        assert getattr(snapshot, field) == getattr(truth, field)


@pytest.mark.parametrize("step", [37, pytest.param(13, marks=pytest.mark.slow)])
def test_every_byte_of_the_lens_counts(anvil_chain: LocalChain, step: int) -> None:
    """Each 13th byte, in every run each 37th, flipped alone: another answer or none at all, never an agreement."""
    alpha = honest(anvil_chain, "alpha")
    sizes: list[int] = []
    measure = RecordingTransport(alpha, "alpha", change=lens(lambda page: sizes.append(len(page))))
    whole = reader(anvil_chain, measure)
    whole.snapshot()
    assert len(sizes) == 1
    for at in range(1, sizes[0], step):
        liar = RecordingTransport(honest(anvil_chain, "liar"), "liar", change=flip(at))
        both = type(whole)([alpha, liar], anvil_chain.chain_id, whole.scope, anvil_chain.clock, 2)
        with pytest.raises((Refused, Retryable), match="liar"):
            both.snapshot()


def test_two_endpoints_of_one_operator_do_not_make_two(anvil_chain: LocalChain) -> None:
    with pytest.raises(ConfigError, match="endpoints of 1 operator"):
        reader(anvil_chain, honest(anvil_chain, "alpha"), honest(anvil_chain, "alpha"), min_operators=2)


def test_a_lie_about_the_hash_is_no_quorum(anvil_chain: LocalChain) -> None:
    liar = RecordingTransport(honest(anvil_chain, "liar"), "liar", change=header(hash="0x" + "ee" * 32))
    with pytest.raises((Refused, Retryable), match=r"liar|no longer"):
        reader(anvil_chain, honest(anvil_chain, "alpha"), liar, min_operators=2).snapshot()


def test_endpoint_a_block_behind__is_read_at_the_common_block(anvil_chain: LocalChain) -> None:
    anvil_chain.mine(2)
    line = honest(anvil_chain, "slow")
    head = int(line.call("eth_blockNumber", []), 16)

    def late(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        return (method, [hex(head - 1), False]) if params[:1] == ["latest"] else (method, params)

    snapshot = reader(anvil_chain, honest(anvil_chain, "fast"), RecordingTransport(line, "slow", ask=late), min_operators=2).snapshot()
    assert snapshot.head.number == head - 1
    assert snapshot.operators == ("fast", "slow")
    assert snapshot.http_request_count == 4


def test_one_endpoint_far_behind_does_not_hold_back_two_others(anvil_chain: LocalChain) -> None:
    anvil_chain.mine(2)
    line = honest(anvil_chain, "stuck")
    head = int(line.call("eth_blockNumber", []), 16)

    def late(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        return (method, ["0x5", False]) if params[:1] == ["latest"] else (method, params)

    lines = (honest(anvil_chain, "alpha"), RecordingTransport(line, "stuck", ask=late), honest(anvil_chain, "beta"))
    snapshot = reader(anvil_chain, *lines, min_operators=2).snapshot()
    assert snapshot.head.number == head
    assert [(q.subject, q.address, "behind" in q.why) for q in snapshot.unreadable_items] == [("endpoint", "stuck", True)]


def test_pending_transactions_and_lowest_fees__count(anvil_chain: LocalChain) -> None:
    def knows_more(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getTransactionCount" and params[1] == "pending":
            return hex(int(answer, 16) + 2)
        return hex(10**15) if method in ("eth_maxPriorityFeePerGas", "eth_gasPrice") else answer

    plain = reader(anvil_chain).snapshot()
    beta = RecordingTransport(honest(anvil_chain, "beta"), "beta", change=knows_more)
    snapshot = reader(anvil_chain, honest(anvil_chain, "alpha"), beta, min_operators=2).snapshot()
    assert snapshot.nonce_pending == plain.nonce_latest + 2
    assert (snapshot.priority_fee_wei, snapshot.gas_price_wei) == (plain.priority_fee_wei, plain.gas_price_wei)


def test_all_endpoints_refusing_access_need_the_operator(anvil_chain: LocalChain) -> None:
    def close(_number: int) -> None:
        raise OperatorNeeded("the endpoint refuses (HTTP 403)", "check its key")

    closed = [RecordingTransport(honest(anvil_chain, name), name, before=close) for name in ("alpha", "beta")]
    with raises_code(OperatorNeeded, "operators", "0 of 2 operators"):
        reader(anvil_chain, *closed, min_operators=2).snapshot()


def test_one_that_is_a_little_behind_helps_to_outvote_a_liar(anvil_chain: LocalChain) -> None:
    """Two have the newest block and one of them lies: the older block that all three have settles it."""
    anvil_chain.mine(3)
    line = honest(anvil_chain, "late")
    head = int(line.call("eth_blockNumber", []), 16)

    def late(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        return (method, [hex(head - 1), False]) if params[:1] == ["latest"] else (method, params)

    liar = RecordingTransport(honest(anvil_chain, "liar"), "liar", change=FIELDS["native balance"])
    behind = RecordingTransport(line, "late", ask=late)
    snapshot = reader(anvil_chain, liar, behind, honest(anvil_chain, "alpha"), min_operators=2).snapshot()
    assert (snapshot.head.number, snapshot.operators) == (head - 1, ("alpha", "late"))
    assert [(q.address, "native" in q.why) for q in snapshot.unreadable_items] == [("liar", True)]


@pytest.mark.parametrize("lie", [header(number="0xffffff"), header(hash="0x" + "ee" * 32)], ids=["height", "hash"])
def test_a_block_that_nobody_else_has_is_not_read(anvil_chain: LocalChain, lie: Lie) -> None:
    liar = RecordingTransport(honest(anvil_chain, "liar"), "liar", change=lie)
    snapshot = reader(anvil_chain, liar, honest(anvil_chain, "alpha"), honest(anvil_chain, "beta"), min_operators=2).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert [q.address for q in snapshot.unreadable_items] == ["liar"]
    assert snapshot.head.hash == anvil_chain.transport.call("eth_getBlockByNumber", [hex(snapshot.head.number), False])["hash"]


def test_fee_and_nonce_of_one_of_three__do_not_count(anvil_chain: LocalChain) -> None:
    def alone(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getTransactionCount" and params[1] == "pending":
            return hex(int(answer, 16) + 2)
        return "0x0" if method in ("eth_maxPriorityFeePerGas", "eth_gasPrice") else answer

    plain = reader(anvil_chain).snapshot()
    lines = (
        RecordingTransport(honest(anvil_chain, "liar"), "liar", change=alone),
        honest(anvil_chain, "alpha"),
        honest(anvil_chain, "beta"),
    )
    snapshot = reader(anvil_chain, *lines, min_operators=2).snapshot()
    assert (snapshot.nonce_pending, snapshot.priority_fee_wei, snapshot.gas_price_wei) == (
        plain.nonce_pending,
        plain.priority_fee_wei,
        plain.gas_price_wei,
    )


@pytest.mark.parametrize("lifted", ["alpha again", "beta"])
def test_suggested_fee_of_one_operator__is_its_lowest(anvil_chain: LocalChain, lifted: str) -> None:
    """Neither one operator nor one of two endpoints of an operator raises tip and gas price."""

    def dear(method: str, params: list[Any], answer: Any) -> Any:
        return hex(10**15) if method in ("eth_maxPriorityFeePerGas", "eth_gasPrice") else answer

    plain = reader(anvil_chain).snapshot()
    names = {"alpha": "alpha", "alpha again": "alpha", "beta": "beta", "beta again": "beta"}
    high = {lifted, "beta again"}
    lines = [
        RecordingTransport(honest(anvil_chain, name), operator, change=dear) if name in high else honest(anvil_chain, operator)
        for name, operator in names.items()
    ]
    snapshot = reader(anvil_chain, *lines, min_operators=2).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert (snapshot.priority_fee_wei, snapshot.gas_price_wei) == (plain.priority_fee_wei, plain.gas_price_wei)
