"""Arbitrum One. Chainlink has no feed for cbBTC here, which is priced as BTC."""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

ARBITRUM = Network(
    name="arbitrum",
    chain_id=42161,
    title="Arbitrum One",
    native_symbol="ETH",
    wrapped_native="0x82aF49447D8a07e3bd95BD0d56f35241523fBab1",
    block_ms=250,
    finality="finalized",
    base_fee_ceiling_gwei=1,
    gas_per_day="0.002",
    native_floor="0.002",
    native_top_up="0.004",
    # Floor of the base fee 0.02 gwei since January 2026, the rest assumed.
    fees=TypicalFees(
        gas_prices_wei=(20_000_000, 30_000_000, 500_000_000),
        priority_fee_wei=0,
        data_fee_wei=1_500_000_000_000,
        native_usd=Fraction(3_000),
    ),
    is_sequenced=True,
    explorer="https://arbiscan.io",
    sequencer_feed="0xFdB631F5EE196F0ed6FAa767959853A9F217697D",
    feeds={
        "ETH": "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612",
        "WBTC": "0xd0C7101eACbB49F3deCcCc166d238410D6D46d57",
        "BTC": "0x6ce185860a4963106506C203335A2910413708e9",
        "USDC": "0x50834F3163758fcC1Df9973b6e91f0F0F0434aD3",
        "USDT": "0x3f3f5dF88dC9F13eac63DF89EC16ef6e7E25DdE7",
        "DAI": "0xc5C8E77B397E531B8EC06BFb0048328B30E9eCfB",
        "ARB": "0xb2A824043730FE05F3DA2efaFa1CBbe83fa548D6",
        "LINK": "0x86E53CF1B870786351Da77A57575e79CB55812CB",
        "AAVE": "0xaD1d5344AaDE45F43E596773Bcc4c423EAbdD034",
    },
    tokens=(
        NetworkToken("WETH", "0x82aF49447D8a07e3bd95BD0d56f35241523fBab1", 18, "ETH", is_hub=True),
        NetworkToken("WBTC", "0x2f2a2543B76A4166549F7aaB2e75Bef0aefC5B0f", 8, "WBTC", is_hub=True),
        NetworkToken("cbBTC", "0xcbB7C0000aB88B473b1f5aFd9ef808440eed33Bf", 8, "BTC", is_hub=True),
        NetworkToken("USDC", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", 6, "USDC", is_hub=True),
        NetworkToken("USDT0", "0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9", 6, "USDT", is_hub=True),
        NetworkToken("DAI", "0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1", 18, "DAI"),
        NetworkToken("ARB", "0x912CE59144191C1204E64559FE8253a0e49E6548", 18, "ARB"),
        NetworkToken("LINK", "0xf97f4df75117a78c1A5a0DBb814Af92458539FB4", 18, "LINK"),
        NetworkToken("AAVE", "0xba5DdD1f9d7F570dc94a51479a000E3BCE967196", 18, "AAVE"),
    ),
    venues=(
        VenueDeployment(
            kind=VenueKind.V2,
            name="Uniswap V2",
            factory="0xf1D7CC64Fb4452F05c498126312eBE29f30Fbcf9",
            router="0x4752ba5DBc23f44D87826276BF6Fd6b1C372aD24",
            init_code_hash="0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f",
            fee_pips=3000,
            needs_rebalancer=True,
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
            pool_manager="0x360E68faCcca8cA495c1B759Fd9EEe466db9FB32",
            state_view="0x76Fd297e2D437cd7f76d50F01AfE6160f86e9990",
            router="0xA51afAFe0263b40EdaEf0Df8781eA9aa03E381a3",
            quoter="0x3972C00f7ed4885e145823eb7C655375d275A1C5",
            position_manager="0xd88F38F930b7952f2DB2432Cb002E7abbF3dD869",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
    ),
)
