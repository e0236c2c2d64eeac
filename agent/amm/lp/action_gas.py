"""Gas of each liquidity action, as measured constants."""

from __future__ import annotations

V3_MINT_UNITS = 500_000
"""NonfungiblePositionManager.mint into a range of two new ticks; embedded chain, plain ERC-20
tokens."""
V3_INCREASE_UNITS = 320_000
"""NonfungiblePositionManager.increaseLiquidity; embedded chain."""
V3_WITHDRAW_UNITS = 300_000
"""decreaseLiquidity and collect in one multicall; embedded chain."""
V3_COLLECT_UNITS = 230_000
"""collect of a position with liquidity, updated first by a burn of zero; embedded chain."""
V2_ADD_UNITS = 190_000
"""UniswapV2Router02.addLiquidity; embedded chain."""
V2_REMOVE_UNITS = 180_000
"""UniswapV2Router02.removeLiquidity; embedded chain."""
APPROVE_UNITS = 46_000
"""ERC20.approve from zero, as a separate transaction; embedded chain."""
