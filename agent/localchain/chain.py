"""A running embedded chain: its contracts and accounts, and the methods by which tests, demo and tools change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from web3.contract.contract import Contract

from agent import artifacts
from agent.localchain.nodes import LocalNode, TesterNode
from agent.localchain.world import WALLET_INDEX, WHALE_INDEX, DevAccount, LocalWorld, TokenKind, dev_accounts
from agent.units import UINT256_MAX, Token

if TYPE_CHECKING:
    from web3 import Web3

    from agent.chain.rpc import Transport


TX_GAS = 30_000_000
FEED_DECIMALS = 8
TWAP_WINDOW_S = 1_800
FAR_FUTURE_S = 2**63
WHALE_USD = 10**9
"""Value of each token given to the whale when it is deployed, USD."""
_WETH_ARTIFACT = "@uniswap/v2-periphery/build/WETH9.json"


@dataclass(frozen=True, slots=True)
class ProtocolAddresses:
    """The protocol contracts of the embedded chain."""

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
    """A local pool. `fee_pips` is 3000 for V2; tokens are sorted as the contracts sort them."""

    name: str
    address: str
    version: int
    token0: Token
    token1: Token
    fee_pips: int


@dataclass(frozen=True, slots=True)
class ChainContents:
    """Contents of the chain, part of a snapshot. `ticks` are the ends of all positions, by pool name."""

    tokens: Mapping[str, Token]
    kinds: Mapping[str, TokenKind]
    prices_usd: Mapping[str, Fraction]
    feeds: Mapping[str, str]
    pool_info: Mapping[str, LocalPool]
    ticks: Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    """A saved state of the chain together with its contents."""

    node: str
    books: ChainContents = field(repr=False)


class ChainClock:
    """The agent's clock on an embedded chain: the newest block's time. Sleeping mines."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def now_s(self) -> int:
        """Unix seconds of the newest block."""
        return self._node.now_s()

    def sleep(self, seconds: float) -> None:
        """Mine a block that much later."""
        self._node.mine_at(self._node.now_s() + max(1, round(seconds)))


class LocalChain:
    """An embedded chain with everything deployed. Changes are sent by the whale, never by the wallet."""

    def __init__(self, node: LocalNode, world: LocalWorld) -> None:
        self.node, self.world = node, world
        self.w3: Web3 = node.w3
        self.chain_id: int = self.w3.eth.chain_id
        self.accounts: tuple[DevAccount, ...] = dev_accounts()
        self.wallet, self.whale = self.accounts[WALLET_INDEX], self.accounts[WHALE_INDEX]
        self.clock = ChainClock(node)
        self.books = ChainContents({}, {}, {}, {}, {}, {})
        self._contracts: dict[tuple[str, int], tuple[artifacts.Artifact, Contract]] = {}
        self.addresses: ProtocolAddresses  # set by deploy, before anyone else sees the chain

    # contents

    @property
    def url(self) -> str | None:
        """HTTP address of the node; None in process."""
        return self.node.url

    @cached_property
    def transport(self) -> Transport:
        """Transport of chain.rpc to this node, with the operator "local"."""
        if isinstance(self.node, TesterNode):
            from agent.chain.eth_tester import EthTesterTransport

            return EthTesterTransport(self.node.provider, "local")
        from agent.chain.rpc import HttpTransport

        return HttpTransport(self.url or "", "local", 30)

    @property
    def tokens(self) -> Mapping[str, Token]:
        """Tokens by symbol."""
        return self.books.tokens

    @property
    def pools(self) -> dict[str, str]:
        """Pool addresses by name, such as "v3 WETH/USDC 500"."""
        return {name: info.address for name, info in self.books.pool_info.items()}

    @property
    def feeds(self) -> Mapping[str, str]:
        """USD price feeds by symbol."""
        return self.books.feeds

    def pool_price(self, token0: str, token1: str) -> Fraction:
        """Base units of token1 per base unit of token0 at the current USD prices; tokens by symbol."""
        a, b, usd = self.tokens[token0], self.tokens[token1], self.books.prices_usd
        return usd[token0] / usd[token1] * Fraction(10) ** (b.decimals - a.decimals)

    def contract(self, address: str, artifact: artifacts.Artifact) -> Contract:
        """A web3 contract at an address; cached, because web3 takes milliseconds to build one."""
        key = (to_checksum_address(address), id(artifact))
        if key not in self._contracts:
            self._contracts[key] = artifact, self.w3.eth.contract(address=key[0], abi=artifact.abi)
        return self._contracts[key][1]

    def token_contract(self, symbol: str) -> Contract:
        """The ERC-20 of that symbol, with mint and burn if it has them."""
        kind = self.books.kinds[symbol]
        artifact = artifacts.npm_artifact(_WETH_ARTIFACT) if kind is TokenKind.WRAPPED_NATIVE else artifacts.own_artifact(kind.value)
        return self.contract(self.tokens[symbol].address, artifact)

    def balance(self, symbol: str, owner: str | None = None) -> int:
        """Base units that `owner` (default the wallet) holds."""
        return self.balances([symbol], owner)[symbol]

    def balances(self, symbols: Iterable[str] | None = None, owner: str | None = None) -> dict[str, int]:
        """Balances of several tokens (default all), read at once."""
        from agent.localchain.market import balances

        return balances(self, self.tokens if symbols is None else symbols, owner or self.wallet.address)

    # transactions

    def send(self, call: Any, sender: str | None = None, value_wei: int = 0, gas: int = TX_GAS) -> HexStr:
        """Send a bound contract function and return the hash of its mined transaction. Raises RuntimeError when it reverts."""
        who = sender or self.whale.address
        fees = {"gas": gas, "maxFeePerGas": 100 * 10**9, "maxPriorityFeePerGas": 10**9}
        tx_hash, succeeded = self.node.transact(call, {"from": who, "value": value_wei, **fees})
        if not succeeded:
            raise RuntimeError(f"{getattr(call, 'fn_name', 'deployment')} reverted on the local chain: {self._why(call, who, value_wei)}")
        return tx_hash

    def _why(self, call: Any, sender: str, value_wei: int) -> str:
        try:
            call.call({"from": sender, "value": value_wei, "gas": TX_GAS})
        except Exception as error:  # the node's message is the reason
            return str(error)
        return "not when repeated"

    def deploy(self, artifact: artifacts.Artifact, *arguments: object, sender: str | None = None) -> str:
        """Deploy a contract and return its checksummed address."""
        factory = self.w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        tx_hash = self.send(factory.constructor(*arguments), sender)
        return str(to_checksum_address(str(self.w3.eth.get_transaction_receipt(tx_hash)["contractAddress"])))

    def allow_whale(self, symbols: Iterable[str]) -> None:
        """Let the protocol contracts take these tokens of the whale, once."""
        at = self.addresses
        for symbol in symbols:
            for spender in (at.v2_router, at.swap_router_02, at.position_manager, at.pool_minter):
                self.send(self.token_contract(symbol).functions.approve(spender, UINT256_MAX))

    def set_balance(self, symbol: str, raw: int, owner: str | None = None) -> None:
        """Give the wallet (or `owner`) exactly this many base units; its nonce stays. Wrapped native can be reduced for the wallet only."""
        self.set_balances({symbol: raw}, owner)

    def set_balances(self, wanted: Mapping[str, int], owner: str | None = None) -> None:
        """Set the balances of several tokens, by symbol."""
        from agent.localchain.market import set_balances

        set_balances(self, wanted, owner or self.wallet.address)

    def set_native(self, wei: int, owner: str | None = None) -> None:
        """Give the wallet (or `owner`) exactly this much native coin."""
        self.node.set_native(owner or self.wallet.address, wei)

    # time

    def now_s(self) -> int:
        """Timestamp of the newest block."""
        return self.node.now_s()

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks."""
        self.node.mine(blocks)

    def warp(self, seconds: int, refresh_feeds: bool = True) -> None:
        """Mine a block that much later; feeds then get a fresh round at their present price unless disabled."""
        self.node.mine_at(self.now_s() + seconds)
        if refresh_feeds:
            self.refresh_feeds()

    def refresh_feeds(self, symbols: Iterable[str] | None = None) -> None:
        """Write a complete round at the current price and time for each of these feeds (default all)."""
        for symbol in self.feeds if symbols is None else symbols:
            answer = round(self.books.prices_usd[symbol] * 10**FEED_DECIMALS)
            self.send(self.feed_contract(symbol).functions.push(answer))

    def feed_contract(self, symbol: str) -> Contract:
        """The price feed of a token; anyone may write its rounds."""
        return self.contract(self.feeds[symbol], artifacts.own_artifact("PriceFeed"))

    def snapshot(self) -> ChainSnapshot:
        """Save chain and contents."""
        return ChainSnapshot(self.node.snapshot(), self.books)

    def revert(self, mark: ChainSnapshot) -> None:
        """Revert to a snapshot, which can be used once."""
        self.node.revert(mark.node)
        self.books = mark.books

    # the market; see the modules of the same verbs

    def add_token(self, symbol: str, decimals: int, price_usd: Fraction | int, kind: TokenKind = TokenKind.STANDARD) -> Token:
        """Deploy a token with a feed at that price; the whale gets plenty."""
        from agent.localchain.deploy import add_token

        return add_token(self, symbol, decimals, Fraction(price_usd), kind)

    def add_v2_pool(self, token_a: str, token_b: str, value_usd: int) -> LocalPool:
        """Create a pair at the current prices with this much USD in it, named "v2 A/B"."""
        from agent.localchain.market import add_v2_pool

        return add_v2_pool(self, token_a, token_b, value_usd)

    def add_v3_pool(self, token_a: str, token_b: str, fee_pips: int, price: Fraction | None = None) -> LocalPool:
        """Create an initialised pool without liquidity, at the current prices unless `price` (token1 per token0, base units) is given."""
        from agent.localchain.market import add_v3_pool

        return add_v3_pool(self, token_a, token_b, fee_pips, price)

    def mint_position(self, pool: str, tick_lower: int, tick_upper: int, liquidity: int) -> None:
        """Mint exactly this liquidity between two ticks of the pool of that name, owned by the PoolMinter."""
        from agent.localchain.market import mint_positions

        mint_positions(self, self.books.pool_info[pool], ((tick_lower, tick_upper, liquidity),))

    def move_market(self, prices_usd: Mapping[str, Fraction | int | str], twap_follows: bool = True, feeds_follow: bool = True) -> None:
        """Change the world price of these tokens: every pool is arbitraged to it, feeds and 30 minute TWAP follow."""
        from agent.localchain.market import move_market

        move_market(self, {symbol: Fraction(price) for symbol, price in prices_usd.items()}, twap_follows, feeds_follow)

    def swap(self, pool: str, token_in: str, amount_in_raw: int) -> int:
        """Let the whale trade in one pool at any price, while feeds stay; return base units received."""
        from agent.localchain.market import swap

        return swap(self, self.books.pool_info[pool], token_in, amount_in_raw)

    def config_text(
        self, store_url: str = "sqlite:///trimtab.db", targets: Mapping[str, str] | None = None, router: str = "swap_router_02"
    ) -> str:
        """A complete trimtab.toml for this chain; `targets` by symbol replace those of the description.

        `router` is "swap_router_02" or "rebalancer".
        """
        from agent.localchain.world import config_text

        return config_text(self, store_url, targets or {spec.symbol: spec.target for spec in self.world.tokens}, router)
