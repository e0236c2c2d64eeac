"""Contracts and accounts of a local node: calls, transactions, balances and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from web3.contract.contract import Contract

from agent.artifacts import Artifact, npm_artifact, own_artifact
from agent.localchain.nodes import LocalNode, TesterNode
from agent.localchain.world import (
    WALLET_INDEX,
    WHALE_INDEX,
    DevAccount,
    TokenKind,
    dev_accounts,
)
from agent.units import Token

if TYPE_CHECKING:
    from web3 import Web3

    from agent.chain.rpc import Transport


TX_GAS = 30_000_000
FAR_FUTURE_S = 2**63
BALANCE_OF_SELECTOR = "0x70a08231"
"""Selector of balanceOf(address)."""
WETH_ARTIFACT = "@uniswap/v2-periphery/build/WETH9.json"


@dataclass(frozen=True, slots=True)
class SpotContractAddresses:
    """Addresses of the wrapped native coin, the venues' contracts, and this project's PoolMinter
    and Rebalancer.
    """

    weth: str
    v2_factory: str
    v2_router: str
    v3_factory: str
    swap_router_02: str
    quoter_v2: str
    quoter_v1: str
    position_manager: str
    pool_minter: str
    rebalancer: str


@dataclass(frozen=True, slots=True)
class LocalPool:
    """A local pool. `fee_pips` is 3000 for V2; token0 and token1 are in contract order."""

    name: str
    address: str
    version: int
    token0: Token
    token1: Token
    fee_pips: int

    def sold_and_bought(self, symbol_in: str) -> tuple[Token, Token]:
        """Return the token with this symbol and the other. Raises ValueError if neither has it."""
        if symbol_in == self.token0.symbol:
            return self.token0, self.token1
        if symbol_in == self.token1.symbol:
            return self.token1, self.token0
        raise ValueError(f"{symbol_in} is not in the pool {self.name}")


@dataclass(frozen=True, slots=True)
class DeployedWorld:
    """What is deployed on the chain, by symbol or pool name; `range_ends_by_pool` are the ends of
    all positions.
    """

    tokens: Mapping[str, Token] = field(default_factory=dict)
    kinds: Mapping[str, TokenKind] = field(default_factory=dict)
    prices_usd: Mapping[str, Fraction] = field(default_factory=dict)
    feed_addresses: Mapping[str, str] = field(default_factory=dict)
    pool_by_name: Mapping[str, LocalPool] = field(default_factory=dict)
    range_ends_by_pool: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    """A saved state of the node with what is deployed on it."""

    node_snapshot: str
    deployed_world: DeployedWorld = field(repr=False)


class ChainClock:
    """The agent's clock on an embedded chain: the time of the newest block. Sleeping mines one."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def now_s(self) -> int:
        """Return the time of the newest block in Unix seconds."""
        return self._node.now_s()

    def sleep(self, seconds: float) -> None:
        """Mine a block `seconds` later."""
        self._node.mine_at(self._node.now_s() + max(1, round(seconds)))


class LocalContracts:
    """Accounts, tokens and contracts of a local node. The whale sends all changes, never the
    wallet.
    """

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self.w3: Web3 = node.w3
        self.chain_id: int = self.w3.eth.chain_id
        self.accounts: tuple[DevAccount, ...] = dev_accounts()
        self.wallet = self.accounts[WALLET_INDEX]
        self.whale = self.accounts[WHALE_INDEX]
        self.clock = ChainClock(node)
        self.deployed_world = DeployedWorld()
        # Each artifact is stored too, so that its id stays its own.
        self._contracts: dict[tuple[str, int], tuple[Artifact, Contract]] = {}

    @property
    def url(self) -> str | None:
        """HTTP address of the node; None in process."""
        return self.node.url

    @cached_property
    def transport(self) -> Transport:
        """Transport of chain.rpc to this node, with the operator "local"."""
        if isinstance(self.node, TesterNode):
            from agent.chain.providers.eth_tester import EthTesterTransport

            return EthTesterTransport(self.node.provider, "local")
        from agent.chain.providers.endpoint import EndpointProvider

        return EndpointProvider(self.url or "", "local", 30)

    @property
    def tokens(self) -> Mapping[str, Token]:
        """Tokens by symbol."""
        return self.deployed_world.tokens

    def contract(self, address: str, artifact: Artifact) -> Contract:
        """Return a web3 contract at an address; cached, because building one takes milliseconds."""
        cache_key = (to_checksum_address(address), id(artifact))
        if cache_key not in self._contracts:
            self._contracts[cache_key] = (
                artifact,
                self.w3.eth.contract(address=cache_key[0], abi=artifact.abi),
            )
        return self._contracts[cache_key][1]

    def token_contract(self, symbol: str) -> Contract:
        """Return the ERC-20 contract of a symbol."""
        token_kind = self.deployed_world.kinds[symbol]
        if token_kind is TokenKind.WRAPPED_NATIVE:
            artifact = npm_artifact(WETH_ARTIFACT)
        else:
            artifact = own_artifact(token_kind.value)
        return self.contract(self.tokens[symbol].address, artifact)

    def balance(self, symbol: str, owner: str | None = None) -> int:
        """Return the balance of `owner` (default: the wallet) in base units."""
        return self.balances([symbol], owner)[symbol]

    def balances(
        self, symbols: Iterable[str] | None = None, owner: str | None = None
    ) -> dict[str, int]:
        """Return the balances of several tokens (default: all), read at once."""
        selected_symbols = list(self.tokens if symbols is None else symbols)
        owner = owner or self.wallet.address
        balance_call_data = BALANCE_OF_SELECTOR + owner.removeprefix("0x").lower().rjust(64, "0")
        rpc_calls = [
            (
                "eth_call",
                [
                    {"from": owner, "to": self.tokens[symbol].address, "data": balance_call_data},
                    "latest",
                ],
            )
            for symbol in selected_symbols
        ]
        return {
            symbol: int(str(balance_hex), 16)
            for symbol, balance_hex in zip(selected_symbols, self.node.ask(rpc_calls), strict=True)
        }

    def send(
        self, call: Any, sender: str | None = None, value_wei: int = 0, gas: int = TX_GAS
    ) -> HexStr:
        """Send a bound contract function and return the hash of its mined transaction. Raises
        RuntimeError if it reverts.
        """
        sender = sender or self.whale.address
        gas_fields = {"gas": gas, "maxFeePerGas": 100 * 10**9, "maxPriorityFeePerGas": 10**9}
        tx_hash, succeeded = self.node.transact(
            call, {"from": sender, "value": value_wei, **gas_fields}
        )
        if not succeeded:
            raise RuntimeError(
                f"{getattr(call, 'fn_name', 'deployment')} reverted on the local chain:"
                f" {self._revert_reason(call, sender, value_wei)}"
            )
        return tx_hash

    def _revert_reason(self, call: Any, sender: str, value_wei: int) -> str:
        try:
            call.call({"from": sender, "value": value_wei, "gas": TX_GAS})
        except Exception as error:  # each node raises errors of its own
            return str(error)
        return "the repeated call succeeds"

    def deploy(self, artifact: Artifact, *arguments: object, sender: str | None = None) -> str:
        """Deploy a contract and return its checksummed address."""
        contract_class = self.w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        tx_hash = self.send(contract_class.constructor(*arguments), sender)
        receipt = self.w3.eth.get_transaction_receipt(tx_hash)
        return str(to_checksum_address(str(receipt["contractAddress"])))

    def set_balance(self, symbol: str, raw: int, owner: str | None = None) -> None:
        """Set the balance of the wallet (or `owner`) in base units, without changing its nonce.
        Only the wallet's wrapped native coin can be reduced.
        """
        self.set_balances({symbol: raw}, owner)

    def set_balances(self, target_balances: Mapping[str, int], owner: str | None = None) -> None:
        """Set the balances of several tokens, by symbol."""
        current_balances = self.balances(target_balances, owner)
        owner = owner or self.wallet.address
        for symbol, target_raw in target_balances.items():
            change_raw = target_raw - current_balances[symbol]
            token_functions = self.token_contract(symbol).functions
            is_wrapped = self.deployed_world.kinds[symbol] is TokenKind.WRAPPED_NATIVE
            if change_raw > 0:
                self.send(
                    token_functions.transfer(owner, change_raw)
                    if is_wrapped
                    else token_functions.mint(owner, change_raw)
                )
            elif change_raw < 0 and is_wrapped:
                self.send(token_functions.transferFrom(owner, self.whale.address, -change_raw))
            elif change_raw < 0:
                self.send(token_functions.burn(owner, -change_raw))

    def set_native(self, wei: int, owner: str | None = None) -> None:
        """Set the native balance of the wallet (or `owner`)."""
        self.node.set_native(owner or self.wallet.address, wei)

    def now_s(self) -> int:
        """Return the timestamp of the newest block."""
        return self.node.now_s()

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks."""
        self.node.mine(blocks)
