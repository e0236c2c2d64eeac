"""A dashboard of several portfolios."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from agent.errors import TrimtabError
from agent.fleet.configs import portfolio_names
from agent.model import PortfolioIdentity
from agent.ports.users import UsersPlace
from agent.store.files.users import open_user_file
from agent.web.access import Access
from agent.web.portfolios import PortfoliosApp, SharedSettings, create_portfolios
from agent.web.reach import Reach
from tests.support.dashboards import Served, StaticDocumentCache, documents
from tests.support.sites import HASH

ABOUT = PortfolioIdentity("ethereum", False, "0x" + "ab" * 20)


class ServedPortfolios(Served):
    """A dashboard of several portfolios, all but the last of them with a user ann; the last cannot be read."""

    def __init__(self, folder: Path, names: tuple[str, ...], users: int = 2) -> None:
        configs = [folder / f"{name}.toml" for name in names]
        self.parts = create_portfolios(configs, portfolio_names(configs), Reach(port=1))
        for number, part_number in enumerate(self.parts[:-1]):
            store = folder / f"{number}.db"
            access = Access(part_number.reach, UsersPlace(str(store.with_name(f"{store.name}.users"))))
            if number < users:
                open_user_file(store.with_name(f"{store.name}.users")).add("ann", HASH, "A" * 32, False, 1)
                access.set_users({1: ("ann", False)})
            board = StaticDocumentCache(str(part_number.config), store)
            board.documents = documents()
            part_number.serve(board, access, ABOUT, lambda: self.server.should_exit)
        self.parts[-1].error = TrimtabError("the disk is gone")
        super().__init__()

    def application(self, access: Access | None) -> Any:
        """The application that is served."""
        self.opening = SharedSettings("127.0.0.1", False, lambda: self.server.should_exit)
        return PortfoliosApp(self.parts, Reach(port=1), self.opening)

    def enter(self, number: int) -> str:
        """The cookie of a new session of ann at a portfolio."""
        opened = self.parts[number].opened_parts
        assert opened is not None
        return f"{self.parts[number].reach.cookie_name}={opened.access.begin_session(1)}"

    def post(self, path: str, fields: dict[str, str], cookie: str) -> tuple[int, dict[str, str], bytes]:
        """Send a form as a page would."""
        return self.ask(path, "POST", urlencode(fields), Origin=f"http://localhost:{self.port}", Cookie=cookie)

    def csrf(self, path: str, cookie: str = "") -> str:
        """The token of the first form of a page."""
        return re.findall(r'name="csrf" value="([^"]+)"', self.ask(path, Cookie=cookie)[2].decode())[0]
