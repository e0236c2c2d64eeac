"""Units, times and addresses that many tests share."""

from __future__ import annotations

HOUR_S = 3_600
DAY_S = 86_400
MONTH_S = 30 * DAY_S

GWEI = 10**9
ETHER = 10**18
USD = 10**6
"""Base units of a dollar token."""

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
"""The first account of a local chain."""
HOME = "0x00000000000000000000000000000000000A11cE"
"""An address of the owner that pays and is paid, and is no wallet of the agent."""
