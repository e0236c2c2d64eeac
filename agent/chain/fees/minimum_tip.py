"""Tip that a node suggests, and the least that it demands, from the text of its refusal."""

from __future__ import annotations

import re

from agent.chain.rpc import RpcFault, parse_quantity
from agent.errors import Retryable
from agent.units import GWEI

_IS_ABOUT_TIP = re.compile(r"\btips?\b|priority ?fee|underpriced|gas price|fee ?too ?low")
_IS_ABOUT_OTHER_FEE = re.compile(
    r"replacement|base fee|(?<!priority)fee ?cap|max ?fee ?per ?gas (?:too low|less)|blob"
)
"""A pending transaction at the nonce, and maximum fees: no tip helps against these."""
_NAMED_MINIMUM = re.compile(
    r"(?:minimum|min|needed|needs|required|requires|at least|want|wants|expected|<)"
    r"[^0-9.;:]{0,40}\b(0x[0-9a-f]+|[0-9]+(?:\.[0-9]+)?)(?: ?(gwei|wei)\b)?"
)
"""geth and its forks "gas tip cap 1, minimum needed 2", before 1.15 "tip needed 2, tip permitted 1";
Nethermind "EffectivePriorityFeePerGas too low 1 < 2, BaseFee: 7"; reth "transaction priority fee
below minimum required priority fee 2"; coreth "gas tip cap (1) < pool gas tip cap (2)".
"""


def wants_higher_tip(message: str) -> bool:
    """Return whether a node's refusal of a transaction as underpriced is about its tip."""
    message = message.lower()
    return bool(_IS_ABOUT_TIP.search(message)) and not _IS_ABOUT_OTHER_FEE.search(message)


def named_minimum_wei(message: str) -> int | None:
    """Return the least tip that the refusal names, in wei per unit of gas; None if it names none."""
    named_minima = [
        match.groups()
        for match in _NAMED_MINIMUM.finditer(message.lower())
        if "gas price" not in match.group()  # base fee included: not a tip
    ]
    if not named_minima:
        return None
    number_text, unit = named_minima[-1]
    if number_text.startswith("0x"):
        return int(number_text, 16)
    if unit == "gwei":
        whole_text, _, fraction_text = number_text.partition(".")
        return int(whole_text) * GWEI + int(fraction_text[:9].ljust(9, "0"))
    return int(number_text) if "." not in number_text else None


def suggested_tip(answer: object) -> int | None:
    """Return the tip that an endpoint suggests, wei per unit of gas; None if it suggests none."""
    if isinstance(answer, RpcFault):
        return None
    try:
        return parse_quantity(answer, "priority fee")
    except Retryable:  # null, or text
        return None
