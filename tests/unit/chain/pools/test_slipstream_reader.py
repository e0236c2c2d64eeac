"""The fee of a Slipstream pool by the settings of its factory's module, at the block and at the expected time of a swap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.amm.v3.math import get_sqrt_ratio_at_tick
from agent.amm.v3.slipstream import SlipstreamPool
from agent.app.start.doctor import fee_modules
from agent.chain.lens import CallItem, CallStatus, LensAnswer, LensItem, V3Answer, address_word, uint_word
from agent.chain.pools.observations import observe_calldata
from agent.chain.pools.reading import PoolRef
from agent.chain.rpc import block_ref_at_hash
from agent.venues.kinds.slipstream import SlipstreamReader
from tests.support.builders import address

READER = SlipstreamReader(factory=address("factory"))
POOL = PoolRef(address("pool"), "slipstream", READER, address("token0"), address("token1"), 0, 200)
TICK = 1_000
MEAN_AT_INCLUSION = 900
OBSERVED = (0, -5_000 * 4, -5_000 * 4 + 596 * 900)
"""Four seconds at -5,000, which leave the window until the swap, then 900."""


def words(*numbers: int) -> bytes:
    return b"".join(uint_word(number % 2**256) for number in numbers)


def read(
    fee_pips: int,
    config: tuple[int, ...] = (500, 20_000, 10**7),
    tier_pips: int = 300,
    defaults: tuple[int, int] = (10**6, 5_000),
    window_s: int = 600,
    observation_counts: tuple[int, int] = (300, 300),
) -> SlipstreamPool | CallStatus:
    pool = V3Answer(get_sqrt_ratio_at_tick(TICK), TICK, 10**18, -10_000, 10_000, (), None, observation_counts)
    observed = words(64, 192, 3, *OBSERVED, 3, 0, 0, 0)
    answers: list[LensAnswer] = [pool, words(fee_pips), observed, words(tier_pips), words(*config)]
    state = READER.state(POOL, [*answers, *(words(number) for number in (*defaults, window_s))], 0)
    assert isinstance(state, SlipstreamPool | CallStatus)
    return state


FEES: dict[str, tuple[int, dict[str, object], int]] = {
    "base and distance": (1_900, {}, 1_500),
    "base of the tick spacing": (1_700, {"config": (0, 20_000, 10**7)}, 1_300),
    "default scaling": (640, {"config": (500, 20_000, 0)}, 600),
    "default cap": (550, {"config": (500, 20_000, 0), "defaults": (10**6, 550)}, 550),
    "cap": (1_450, {"config": (500, 1_450, 10**7)}, 1_450),
    "largest cap": (1_900, {"config": (500, 100_000, 10**7)}, 1_500),
    "zero": (0, {"config": (420, 20_000, 10**7)}, 0),
    "too few observations": (500, {"observation_counts": (299, 600)}, 500),
    "initial": (3_000, {"config": (500, 20_000, 10**7, 1, 3_000)}, 3_000),
    "initial of the next block": (1_900, {"config": (500, 20_000, 10**7, 1, 3_000)}, 3_000),
    "initial is the base": (500, {"config": (500, 20_000, 10**7, 1, 0)}, 500),
    "initial is zero": (0, {"config": (500, 20_000, 10**7, 1, 420)}, 0),
    "largest initial": (100_000, {"config": (500, 20_000, 10**7, 1, 100_000)}, 100_000),
    "initial is off": (1_900, {"config": (500, 20_000, 10**7, 0, 3_000)}, 1_500),
}


@pytest.mark.parametrize(("fee_at_block", "settings", "fee_at_inclusion"), FEES.values(), ids=FEES)
def test_fee__known_rule__is_that_of_the_swap(fee_at_block: int, settings: dict[str, object], fee_at_inclusion: int) -> None:
    pool = read(fee_at_block, **settings)  # type: ignore[arg-type]  # keywords of `read`
    assert isinstance(pool, SlipstreamPool)
    assert pool.fee_pips == fee_at_inclusion
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.pips(TICK) == fee_at_inclusion


@pytest.mark.parametrize(
    ("fee_at_block", "settings"),
    [
        (1_901, {}),
        (1_500, {}),
        (1_900, {"window_s": 599}),
        (1_900, {"config": (500, 100_001, 10**7)}),
        (1_900, {"config": (500, 20_000, 10**7, 1, 100_001)}),
        (100_000, {}),
    ],
    ids=["another fee", "that of the swap", "another window", "cap too large", "initial too large", "largest fee"],
)
def test_fee__unknown_rule__is_that_of_the_block(fee_at_block: int, settings: dict[str, object]) -> None:
    pool = read(fee_at_block, **settings)  # type: ignore[arg-type]  # keywords of `read`
    assert isinstance(pool, SlipstreamPool)
    assert (pool.fee_pips, pool.dynamic_fee) == (fee_at_block, None)


def test_fee__larger_than_any__is_no_fee() -> None:
    assert read(100_001) is CallStatus.MALFORMED


def test_fee__zero_by_its_module__does_not_grow() -> None:
    pool = read(0, config=(420, 20_000, 10**7))
    assert isinstance(pool, SlipstreamPool)
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.pips(TICK + 500) == 0


@pytest.mark.parametrize("tick", [TICK, TICK + 10])
def test_fee__mean_is_that_of_the_swaps_window(tick: int) -> None:
    pool = read(1_900)
    assert isinstance(pool, SlipstreamPool)
    assert pool.dynamic_fee is not None
    assert pool.dynamic_fee.mean_tick == MEAN_AT_INCLUSION
    assert pool.dynamic_fee.pips(tick) == 500 + 10 * (tick - MEAN_AT_INCLUSION)


def test_items__both_starts_of_the_window_are_observed() -> None:
    calldata = [item.calldata for item in READER.items(POOL, 100, 0) if isinstance(item, CallItem) and item.target == POOL.address]
    assert observe_calldata((600, 596, 0)) in calldata


def fee_module_row(monkeypatch: pytest.MonkeyPatch, fees_at_block: Sequence[int], module: LensAnswer, code: LensAnswer) -> tuple[str, str]:
    """Return state and finding of doctor's row for pools with these fees, whose factory and code answer so at their block."""
    head_hash = "0x" + "ab" * 32

    def answers(_transport: object, items: list[LensItem], block_ref: object = "latest") -> list[LensAnswer]:
        assert block_ref == block_ref_at_hash(head_hash)
        return [module if isinstance(item, CallItem) else code for item in items]

    monkeypatch.setattr(fee_modules, "query_lens", answers)
    pools = [replace(pool, venue="aerodrome") for fee in fees_at_block if isinstance(pool := read(fee), SlipstreamPool)]
    table = SimpleNamespace(name="aerodrome", factory=READER.factory)
    context: Any = SimpleNamespace(config=SimpleNamespace(venues=[table]), transport=None)
    snapshot: Any = SimpleNamespace(pools=pools, head=SimpleNamespace(hash=head_hash))
    ((_, state, finding, _),) = fee_modules.fee_module_checks(context, snapshot)
    return state, finding


@pytest.mark.parametrize(
    ("fees_at_block", "state", "says"),
    [
        ((1_900, 1_900), "ok", "its rule is known"),
        ((1_900, 1_901), "warn", "unknown for 1 of 2 pools"),
        ((1_901, 1_901), "warn", "unknown for 2 of 2 pools"),
    ],
    ids=["known", "unknown for one", "unknown"],
)
def test_doctor__module_is_known_if_its_rule_is_for_every_pool(
    fees_at_block: tuple[int, ...], state: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_state, finding = fee_module_row(monkeypatch, fees_at_block, address_word(address("module")), bytes(32))
    assert (row_state, says in finding) == (state, True)


def test_doctor__factory_without_a_module__has_fixed_fees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fee_module_row(monkeypatch, [1_900], bytes(32), bytes(32)) == ("ok", "none: the fee of each tick spacing is fixed")


NO_ADDRESS: dict[str, tuple[LensAnswer, CallStatus]] = {
    "reverted": (CallStatus.FAILED, CallStatus.FAILED),
    "no contract": (CallStatus.NO_CODE, CallStatus.NO_CODE),
    "empty answer": (b"", CallStatus.MALFORMED),
    "word above an address": (words(1 << 160), CallStatus.MALFORMED),
}


@pytest.mark.parametrize(("answer", "status"), NO_ADDRESS.values(), ids=NO_ADDRESS)
def test_doctor__factory_that_names_no_address__is_unknown(answer: LensAnswer, status: CallStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fee_module_row(monkeypatch, [1_900], answer, bytes(32)) == ("warn", f"the factory does not name it: {status.why}")


def test_doctor__module_without_code_hash__is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    state, finding = fee_module_row(monkeypatch, [1_900], address_word(address("module")), CallStatus.NO_CODE)
    assert (state, finding) == ("warn", f"{address('module')}, code hash unread: {CallStatus.NO_CODE.why}")
