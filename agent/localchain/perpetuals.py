"""Perpetual Protocol v2 on the embedded chain: real contracts, markets, index feeds and makers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from web3.contract.contract import Contract
from web3.utils.address import get_create_address

from agent.amm.lp.positions import sqrt_price_x96
from agent.artifacts import PERPS_MANIFEST, Artifact, npm_artifact
from agent.config.writing.futures_template import (
    FUTURES_PROFILES,
    PerpetualProtocolFileMarket,
    PerpetualProtocolFileTable,
    futures_text,
)
from agent.localchain.contracts import FAR_FUTURE_S, LocalContracts
from agent.localchain.world import LiquidityRange, range_ticks
from agent.margin.account import WAD
from agent.units import NATIVE, UINT256_MAX
from agent.venues.kinds import uniswap_v3

_PERP_PATH = "@perp/curie-contract/artifacts/contracts/{0}.sol/{0}.json"
_ORACLE_PATH = "@perp/perp-oracle-contract/artifacts/contracts/{0}.sol/{0}.json"
_AGGREGATOR_PATH = "@chainlink/contracts/abi/v0.6/FluxAggregator.json"
POOL_FEE_PIPS = 3_000
TRADE_FEE_PPM = 1_000
"""Fee tier of the virtual pools, and fee of a trade: 0.1 %."""
INDEX_DECIMALS = 8
FEED_TIMEOUT_S = 2_400
FEED_TWAP_S = 900
OBSERVATION_COUNT = 250
"""Price observations of a virtual pool: enough for the 30 minutes that the mark price averages."""
MARK_HISTORY_S = 1_860
"""Minimum age of a virtual pool before its mark price, an average over 30 minutes, can be read."""
MOVER_INDEX = 2
MOVER_USD = 20_000_000
"""Account that trades virtual pools to new prices, and the margin that it deposits when half of it
is used.
"""
MAX_TICKS_CROSSED = 1_000
PRICE_LIMIT_S = 15
"""Maximum ticks that a market may cross within PRICE_LIMIT_S seconds; zero pauses it."""
NO_REFERRAL = b"\0" * 32
"""Referral code of an order without a referral."""
MAKER_RANGE = LiquidityRange(-6_000, 15_000, 10_000)
"""Range of the makers' liquidity: 40 % to 250 % of the price."""
COLLATERAL_PARAMETERS = (5, 750_000, 500_000, 2_000, 30_000)
"""CollateralManager: maximum number of collaterals, debt ratio, liquidation ratio, margin buffer,
insurance fee.
"""
DEBT_THRESHOLD_USD = 10_000
DUST_USD = 500
TICK_SPACING = 60


@dataclass(frozen=True, slots=True)
class PerpSpec:
    """A market to deploy: symbol of the spot token that it follows, and its makers' USD value."""

    symbol: str
    value_usd: int


@dataclass(frozen=True, slots=True)
class PerpAddresses:
    """The protocol contracts of Perpetual Protocol v2."""

    quote_token: str
    clearing_house: str
    exchange: str
    account_balance: str
    vault: str
    clearing_house_config: str
    market_registry: str
    order_book: str
    delegate_approval: str


@dataclass(frozen=True, slots=True)
class LocalPerpMarket:
    """A deployed market: its virtual base token, its Uniswap V3 pool and its index feed."""

    symbol: str
    base_token: str
    pool: str
    aggregator: str
    feed: str


def perp_artifact(name: str) -> Artifact:
    """Return a contract of Perpetual Protocol v2."""
    return npm_artifact(_PERP_PATH.format(name), PERPS_MANIFEST)


class LocalPerps:
    """Perpetual Protocol v2, deployed and administered by the whale. Collateral is a token of the
    chain; sizes and quote amounts have 18 decimals.
    """

    def __init__(
        self, chain: LocalContracts, collateral_symbol: str, markets: Sequence[PerpSpec]
    ) -> None:
        self.chain = chain
        self.collateral_token = chain.tokens[collateral_symbol]
        self.markets: dict[str, LocalPerpMarket] = {}
        self._quote_owner = self._highest_next_deployer()
        quote_address = self._deploy_quote()
        self._factory = self._deploy_factory()
        self.addresses = self._deploy_protocol(quote_address)
        for perp_spec in markets:
            self._add_market(perp_spec)
        chain.node.mine_at(chain.now_s() + MARK_HISTORY_S)
        for perp_spec in markets:
            price = chain.deployed_world.prices_usd[perp_spec.symbol]
            self.set_index(perp_spec.symbol, price)
            self._provide_liquidity(self.markets[perp_spec.symbol], price, perp_spec.value_usd)

    # contracts

    def contract(self, address: str, name: str) -> Contract:
        """Return a protocol contract at an address."""
        return self.chain.contract(address, perp_artifact(name))

    @property
    def clearing_house(self) -> Contract:
        """ClearingHouse, which executes trades."""
        return self.contract(self.addresses.clearing_house, "ClearingHouse")

    @property
    def account_balance(self) -> Contract:
        """AccountBalance, which stores positions."""
        return self.contract(self.addresses.account_balance, "AccountBalance")

    @property
    def vault(self) -> Contract:
        """Vault, which holds collateral."""
        return self.contract(self.addresses.vault, "Vault")

    @property
    def exchange(self) -> Contract:
        """Exchange, which computes funding."""
        return self.contract(self.addresses.exchange, "Exchange")

    def _send(self, address: str, contract_name: str, function_name: str, *arguments: Any) -> None:
        call = self.contract(address, contract_name).functions[function_name](*arguments)
        self.chain.send(call)

    def _deploy_initialised(self, contract_name: str, *arguments: Any) -> str:
        address = self.chain.deploy(perp_artifact(contract_name))
        self._send(address, contract_name, "initialize", *arguments)
        return address

    def _deploy_factory(self) -> Contract:
        """Deploy Uniswap's factory of the virtual pools."""
        artifact = npm_artifact(uniswap_v3.FACTORY_ARTIFACT, PERPS_MANIFEST)
        return self.chain.contract(self.chain.deploy(artifact), artifact)

    def _deploy_protocol(self, quote_address: str) -> PerpAddresses:
        """Deploy and connect the core contracts."""
        collateral_unit = self.collateral_token.unit
        factory_address = self._factory.address
        clearing_house_config = self._deploy_initialised("ClearingHouseConfig")
        market_registry = self._deploy_initialised("MarketRegistry", factory_address, quote_address)
        order_book = self._deploy_initialised("OrderBook", market_registry)
        insurance_fund = self._deploy_initialised("InsuranceFund", self.collateral_token.address)
        exchange = self._deploy_initialised(
            "Exchange", market_registry, order_book, clearing_house_config
        )
        account_balance = self._deploy_initialised(
            "AccountBalance", clearing_house_config, order_book
        )
        vault = self._deploy_initialised(
            "Vault", insurance_fund, clearing_house_config, account_balance, exchange
        )
        collateral_manager = self._deploy_initialised(
            "CollateralManager",
            clearing_house_config,
            vault,
            *COLLATERAL_PARAMETERS,
            DEBT_THRESHOLD_USD * collateral_unit,
            DUST_USD * collateral_unit,
        )
        clearing_house = self._deploy_initialised(
            "ClearingHouse",
            clearing_house_config,
            vault,
            quote_address,
            factory_address,
            exchange,
            account_balance,
            insurance_fund,
        )
        delegate_approval = self._deploy_initialised("DelegateApproval")
        for address, contract_name, setter, setting in (
            (market_registry, "MarketRegistry", "setClearingHouse", clearing_house),
            (order_book, "OrderBook", "setClearingHouse", clearing_house),
            (exchange, "Exchange", "setClearingHouse", clearing_house),
            (account_balance, "AccountBalance", "setClearingHouse", clearing_house),
            (vault, "Vault", "setClearingHouse", clearing_house),
            (order_book, "OrderBook", "setExchange", exchange),
            (exchange, "Exchange", "setAccountBalance", account_balance),
            (account_balance, "AccountBalance", "setVault", vault),
            (insurance_fund, "InsuranceFund", "setVault", vault),
            (vault, "Vault", "setCollateralManager", collateral_manager),
            (clearing_house, "ClearingHouse", "setDelegateApproval", delegate_approval),
            (
                clearing_house_config,
                "ClearingHouseConfig",
                "setSettlementTokenBalanceCap",
                UINT256_MAX,
            ),
        ):
            self._send(address, contract_name, setter, setting)
        quote_functions = self.contract(quote_address, "QuoteToken").functions
        self.chain.send(quote_functions.mintMaximumTo(clearing_house), self._quote_owner)
        self.chain.send(quote_functions.addWhitelist(clearing_house), self._quote_owner)
        return PerpAddresses(
            quote_address,
            clearing_house,
            exchange,
            account_balance,
            vault,
            clearing_house_config,
            market_registry,
            order_book,
            delegate_approval,
        )

    def _highest_next_deployer(self) -> str:
        """Return the account whose next contract has the highest address. It deploys the virtual
        quote token, because every virtual base token must sort below it (MR_IB).
        """

        def next_address(deployer: str) -> int:
            nonce = self.chain.w3.eth.get_transaction_count(to_checksum_address(deployer))
            return int(get_create_address(to_checksum_address(deployer), nonce), 16)

        deployer_addresses = [
            deployer.address
            for deployer in self.chain.accounts
            if deployer.address != self.chain.wallet.address
        ]
        return max(deployer_addresses, key=next_address)

    def _deploy_quote(self) -> str:
        quote_address = self.chain.deploy(perp_artifact("QuoteToken"), sender=self._quote_owner)
        quote_functions = self.contract(quote_address, "QuoteToken").functions
        self.chain.send(quote_functions.initialize("vUSD", "vUSD"), self._quote_owner)
        return quote_address

    def _add_market(self, perp_spec: PerpSpec) -> None:
        """Deploy a market at the spot price, without liquidity."""
        addresses = self.addresses
        symbol = perp_spec.symbol
        price = self.chain.deployed_world.prices_usd[symbol]
        aggregator_address = self.chain.deploy(
            npm_artifact(_AGGREGATOR_PATH, PERPS_MANIFEST),
            self.collateral_token.address,
            0,
            0,
            NATIVE,
            1,
            10**18,
            INDEX_DECIMALS,
            f"{symbol} / USD",
        )
        whale_address = self.chain.whale.address
        aggregator_functions = self.chain.contract(
            aggregator_address, npm_artifact(_AGGREGATOR_PATH, PERPS_MANIFEST)
        ).functions
        self.chain.send(
            aggregator_functions.changeOracles([], [whale_address], [whale_address], 1, 1, 0)
        )
        feed_address = self.chain.deploy(
            npm_artifact(_ORACLE_PATH.format("ChainlinkPriceFeedV3"), PERPS_MANIFEST),
            aggregator_address,
            FEED_TIMEOUT_S,
            FEED_TWAP_S,
        )
        dispatcher = self.chain.deploy(
            npm_artifact(_ORACLE_PATH.format("PriceFeedDispatcher"), PERPS_MANIFEST), feed_address
        )
        base_token = self.chain.deploy(perp_artifact("BaseToken"))
        while int(base_token, 16) > int(addresses.quote_token, 16):
            base_token = self.chain.deploy(perp_artifact("BaseToken"))
        self.markets[symbol] = LocalPerpMarket(
            symbol, base_token, "", aggregator_address, feed_address
        )
        self.set_index(symbol, price)
        self._send(base_token, "BaseToken", "initialize", f"v{symbol}", f"v{symbol}", dispatcher)
        self.chain.send(
            self._factory.functions.createPool(base_token, addresses.quote_token, POOL_FEE_PIPS)
        )
        pool_address = str(
            self._factory.functions.getPool(base_token, addresses.quote_token, POOL_FEE_PIPS).call()
        )
        self.markets[symbol] = LocalPerpMarket(
            symbol, base_token, pool_address, aggregator_address, feed_address
        )
        pool_functions = self.chain.contract(
            pool_address, npm_artifact(uniswap_v3.POOL_ARTIFACT, PERPS_MANIFEST)
        ).functions
        self.chain.send(pool_functions.initialize(sqrt_price_x96(price)))
        self.chain.send(pool_functions.increaseObservationCardinalityNext(OBSERVATION_COUNT))
        self._send(base_token, "BaseToken", "mintMaximumTo", addresses.clearing_house)
        self._send(base_token, "BaseToken", "addWhitelist", addresses.clearing_house)
        self._send(base_token, "BaseToken", "addWhitelist", pool_address)
        quote_functions = self.contract(addresses.quote_token, "QuoteToken").functions
        self.chain.send(quote_functions.addWhitelist(pool_address), self._quote_owner)
        self._send(
            addresses.market_registry, "MarketRegistry", "addPool", base_token, POOL_FEE_PIPS
        )
        self._send(
            addresses.market_registry, "MarketRegistry", "setFeeRatio", base_token, TRADE_FEE_PPM
        )
        self._send(
            addresses.exchange,
            "Exchange",
            "setMaxTickCrossedWithinBlock",
            base_token,
            MAX_TICKS_CROSSED,
        )

    def _provide_liquidity(self, market: LocalPerpMarket, price: Fraction, value_usd: int) -> None:
        """Deposit collateral worth the liquidity, and provide the liquidity."""
        whale_address = self.chain.whale.address
        self.deposit(whale_address, value_usd * self.collateral_token.unit)
        tick_lower, tick_upper = range_ticks(price, MAKER_RANGE, TICK_SPACING)
        half_value_wad = Fraction(value_usd * WAD, 2)
        base_and_quote_raw = (int(half_value_wad / price), int(half_value_wad))
        call = self.clearing_house.functions.addLiquidity(
            (
                market.base_token,
                *base_and_quote_raw,
                tick_lower,
                tick_upper,
                0,
                0,
                False,
                FAR_FUTURE_S,
            )
        )
        self.chain.send(call, whale_address)

    # operations for tests and tools

    def set_index(self, symbol: str, price: Fraction | int) -> None:
        """Set the index price of a market, in a second of its own: the second of two updates in one
        second reverts (CPF_NU).
        """
        market = self.markets[symbol]
        aggregator_functions = self.chain.contract(
            market.aggregator, npm_artifact(_AGGREGATOR_PATH, PERPS_MANIFEST)
        ).functions
        feed_contract = self.chain.contract(
            market.feed, npm_artifact(_ORACLE_PATH.format("ChainlinkPriceFeedV3"), PERPS_MANIFEST)
        )
        last_update_s = int(feed_contract.functions.getLastValidTimestamp().call())
        if self.chain.now_s() <= last_update_s:
            self.chain.node.mine_at(last_update_s + 1)
        price_answer = round(Fraction(price) * 10**INDEX_DECIMALS)
        self.chain.send(
            aggregator_functions.submit(
                int(aggregator_functions.latestRound().call()) + 1, price_answer
            )
        )
        self.chain.send(feed_contract.functions.update())

    def deposit(self, account: str, raw: int) -> None:
        """Give `account` collateral and deposit it."""
        token_functions = self.chain.token_contract(self.collateral_token.symbol).functions
        self.chain.send(token_functions.mint(account, raw))
        self.chain.send(token_functions.approve(self.addresses.vault, raw), account)
        self.chain.send(self.vault.functions.deposit(self.collateral_token.address, raw), account)

    def trade(self, account: str, symbol: str, size_raw: int) -> HexStr:
        """Open or reduce a position by a signed size, without a price bound; return the
        transaction's hash.
        """
        order = self.order_params(symbol, size_raw, 0)
        return self.chain.send(self.clearing_house.functions.openPosition(order), account)

    def order_params(self, symbol: str, size_raw: int, bound_raw: int) -> tuple[Any, ...]:
        """Return the parameters of openPosition for an exact signed size: a sale is exact base in,
        a purchase exact base out. `bound_raw` is the minimum quote of a sale or the maximum of a
        purchase.
        """
        is_sale = size_raw < 0
        base_token = self.markets[symbol].base_token
        return base_token, is_sale, is_sale, abs(size_raw), bound_raw, FAR_FUTURE_S, 0, NO_REFERRAL

    def move_pools(
        self, prices: Mapping[str, Fraction], wait: Callable[[float], object] = time.sleep
    ) -> None:
        """Trade the markets' virtual pools to these prices from a separate account. A market
        crosses at most MAX_TICKS_CROSSED ticks in PRICE_LIMIT_S, so a large move takes several
        rounds; `wait` is called with the seconds left of PRICE_LIMIT_S since the last trade, before
        each round. Set the indexes first, because trades away from them revert.
        """
        mover = self.chain.accounts[MOVER_INDEX].address
        if (
            2 * self.vault.functions.getFreeCollateral(mover).call()
            < MOVER_USD * self.collateral_token.unit
        ):
            self.deposit(mover, MOVER_USD * self.collateral_token.unit)
        while remaining_symbols := [
            symbol for symbol in prices if not self._is_at_price(symbol, prices[symbol])
        ]:
            last_trade_s = max(map(self._last_trade_s, remaining_symbols))
            if (wait_s := last_trade_s + PRICE_LIMIT_S - self.chain.now_s()) > 0:
                wait(wait_s)
            for symbol in remaining_symbols:
                self._trade_towards(symbol, sqrt_price_x96(prices[symbol]), mover)

    def _is_at_price(self, symbol: str, price: Fraction) -> bool:
        return self._sqrt_price_x96(symbol) == sqrt_price_x96(price)

    def _sqrt_price_x96(self, symbol: str) -> int:
        return int(self._virtual_pool(symbol).functions.slot0().call()[0])

    def _last_trade_s(self, symbol: str) -> int:
        """Return the time of the last block in which the price changed."""
        pool_functions = self._virtual_pool(symbol).functions
        return int(pool_functions.observations(pool_functions.slot0().call()[2]).call()[0])

    def _virtual_pool(self, symbol: str) -> Any:
        artifact = npm_artifact(uniswap_v3.POOL_ARTIFACT, PERPS_MANIFEST)
        return self.chain.contract(self.markets[symbol].pool, artifact)

    def _trade_towards(self, symbol: str, target_sqrt_x96: int, mover: str) -> None:
        current_sqrt_x96 = self._sqrt_price_x96(symbol)
        is_sale = target_sqrt_x96 < current_sqrt_x96
        # 900 of MAX_TICKS_CROSSED ticks: the root of the price times 1.0001 ** -450 or +450.
        reachable_sqrt_x96 = (
            current_sqrt_x96 * 956 // 1_000 if is_sale else current_sqrt_x96 * 1_046 // 1_000
        )
        limit_sqrt_x96 = (
            max(target_sqrt_x96, reachable_sqrt_x96)
            if is_sale
            else min(target_sqrt_x96, reachable_sqrt_x96)
        )
        # Exact quote in or out, as far as the price limit.
        quote_raw = MOVER_USD * WAD
        base_token = self.markets[symbol].base_token
        order_params = (
            base_token,
            is_sale,
            not is_sale,
            quote_raw,
            0,
            FAR_FUTURE_S,
            limit_sqrt_x96,
            NO_REFERRAL,
        )
        self.chain.send(self.clearing_house.functions.openPosition(order_params), mover)


def futures_config(
    perps: LocalPerps, weights: Mapping[str, str], leverage: str = "", **limits: str
) -> str:
    """Return the [futures] section of a trimtab.toml for these contracts, from the profile
    moderate; `weights` (by symbol), `leverage` and `limits` replace the profile's.
    """
    profile = FUTURES_PROFILES["moderate"]
    profile = replace(
        profile,
        leverage=leverage or profile.leverage,
        limits={**profile.limits, **limits},
    )
    return futures_text(
        profile, venue_file_table(perps), perps.collateral_token.symbol, weights, weights
    )


def venue_file_table(perps: LocalPerps) -> PerpetualProtocolFileTable:
    """Return the contracts in the form of a venue file."""
    addresses = perps.addresses
    return PerpetualProtocolFileTable(
        venue="perpetual_protocol_v2",
        clearing_house=addresses.clearing_house,
        vault=addresses.vault,
        account_balance=addresses.account_balance,
        exchange=addresses.exchange,
        market_registry=addresses.market_registry,
        config=addresses.clearing_house_config,
        delegate_approval=addresses.delegate_approval,
        markets={
            symbol: PerpetualProtocolFileMarket(
                base=market.base_token, aggregator=market.aggregator
            )
            for symbol, market in perps.markets.items()
        },
    )
