"""Documents of purchases in parts: whole base units, and the kind of purchase."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Annotated

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from agent.app.documents import ConvertedBy, fill
from agent.app.documents.executions import (
    GradualExecutionDocument,
    ProgressDocument,
    gradual_execution_document,
    purchase_progress_document,
)
from agent.cli.display.plan_tables import format_execution
from agent.model import Purchase, PurchaseKind, PurchaseProgress
from agent.store.executions import StoredExecution

PORTFOLIO = SimpleNamespace(numeraire=SimpleNamespace(decimals=6))


Inner = Annotated[str, ConvertedBy(lambda value, _: "inner")]


class Outer(TypedDict):
    """A field whose type converts already."""

    value: Annotated[Inner, ConvertedBy(lambda value, _: "outer")]


def progress(kind: PurchaseKind = PurchaseKind.TOP_UP) -> PurchaseProgress:
    """A purchase of 6,000 of which a part is done, with amounts between two base units."""
    terms = Purchase(kind, Fraction(6_000 * 10**6), 2, 600, (), 0, 7 * 86_400)
    return PurchaseProgress("7a", terms, 1, Fraction(2_279_938_908 * 3 + 1, 3), Fraction(5, 2), 600)


def test_amounts_between_two_base_units_are_rounded() -> None:
    document = gradual_execution_document(StoredExecution(1, progress(), "open", ""))
    assert TypeAdapter(GradualExecutionDocument).validate_python(document)["moved_raw"] == "2279938908"


def test_the_outermost_conversion_of_a_field_counts() -> None:
    assert fill(Outer, SimpleNamespace(value=1)) == {"value": "outer"}


def test_a_purchase_has_a_document_of_its_own() -> None:
    document = purchase_progress_document(progress(), PORTFOLIO)
    assert TypeAdapter(ProgressDocument).validate_python(document)["purchase"] == "top-up"


def test_top_up__is_compared_with_the_deposit() -> None:
    top_up = format_execution(dict(purchase_progress_document(progress(), PORTFOLIO)), "USDC")
    assert "2,279.94 USDC traded of a deposit of 6,000.00 USDC" in top_up
    first = format_execution(dict(purchase_progress_document(progress(PurchaseKind.FIRST), PORTFOLIO)), "USDC")
    assert "2,279.94 of 6,000.00 USDC traded" in first
