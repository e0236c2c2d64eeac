"""The set-up page and a browser that opened it."""

from __future__ import annotations

import os
import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from agent.web.access import Access
from agent.web.reach import Reach
from agent.web.setup import SetupPages, setup_access
from tests.support.commands.init import WALLET
from tests.support.dashboards import Served

ANSWERS = {
    "/setup/wallet": {"network": "ethereum", "wallet": WALLET, "endpoints": "RPC_A=alpha RPC_B=beta"},
    "/setup/basket": {"basket": "moderate"},
    "/setup/cash": {"cash": "1,000", "alert": "TRIMTAB_ALERTS"},
}


class SetupBrowser(Served):
    """The set-up of a config in a folder, and a browser that opened its address."""

    def __init__(self, config: Path, *, continues: bool = False) -> None:
        self.config = config
        self.pages = SetupPages(setup_access(Reach(port=1)), config, continues=continues)
        self.opening, self.cookie = f"/{self.pages.opening_path}", ""
        super().__init__()

    def application(self, access: Access | None) -> Any:
        """The application that is served."""
        return self.pages.application(lambda: self.server.should_exit)

    def enter(self) -> None:
        """Open the printed address and begin."""
        self.cookie = self.begin()[1]["set-cookie"].split(";")[0]

    def begin(self, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Press Begin on the page of the printed address."""
        sent = {"Origin": f"http://localhost:{self.port}", **headers}
        return self.ask("/login", "POST", urlencode({"token": self.opening.partition("=")[2]}), **sent)

    def text(self, path: str) -> str:
        """A page with its entities resolved."""
        return unescape(self.ask(path, Cookie=self.cookie)[2].decode())

    def post(self, path: str, fields: dict[str, str], **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send a form of the page."""
        hidden = dict(re.findall('type="hidden" name="([a-z_]+)" value="([^"]+)"', self.text(path)))
        sent = {"Origin": f"http://localhost:{self.port}", "Cookie": self.cookie, **headers}
        return self.ask(path, "POST", urlencode({**hidden, **fields}), **sent)
