"""Where a proxy hands its calls on: every answer of a node is an implementation, or none that anybody pinned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain import tokens
from agent.chain.lens import CallItem, CallStatus, LensAnswer
from agent.chain.rpc import RpcFault
from agent.chain.tokens import (
    BEACON_SLOT,
    IMPLEMENTATION_SLOTS,
    UNREAD_ADDRESS,
    ProxyRef,
    find_proxies,
    proxy_answers,
    proxy_call_names,
    proxy_calls,
    proxy_implementations,
)
from tests.support.builders import address
from tests.support.fakes.transport import ScriptedTransport

TOKEN = address("a proxy")
PLACE = address("a place")
OTHER = address("another")
BEACON = address("a beacon")
BY_SLOT = ProxyRef(TOKEN, IMPLEMENTATION_SLOTS[0], None, PLACE)
BY_BEACON = ProxyRef(TOKEN, BEACON_SLOT, BEACON, PLACE)
BY_ITSELF = ProxyRef(TOKEN, None, TOKEN, PLACE)


def word(at: str) -> str:
    return "0x" + at[2:].lower().rjust(64, "0")


@pytest.mark.parametrize(
    ("ref", "answer", "stands_at"),
    [
        pytest.param(BY_SLOT, [word(PLACE)], PLACE, id="slot of the place"),
        pytest.param(BY_SLOT, [word(OTHER)], OTHER, id="slot of another place"),
        pytest.param(BY_SLOT, ["0x" + "f" * 64], UNREAD_ADDRESS, id="slot of high bits"),
        pytest.param(BY_SLOT, ["0x0"], UNREAD_ADDRESS, id="slot of nothing"),
        pytest.param(BY_SLOT, [RpcFault(-32000, "no storage")], UNREAD_ADDRESS, id="no storage"),
        pytest.param(BY_BEACON, [word(BEACON), word(PLACE)], PLACE, id="beacon of the place"),
        pytest.param(BY_BEACON, [word(BEACON), word(OTHER)], OTHER, id="beacon of another place"),
        pytest.param(BY_BEACON, [word(OTHER), word(PLACE)], OTHER, id="other beacon"),
        pytest.param(BY_BEACON, [word(BEACON), RpcFault(3, "execution reverted")], UNREAD_ADDRESS, id="beacon that reverts"),
        pytest.param(BY_ITSELF, [word(PLACE)], PLACE, id="itself"),
        pytest.param(BY_ITSELF, ["0x"], UNREAD_ADDRESS, id="no answer"),
        pytest.param(BY_ITSELF, [None], UNREAD_ADDRESS, id="not asked"),
    ],
)
def test_an_answer_is_where_it_stands_or_nowhere(ref: ProxyRef, answer: list[object], stands_at: str) -> None:
    (proxy_implementation,) = proxy_implementations([ref], proxy_answers(answer))
    assert (proxy_implementation.proxy, proxy_implementation.address) == (TOKEN, stands_at)


def test_each_call_has_its_name_for_the_quorums_report() -> None:
    refs = [BY_SLOT, BY_BEACON, BY_ITSELF]
    assert len(proxy_calls(refs, "latest")) == len(proxy_call_names(refs)) == 4
    assert [method for method, _ in proxy_calls(refs, "latest")] == ["eth_getStorageAt", "eth_getStorageAt", "eth_call", "eth_call"]


@given(st.one_of(st.none(), st.text(), st.integers(), st.binary(), st.lists(st.integers()), st.dictionaries(st.text(), st.text())))
def test_node_s_answer__is_a_word_or_a_failure(word_answer: object) -> None:
    (lens_answer,) = proxy_answers([word_answer])
    assert lens_answer is CallStatus.FAILED or (isinstance(lens_answer, bytes) and len(lens_answer) == 32)


FIRST_SLOT, SECOND_SLOT, _ = IMPLEMENTATION_SLOTS


@pytest.mark.parametrize(
    ("slots", "implementers", "proxy"),
    [
        ({}, {}, None),
        ({(TOKEN, FIRST_SLOT): PLACE}, {}, ProxyRef(TOKEN, FIRST_SLOT, None, PLACE)),
        ({(TOKEN, FIRST_SLOT): PLACE, (TOKEN, SECOND_SLOT): OTHER}, {}, ProxyRef(TOKEN, FIRST_SLOT, None, PLACE)),
        ({(TOKEN, FIRST_SLOT): PLACE}, {TOKEN: OTHER}, ProxyRef(TOKEN, FIRST_SLOT, None, PLACE)),
        ({(TOKEN, BEACON_SLOT): BEACON}, {BEACON: PLACE, TOKEN: OTHER}, ProxyRef(TOKEN, BEACON_SLOT, BEACON, PLACE)),
        ({(TOKEN, BEACON_SLOT): BEACON}, {}, ProxyRef(TOKEN, BEACON_SLOT, BEACON, UNREAD_ADDRESS)),
        ({}, {TOKEN: PLACE}, ProxyRef(TOKEN, None, TOKEN, PLACE)),
    ],
    ids=["none", "slot", "two slots", "slot and implementation()", "beacon", "silent beacon", "EIP-897"],
)
def test_find_proxies__names_where_the_implementation_stands(
    slots: dict[tuple[str, str], str], implementers: dict[str, str], proxy: ProxyRef | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: object, items: list[CallItem]) -> list[LensAnswer]:
        return [bytes.fromhex(word(implementers[item.target])[2:]) if item.target in implementers else CallStatus.FAILED for item in items]

    monkeypatch.setattr(tokens, "query_lens", answer)

    def slot_word(_method: str, params: list[object]) -> str:
        return word(slots.get((str(params[0]), str(params[1])), UNREAD_ADDRESS))

    assert find_proxies(ScriptedTransport(answer=slot_word), [TOKEN]) == (() if proxy is None else (proxy,))
