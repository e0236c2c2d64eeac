"""What a step reads of the layer: when the assets were bought."""

from __future__ import annotations

from agent.layers.holding.state import HoldingConfig, HoldingState
from agent.layers.holding.store import ANY_TOKEN, HoldingStore
from agent.model import StepInput
from agent.store.store import Store


def read_memory(step: StepInput, store: Store) -> HoldingState:
    """Return the purchases within the holding time; nothing if the layer is off. Native coin counts
    as its wrapped token.
    """
    config = step.config(HoldingConfig)
    if not config.tokens:
        return HoldingState()
    after_s = step.snapshot.head.timestamp_s - config.min_hold_s
    purchase_s_by_token: dict[str, int] = {}
    for bought_token, bought_s in (
        store.layer_repository(HoldingStore).last_purchases_s(after_s).items()
    ):
        for token in (
            config.tokens
            if bought_token == ANY_TOKEN
            else (step.portfolio.pricing_token(bought_token),)
        ):
            if token in config.tokens:
                purchase_s_by_token[token] = max(bought_s, purchase_s_by_token.get(token, bought_s))
    return HoldingState(tuple(sorted(purchase_s_by_token.items())))
