"""A served folder of configs."""

from __future__ import annotations

import os
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from agent.store.files.users import open_user_file
from agent.web.access import Access
from agent.web.portfolios import PortfoliosApp, SharedSettings
from agent.web.reach import Reach
from tests.support import agents
from tests.support.dashboards import until
from tests.support.pages.portfolios import ServedPortfolios
from tests.support.sites import HASH

OWN_WALLET = "0xABaBaBaBABabABabAbAbABAbABabababaBaBABaB"
COPY = "/p/mine/portfolios/copy"
NEW = "/p/mine/portfolios/new"


class ServedFolder(ServedPortfolios):
    """A served folder with the config mine.toml, whose users are ann and, read-only, eve; and another portfolio, which is not read."""

    def __init__(self, folder: Path, users: int = 1) -> None:
        self.folder = folder
        agents.config(folder)
        super().__init__(folder, ("mine", "gone"), users)
        if users:
            open_user_file(Path(self.opened.users_place.file)).add("eve", HASH, "A" * 32, True, 1)
            until(lambda: 2 in self.opened._users)

    @property
    def opened(self) -> Access:
        """The access of mine."""
        opened = self.parts[0].opened_parts
        assert opened is not None
        return opened.access

    def application(self, access: Access | None) -> Any:
        """The application that is served."""
        self.opening = SharedSettings("127.0.0.1", False, lambda: self.server.should_exit)
        self.whole = PortfoliosApp(self.parts, Reach(port=1), self.opening, self.folder)
        return self.whole

    def send(self, path: str, cookie: str, **fields: str) -> tuple[int, dict[str, str], str]:
        """Send the form of a page with its token."""
        status, headers, body = self.post(path, {"csrf": self.csrf(path, cookie), **fields}, cookie)
        return status, headers, unescape(body.decode())

    def files(self) -> set[str]:
        """What the folder holds, without stores."""
        return {path.name for path in self.folder.iterdir() if ".db" not in path.name}
