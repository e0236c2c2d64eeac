"""The template's config with targets of liquidity positions."""

from __future__ import annotations

from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from tests.support.configs.samples import USDC_PRESET, WETH_PRESET, config_text

PAIR = "0xB4e16d0168e52d35CaCD2c6185b44281Ec28C9Dc"
POOL = "0x8ad599c3A0ff1De082011EFDDc58f1908eb6e6D8"
TWO = (USDC_PRESET.address, WETH_PRESET.address)
V3_TARGET = f'kind = "uniswap_v3"\npool = "{POOL}"\nshare = "10%"\nwidth = "20%"\ncompound_above = "25.5"\n'
V2_TARGET = f'kind = "uniswap_v2"\npair = "{PAIR}"\nshare = "5%"\nvolatility = "70%"\n'
REFS = (
    PoolRef(PAIR, "uniswap_v2", V2Reader(), *TWO, 3_000),
    PoolRef(POOL, "uniswap_v3", V3Reader(), *TWO, 3_000, 60),
)


def config_with_targets(*targets: str, changes: tuple[tuple[str, str], ...] = ()) -> str:
    tables = "".join(f"[[lp.targets]]\n{target}" for target in targets)
    return config_text(("\n[store]", f"\n{tables}[store]"), *changes)
