"""The template's config with strategies."""

from __future__ import annotations

from tests.support.configs.samples import config_text

HEALTH = '{ sharpe = 0.5, recover = "0.8", window = "30d", period = "30d", recover_period = "14d" }'
TREND = {"name": '"trend"', "share": '"60%"', "floor": '"10%"', "weights": '{ WETH = "70%", USDC = "30%" }', "health": HEALTH}
CARRY = {"name": '"carry"', "share": '"40%"', "floor": '"0%"', "allocator": '"equal"', "health": '"off"'}


def config_with_strategies(*parts: dict[str, str], split: str = 'relative = "20%"') -> str:
    """The template's config with these strategies."""
    listed = "".join("[[strategies]]\n" + "".join(f"{key} = {value}\n" for key, value in part.items()) for part in parts)
    return f"{config_text()}\n{listed}" + (f"[split]\n{split}\n" if split else "")
