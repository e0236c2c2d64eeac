"""Base. Slipstream is Aerodrome's first factory: of the second and third, sources name different
quoters. Its router is that of the contracts' own repository, aerodrome-finance/slipstream;
@paraswap/dex-lib has another.
"""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

BASE = Network(
    name="base",
    chain_id=8453,
    title="Base",
    native_symbol="ETH",
    wrapped_native="0x4200000000000000000000000000000000000006",
    block_ms=2_000,
    finality="finalized",
    base_fee_ceiling_gwei=1,
    gas_per_day="0.002",
    native_floor="0.002",
    native_top_up="0.004",
    # Floor of the base fee 0.005 gwei (2026), an ordinary day assumed at twice that.
    # Data fee at 10 gwei on Ethereum and 1 gwei of blob gas (tests/differential/test_op_stack_fees.py).
    fees=TypicalFees(
        gas_prices_wei=(6_000_000, 11_000_000, 300_000_000),
        priority_fee_wei=1_000_000,
        data_fee_wei=340_000_000_000,
        native_usd=Fraction(3_000),
    ),
    is_sequenced=True,
    explorer="https://basescan.org",
    sequencer_feed="0xBCF85224fc0756B9Fa45aA7892530B47e10b6433",
    feeds={
        "ETH": "0x71041dddad3595F9CEd3DcCFBe3D1F4b0a16Bb70",
        "cbBTC": "0x07DA0E54543a844a80ABE69c8A12F22B3aA59f9D",
        "WBTC": "0xCCADC697c55bbB68dc5bCdf8d3CBe83CdD4E071E",
        "USDC": "0x7e860098F58bBFC8648a4311b374B1D669a2bc6B",
        "USDT": "0xf19d560eB8d2ADf07BD6D13ed03e1D11215721F9",
        "DAI": "0x591e79239a7d679378eC8c847e5038150364C78F",
        "AERO": "0x4EC5970fC728C5f65ba413992CD5fF6FD70fcfF0",
    },
    tokens=(
        NetworkToken("WETH", "0x4200000000000000000000000000000000000006", 18, "ETH", is_hub=True),
        NetworkToken(
            "cbBTC", "0xcbB7C0000aB88B473b1f5aFd9ef808440eed33Bf", 8, "cbBTC", is_hub=True
        ),
        NetworkToken("WBTC", "0x0555E30da8f98308EdB960aa94C0Db47230d2B9c", 8, "WBTC", is_hub=True),
        NetworkToken("USDC", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", 6, "USDC", is_hub=True),
        NetworkToken("USDT", "0xfde4C96c8593536E31F229EA8f37b2ADa2699bb2", 6, "USDT", is_hub=True),
        NetworkToken("DAI", "0x50c5725949A6F0c72E6C4a641F24049A917DB0Cb", 18, "DAI"),
        NetworkToken("AERO", "0x940181a94A35A4569E4529A3CDfB74e38FD98631", 18, "AERO"),
    ),
    venues=(
        VenueDeployment(
            kind=VenueKind.V2,
            name="Uniswap V2",
            factory="0x8909Dc15e40173Ff4699343b6eB8132c65e18eC6",
            router="0x4752ba5DBc23f44D87826276BF6Fd6b1C372aD24",
            init_code_hash="0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f",
            fee_pips=3000,
            needs_rebalancer=True,
        ),
        VenueDeployment(
            kind=VenueKind.V3,
            name="Uniswap V3",
            factory="0x33128a8fC17869897dcE68Ed026d694621f6FDfD",
            router="0x2626664c2603336E57B271c5C0b26F421741e481",
            quoter="0x3d4e44Eb1374240CE5F1B871ab261CD16335B76a",
            position_manager="0x03a520b32C04BF3bEEf7BEb72E919cf822Ed34f1",
            init_code_hash="0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54",
            fee_tiers=(100, 500, 3000, 10_000),
        ),
        VenueDeployment(
            kind=VenueKind.V4,
            name="Uniswap V4",
            pool_manager="0x498581fF718922c3f8e6A244956aF099B2652b2b",
            state_view="0xA3c0c9b65baD0b08107Aa264b0f3dB444b867A71",
            router="0x6fF5693b99212Da76ad316178A184AB56D299b43",
            quoter="0x0d5e0F971ED27FBfF6c2837bf31316121532048D",
            position_manager="0x7C5f5A4bBd8fD63184577525326123B519429bDc",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
        VenueDeployment(
            kind=VenueKind.SLIPSTREAM,
            name="Aerodrome Slipstream",
            factory="0x5e7BB104d84c7CB9B682AaC2F3d509f5F406809A",
            router="0xBE6D8f0d05cC4be24d5167a3eF062215bE6D18a5",
            quoter="0x254cF9E1E6e233aa1AC962CB9B05b2cfeAaE15b0",
            position_manager="0x827922686190790b37229fd06084350E74485b72",
            tick_spacings=(1, 10, 50, 100, 200, 2000),
        ),
    ),
)
