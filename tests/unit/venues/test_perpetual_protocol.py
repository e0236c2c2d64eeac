"""Tests of agent/venues/perpetual_protocol.py: the quote of an order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent.chain.lens import abi_encode
from agent.errors import Refused
from agent.model.futures import PerpOrder, PerpOrderKind
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses, quote_order
from tests.support.perpetuals.accounts import E18

SIZE = 4 * E18


@pytest.mark.parametrize("filled_raw", [SIZE // 2, SIZE - 1], ids=["half", "a unit less"])
def test_quote_order_refuses_a_partial_fill(filled_raw: int) -> None:
    answer = "0x" + abi_encode(["uint256", "uint256"], [filled_raw, 4_020 * E18]).hex()
    transport: Any = SimpleNamespace(call=lambda *_question: answer)
    order = PerpOrder("0x" + "1" * 40, SIZE, PerpOrderKind.MARKET, 8_160 * E18, False)
    contracts = PerpetualProtocolAddresses("0x" + "2" * 40, "", "", "0x" + "3" * 40)

    with pytest.raises(Refused, match=f"fills {filled_raw} of {SIZE}"):
        quote_order(transport, order, contracts, contracts.trader, 1)
