"""A chain of the OP Stack for tests: anvil with an oracle of fees, whose node takes the data fee and names it in receipts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.chain.fees.data_fees import GAS_PRICE_ORACLE
from agent.chain.rpc import Transport
from agent.localchain import LocalChain
from agent.model.rollups import OP_STACK_CHAINS
from agent.signing.calldata import selector
from tests.support.fakes.transport import RecordingTransport

BYTE_WEI = 10**9
FLAT_WEI = 10**10


def _oracle_code() -> str:
    """Return code with getL1FeeUpperBound(n) = slot 0 · n + slot 1, getOperatorFee(gas) = slot 2 · gas / 10^6 + slot 3."""
    head = bytes.fromhex("60003560e01c63") + selector("getOperatorFee(uint256)") + bytes.fromhex("14")
    answer = bytes.fromhex("60005260206000f3")
    data_fee = bytes.fromhex("6004356000540260015401") + answer
    at = len(head) + 3 + len(data_fee)
    operator_fee = bytes.fromhex("5b620f4240600435600254020460035401") + answer
    return "0x" + (head + bytes([0x60, at, 0x57]) + data_fee + operator_fee).hex()


class RollupNode:
    """A node of the rollup before anvil, by `transport`: a sent transaction pays `byte_wei` for each of its bytes, and FLAT_WEI."""

    def __init__(self, chain: LocalChain) -> None:
        self.chain, self.inner = chain, chain.transport
        self.byte_wei = BYTE_WEI
        self.paid: dict[str, int] = {}
        self.transport = RecordingTransport(self.inner, self.inner.operator, self._told)

    def spike(self, factor: int) -> None:
        """Let the data fee rise, at the oracle and for the transactions to come."""
        self.byte_wei *= factor
        set_oracle(self.inner, self.byte_wei)

    def fee_wei(self, raw: str) -> int:
        """Return what the signed bytes, 0x-hex, pay for their data."""
        return self.byte_wei * (len(raw) // 2 - 1) + FLAT_WEI

    def _told(self, method: str, params: list[object], answer: object) -> object:
        if method == "eth_sendRawTransaction" and isinstance(answer, str):
            self._charge(answer, str(params[0]))
        if method == "eth_getTransactionReceipt" and isinstance(answer, dict):
            return answer | {"l1Fee": hex(self.paid.get(answer["transactionHash"], 0))}
        return answer

    def _charge(self, tx_hash: str, raw: str) -> None:
        fee_wei = self.fee_wei(raw)
        wallet = self.chain.wallet.address
        self.inner.call("evm_mine", [])  # anvil mines beside its answer; the balance must be the one after it
        balance_wei = int(str(self.inner.call("eth_getBalance", [wallet, "latest"])), 16)
        self.inner.call("anvil_setBalance", [wallet, hex(balance_wei - fee_wei)])
        self.inner.call("evm_mine", [])
        self.paid[tx_hash] = fee_wei


def set_oracle(line: Transport, byte_wei: int = BYTE_WEI) -> None:
    """Deploy the oracle with this price of a byte."""
    line.call("anvil_setCode", [GAS_PRICE_ORACLE, _oracle_code()])
    for slot, value in ((0, byte_wei), (1, FLAT_WEI)):
        line.call("anvil_setStorageAt", [GAS_PRICE_ORACLE, hex(slot), f"0x{value:064x}"])


@contextmanager
def op_stack(chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[RollupNode]:
    """The local chain counts as one of the OP Stack."""
    monkeypatch.setitem(OP_STACK_CHAINS, chain.chain_id, "test")
    set_oracle(chain.transport)
    yield RollupNode(chain)
