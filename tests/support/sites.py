"""A dashboard with users, served on this machine, and forms as its pages would send them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import argon2
import pyotp

from agent.ports.users import UsersPlace
from agent.store.files.users import open_user_file
from agent.web.access import Access
from agent.web.document_cache import DocumentCache
from agent.web.reach import PublicOptions, Reach
from tests.support.dashboards import Served, StaticDocumentCache, documents
from tests.support.fakes.clock import FakeClock

PASSWORD = "correct horse battery"
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
NAMES = ("ann", "bob", "cleo", "dan", "eve", "fay")
PROXY_SECRET = "0123456789abcdef" * 4
FULL = 1
READ_ONLY = 5
"""Ids of ann, who may control, and of eve, who is read-only."""


def behind_proxy(folder: Path, name: str = "dash.example.org") -> PublicOptions:
    """Options of a dashboard behind a proxy, whose secret is in a file of this folder."""
    file = folder / "proxy.secret"
    file.write_text(PROXY_SECRET + "\n")
    file.chmod(0o600)
    return PublicOptions(proxy=name, proxy_secret_file=file)


class Site(Served):
    """A dashboard with users."""

    def __init__(
        self, file: Path, reach: Reach | None = None, config: str = "none.toml", port: int = 0, board: DocumentCache | None = None
    ) -> None:
        self.file, self.clock = file, FakeClock(1_000)
        self.secrets = {name: pyotp.random_base32() for name in NAMES}
        for name in NAMES:
            open_user_file(file).add(name, HASH, self.secrets[name], name == "eve", 1)
        self.access = Access(reach or Reach(port=1), UsersPlace(str(file)), self.clock)
        self.access.set_users({number + 1: (name, name == "eve") for number, name in enumerate(NAMES)})
        if board is None:
            board = StaticDocumentCache(config, Path("none.db"))
            board.documents = documents()
        super().__init__(self.access, board, port)

    def enter(self, user: int = FULL) -> str:
        """Begin a session without the login form, and return its cookie."""
        return f"trimtab-1={self.access.begin_session(user)}"

    def token(self, cookie: str) -> str:
        """Return the token of a session's forms, read from a page."""
        return re.findall(r'name="csrf" value="([^"]+)"', self.ask("/alerts", Cookie=cookie)[2].decode())[0]

    def post(self, path: str, fields: dict[str, str], cookie: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send a form as its page would."""
        sent = {"Origin": f"http://localhost:{self.port}", "Cookie": cookie, **headers}
        return self.ask(path, "POST", urlencode(fields), **sent)

    def form(self) -> tuple[str, str]:
        """Return cookie and token of a login form."""
        _, headers, body = self.ask("/login")
        return headers["set-cookie"].split(";")[0], re.findall(r'name="csrf" value="([^"]+)"', body.decode())[0]

    def log_in(self, name: str, code: str | None = None, password: str = PASSWORD, cookie: str = "") -> tuple[int, dict[str, str], bytes]:
        """Send the login form, by default with the current code."""
        nonce, csrf = self.form()
        code = pyotp.TOTP(self.secrets[name]).now() if code is None else code
        return self.post("/login", {"csrf": csrf, "name": name, "password": password, "code": code}, f"{nonce}; {cookie}")
