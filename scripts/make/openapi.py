"""Generate the OpenAPI document of the API from its routes and the declared documents of the commands.

Run `.venv/bin/python scripts/make/openapi.py --write` after a change of either.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.app.documents import controls, futures, owner, plans, positions, records, status
from agent.figures import field_label
from agent.observe.health import RunState
from agent.web.access import Access
from agent.web.api.gate import ApiProblem
from agent.web.api.routes import build_api
from agent.web.api.tokens import TokenFile
from agent.web.document_cache import DocumentCache
from agent.web.probes import Probes
from agent.web.reach import Reach

OPENAPI_PATH = Path(__file__).parents[2] / "agent" / "web" / "api" / "openapi.json"


class EndpointsDocument(TypedDict):
    """The endpoints as in `trimtab status`."""

    endpoints: list[plans.EndpointDocument]


class ProbeDocument(TypedDict):
    """Answer of /health and /ready: without a login or a token `ok` alone. `state` is "unknown" if
    the store cannot be read.
    """

    ok: bool
    state: NotRequired[RunState]
    reasons: NotRequired[list[str]]
    cycles: NotRequired[int]
    last_good_cycle_s: NotRequired[int | None]
    next_cycle: NotRequired[str | None]
    paused: NotRequired[bool]
    sends: NotRequired[bool | None]


DOCUMENTS: tuple[Any, ...] = (
    status.StatusDocument,
    plans.LivePlanDocument,
    records.HistoryDocument,
    records.ExplanationDocument,
    records.ProfitDocument,
    positions.OrdersDocument,
    owner.AlertsDocument,
    futures.FuturesPositionsDocument,
    futures.MarginDocument,
    futures.FundingDocument,
    EndpointsDocument,
    positions.LiquidityDocument,
    records.LotsDocument,
    status.SettingsDocument,
    controls.ControlsDocument,
    controls.ControlDocument,
    controls.ShownPlanDocument,
    ProbeDocument,
)
REQUESTS = ("ControlArgument", "PreviewRequest", "ControlRequest")
"""Models of request bodies, which FastAPI describes itself."""


def schemas() -> dict[str, Any]:
    """Return the schema of each document by name. No document has other keys than those declared."""
    exact_config = ConfigDict(
        extra="forbid", field_title_generator=lambda name, _: field_label(name)
    )
    schema_requests: list[Any] = [
        (
            document_type.__name__,
            "serialization",
            TypeAdapter(list[document_type], config=exact_config),
        )
        for document_type in DOCUMENTS
    ]
    _, definitions = TypeAdapter.json_schemas(
        schema_requests, ref_template="#/components/schemas/{model}"
    )
    problem_schema = ApiProblem.model_json_schema(mode="serialization")
    text = json.dumps({**definitions["$defs"], "ApiProblem": problem_schema})
    schema_by_name: dict[str, Any] = json.loads(text.replace("agent__app__documents__", ""))
    return schema_by_name


def openapi_text() -> str:
    """Return the OpenAPI document as text."""
    gate: Any = build_api(DocumentCache("none.toml", Path("none.db")), TokenFile(Path("none.db")))
    Probes(gate.app, Access(Reach()), gate).add_to(gate.app)
    openapi_document = gate.app.openapi()
    requests = {
        name: schema
        for name, schema in openapi_document["components"]["schemas"].items()
        if name in REQUESTS
    }
    openapi_document["components"]["schemas"] = {**schemas(), **requests}
    return json.dumps(openapi_document, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        OPENAPI_PATH.write_text(openapi_text())
    elif OPENAPI_PATH.read_text() != openapi_text():
        sys.exit(
            f"{OPENAPI_PATH} differs from the routes and documents: scripts/make/openapi.py --write"
        )
