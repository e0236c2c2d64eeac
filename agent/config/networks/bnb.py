"""BNB Smart Chain. Sources name two init code hashes of PancakeSwap V2's pairs; pairs are asked of
the factory. Stablecoins have 18 decimals here.
"""

from fractions import Fraction

from agent.amm.venue_kinds import VenueKind
from agent.config.networks.network import (
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)

BNB = Network(
    name="bnb",
    chain_id=56,
    title="BNB Smart Chain",
    native_symbol="BNB",
    wrapped_native="0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c",
    block_ms=750,
    finality="finalized",
    base_fee_ceiling_gwei=5,
    gas_per_day="0.01",
    native_floor="0.005",
    native_top_up="0.01",
    # Floor of validators 0.05 gwei since October 2025, the rest assumed.
    fees=TypicalFees(
        gas_prices_wei=(50_000_000, 100_000_000, 3_000_000_000),
        priority_fee_wei=50_000_000,
        native_usd=Fraction(1_000),
    ),
    private_endpoint="https://bscrpc.pancakeswap.finance",
    explorer="https://bscscan.com",
    feeds={
        "BNB": "0x0567F2323251f0Aab15c8dFb1967E4e8A7D42aeE",
        "ETH": "0x9ef1B8c0E4F7dc8bF5719Ea496883DC6401d5b2e",
        "BTC": "0x264990fbd0A4796A3E3d8E37C4d5F87a3aCa5Ebf",
        "USDC": "0x51597f405303C4377E36123cBc172b13269EA163",
        "USDT": "0xB97Ad0E74fa7d920791E90258A6E2085088b4320",
        "LINK": "0xca236E327F629f9Fc2c30A4E95775EbF0B89fac8",
        "AAVE": "0xA8357BF572460fC40f4B0aCacbB2a6A61c89f475",
    },
    tokens=(
        NetworkToken("WBNB", "0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c", 18, "BNB", is_hub=True),
        NetworkToken("ETH", "0x2170Ed0880ac9A755fd29B2688956BD959F933F8", 18, "ETH", is_hub=True),
        NetworkToken("BTCB", "0x7130d2A12B9BCbFAe4f2634d864A1Ee1Ce3Ead9c", 18, "BTC", is_hub=True),
        NetworkToken("USDC", "0x8AC76a51cc950d9822D68b83fE1Ad97B32Cd580d", 18, "USDC", is_hub=True),
        NetworkToken("USDT", "0x55d398326f99059fF775485246999027B3197955", 18, "USDT", is_hub=True),
        NetworkToken("LINK", "0xF8A0BF9cF54Bb92F17374d9e9A321E6a111a51bD", 18, "LINK"),
        NetworkToken("AAVE", "0xfb6115445Bff7b52FeB98650C87f44907E58f802", 18, "AAVE"),
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
            factory="0xdB1d10011AD0Ff90774D0C6Bb92e5C5c8b4461F7",
            router="0xB971eF87ede563556b2ED4b1C0b0019111Dd85d2",
            quoter="0x78D78E420Da98ad378D7799bE8f4AF69033EB077",
            position_manager="0x7b8A01B39D58278b5DE7e48c8449c9f4F5170613",
            init_code_hash="0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54",
            fee_tiers=(100, 500, 3000, 10_000),
        ),
        VenueDeployment(
            kind=VenueKind.V4,
            name="Uniswap V4",
            pool_manager="0x28e2Ea090877bF75740558f6BFB36A5ffeE9e9dF",
            state_view="0xd13Dd3D6E93f276FAfc9Db9E6BB47C1180aeE0c4",
            router="0x1906c1d672b88cD1B9aC7593301cA990F94Eae07",
            quoter="0x9F75dD27D6664c475B90e105573E550ff69437B0",
            position_manager="0x7A4a5c919aE2541AeD11041A1AEeE68f1287f95b",
            permit2="0x000000000022D473030F116dDEE9F6B43aC78BA3",
        ),
        VenueDeployment(
            kind=VenueKind.PANCAKE_V2,
            name="PancakeSwap V2",
            factory="0xcA143Ce32Fe78f1f7019d7d551a6402fC5350c73",
            router="0x10ED43C718714eb63d5aA57B78B54704E256024E",
            fee_pips=2500,
        ),
        VenueDeployment(
            kind=VenueKind.PANCAKE_V3,
            name="PancakeSwap V3",
            factory="0x0BFbCF9fa4f9C56B0F40a671Ad40E0805A091865",
            deployer="0x41ff9AA7e16B8B1a8a8dc4f0eFacd93D02d071c9",
            router="0x13f4EA83D0bd40E75C8222255bc855a974568Dd4",
            quoter="0xB048Bbc1Ee6b733FFfCFb9e9CeF7375518e25997",
            position_manager="0x46A15B0b27311cedF172AB29E4f4766fbE7F4364",
            init_code_hash="0x6ce8eb472fa82df5469c6ab6d485f17c3ad13c8cd7af59b3d4a8026c5ce0f7e2",
            fee_tiers=(100, 500, 2500, 10_000),
        ),
    ),
)
