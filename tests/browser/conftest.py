"""One real Chromium for all tests of pages, and pages that count whatever would leave the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import OPTIONS, PATIENCE_MS, REMEDY, WIDE, patient_context, program
from tests.support.worlds import missing


@pytest.fixture(scope="session")
def launched() -> Iterator[tuple[Any, asyncio.AbstractEventLoop]]:
    """The browser of this process, and Playwright's event loop, which runs only while a file of tests has the browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("no playwright: pip install 'trimtab[test]'")
    program_path = program()
    if program_path is None:
        missing(REMEDY)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program_path, args=list(OPTIONS), timeout=PATIENCE_MS)
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield browser, loop
        asyncio._set_running_loop(loop)
        browser.close()


@pytest.fixture(scope="module")
def chromium(launched: tuple[Any, asyncio.AbstractEventLoop]) -> Iterator[Any]:
    """The browser for the tests of a file: Playwright's event loop would stand in the way of those that start one of their own."""
    browser, loop = launched
    asyncio._set_running_loop(loop)
    yield browser
    for context in browser.contexts:
        context.close()
    asyncio._set_running_loop(None)


@dataclass(slots=True)
class OpenedPage:
    """A page as the browser shows it, with every complaint and every request but the one for the file itself."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def ask(self, script: str) -> Any:
        """What a JavaScript expression gives."""
        return self.page.evaluate(script)

    @property
    def quiet(self) -> bool:
        """Nothing went wrong, nothing left."""
        return not self.complaints and not self.requests

    @property
    def drawn(self) -> list[int]:
        """Of each chart how many shapes with an extent its plot has."""
        document: list[int] = self.ask(
            """[...document.querySelectorAll("[data-figure]")].map(one => [...one.querySelectorAll(".plot .trace path, .barlayer path, "
            + ".scatterlayer path, .pielayer path")].filter(path => (path.getAttribute("d") || "").length > 8).length)"""
        )
        return document


@pytest.fixture(scope="module")
def open_page(chromium: Any) -> Iterator[Callable[..., OpenedPage]]:
    """Opens a file and waits until every chart is drawn.

    Pages opened alike share a context, and with it the compiled scripts: half of the processor time. What a page opens beside itself
    is a request too.
    """
    contexts: dict[str, Any] = {}

    def opened(path: Path, size: tuple[int, int] = WIDE, color_scheme: str | None = None, **how: Any) -> OpenedPage:
        if str(how) not in contexts:
            contexts[str(how)] = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, **how)
            contexts[str(how)].route("**/*", lambda request: request.abort())
        page = contexts[str(how)].new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(color_scheme=color_scheme)
        opened_page = OpenedPage(page)
        page.on("console", lambda message: opened_page.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: opened_page.complaints.append(str(error)))
        page.on("popup", lambda beside: opened_page.requests.append(beside.url))

        def route(request: Any) -> None:
            if request.request.url == path.as_uri():
                request.continue_()
            else:
                opened_page.requests.append(request.request.url)
                request.abort()

        page.route("**/*", route)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")
        return opened_page

    yield opened
    for context in contexts.values():
        context.close()
