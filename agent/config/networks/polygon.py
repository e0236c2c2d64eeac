"""Polygon PoS. Chainlink still calls the feed of the native coin MATIC / USD; MATIC became POL one
for one. No free private endpoint is known.
"""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

POLYGON = Network(
    name="polygon",
    chain_id=137,
    title="Polygon",
    native_symbol="POL",
    wrapped_native="0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270",
    block_ms=2_000,
    finality="finalized",
    base_fee_ceiling_gwei=1_000,
    gas_per_day="20",
    native_floor="5",
    native_top_up="10",
    # Least priority fee 25 to 30 gwei; the rest assumed, November 2026.
    fees=TypicalFees(
        gas_prices_wei=(55_000_000_000, 150_000_000_000, 1_000_000_000_000),
        priority_fee_wei=30_000_000_000,
        native_usd=Fraction(1, 4),
    ),
    explorer="https://polygonscan.com",
    feeds={
        "MATIC": "0xAB594600376Ec9fD91F8e885dADF0CE036862dE0",
        "ETH": "0xF9680D99D6C9589e2a93a78A04A279e509205945",
        "WBTC": "0xDE31F8bFBD8c84b5360CFACCa3539B938dd78ae6",
        "USDC": "0xfE4A8cc5b5B2366C1B58Bea3858e81843581b2F7",
        "USDT": "0x0A6513e40db6EB1b165753AD52E80663aeA50545",
        "DAI": "0x4746DeC9e833A82EC7C2C1356372CcF2cfcD2F3D",
        "LINK": "0xd9FFdb71EbE7496cC440152d43986Aae0AB76665",
        "AAVE": "0x72484B12719E23115761D5DA1646945632979bB6",
    },
    tokens=(
        NetworkToken(
            "WPOL", "0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270", 18, "MATIC", is_hub=True
        ),
        NetworkToken("WETH", "0x7ceB23fD6bC0adD59E62ac25578270cFf1b9f619", 18, "ETH", is_hub=True),
        NetworkToken("WBTC", "0x1BFD67037B42Cf73acF2047067bd4F2C47D9BfD6", 8, "WBTC", is_hub=True),
        NetworkToken("USDC", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", 6, "USDC", is_hub=True),
        NetworkToken("USDT", "0xc2132D05D31c914a87C6611C10748AEb04B58e8F", 6, "USDT", is_hub=True),
        NetworkToken("DAI", "0x8f3Cf7ad23Cd3CaDbD9735AFf958023239c6A063", 18, "DAI"),
        NetworkToken("LINK", "0x53E0bca35eC356BD5ddDFebbD1Fc0fD03FaBad39", 18, "LINK"),
        NetworkToken("AAVE", "0xD6DF932A45C0f255f85145f286eA0b292B21C90B", 18, "AAVE"),
    ),
    venues=(
        VenueDeployment(
            kind=VenueKind.V2,
            name="Uniswap V2",
            factory="0x9e5A52f57b3038F1B8EeE45F28b3C1967e22799C",
            router="0xedf6066a2b290C185783862C7F4776A2C8077AD1",
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
            pool_manager="0x67366782805870060151383F4BbFF9daB53e5cD6",
            state_view="0x5eA1bD7974c8A611cBAB0bDCAFcB1D9CC9b3BA5a",
            router="0x1095692A6237d83C6a72F3F5eFEdb9A670C49223",
            quoter="0xb3d5c3Dfc3a7aEbFF71895A7191796BFFc2c81b9",
            position_manager="0x1Ec2eBf4F37E7363FDfe3551602425af0B3ceef9",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
    ),
)
