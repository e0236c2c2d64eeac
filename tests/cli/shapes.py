"""The documents of the commands as an interface (design section 15): every key with what its value must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Shape = Any
Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def count(value: Any) -> bool:
    """A JSON integer: weights in bps, blocks, nonces."""
    return isinstance(value, int) and not isinstance(value, bool)


def raw(value: Any) -> bool:
    """Base units: an integer in a string, so that no reader rounds it."""
    return text(value) and re.fullmatch(r"-?[0-9]+", value) is not None


def decimal(value: Any) -> bool:
    """A value or price in the numeraire: a plain decimal in a string, never an exponent."""
    return text(value) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value) is not None


def hash32(value: Any) -> bool:
    return text(value) and re.fullmatch(r"0x[0-9a-f]{64}", value) is not None


def address(value: Any) -> bool:
    return text(value) and re.fullmatch(r"0x[0-9a-fA-F]{40}", value) is not None


def one_of(*values: str) -> Check:
    return lambda value: value in values


def maybe(shape: Check) -> Check:
    return lambda value: value is None or shape(value)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


EACH = "*"
"""Key of a mapping whose keys are data."""

_LEG = {
    "pool": address,
    "venue": text,
    "token_in": text,
    "token_out": text,
    "amount_in_raw": raw,
    "amount_out_raw": raw,
    "fee_raw": raw,
    "min_out_raw": raw,
    "impact_bps": count,
    "source": one_of("wallet", "router"),
    "sink": one_of("wallet", "router"),
}
_VERDICT = {"guard": text, "measured": text, "limit": text, "passed": flag}
_SENT = {"kind": text, "hash": hash32, "nonce": count, "status": text, "note": text}
_DECISION = {"kind": one_of("hold", "rebalance", "halt", "adjustliquidity", "topup"), "reason": text}


def _amounts(value: Any) -> bool:
    """Base units by symbol."""
    return isinstance(value, dict) and all(raw(amount) for amount in value.values())


def _ends(value: Any) -> bool:
    """Ticks of a range."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(tick, int) for tick in value)


_PAIR = maybe(_amounts)
_ACTION = {
    "kind": one_of("withdraw", "collect", "provide"),
    "position": text,
    "venue": one_of("uniswap_v2", "uniswap_v3"),
    "contract": address,
    "token_id": maybe(raw),
    "pool": address,
    "tokens": [text],
    "liquidity": maybe(raw),
    "ticks": maybe(_ends),
    "amounts_raw": _PAIR,
    "desired_raw": _PAIR,
    "min_raw": _PAIR,
    "fees_raw": _PAIR,
    "gas_units": count,
    "reason": text,
}
_REALISED = {"symbol": text, "planned_raw": raw, "realised_raw": raw}

_ENDPOINT = {
    "operator": text,
    "state": one_of("in service", "on trial", "resting", "asked us to wait"),
    "score": number,
    "latency_ms": maybe(number),
    "rest_s": number,
    "why": text,
}
_SANDWICH = {
    "submission": text,
    "public": flag,
    "at_most": maybe(decimal),
    "at_most_bps": maybe(count),
    "profit_at_most": maybe(decimal),
    "by_limits_bps": {"exchanged": maybe(count), "per_rebalance": maybe(count), "per_day": maybe(count)},
    "words": text,
}

_STUCK = {"symbol": text, "address": address, "why": text, "remedy": text}
_SCREENED = {"symbol": text, "address": address, "finding": text, "why": text, "remedy": text}

_FLOW = {
    "id": maybe(count),
    "symbol": text,
    "address": address,
    "delta_raw": raw,
    "value": maybe(decimal),
    "since_block": count,
    "block": count,
    "chain_s": count,
    "halts": flag,
    "counts_as_loss": flag,
    "told": maybe(text),
    "words": text,
}
FLOWS = {"block": count, "numeraire": text, "halts": text, "flows": [_FLOW]}
TOLD = {"confirmed": [{"id": count, "as": text}]}
LEAST_TOTAL = {"total": maybe(decimal), "first_purchase": maybe(decimal), "cost_a_year": decimal, "changes": [text], "text": text}
STATUS = {
    "least_total": LEAST_TOTAL,
    "block": count,
    "block_hash": hash32,
    "numeraire": text,
    "total_value": decimal,
    "holdings": [
        {
            "symbol": text,
            "address": address,
            "raw": raw,
            "amount": decimal,
            "price": decimal,
            "value": decimal,
            "weight_bps": count,
            "target_bps": count,
            "drift_bps": count,
            "band_bps": [count],
        }
    ],
    "native": {
        "symbol": maybe(text),
        "counts": flag,
        "native_wei": raw,
        "wrapped_raw": maybe(raw),
        "kept_wei": raw,
        "top_up_wei": maybe(raw),
    },
    "screen": [_SCREENED],
    "warnings": [text],
    "paused": flag,
    "pause_reason": text,
    "pause_hard": flag,
    "decision": _DECISION,
    "trigger": {"words": text, "bands": text, "only": maybe(text), "destination": text, "cooldown_s": count, "next_s": maybe(count)},
    "flows": [_FLOW],
    "wishes": [text],
    "stuck_exits": [_STUCK],
    "endpoints": [_ENDPOINT],
}
QUOTE = {"block": count, "amount_in_raw": raw, "amount_out_raw": raw, "price_impact_bps": count, "fee": decimal, "legs": [_LEG]}
PLAN = {
    "block": count,
    "outcome": text,
    "decision": _DECISION,
    "screen": [_SCREENED],
    "flows": [_FLOW],
    "wishes": [text],
    "stuck_exits": [_STUCK],
    "legs": [_LEG],
    "actions": [_ACTION],
    "weights_after_bps": {EACH: count},
    "cost": {"fees": decimal, "impact": decimal, "skew": decimal, "gas": decimal, "approvals": decimal, "total": decimal},
    "turnover": decimal,
    "gap_bps": maybe(number),
    "verdicts": [_VERDICT],
    "skipped": [{"what": text, "why": text}],
    "expires_block": count,
    "reason": text,
}
LIVE_PLAN = {**PLAN, "endpoints": [_ENDPOINT], "sandwich": _SANDWICH}
"""A plan from the chain; one from a file has no endpoints."""
REBALANCE = {**PLAN, "transactions": [{**_SENT, "block": count, "gas_used": count}], "realised": [_REALISED]}
HISTORY = {
    "steps": [
        {
            "step": text,
            "time": text,
            "decision": text,
            "outcome": text,
            "reason": text,
            "transactions": [{**_SENT, "block": maybe(count)}],
            "cost": maybe(lambda spent: set(spent) == {"fees", "impact", "gas", "total"} and all(map(decimal, spent.values()))),
        }
    ]
}
_JOURNALED = {
    "id": text,
    "step": text,
    "kind": text,
    "status": one_of("planned", "signed", "broadcast", "mined", "final", "replaced", "reverted", "cancelled"),
    "open": flag,
    "nonce": count,
    "hash": text,
    "replaces": maybe(text),
    "note": text,
    "created": text,
    "deadline": maybe(text),
    "gas": count,
    "max_fee_wei": raw,
    "block": maybe(count),
    "succeeded": maybe(flag),
    "gas_used": maybe(count),
    "gas_cost_wei": maybe(raw),
}
_JOURNAL = {"waiting": count, "confirming": count, "next_nonce": maybe(count)}
TXS = {"transactions": [{**_JOURNALED, "moves": [{"time": text, "status": text, "note": text}]}], **_JOURNAL}
CANCEL = {"transactions": [_JOURNALED], **_JOURNAL}
RECONCILE = {**CANCEL, "booked": count}
EXPLAIN = {"step": text, "outcome": text, "words": [text], "transactions": [_SENT]}
DOCTOR = {
    "endpoints": [{**_ENDPOINT, "head": maybe(count)}],
    "checks": [{"check": text, "state": one_of("ok", "warn", "fail"), "found": text, "remedy": text}],
    "exit": count,
}
TRUST = {
    "block": count,
    "pinned": flag,
    "contracts": [{"what": text, "address": address, "code_hash": hash32, "state": one_of("new", "unchanged", "CHANGED")}],
}
PAUSE = {"paused": flag, "hard": flag, "reason": text}
PAUSE_HARD = {
    **PAUSE,
    "outcome": one_of("planned", "declined", "clear", "done", "failed", "handed over"),
    "told": text,
    "cancel": [{**_SENT, "note": text}],
    "revoke": [{"token": address, "symbol": text, "spender": address, "holder": text}],
    "transactions": [_SENT],
}
ERROR = {"error": {"kind": text, "message": text, "remedy": text, "exit": count}}
INIT = {
    "config": text,
    "chain_id": count,
    "token_list_sha256": maybe(text),
    "template": maybe(text), "numeraire": text, "numeraire_usd": decimal, "warnings": [text], "least_total": [LEAST_TOTAL],
    "assets": [{"symbol": text, "address": address, "target": text, "feed": maybe(address)}],
    "next": [text],
}  # fmt: skip
LOCALCHAIN = {"chain_id": count, "url": text, "wallet": address, "tokens": {EACH: address}, "pools": {EACH: address}, "config": maybe(text)}
DEMO = {"before": STATUS, "moves": {EACH: text}, "drifted": STATUS, "plan": PLAN, "rebalance": REBALANCE, "next": PLAN}


def misfit(shape: Shape, value: Any, at: str = "document") -> str | None:
    """Where and how `value` first differs from `shape`; None when it fits. Further keys are welcome."""
    match shape:
        case [inner]:
            if not isinstance(value, list):
                return f"{at} is no list"
            found = (misfit(inner, item, f"{at}[{i}]") for i, item in enumerate(value))
        case dict():
            if not isinstance(value, dict):
                return f"{at} is no object"
            absent = [key for key in shape if key not in value and key != EACH]
            if absent:
                return f"{at} lacks {absent[0]}"
            pairs = ((key, inner) for name, inner in shape.items() for key in (value if name == EACH else [name]))
            found = (misfit(inner, value[key], f"{at}.{key}") for key, inner in pairs)
        case _:
            return None if shape(value) else f"{at} is {value!r:.80}"
    return next((problem for problem in found if problem), None)


def require(shape: Shape, value: Any) -> None:
    """Fails the test with the place of the first misfit."""
    problem = misfit(shape, value)
    assert problem is None, problem
