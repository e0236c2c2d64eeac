"""Revert reasons of Uniswap V3: its core and SwapRouter02."""

from __future__ import annotations

from agent.amm.swap_errors import TOO_LITTLE_MESSAGE, UNPAID_MESSAGE

V3_REVERT_MESSAGES = {
    "Too little received": TOO_LITTLE_MESSAGE,
    "Too much requested": (
        "a pool would charge more than the plan's maximum: the market moved since the snapshot"
    ),
    "Transaction too old": "the deadline has passed",
    "STF": UNPAID_MESSAGE,
    "ST": "the router could not transfer a token",
    "TF": "the pool could not transfer a token",
    "SA": "a token refused an approval",
    "STE": "the native coin could not be transferred",
    "AS": "the swap amount is zero",
    "IIA": (
        "the pool was not paid: the token takes a fee on transfer, or transfers less than the"
        " amount"
    ),
    "LOK": "the pool is locked: a reentrant call, or it was never initialised",
    "SPL": "the price limit is on the wrong side of the pool's price",
    "L": "the pool has no liquidity to swap against",
    "OLD": "the pool's price history does not reach back that far",
    "I": "the pool's price history was never initialised",
    "TLU": "the lower tick is not below the upper tick",
    "TLM": "a tick is below the minimum",
    "TUM": "a tick is above the maximum",
    "Insufficient WETH9": "the router holds less wrapped native coin than the minimum",
    "Insufficient token": "the router holds less of a token than the minimum",
}
