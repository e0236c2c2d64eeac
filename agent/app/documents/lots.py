"""Documents of tax lots (books lots)."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import Address, Decimal, one_of

Method = Annotated[str, one_of("fifo", "lifo", "hifo", "average")]
LotDocument = TypedDict("LotDocument", {
    "acquired": str, "amount": Decimal, "cost": Decimal, "entry_price": Decimal,
    "value": Decimal | None, "unrealised": Decimal | None,
})  # fmt: skip
AssetLotsDocument = TypedDict("AssetLotsDocument", {
    "symbol": str, "address": Address, "amount": Decimal, "cost": Decimal,
    "entry_price": Decimal | None, "price": Decimal | None, "value": Decimal | None,
    "unrealised": Decimal | None, "realised": Decimal, "unmatched": Decimal,
    "lots": list[LotDocument],
})  # fmt: skip
"""Open lots of an asset, oldest first, with their sums. `realised` is that of the document's year;
`unmatched` was disposed of without a known purchase."""
LotsDocument = TypedDict("LotsDocument", {
    "method": Method, "currency": str, "valued": str | None, "year": str | None,
    "realised": Decimal, "unpriced": list[str], "assets": list[AssetLotsDocument],
    "books": NotRequired[str],
})  # fmt: skip
"""Open tax lots in the reporting currency. `valued` is the time of the newest valuation, whose
prices count; a value is None without a price there. `year` is the calendar year (UTC) of the newest
entry or valuation, `realised` its gains less losses. `unpriced` are entries with a missing price,
which counts as zero. `books` is set for paper trading."""
