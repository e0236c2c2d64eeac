"""Unichain. Chainlink has no feed here: prices are TWAPs or none. @uniswap/sdk-core's quoter is
another contract than QuoterV2. The router of Velodrome's Slipstream has no certain source: the
venue can be read, not traded.
"""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

UNICHAIN = Network(
    name="unichain",
    chain_id=130,
    title="Unichain",
    native_symbol="ETH",
    wrapped_native="0x4200000000000000000000000000000000000006",
    block_ms=1_000,
    finality="finalized",
    base_fee_ceiling_gwei=1,
    gas_per_day="0.002",
    native_floor="0.002",
    native_top_up="0.004",
    # Assumed, November 2026: no floor of the base fee is known.
    fees=TypicalFees(
        gas_prices_wei=(1_000_000, 6_000_000, 300_000_000),
        priority_fee_wei=1_000_000,
        data_fee_wei=500_000_000_000,
        native_usd=Fraction(3_000),
    ),
    is_sequenced=True,
    explorer="https://uniscan.xyz",
    feeds={},
    tokens=(
        NetworkToken("WETH", "0x4200000000000000000000000000000000000006", 18, is_hub=True),
        NetworkToken("WBTC", "0x927B51f251480a681271180DA4de28D44EC4AfB8", 8, is_hub=True),
        NetworkToken("USDC", "0x078D782b760474a361dDA0AF3839290b0EF57AD6", 6, is_hub=True),
        NetworkToken("USDT0", "0x9151434b16b9763660705744891fA906F660EcC5", 6, is_hub=True),
        NetworkToken("UNI", "0x8f187aA05619a017077f5308904739877ce9eA21", 18),
    ),
    venues=(
        VenueDeployment(
            kind=VenueKind.V2,
            name="Uniswap V2",
            factory="0x1F98400000000000000000000000000000000002",
            router="0x284F11109359a7e1306C3e447ef14D38400063FF",
            init_code_hash="0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f",
            fee_pips=3000,
        ),
        VenueDeployment(
            kind=VenueKind.V3,
            name="Uniswap V3",
            factory="0x1F98400000000000000000000000000000000003",
            router="0x73855d06DE49d0fe4A9c42636Ba96c62da12FF9C",
            quoter="0x385A5cf5F83e99f7BB2852b6A19C3538b9FA7658",
            position_manager="0x943e6e07a7E8E791dAFC44083e54041D743C46E9",
            init_code_hash="0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54",
            fee_tiers=(100, 500, 3000, 10_000),
        ),
        VenueDeployment(
            kind=VenueKind.V4,
            name="Uniswap V4",
            pool_manager="0x1F98400000000000000000000000000000000004",
            state_view="0x86e8631A016F9068C3f085fAF484Ee3F5fDee8f2",
            router="0xEf740bf23aCaE26f6492B10de645D6B98dC8Eaf3",
            quoter="0x333E3C607B141b18fF6de9f258db6e77fE7491E0",
            position_manager="0x4529A01c7A0410167c5740C487A8DE60232617bf",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
        VenueDeployment(
            kind=VenueKind.SLIPSTREAM,
            name="Velodrome Slipstream",
            factory="0x04625B046C69577EfC40e6c0Bb83CDBAfab5a55F",
            quoter="0x3FA596fAC2D6f7d16E01984897Ac04200Cb9cA05",
            position_manager="0x991d5546C4B442B4c5fdc4c8B8b8d131DEB24702",
            tick_spacings=(1, 50, 100, 200, 2000),
        ),
    ),
)
