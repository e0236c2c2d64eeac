"""OP Mainnet. The router of Velodrome's Slipstream is that of the contracts' own repository,
velodrome-finance/slipstream; @paraswap/dex-lib has another.
"""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

OPTIMISM = Network(
    name="optimism",
    chain_id=10,
    title="OP Mainnet",
    native_symbol="ETH",
    wrapped_native="0x4200000000000000000000000000000000000006",
    block_ms=2_000,
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
    explorer="https://optimistic.etherscan.io",
    sequencer_feed="0x371EAD81c9102C9BF4874A9075FFFf170F2Ee389",
    feeds={
        "ETH": "0x13e3Ee699D1909E989722E753853AE30b17e08c5",
        "WBTC": "0x718A5788b89454aAE3A028AE9c111A29Be6c2a6F",
        "USDC": "0x16a9FA2FDa030272Ce99B29CF780dFA30361E0f3",
        "USDT": "0xECef79E109e997bCA29c1c0897ec9d7b03647F5E",
        "DAI": "0x8dBa75e83DA73cc766A7e5a0ee71F656BAb470d6",
        "OP": "0x0D276FC14719f9292D5C1eA2198673d1f4269246",
        "LINK": "0xCc232dcFAAE6354cE191Bd574108c1aD03f86450",
        "AAVE": "0x338ed6787f463394D24813b297401B9F05a8C9d1",
    },
    tokens=(
        NetworkToken("WETH", "0x4200000000000000000000000000000000000006", 18, "ETH", is_hub=True),
        NetworkToken("WBTC", "0x68f180fcCe6836688e9084f035309E29Bf0A2095", 8, "WBTC", is_hub=True),
        NetworkToken("USDC", "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", 6, "USDC", is_hub=True),
        NetworkToken("USDT", "0x94b008aA00579c1307B0EF2c499aD98a8ce58e58", 6, "USDT", is_hub=True),
        NetworkToken("DAI", "0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1", 18, "DAI"),
        NetworkToken("OP", "0x4200000000000000000000000000000000000042", 18, "OP"),
        NetworkToken("LINK", "0x350a791Bfc2C21F9Ed5d10980Dad2e2638ffa7f6", 18, "LINK"),
        NetworkToken("AAVE", "0x76FB31fb4af56892A25e32cFC43De717950c9278", 18, "AAVE"),
    ),
    venues=(
        VenueDeployment(
            kind=VenueKind.V2,
            name="Uniswap V2",
            factory="0x0c3c1c532F1e39EdF36BE9Fe0bE1410313E074Bf",
            router="0x4A7b5Da61326A6379179b40d00F57E5bbDC962c2",
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
            pool_manager="0x9a13F98Cb987694C9F086b1F5eB990EeA8264Ec3",
            state_view="0xc18a3169788F4F75A170290584ECA6395C75Ecdb",
            router="0x851116D9223fabED8E56C0E6b8Ad0c31d98B3507",
            quoter="0x1f3131A13296FB91C90870043742C3CDBFF1A8d7",
            position_manager="0x3C3Ea4B57a46241e54610e5f022E5c45859A1017",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
        VenueDeployment(
            kind=VenueKind.SLIPSTREAM,
            name="Velodrome Slipstream",
            factory="0xCc0bDDB707055e04e497aB22a59c2aF4391cd12F",
            router="0x0792a633F0c19c351081CF4B211F68F79bCc9676",
            quoter="0x89D8218ed5fF1e46d8dcd33fb0bbeE3be1621466",
            position_manager="0x416b433906b1B72FA758e166e239c43d68dC6F29",
            tick_spacings=(1, 50, 100, 200, 2000),
        ),
    ),
)
