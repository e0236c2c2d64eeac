"""A site whose portfolio trades in its next cycle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from agent.config.load import load_config
from agent.store import open_store
from agent.web import document_cache
from tests.support import agents
from tests.support.dashboards import BusyDocumentCache, documents
from tests.support.sites import Site


def outside_documents() -> dict[str, object]:
    """Documents of a portfolio that trades in its next cycle."""
    page_documents = documents()
    page_documents["status"] |= {"paused": False, "decision": {"kind": "rebalance", "reason": "outside its band"}}
    page_documents["status"]["holdings"][0]["weight_bps"] = 9_999
    page_documents["history"]["steps"] = []
    return page_documents


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = agents.config(tmp_path)
    loaded = load_config(path)
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    return path


@pytest.fixture
def busy_site(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(document_cache, "PAUSE_POLL_S", 0.05)
    board = BusyDocumentCache(str(config), config.with_name("mine.db"))
    board.documents = outside_documents()
    with Site(config.with_name("mine.db.users"), config=str(config), board=board) as site:
        yield site
