"""One unexplained change of a balance as a document; loads no chain."""

from __future__ import annotations

from typing import Any

from agent.model import Flow, StepInput
from agent.policy import aside
from agent.policy import flows as rules
from agent.units import decimal_text, value_text


def document(step: StepInput, flow: Flow) -> dict[str, Any]:
    """One flow; `id` is None while it is not written down, `told` while nobody has said what it was."""
    value = None if flow.value is None else value_text(flow.value, step.portfolio.numeraire.decimals)
    return {
        "id": flow.id or None,
        "symbol": rules.label(step, flow.token),
        "address": flow.token,
        "delta_raw": str(flow.delta_raw),
        "value": value,
        "since_block": flow.since_block,
        "block": flow.block,
        "chain_s": flow.chain_s,
        "halts": flow.holds,
        "counts_as_loss": flow.is_loss,
        "told": None if flow.kind is None else flow.kind.value,
        "words": rules.words(step, flow),
    }


def left_alone(step: StepInput) -> list[dict[str, Any]]:
    """What of the wallet is no part of the portfolio now, each with the reason; raw amounts as decimal strings."""
    found = []
    for address, raw, why in aside.everything_left(step):
        token = step.portfolio.token(address)
        found.append({"symbol": token.label, "address": address, "raw": str(raw), "amount": decimal_text(raw, token.decimals), "why": why})
    return found
