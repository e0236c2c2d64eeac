"""Fees of a transaction beyond its gas: which chains charge them, and how much a transaction of a
size costs: at most, and typically.

On the OP Stack a transaction costs its gas, the data fee of its bytes on the base chain, and the
operator fee; neither of the two is part of the gas that its receipt names (GasPriceOracle.getL1Fee
and getOperatorFee, packages/contracts-bedrock/src/L2/GasPriceOracle.sol; specs.optimism.io,
"Operator fee" of Isthmus and of Jovian). On Arbitrum the data fee is charged as gas and is part of
the receipt's gas (Nitro, precompiles/ArbGasInfo.go, GetPricesInWei).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class DataFeeKind(Enum):
    """Data fee of a chain. OP_STACK_COPY is a local copy of an OP Stack chain, whose node charges
    none; PLAIN chains charge for gas alone.
    """

    PLAIN = "plain"
    OP_STACK = "op_stack"
    OP_STACK_COPY = "op_stack_copy"
    ARBITRUM = "arbitrum"


LOCAL_OP_STACK_ID = 845_331_337
"""Id of the local stand-in of Base (agent/localchain/op_stack.py); no live chain has it."""
LOCAL_CHAIN_IDS = frozenset({1337, 31337, 131277322940537, LOCAL_OP_STACK_ID})
"""Ids of development chains: ganache, anvil, eth-tester, the stand-in of Base."""
OP_STACK_CHAINS = {
    10: "OP Mainnet",
    130: "Unichain",
    480: "World Chain",
    1868: "Soneium",
    8453: "Base",
    57073: "Ink",
    84532: "Base Sepolia",
    11155420: "OP Sepolia",
    LOCAL_OP_STACK_ID: "local stand-in of Base",
}
"""Chains of the OP Stack with the plain GasPriceOracle and ether as coin
(ethereum-optimism/superchain-registry)."""
ARBITRUM_CHAINS = {42161: "Arbitrum One", 421614: "Arbitrum Sepolia"}
"""Chains of Arbitrum Nitro that post data to Ethereum (docs.arbitrum.io)."""
PLAIN_CHAINS = {
    1: "Ethereum",
    56: "BNB Smart Chain",
    97: "BNB Smart Chain Testnet",
    100: "Gnosis",
    137: "Polygon PoS",
    10200: "Chiado",
    17000: "Holesky",
    43113: "Avalanche Fuji",
    43114: "Avalanche C-Chain",
    80002: "Polygon Amoy",
    560048: "Hoodi",
    11155111: "Sepolia",
}
"""Chains whose transactions cost gas alone (chainlist.org)."""
UNSUPPORTED_CHAINS = {
    300: "ZKsync Sepolia",
    324: "ZKsync Era",
    1101: "Polygon zkEVM",
    5000: "Mantle",
    34443: "Mode",
    42170: "Arbitrum Nova",
    42220: "Celo",
    59144: "Linea",
    81457: "Blast",
    167000: "Taiko",
    534351: "Scroll Sepolia",
    534352: "Scroll",
}
"""Rollups with fees of their own kind, which are not implemented."""

MAX_TX_BYTES = 131_072
"""Size for which data fees are read: the largest transaction that nodes relay (geth, txMaxSize)."""
OPERATOR_SAMPLE_GAS = 1_000_000_000
"""Gas for which operator fees are read."""
ENVELOPE_BYTES = 180
"""Most bytes of a serialised unsigned transaction besides its calldata: type, chain id, nonce, two
fees, gas, recipient, value and the headers of their list."""
DATA_FEE_ITEM = "data fee"
"""Name of the fee among the items of a snapshot that could not be read."""
ONE_SWAP_BYTES = 1_024
FOUR_SWAPS_BYTES = 2_560
"""Calldata that plans count for a swap of one leg and for one of four."""
MAX_FEE_RISE = 2
"""Factor by which a data fee may rise between the snapshot and the block, like the base fee."""


@dataclass(frozen=True, slots=True)
class DataFeeQuote:
    """Fees at a block, in wei. Data fee: `empty_tx_wei` at most for an empty transaction,
    `full_tx_wei` at most for one of MAX_TX_BYTES; `one_swap_wei` and `four_swaps_wei` for typical
    swaps of so many legs (zero: unknown). Operator fee: `operator_wei` without gas,
    `operator_full_wei` for OPERATOR_SAMPLE_GAS.

    The chain's fee is at most linear between the two sizes, because it is the larger of a constant
    and a line. `is_charged_as_gas` is true where it is charged as gas and so raises the node's
    estimates.
    """

    empty_tx_wei: int
    full_tx_wei: int
    operator_wei: int = 0
    operator_full_wei: int = 0
    one_swap_wei: int = 0
    four_swaps_wei: int = 0
    is_charged_as_gas: bool = field(default=False, kw_only=True)

    def max_data_fee_wei(self, calldata_bytes: int) -> int:
        """Return the most that a transaction with this much calldata pays for its data, rounded up.

        FastLZ adds at most one byte to each 32 that do not compress; the oracle assumes less.
        """
        transaction_bytes = calldata_bytes + ENVELOPE_BYTES
        transaction_bytes += -(-transaction_bytes // 32) + 1
        rise_wei = max(0, self.full_tx_wei - self.empty_tx_wei)
        return self.empty_tx_wei - (-rise_wei * transaction_bytes // MAX_TX_BYTES)

    def max_fee_beyond_gas_wei(self, gas: int, *calldata_bytes: int) -> int:
        """Return the most that transactions of these sizes pay beyond their gas, rounded up; `gas`
        is that of all.
        """
        max_data_fee_wei = sum(map(self.max_data_fee_wei, calldata_bytes))
        return max_data_fee_wei + self._operator_fee_wei(gas, len(calldata_bytes))

    def expected_data_fee_wei(self, calldata_bytes: int) -> int:
        """Return what a typical transaction pays for its data, rounded up, where a plan counts this
        much calldata; `max_data_fee_wei` where typical fees are unknown.

        What compresses alike pays by a line in its legs, and never less than an empty transaction.
        """
        max_wei = self.max_data_fee_wei(calldata_bytes)
        if not self.one_swap_wei:
            return max_wei
        rise_wei = self.four_swaps_wei - self.one_swap_wei
        bytes_beyond_one_swap = calldata_bytes - ONE_SWAP_BYTES
        line_wei = self.one_swap_wei - (
            -rise_wei * bytes_beyond_one_swap // (FOUR_SWAPS_BYTES - ONE_SWAP_BYTES)
        )
        return min(max(self.empty_tx_wei, line_wei), max_wei)

    def expected_fee_beyond_gas_wei(self, gas: int, *calldata_bytes: int) -> int:
        """Return what transactions of these sizes are expected to pay beyond their gas, rounded up;
        `gas` is that of all.
        """
        data_wei = sum(map(self.expected_data_fee_wei, calldata_bytes))
        return data_wei + self._operator_fee_wei(gas, len(calldata_bytes))

    def _operator_fee_wei(self, gas: int, transaction_count: int) -> int:
        rise_wei = max(0, self.operator_full_wei - self.operator_wei)
        return transaction_count * self.operator_wei - (-rise_wei * gas // OPERATOR_SAMPLE_GAS)


def scaled_fee_quote(one_swap_wei: int) -> DataFeeQuote:
    """Return the quote under which a typical swap of one leg pays this much for its data, in the
    proportions of Fjord: those of the fees of ONE_LEG_TX and FOUR_LEG_TX
    (agent/chain/fees/data_fees.py) and of both bounds.
    """
    empty_part = 10_000
    one_swap_part = 24_182
    four_swaps_part = 44_677
    full_part = 11_009_937
    empty_wei, four_swaps_wei, full_wei = (
        -(-one_swap_wei * part // one_swap_part)
        for part in (empty_part, four_swaps_part, full_part)
    )
    return DataFeeQuote(
        empty_wei, full_wei, one_swap_wei=one_swap_wei, four_swaps_wei=four_swaps_wei
    )


def unsupported_chain_reason(chain_id: int) -> str:
    """Return why the fees of a live chain are unknown; empty if they are known."""
    if chain_id in UNSUPPORTED_CHAINS:
        return f"{UNSUPPORTED_CHAINS[chain_id]} charges fees besides gas that trimtab does not know"
    if chain_id in {**OP_STACK_CHAINS, **ARBITRUM_CHAINS, **PLAIN_CHAINS}:
        return ""
    return "trimtab does not know whether this chain charges fees besides gas"


def data_fee_kind(chain_id: int, *, is_copy: bool = False) -> DataFeeKind:
    """Return the data fee of a chain; PLAIN for one without an entry. `is_copy` is true for a local
    copy of a live chain.
    """
    if chain_id in OP_STACK_CHAINS:
        return DataFeeKind.OP_STACK_COPY if is_copy else DataFeeKind.OP_STACK
    if chain_id in ARBITRUM_CHAINS and not is_copy:
        return DataFeeKind.ARBITRUM
    return DataFeeKind.PLAIN
