"""Endpoints at different heights: which block counts, who is said to lag, and when none counts (T19)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.endpoints import Circuit, Endpoint, EndpointPool
from agent.chain.quorum import check_heights, common_height, quorum_size
from tests.support.chain_reads.headers import HEADER
from tests.support.endpoints import forged_header
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import mentions

MOST = 3
NOW_S = 1_700_000_000


def at(*heights: tuple[str, int], minimum: int = 2) -> tuple[EndpointPool, dict[Endpoint, int]]:
    panel = EndpointPool([ScriptedTransport(operator) for operator, _ in heights], minimum, max_lag_blocks=MOST)
    return panel, {endpoint: height for endpoint, (_, height) in zip(panel.endpoints, heights, strict=True)}


def pool_state(*heights: tuple[str, int], minimum: int = 2) -> tuple[int, bool, list[Circuit]]:
    panel, newest = at(*heights, minimum=minimum)
    height = common_height(newest, minimum)
    return height, not check_heights(panel, newest, height, NOW_S), [endpoint.health.circuit for endpoint in panel.endpoints]


GOOD = Circuit.CLOSED
LAGS = Circuit.LAGGING


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ((("a", 100), ("b", 97)), (97, True, [GOOD, GOOD])),
        ((("a", 100), ("b", 96)), (96, False, [GOOD, LAGS])),
        ((("a", 100), ("b", 50)), (50, False, [GOOD, LAGS])),
        ((("a", 100), ("b", 100), ("c", 97)), (100, True, [GOOD, GOOD, GOOD])),
        ((("a", 100), ("b", 100), ("c", 96)), (100, True, [GOOD, GOOD, LAGS])),
        ((("a", 100), ("b", 99), ("c", 50)), (99, True, [GOOD, GOOD, LAGS])),
        ((("a", 10**9), ("b", 100), ("c", 99)), (100, True, [GOOD, GOOD, GOOD])),
        ((("a", 10**9), ("b", 100), ("c", 50)), (100, False, [GOOD, LAGS, LAGS])),
        ((("a", 100), ("a", 50), ("b", 100)), (100, True, [GOOD, LAGS, GOOD])),
        ((("a", 100), ("a", 50), ("b", 50)), (50, False, [GOOD, LAGS, LAGS])),
        ((("a", 104), ("b", 104), ("c", 100), ("d", 90)), (100, False, [GOOD, GOOD, LAGS, LAGS])),
    ],
)
def test_the_newest_block_near_which_enough_operators_are_counts(
    heights: tuple[tuple[str, int], ...], expected: tuple[int, bool, list[Circuit]]
) -> None:
    assert pool_state(*heights) == expected


@pytest.mark.parametrize("heights", [(100, 99, 50), (10**9, 100, 50), (10**9, 50, 49)], ids=["one lags", "two lag", "two lag behind a lie"])
def test_lagging_endpoint__is_asked_on(heights: tuple[int, int, int]) -> None:
    """An operator that makes up a newer block lets the honest ones lag."""
    panel, newest = at(*zip("abc", heights, strict=True))
    check_heights(panel, newest, sorted(heights)[1], NOW_S)
    assert panel.ask(lambda endpoint: endpoint.operator).operators == {*"abc"}


def test_lone_operator__is_believed_only_if_its_endpoints_agree() -> None:
    assert pool_state(("a", 100), ("a", 98), minimum=1) == (98, True, [GOOD, GOOD])
    assert pool_state(("a", 100), ("a", 50), minimum=1) == (50, False, [GOOD, LAGS])


def test_all_are_named_with_their_blocks_and_told_once() -> None:
    panel, newest = at(("fast", 100), ("slow", 85))
    warnings: list[str] = []
    panel.report = warnings.append
    for _ in range(2):
        why = check_heights(panel, newest, 85, NOW_S)
    assert mentions(why, "15 blocks", "chain.max_lag_blocks", "slow", "85", "fast", "100")
    assert len(warnings) == 2
    assert mentions(warnings[0], "'fast'", "15 blocks", "85")
    assert mentions(warnings[1], "'slow'", "15 blocks", "100")


def test_who_has_caught_up_is_in_service_again() -> None:
    panel, newest = at(("fast", 100), ("slow", 85))
    check_heights(panel, newest, 85, NOW_S)
    slow = panel.endpoints[1]
    assert slow.health.circuit is LAGS
    assert check_heights(panel, newest | {slow: 99}, 99, NOW_S) == ""
    assert slow.health.circuit is GOOD


@pytest.mark.parametrize(
    ("age_s", "ahead", "interval_s", "level"),
    [
        pytest.param(12, 4, 12, True, id="one block old"),
        pytest.param(23, 4, 12, True, id="a second before two blocks"),
        pytest.param(24, 4, 12, False, id="two blocks old"),
        pytest.param(48, 4, 12, False, id="four blocks old"),
        pytest.param(240, 20, 12, False, id="twenty blocks old"),
        pytest.param(119, 20, 12, True, id="a second before ten blocks"),
        pytest.param(12, 4_000, 0, True, id="unknown interval, one block"),
        pytest.param(13, 4, 1, False, id="fast chain"),
        pytest.param(13, 4, 0, False, id="unknown interval, too old"),
        pytest.param(240, 10**9, 12, True, id="far ahead"),
        pytest.param(-30, 4, 12, True, id="from the future"),
    ],
)
def test_a_newer_header_counts_only_if_there_was_time_to_mine_it(age_s: int, ahead: int, interval_s: int, level: bool) -> None:
    """One operator can make up a header and all before it; that the others' block is old, it cannot (T32)."""
    height = 1_000
    window = 32

    def block(params: list[object]) -> dict[str, object]:
        number = int(str(params[0]), 16)
        assert number in (height - window, height + ahead)
        timestamp_s = NOW_S - age_s - interval_s * window
        return forged_header({**HEADER, "timestamp": hex(timestamp_s), "number": hex(number)}, 0)

    nodes = [ScriptedTransport(name, eth_getBlockByNumber=block) for name in "abc"]
    panel = EndpointPool(nodes, 2, max_lag_blocks=MOST, now_s=lambda: NOW_S)
    newest = dict(zip(panel.endpoints, (height + ahead, height, height), strict=True))
    assert (check_heights(panel, newest, height, NOW_S - age_s) == "") == level


def test_newer_header__counts_once_the_others_block_is_old() -> None:
    def block(name: str) -> Callable[[list[object]], dict[str, object]]:
        return lambda params: forged_header({**HEADER, "timestamp": hex(ord(name)), "number": str(params[0])}, 0)

    nodes = [ScriptedTransport(name, eth_getBlockByNumber=block(name)) for name in "abc"]
    panel = EndpointPool(nodes, 2, max_lag_blocks=MOST, now_s=lambda: NOW_S)
    newest = dict(zip(panel.endpoints, (1_004, 1_000, 1_000), strict=True))
    assert check_heights(panel, newest, 1_000, NOW_S - 12) == ""
    assert mentions(check_heights(panel, newest, 1_000, NOW_S - 13), "a is at block 1004")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), min_size=1, max_size=6))
def test_block__counts_where_a_majority_of_operators_is_near(heights: list[tuple[str, int]]) -> None:
    names = {name for name, _ in heights}
    minimum = min(2, len(names))
    height, level, _ = pool_state(*heights, minimum=minimum)
    newest = {name: max(number for other, number in heights if other == name) for name in names}
    near = [name for name, number in newest.items() if abs(number - height) <= MOST]
    assert level == (len(near) >= quorum_size(len(names), minimum))
    assert any(number == height for _, number in heights)
