"""The template's config with confirmed liquidity positions."""

from __future__ import annotations

from tests.support.configs.samples import config_text

PAIR = "0xB4e16d0168e52d35CaCD2c6185b44281Ec28C9Dc"
V3 = 'kind = "uniswap_v3"\ntoken_id = 42\nentry = { WETH = "1.5", USDC = "4500" }\n'
V2 = f'kind = "uniswap_v2"\npair = "{PAIR}"\nentry = {{ USDC = "10.000001", WETH = "0" }}\nentry_block = 7\nvolatility = "5%"\n'


def with_positions(*positions: str, changes: tuple[tuple[str, str], ...] = ()) -> str:
    tables = "".join(f"[[portfolio.positions]]\n{position}" for position in positions)
    return config_text(("\n[reference]", f"\n{tables}[reference]"), *changes)
