"""HTTP sessions to one host, and bodies that are read within limits of size and time."""

from __future__ import annotations

import logging
import time

import requests

from agent.chain.providers.answer_deadlines import PromptAdapter

logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # urllib3 logs whole URLs (T18)
_CHUNK_BYTES = 64 * 1024


class RedirectFreeSession(requests.Session):
    """Session without redirects. requests would parse their target and read their whole body, without
    limits, even if they are not followed. Status and headers arrive within the time-out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mount("https://", PromptAdapter())
        self.mount("http://", PromptAdapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return None: no answer is a redirect."""
        return None


def open_session(url: str) -> requests.Session:
    """Return a session with proxies, certificates and credentials of the environment, which are
    read once instead of for each request. It follows no redirects.
    """
    session = RedirectFreeSession()
    environment_settings = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies = environment_settings["proxies"]
    session.verify = environment_settings["verify"]
    session.auth = requests.utils.get_netrc_auth(url)
    session.trust_env = False
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json"})
    return session


def read_body(response: requests.Response, max_bytes: int, deadline_s: float) -> bytes | None:
    """Read the body; None once it exceeds `max_bytes` or the monotonic `deadline_s`."""
    chunks: list[bytes] = []
    byte_count = 0
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        byte_count += len(chunk)
        if byte_count > max_bytes or time.monotonic() > deadline_s:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
