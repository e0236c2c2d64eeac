"""Trust in the contracts of a futures venue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.model import MARGIN_ACCOUNT_ITEM, FuturesReading, Snapshot, UnreadableItem
from agent.policy.quarantine import tokens_with_changed_code


def distrust_changed_venue(
    snapshot: Snapshot,
    trader: str,
    contract_name_by_address: Mapping[str, str],
    pinned_hash_by_address: Mapping[str, str],
    pinned_implementations: Mapping[str, tuple[str, str]],
) -> Snapshot:
    """Return the snapshot without the margin account if a contract of the venue, or the
    implementation behind it, differs from its pin, because its answers can no longer be trusted.

    `contract_name_by_address` are names by address, `pinned_hash_by_address` and
    `pinned_implementations` as in `tokens_with_changed_code`.
    """
    untrusted_contracts = tokens_with_changed_code(
        snapshot, tuple(contract_name_by_address), pinned_hash_by_address, pinned_implementations
    )
    if not untrusted_contracts:
        return snapshot
    distrust_reason = "; ".join(
        f"{contract_name_by_address[untrusted.token]} at {untrusted.token}: {untrusted.why}"
        for untrusted in untrusted_contracts
    )
    distrust_reason = f"{distrust_reason}; find out why, then: trimtab trust"
    quarantined_account = UnreadableItem(MARGIN_ACCOUNT_ITEM, trader, distrust_reason)
    reading = replace(snapshot.layer(FuturesReading), account=None, unknown_reason=distrust_reason)
    return replace(
        snapshot, unreadable_items=(*snapshot.unreadable_items, quarantined_account)
    ).with_layer(reading)
