"""A Chainlink proxy with rounds of several phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.chain import history
from agent.chain.lens import address_word, uint_word
from agent.chain.rpc import RpcCall, RpcFault
from agent.model import Head
from tests.support.builders import address
from tests.support.fakes.transport import ScriptedTransport

HEAD = Head(1, 1_000, "0x" + "11" * 32, 1_800_000_000, 1)
FEED = address("proxy")
PHASE = 1 << 64


class FeedProxy(ScriptedTransport):
    """Answers like a Chainlink proxy over `phases`: rounds (time, answer) by phase from 1 on, None for one that was skipped."""

    def __init__(self, *phases: list[tuple[int, int] | None]) -> None:
        super().__init__(answer=lambda _, params: self.answer_of(params[0]["to"], bytes.fromhex(params[0]["data"][2:])))
        self.phases = phases

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        assert len(calls) <= history.ROUNDS_PER_REQUEST
        return super().batch(calls)

    def answer_of(self, to: str, data: bytes) -> Any:
        selector = data[:4]
        number = int.from_bytes(data[4:36], "big")
        if selector == history.LATEST_ROUND:
            aggregator = next(i for i in range(1, len(self.phases) + 1) if address(f"aggregator {i}") == to)
            return "0x" + uint_word(len(self.phases[aggregator - 1])).hex()
        if selector == history.PHASE_AGGREGATORS:
            return "0x" + address_word(address(f"aggregator {number}")).hex()
        if selector == history.GET_ROUND_DATA:
            phase = number >> 64
            round_number = number & (PHASE - 1)
            price_round = self.phases[phase - 1][round_number - 1]
            return RpcFault(3, "No data present") if price_round is None else self._round(number, price_round)
        newest = len(self.phases)
        last = self.phases[-1][-1]
        assert last is not None
        return self._round(newest << 64 | len(self.phases[-1]), last)

    @staticmethod
    def _round(number: int, price_round: tuple[int, int]) -> str:
        at_s, answer = price_round
        return "0x" + (uint_word(number) + uint_word(answer % 2**256) + uint_word(at_s) + uint_word(at_s) + uint_word(number)).hex()
