"""Ethereum mainnet."""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

ETHEREUM = Network(
    name="ethereum",
    chain_id=1,
    title="Ethereum",
    native_symbol="ETH",
    wrapped_native="0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
    block_ms=12_000,
    finality="finalized",
    base_fee_ceiling_gwei=60,
    gas_per_day="0.05",
    native_floor="0.05",
    native_top_up="0.1",
    # Ordinary: about the median of the daily means from June 2025 to June 2026 (1.08 gwei; least
    # 0.36, most 18.2). Quiet and busy are assumed beyond them.
    fees=TypicalFees(
        gas_prices_wei=(50_000_000, 1_000_000_000, 30_000_000_000),
        priority_fee_wei=50_000_000,
        native_usd=Fraction(3_000),
    ),
    private_endpoint="https://rpc.flashbots.net/fast",
    explorer="https://etherscan.io",
    feeds={
        "ETH": "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419",
        "BTC": "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c",
        "cbBTC": "0x2665701293fCbEB223D11A08D826563EDcCE423A",
        "USDC": "0x8fFfFfd4AfB6115b954Bd326cbe7B4BA576818f6",
        "USDT": "0x3E7d1eAB13ad0104d2750B8863b489D65364e32D",
        "DAI": "0xAed0c38402a5d19df6E4c03F4E2DceD6e29c1ee9",
        "LINK": "0x2c1d072e956AFFC0D435Cb7AC38EF18d24d9127c",
        "AAVE": "0x547a514d5e3769680Ce22B2361c10Ea13619e8a9",
    },
    tokens=(
        NetworkToken("WETH", "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", 18, "ETH", is_hub=True),
        NetworkToken("WBTC", "0x2260FAC5E5542a773Aa44fBCfeDf7C193bc2C599", 8, "BTC", is_hub=True),
        NetworkToken("USDC", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", 6, "USDC", is_hub=True),
        NetworkToken("USDT", "0xdAC17F958D2ee523a2206206994597C13D831ec7", 6, "USDT", is_hub=True),
        NetworkToken("DAI", "0x6B175474E89094C44Da98b954EedeAC495271d0F", 18, "DAI"),
        NetworkToken("LINK", "0x514910771AF9Ca656af840dff83E8264EcF986CA", 18, "LINK"),
        NetworkToken("AAVE", "0x7Fc66500c84A76Ad7e9c93437bFc5Ac33E2DDaE9", 18, "AAVE"),
        NetworkToken(
            "cbBTC", "0xcbB7C0000aB88B473b1f5aFd9ef808440eed33Bf", 8, "cbBTC", is_hub=True
        ),
    ),
    venues=(
        VenueDeployment(
            kind=VenueKind.V2,
            name="Uniswap V2",
            factory="0x5C69bEe701ef814a2B6a3EDD4B1652CB9cc5aA6f",
            router="0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D",
            init_code_hash="0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f",
            fee_pips=3000,
        ),
        VenueDeployment(
            kind=VenueKind.V3,
            name="Uniswap V3",
            factory="0x1F98431c8aD98523631AE4a59f267346ea31F984",
            router="0x68b3465833fb72A70ecDF485E0e4C7bD8665Fc45",
            quoter="0x61fFE014bA17989E743c5F6cB21bF9697530B21e",
            quoter_v1="0xb27308f9F90D607463bb33eA1BeBb41C27CE5AB6",
            position_manager="0xC36442b4a4522E871399CD717aBDD847Ab11FE88",
            init_code_hash="0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54",
            fee_tiers=(100, 500, 3000, 10_000),
        ),
        VenueDeployment(
            kind=VenueKind.V4,
            name="Uniswap V4",
            pool_manager="0x000000000004444c5dc75cB358380D2e3dE08A90",
            state_view="0x7fFE42C4a5DEeA5b0feC41C94C136Cf115597227",
            router="0x66a9893cC07D91D95644AEDD05D03f95e1dBA8Af",
            quoter="0x52F0E24D1c21C8A0cB1e5a5dD6198556BD9E1203",
            position_manager="0xbD216513d74C8cf14cf4747E6AaA6420FF64ee9e",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
    ),
)
