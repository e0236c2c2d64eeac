"""Local stand-in of an OP Stack chain: anvil charges the data fee of each transaction as the prices
in the chain's L1Block say, and the agent reads it from GasPriceOracle. Both are the deployed contracts
of Fjord, from @eth-optimism/contracts-bedrock 0.17.3 (abis/op_stack).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.artifacts import own_artifact
from agent.chain.data_fees import GAS_PRICE_ORACLE
from agent.chain.rpc import RpcCall, Transport
from agent.localchain.chain import LocalChain
from agent.signing.calldata import selector

L1_BLOCK = "0x4200000000000000000000000000000000000015"
"""Predeploy of the OP Stack (packages/contracts-bedrock/src/libraries/Predeploys.sol)."""
ORACLE_IMPLEMENTATION = "0xc0d3C0d3C0d3C0D3c0d3C0d3c0D3C0d3c0d3000F"
BASE_FEE_SCALAR, BLOB_FEE_SCALAR = 2_269, 1_055_762
"""Scalars of Base under Fjord."""
L1_BASE_FEE_WEI, L1_BLOB_FEE_WEI = 10**10, 10**9
"""Prices on the base chain: a unit of gas, of blob gas."""
CALLER_WEI = 10**21


def oracle_proxy_code(operator_fee_wei: int = 0) -> str:
    """Return a proxy of ORACLE_IMPLEMENTATION that also answers getOperatorFee(gas), which Isthmus
    added, with a constant of two bytes.
    """
    forward = (
        "36600060003760006000366000" + "73" + ORACLE_IMPLEMENTATION[2:] + "5af4" + "3d600060003e"
    )
    head = "60003560e01c63" + selector("getOperatorFee(uint256)").hex() + "14"
    forward_at = len(head) // 2 + 4
    succeeds_at = forward_at + len(forward) // 2 + 3 + 4
    fails, succeeds = "3d6000fd", "5b3d6000f3"
    fee_at = succeeds_at + 5
    fee = f"5b61{operator_fee_wei:04x}60005260206000f3"
    return f"0x{head}61{fee_at:04x}57{forward}60{succeeds_at:02x}57{fails}{succeeds}{fee}"


def install_predeploys(chain: LocalChain) -> None:
    """Put the contracts at their predeploys on anvil, with Fjord active and the prices above. Slots
    are those of the contracts' storage layout.
    """
    rpc = chain.node.rpc  # type: ignore[attr-defined]  # anvil
    for address, code in (
        (ORACLE_IMPLEMENTATION, own_artifact("op_stack/GasPriceOracle").runtime_code),
        (GAS_PRICE_ORACLE, oracle_proxy_code()),
        (L1_BLOCK, own_artifact("op_stack/L1Block").runtime_code),
    ):
        rpc("anvil_setCode", address, code)
    scalars = BASE_FEE_SCALAR << 96 | BLOB_FEE_SCALAR << 64
    for address, slot, word in (
        (GAS_PRICE_ORACLE, 0, 0x0101),  # isEcotone, isFjord
        (L1_BLOCK, 1, L1_BASE_FEE_WEI),
        (L1_BLOCK, 3, scalars),
        (L1_BLOCK, 7, L1_BLOB_FEE_WEI),
    ):
        rpc("anvil_setStorageAt", address, hex(slot), f"0x{word:064x}")


class SequencerTransport:
    """Transport to the stand-in, with three differences between a node of Base and anvil: `l1Fee` in
    a receipt, as the sender's balance shows it; the chain's usual priority fee; and no data fee for
    an eth_call, which anvil demands of the caller.
    """

    def __init__(self, transport: Transport, priority_fee_wei: int) -> None:
        self._transport, self._priority_fee_wei = transport, priority_fee_wei
        self.operator, self.name = transport.operator, transport.name

    @property
    def requests(self) -> int:
        """See Transport."""
        return self._transport.requests

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return self._completed(method, self._transport.call(*_free_call(method, params)))

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        answers = self._transport.batch([_free_call(*call) for call in calls])
        return [
            self._completed(method, answer)
            for (method, _), answer in zip(calls, answers, strict=True)
        ]

    def _completed(self, method: str, answer: Any) -> Any:
        if method == "eth_maxPriorityFeePerGas":
            return hex(self._priority_fee_wei)
        if method == "eth_getTransactionReceipt" and isinstance(answer, dict):
            return {**answer, "l1Fee": hex(self._data_fee_wei(answer))}
        return answer

    def _data_fee_wei(self, receipt: dict[str, Any]) -> int:
        """Return what the sender's only transaction of that block cost beyond its gas; its value is
        zero.
        """
        block = int(receipt["blockNumber"], 16)
        before_wei, after_wei = (
            int(self._transport.call("eth_getBalance", [receipt["from"], hex(number)]), 16)
            for number in (block - 1, block)
        )
        gas_wei = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        return before_wei - after_wei - gas_wei


def _free_call(method: str, params: list[Any]) -> RpcCall:
    """Return an eth_call as a caller with enough coin; any other call unchanged."""
    caller = params[0].get("from") if method == "eth_call" and len(params) == 2 else None
    if caller is None:
        return method, params
    return method, [*params, {caller: {"balance": hex(CALLER_WEI)}}]
