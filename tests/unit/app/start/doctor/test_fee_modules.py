"""Tests of agent/app/start/doctor/fee_modules.py: the row of a factory's fee module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.slipstream import DynamicFee, SlipstreamPool
from agent.app.start.doctor import fee_modules
from agent.chain.lens import CallItem, CallStatus, LensAnswer, LensItem, address_word, uint_word
from agent.chain.rpc import block_ref_at_hash
from tests.support.builders import address, v3_pool
from tests.support.tokens import USDC, WETH


def pool_of(*, is_rule_known: bool) -> SlipstreamPool:
    pool = v3_pool(WETH, USDC, 2_000, 10_000_000)
    state = {field.name: getattr(pool, field.name) for field in fields(V3Pool)} | {"venue": "aerodrome"}
    return SlipstreamPool(**state, dynamic_fee=DynamicFee(500, 20_000, 10**7, None) if is_rule_known else None)


def fee_module_row(monkeypatch: pytest.MonkeyPatch, rules_known: Sequence[bool], module: LensAnswer, code: LensAnswer) -> tuple[str, str]:
    """Return state and finding of doctor's row for pools with these rules, whose factory and code answer so at their block."""
    head_hash = "0x" + "ab" * 32

    def answers(_transport: object, items: list[LensItem], block_ref: object = "latest") -> list[LensAnswer]:
        assert block_ref == block_ref_at_hash(head_hash)
        return [module if isinstance(item, CallItem) else code for item in items]

    monkeypatch.setattr(fee_modules, "query_lens", answers)
    pools = [pool_of(is_rule_known=is_known) for is_known in rules_known]
    table = SimpleNamespace(name="aerodrome", factory=address("factory"))
    context: Any = SimpleNamespace(config=SimpleNamespace(venues=[table]), transport=None)
    snapshot: Any = SimpleNamespace(pools=pools, head=SimpleNamespace(hash=head_hash))
    ((_, state, finding, _),) = fee_modules.fee_module_checks(context, snapshot)
    return state, finding


@pytest.mark.parametrize(
    ("rules_known", "state", "says"),
    [
        ((True, True), "ok", "its rule is known"),
        ((True, False), "warn", "unknown for 1 of 2 pools"),
        ((False, False), "warn", "unknown for 2 of 2 pools"),
    ],
    ids=["known", "unknown for one", "unknown"],
)
def test_doctor__module_is_known_if_its_rule_is_for_every_pool(
    rules_known: tuple[bool, ...], state: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_state, finding = fee_module_row(monkeypatch, rules_known, address_word(address("module")), bytes(32))
    assert row_state == state
    assert says in finding


def test_doctor__factory_without_a_module__has_fixed_fees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fee_module_row(monkeypatch, [True], bytes(32), bytes(32)) == ("ok", "none: the fee of each tick spacing is fixed")


NO_ADDRESS: dict[str, tuple[LensAnswer, CallStatus]] = {
    "reverted": (CallStatus.FAILED, CallStatus.FAILED),
    "no contract": (CallStatus.NO_CODE, CallStatus.NO_CODE),
    "empty answer": (b"", CallStatus.MALFORMED),
    "word above an address": (uint_word(1 << 160), CallStatus.MALFORMED),
}


@pytest.mark.parametrize(("answer", "status"), NO_ADDRESS.values(), ids=NO_ADDRESS)
def test_doctor__factory_that_names_no_address__is_unknown(answer: LensAnswer, status: CallStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fee_module_row(monkeypatch, [True], answer, bytes(32)) == ("warn", f"the factory does not name it: {status.why}")


def test_doctor__module_without_code_hash__is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    state, finding = fee_module_row(monkeypatch, [True], address_word(address("module")), CallStatus.NO_CODE)
    assert (state, finding) == ("warn", f"{address('module')}, code hash unread: {CallStatus.NO_CODE.why}")
