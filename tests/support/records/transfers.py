"""External transfers in the store."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import ExternalTransfer
from agent.store import Store
from tests.support.ledgers import COIN, LEDGER_WETH, PRICE, at

NOW_S = at().snapshot.head.timestamp_s


def transfer(delta_raw: int = COIN, **changes: object) -> ExternalTransfer:
    """A change of WETH that nothing explains."""
    value = PRICE * delta_raw / Fraction(COIN)
    plain = ExternalTransfer(0, LEDGER_WETH.address, delta_raw, value, 1_000, 1_001, NOW_S, False, None)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def record_transfers(store: Store, *transfers: ExternalTransfer, later_s: int = 0) -> None:
    turn = store.balances.expected().version
    assert store.balances.record(at(1_001, later_s=later_s).snapshot, {}, transfers, turn)
