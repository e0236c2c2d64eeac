"""A snapshot on real nodes: two requests, one block, one chain, and a clear word when that cannot be had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import RpcFault, Transport
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.errors import ConfigError, OperatorNeeded, Retryable
from agent.localchain import LocalChain, run_anvil
from agent.localchain.nodes import free_port
from tests.support.endpoints import Reply, passing_on, pools, reader, serve, tokens, watch
from tests.support.fakes.clock import START_S, FakeClock, forbid_sleep
from tests.support.fakes.transport import RecordingTransport, behind
from tests.support.text import raises_code
from tests.support.worlds import ANVIL_OFTEN

OWNER = "0x" + "11" * 20
NOTHING = SnapshotScope(OWNER, (), (), (), (), (OWNER,), 0, 100)


def local(chain: LocalChain, operator: str) -> EndpointProvider:
    return EndpointProvider(chain.url or "", operator, 10, attempts=1)


def test_snapshot__takes_two_requests_for_any_number_of_pools(anvil_chain: LocalChain) -> None:
    few = pools(anvil_chain)[:1]
    many = pools(anvil_chain) * 3
    with serve(passing_on(anvil_chain.url or "")) as server:
        for number, used in enumerate((few, many), start=1):
            line = EndpointProvider(server.url, "counted", 10)
            owned = tokens(anvil_chain) * (1 if used is few else 3)
            snapshot = ChainReader(
                [line], anvil_chain.chain_id, watch(anvil_chain, pools=used, tokens=owned), anvil_chain.clock, 1
            ).snapshot()
            assert len(snapshot.pools) == len(used)
            assert snapshot.http_request_count == line.request_count == 2
            assert len(server.seen) == 2 * number


def test_two_operators_are_asked_twice_each_and_both_are_named(anvil_chain: LocalChain) -> None:
    snapshot = reader(anvil_chain, local(anvil_chain, "alpha"), local(anvil_chain, "beta"), min_operators=2).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert snapshot.http_request_count == 4
    assert snapshot.unreadable_items == ()


def test_the_snapshot_is_of_one_block_with_clock_nonces_and_fees(local_chain: LocalChain) -> None:
    snapshot = reader(local_chain).snapshot()
    block = local_chain.w3.eth.get_block("latest")
    assert snapshot.head.hash == "0x" + bytes(block["hash"]).hex()
    assert (snapshot.head.number, snapshot.head.timestamp_s, snapshot.head.base_fee_wei) == (
        block["number"],
        block["timestamp"],
        block["baseFeePerGas"],
    )
    assert snapshot.head.chain_id == local_chain.chain_id
    assert snapshot.nonce_latest == snapshot.nonce_pending == local_chain.w3.eth.get_transaction_count(local_chain.wallet.address)
    assert snapshot.now_s == local_chain.clock.now_s()
    assert snapshot.priority_fee_wei == 10**9
    assert snapshot.gas_price_wei == local_chain.w3.eth.gas_price


def test_a_pending_transaction_shows_in_the_pending_nonce_only(anvil_chain: LocalChain) -> None:
    anvil_chain.node.rpc("evm_setAutomine", False)  # type: ignore[attr-defined]  # anvil's node only
    try:
        anvil_chain.w3.eth.send_transaction({"from": anvil_chain.wallet.address, "to": anvil_chain.whale.address, "value": 1})
        snapshot = reader(anvil_chain).snapshot()
        assert snapshot.nonce_pending == snapshot.nonce_latest + 1
    finally:
        anvil_chain.mine()
        anvil_chain.node.rpc("evm_setAutomine", True)  # type: ignore[attr-defined]  # anvil's node only


def test_endpoint_on_another_chain__needs_a_person_if_not_outvoted(anvil_chain: LocalChain) -> None:
    with raises_code(OperatorNeeded, "chain", "31337") as caught:
        reader(anvil_chain, chain_id=1).snapshot()
    assert "chain.chain_id is" in str(caught.value)
    stray = RecordingTransport(
        local(anvil_chain, "stray"), "stray", change=lambda method, _, answer: "0x1" if method == "eth_chainId" else answer
    )
    for minimum in (1, 2):
        with raises_code(OperatorNeeded, "chain", "stray", "31337"):
            reader(anvil_chain, local(anvil_chain, "alpha"), stray, min_operators=minimum).snapshot()
    snapshot = reader(anvil_chain, local(anvil_chain, "alpha"), local(anvil_chain, "beta"), stray, min_operators=2).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert [(q.subject, q.address, "chain 1," in q.why) for q in snapshot.unreadable_items] == [("endpoint", "stray", True)]


@ANVIL_OFTEN
def test_a_reorganisation_between_the_two_trips_is_noticed(local_chain: LocalChain) -> None:
    mark = local_chain.snapshot()
    local_chain.set_balance("LINK", 5)
    newest = local_chain.w3.eth.block_number

    def reorganise(number: int) -> None:
        if number == 2:
            local_chain.revert(mark)
            local_chain.set_balance("LINK", 77)

    line = RecordingTransport(local_chain.transport, "local", before=reorganise)
    with raises_code(Retryable, "reorg", "local", f"different block {newest}"):
        reader(local_chain, line).snapshot()
    snapshot = reader(local_chain).snapshot()
    assert 77 in [holding.raw for holding in snapshot.holdings]


def test_block_between_the_trips__changes_nothing(anvil_chain: LocalChain) -> None:
    """Neither tokens, nor native coin, nor the used nonce are read at a later block than prices."""
    expected = reader(anvil_chain).snapshot()

    def act(number: int) -> None:
        if number == 2:
            anvil_chain.set_balance("LINK", 5)
            anvil_chain.w3.eth.send_transaction({"from": anvil_chain.wallet.address, "to": anvil_chain.whale.address, "value": 1})

    assert reader(anvil_chain, RecordingTransport(anvil_chain.transport, "local", before=act)).snapshot() == expected


def stingy(gas: int) -> Any:
    """Gives eth_call little gas in the second batch only, as a node with a low cap would for large pages."""
    state = {"batch": 0}

    def ask(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        limited = method == "eth_call" and state["batch"] == 2
        return method, [{**params[0], "gas": hex(gas)}, *params[1:]] if limited else params

    return {"ask": ask, "before": lambda number: state.update(batch=number)}


def test_what_did_not_fit_costs_a_third_trip_that_is_counted(anvil_chain: LocalChain) -> None:
    expected = reader(anvil_chain).snapshot()
    snapshot = reader(anvil_chain, RecordingTransport(anvil_chain.transport, "local", **stingy(900_000))).snapshot()
    assert snapshot.http_request_count == 3
    assert replace(snapshot, http_request_count=2) == expected


def test_refused_page__is_read_again_in_smaller_ones(anvil_chain: LocalChain) -> None:
    expected = reader(anvil_chain).snapshot()
    snapshot = reader(anvil_chain, RecordingTransport(anvil_chain.transport, "local", **stingy(60_000))).snapshot()
    assert snapshot.http_request_count == 3
    assert replace(snapshot, http_request_count=2) == expected


def test_node_that_runs_no_lens__is_tried_again_and_named(anvil_chain: LocalChain) -> None:
    refuse = RecordingTransport(
        local(anvil_chain, "alpha"), "alpha", change=lambda method, _, answer: RpcFault(-1, "not here") if method == "eth_call" else answer
    )
    with pytest.raises(Retryable, match="lens"):
        reader(anvil_chain, refuse).snapshot()


def test_endpoint_down__is_named_and_enough_others_go_on(anvil_chain: LocalChain) -> None:
    alpha = local(anvil_chain, "alpha")
    beta = local(anvil_chain, "beta")
    down = EndpointProvider(f"http://127.0.0.1:{free_port()}", "gamma", 1, attempts=1)
    snapshot = reader(anvil_chain, alpha, down, beta, min_operators=2).snapshot()
    assert snapshot.operators == ("alpha", "beta")
    assert [(q.subject, q.address) for q in snapshot.unreadable_items] == [("endpoint", "gamma")]
    with raises_code(Retryable, "operators", "gamma"):
        reader(anvil_chain, alpha, down, min_operators=2).snapshot()


def patient_reader(chain: LocalChain, *lines: Transport) -> ChainReader:
    """Return a reader for two operators that waits for all of them."""
    return ChainReader(EndpointPool(lines, 2, grace_s=10, max_lag_blocks=3), chain.chain_id, watch(chain), chain.clock, 2)


def test_slow_operator__outvotes_a_liar_at_the_block_before(anvil_chain: LocalChain) -> None:
    anvil_chain.mine(2)
    liar = RecordingTransport(
        anvil_chain.transport, "liar", change=lambda method, _, answer: hex(7) if method == "eth_getBalance" else answer
    )
    slow = RecordingTransport(anvil_chain.transport, "slow", ask=behind(anvil_chain.transport, 1))
    snapshot = patient_reader(anvil_chain, local(anvil_chain, "alpha"), liar, slow).snapshot()
    assert snapshot.head.number == anvil_chain.w3.eth.block_number - 1
    assert snapshot.operators == ("alpha", "slow")


@pytest.mark.parametrize(("lag_blocks", "named"), [(3, []), (4, ["slow"])])
def test_endpoint_behind__is_named_beyond_the_lag(anvil_chain: LocalChain, lag_blocks: int, named: list[str]) -> None:
    anvil_chain.mine(5)
    slow = RecordingTransport(anvil_chain.transport, "slow", ask=behind(anvil_chain.transport, lag_blocks))
    snapshot = patient_reader(anvil_chain, local(anvil_chain, "alpha"), local(anvil_chain, "beta"), slow).snapshot()
    assert [item.address for item in snapshot.unreadable_items] == named


def test_lower_fees_of_an_operator_count(anvil_chain: LocalChain) -> None:
    methods = ("eth_maxPriorityFeePerGas", "eth_gasPrice")

    def offering(operator: str, wei: int) -> RecordingTransport:
        return RecordingTransport(
            local(anvil_chain, operator), operator, change=lambda method, _, answer: hex(wei) if method in methods else answer
        )

    lines = (offering("alpha", 3), offering("alpha", 5), offering("beta", 9))
    snapshot = patient_reader(anvil_chain, *lines).snapshot()
    assert (snapshot.priority_fee_wei, snapshot.gas_price_wei) == (3, 3)


def test_an_endpoint_that_locks_us_out_needs_the_operator(anvil_chain: LocalChain) -> None:
    with serve(lambda request: Reply(b"no", status=403)) as server, raises_code(OperatorNeeded, "access", "403"):
        reader(anvil_chain, EndpointProvider(server.url, "alpha", 1, attempts=1)).snapshot()


def test_a_chain_without_base_fee_is_a_legacy_chain() -> None:
    with run_anvil(flags=["--hardfork", "berlin"]) as url:
        line = EndpointProvider(url, "local", 10)

        snapshot = ChainReader([line], 31337, NOTHING, FakeClock(wait=forbid_sleep), 1).snapshot()
    assert snapshot.head.base_fee_wei is None
    assert snapshot.gas_price_wei > 0
    assert snapshot.now_s == START_S


def test_an_endpoint_without_priority_fee_suggests_none(anvil_chain: LocalChain) -> None:
    old = RecordingTransport(
        local(anvil_chain, "old"), "old", change=lambda method, _, answer: RpcFault(-32601, "what") if "Priority" in method else answer
    )
    assert reader(anvil_chain, old).snapshot().priority_fee_wei == 0


def test_too_few_operators_are_a_config_error() -> None:
    alpha, again = (EndpointProvider("http://127.0.0.1:1", "alpha") for _ in range(2))
    with pytest.raises(ConfigError, match="1 operator"):
        ChainReader([alpha, again], 31337, NOTHING, FakeClock(wait=forbid_sleep), 2)
    with pytest.raises(ConfigError, match="endpoints of 0 operator"):
        ChainReader([], 31337, NOTHING, FakeClock(wait=forbid_sleep), 1)
