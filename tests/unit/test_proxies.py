"""Where a proxy hands its calls on: every answer of a node is an implementation, or none that anybody pinned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.lens import CallStatus
from agent.chain.rpc import RpcFault
from agent.chain.tokens import (
    BEACON_SLOT,
    IMPLEMENTATION_SLOTS,
    UNREAD_ADDRESS,
    ProxyRef,
    proxy_answers,
    proxy_call_names,
    proxy_calls,
    proxy_implementations,
)
from tests.support.builders import address

TOKEN, PLACE, OTHER, BEACON = address("a proxy"), address("a place"), address("another"), address("a beacon")
BY_SLOT = ProxyRef(TOKEN, IMPLEMENTATION_SLOTS[0], None, PLACE)
BY_BEACON = ProxyRef(TOKEN, BEACON_SLOT, BEACON, PLACE)
BY_ITSELF = ProxyRef(TOKEN, None, TOKEN, PLACE)


def word(at: str) -> str:
    return "0x" + at[2:].lower().rjust(64, "0")


@pytest.mark.parametrize(
    ("ref", "told", "stands_at"),
    [
        (BY_SLOT, [word(PLACE)], PLACE),
        (BY_SLOT, [word(OTHER)], OTHER),
        (BY_SLOT, ["0x" + "f" * 64], UNREAD_ADDRESS),
        (BY_SLOT, ["0x0"], UNREAD_ADDRESS),
        (BY_SLOT, [RpcFault(-32000, "no storage")], UNREAD_ADDRESS),
        (BY_BEACON, [word(BEACON), word(PLACE)], PLACE),
        (BY_BEACON, [word(BEACON), word(OTHER)], OTHER),
        (BY_BEACON, [word(OTHER), word(PLACE)], OTHER),
        (BY_BEACON, [word(BEACON), RpcFault(3, "execution reverted")], UNREAD_ADDRESS),
        (BY_ITSELF, [word(PLACE)], PLACE),
        (BY_ITSELF, ["0x"], UNREAD_ADDRESS),
        (BY_ITSELF, [None], UNREAD_ADDRESS),
    ],
)
def test_an_answer_is_where_it_stands_or_nowhere(ref: ProxyRef, told: list[object], stands_at: str) -> None:
    (found,) = proxy_implementations([ref], proxy_answers(told))
    assert (found.proxy, found.address) == (TOKEN, stands_at)


def test_each_call_has_its_name_for_the_quorums_report() -> None:
    refs = [BY_SLOT, BY_BEACON, BY_ITSELF]
    assert len(proxy_calls(refs, "latest")) == len(proxy_call_names(refs)) == 4
    assert [method for method, _ in proxy_calls(refs, "latest")] == ["eth_getStorageAt", "eth_getStorageAt", "eth_call", "eth_call"]


@given(st.one_of(st.none(), st.text(), st.integers(), st.binary(), st.lists(st.integers()), st.dictionaries(st.text(), st.text())))
def test_nothing_that_a_node_says_is_anything_but_a_word_or_a_failure(told: object) -> None:
    (found,) = proxy_answers([told])
    assert found is CallStatus.FAILED or (isinstance(found, bytes) and len(found) == 32)
