"""Limit orders and gradual executions that wait: listed, priced, and ended by id."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.app.documents import fill
from agent.app.documents.executions import GradualExecutionDocument, gradual_execution_document
from agent.app.documents.plans import LimitOrderDocument
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.layers import documents as layer_documents
from agent.model import ExecutionState, LimitOrder
from agent.store.executions import StoredExecution
from agent.units import (
    ceil_int,
    decimal_text,
    parse_raw,
)

if TYPE_CHECKING:
    from agent.app.documents.records import (
        CancelledOrderDocument,
        WaitingOrdersDocument,
    )
    from agent.store.store import Store


PRICE_DECIMALS = 36


MAX_LISTED_EXECUTIONS = 20
"""Maximum number of executions listed."""


def orders_and_executions(config: Path | str) -> WaitingOrdersDocument:
    """Return limit orders and gradual executions, newest first."""
    with wiring.open_store_offline(load_config(config)) as (store, _):
        order_documents = [
            order_document(order) for order in reversed(store.executions.limit_orders())
        ]
        return {
            "orders": order_documents,
            "gradual_executions": newest_executions(store, MAX_LISTED_EXECUTIONS),
        }


def cancel_order_or_execution(config: Path | str, order_id: str) -> CancelledOrderDocument:
    """End a limit order or gradual execution by its id; transactions already sent are unaffected.
    Raises ConfigError for an unknown id.
    """
    with wiring.open_store_offline(load_config(config)) as (store, _):
        if not store.executions.end(
            order_id, ExecutionState.CANCELLED, "by its owner", int(time.time())
        ):
            raise ConfigError(
                f"--cancel: {order_id!r} is neither an open limit order nor a running gradual"
                " execution",
                "see trimtab limit",
            )
    return {"cancelled": order_id}


def newest_executions(store: Store, limit: int) -> list[GradualExecutionDocument]:
    """Return the newest executions in several steps, newest first."""
    executions: list[StoredExecution[Any]] = [*store.executions.purchases(limit)]
    for layer in layer_documents.LAYERS:
        executions += layer.newest_executions(store, limit)
    executions.sort(key=lambda execution: execution.seq, reverse=True)
    return [gradual_execution_document(execution) for execution in executions[:limit]]


def order_document(order: LimitOrder) -> LimitOrderDocument:
    """Return a limit order as a document."""
    return fill(LimitOrderDocument, order)


def limit_price_text(price_text: str, unit: str, symbol_in: str, symbol_out: str) -> str:
    """Convert a price in either unit, such as 3100 USDC/WETH, to the `--limit` argument, coins of
    `symbol_out` per coin of `symbol_in`, rounded up so that no sale is below the given price.
    Raises ConfigError for another unit or an invalid price.
    """
    price = Fraction(parse_raw(price_text, PRICE_DECIMALS, "--price"), 10**PRICE_DECIMALS)
    if price == 0:
        raise ConfigError(
            "--price: must be above 0", f"write for example --price 3100 {symbol_out}/{symbol_in}"
        )
    prices_by_unit = {
        f"{symbol_out}/{symbol_in}".lower(): price,
        f"{symbol_in}/{symbol_out}".lower(): 1 / price,
    }
    limit_price = prices_by_unit.get(unit.lower())
    if limit_price is None:
        raise ConfigError(
            f"--price: {unit!r} is not a price of this swap",
            f"write its unit as {symbol_out}/{symbol_in} or {symbol_in}/{symbol_out}",
        )
    return decimal_text(ceil_int(limit_price * 10**PRICE_DECIMALS), PRICE_DECIMALS)
