"""Perpetual Protocol v2 on a chain for tests, and its accounts as input of the pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from eth_typing import HexStr
from eth_utils.address import to_checksum_address

from agent.chain.lens import query_lens
from agent.chain.perpetuals import PerpMarketRef, PerpScope, perp_questions, read_account
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps, PerpSpec
from agent.margin.account import wad_of_sqrt_x96
from agent.model.futures import MarginAccount, MarginTier, PerpMarket, Position
from agent.units import Token
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses

WAD = 10**18
MARKETS = (PerpSpec("WETH", 4_000_000), PerpSpec("WBTC", 4_000_000))


def perps_on(chain: LocalChain, markets: Sequence[PerpSpec] = MARKETS) -> LocalPerps:
    """Deploy the protocol, by default with two markets."""
    with chain.node.one_second_blocks():
        return LocalPerps(chain, "USDC", markets)


def advance_time(perps: LocalPerps, seconds: int) -> None:
    """Advance the time and update every index."""
    perps.chain.node.mine_at(perps.chain.now_s() + seconds)
    for symbol in perps.markets:
        perps.set_index(symbol, perps.chain.deployed_world.prices_usd[symbol])


def account_of(perps: LocalPerps, who: str) -> MarginAccount:
    """Read an account view by view, as input of the pure functions."""
    accounts = perps.account_balance.functions
    exchange = perps.exchange.functions
    config = perps.contract(perps.addresses.clearing_house_config, "ClearingHouseConfig").functions
    tiers = (MarginTier(0, config.getImRatio().call(), config.getMmRatio().call()),)
    markets = []
    positions = []
    for symbol, market in perps.markets.items():
        base = perps.contract(market.base_token, "BaseToken").functions
        markets.append(
            PerpMarket(
                market=market.base_token,
                symbol=symbol,
                asset=perps.chain.tokens[symbol].address,
                size_decimals=18,
                lot_raw=1,
                tiers=tiers,
                fee_ppm=1_000,
                mark=Fraction(accounts.getMarkPrice(market.base_token).call(), WAD),
                index=Fraction(base.getIndexPrice(0).call(), WAD),
                index_s=perps.chain.now_s(),
                funding_daily=funding_daily(perps, symbol),
            )
        )
        size = accounts.getTakerPositionSize(who, market.base_token).call()
        if size:
            positions.append(
                Position(
                    market.base_token,
                    size,
                    accounts.getTakerOpenNotional(who, market.base_token).call(),
                    exchange.getPendingFundingPayment(who, market.base_token).call(),
                )
            )
    scale = 10 ** (18 - perps.collateral_token.decimals)
    collateral = perps.vault.functions.getBalance(who).call() * scale
    realised = accounts.getPnlAndPendingFee(who).call()[0]
    return MarginAccount(Token(perps.addresses.quote_token, "vUSD", 18), scale, collateral, realised, tuple(positions), tuple(markets))


def funding_daily(perps: LocalPerps, symbol: str) -> Fraction:
    """Return the daily funding rate as Exchange computes it: (market TWAP − index TWAP) / index, over 15 minutes."""
    base = perps.markets[symbol].base_token
    market = wad_of_sqrt_x96(perps.exchange.functions.getSqrtMarketTwapX96(base, 900).call())
    index = perps.contract(base, "BaseToken").functions.getIndexPrice(900).call()
    return Fraction(market - index, index)


def scope_of(perps: LocalPerps, who: str) -> PerpScope:
    """Return the scope of the agent's reader for an account."""
    at = perps.addresses
    markets = tuple(
        PerpMarketRef(market.base_token, symbol, perps.chain.tokens[symbol].address, market.aggregator)
        for symbol, market in perps.markets.items()
    )
    return PerpScope(
        trader=who,
        collateral=perps.collateral_token,
        vault=at.vault,
        account_balance_contract=at.account_balance,
        clearing_house=at.clearing_house,
        exchange=at.exchange,
        market_registry=at.market_registry,
        config_contract=at.clearing_house_config,
        markets=markets,
    )


def contracts_of(perps: LocalPerps, trader: str) -> PerpetualProtocolAddresses:
    """Return the contracts that the account's transactions call."""
    at = perps.addresses
    return PerpetualProtocolAddresses(at.clearing_house, at.vault, at.delegate_approval, trader)


def send_data(perps: LocalPerps, to: str, data: str, sender: str) -> HexStr:
    """Send calldata from an unlocked account. Raises RuntimeError with the reason if it reverts."""
    w3 = perps.chain.w3
    fields = {"from": to_checksum_address(sender), "to": to_checksum_address(to), "data": data, "gas": 6_000_000}
    try:
        w3.eth.call(fields)  # type: ignore[arg-type]
    except Exception as error:
        raise RuntimeError(str(error)) from None
    tx_hash = w3.eth.send_transaction(fields)  # type: ignore[arg-type]
    assert w3.eth.wait_for_transaction_receipt(tx_hash, poll_latency=0.01)["status"] == 1
    return HexStr(tx_hash.to_0x_hex() if hasattr(tx_hash, "to_0x_hex") else tx_hash.hex())


def read_now(perps: LocalPerps, who: str) -> MarginAccount:
    """Return the account as the agent reads it; fail if the agent would not trade."""
    scope = scope_of(perps, who)
    items = [question.item for question in perp_questions(scope)]
    read = read_account(scope, list(query_lens(perps.chain.transport, items)))
    assert isinstance(read, MarginAccount), read
    return read
