"""Chromium without a window, and what it complains about."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, expect, sync_playwright

DESKTOP = {"width": 1280, "height": 1200}
PHONE = {"width": 375, "height": 812}
_MILLISECONDS = 90_000
"""For the browser to do one thing, on a machine that is busy with other tests."""
_ASKED_BY_AIRFLOW = ("/api/v2/", "/ui/", "/static/")


def chromium_program() -> str | None:
    """Return the path of the Chromium that the system has, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium, which reaches this machine and no other, for as long as the context lasts.

    :raises RuntimeError: it is not installed.
    """
    program = chromium_program()
    if program is None:
        raise RuntimeError("Chromium is not installed: apt-get install chromium")
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # root cannot have Chromium's sandbox
    expect.set_options(timeout=_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """A browser window with a session of its own, and the errors that its pages, or those it opened, ran into."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Scripts that failed, what could not be loaded, and what a content security policy forbade.

    What Airflow's own pages ask Airflow for is not among it: they bear a refusal, as of a busy SQLite, and ask again.
    Nor is a request that they call off because the user has gone on to another page.
    """

    def __post_init__(self) -> None:
        self.page.context.on("console", self._note)
        self.page.context.on("weberror", self._note_error)

    def _note_error(self, error: WebError) -> None:
        # Playwright's own error, or whatever the page has thrown
        if getattr(error.error, "name", None) != "AbortError":
            self.errors.append(str(error.error))

    def _note(self, message: ConsoleMessage) -> None:
        url = str(message.location.get("url"))
        if message.type == "error" and not urlsplit(url).path.startswith(_ASKED_BY_AIRFLOW):
            self.errors.append(f"{url}: {message.text}")


@contextmanager
def window(browser: Browser, like: BrowserContext | None = None, **settings: Any) -> Iterator[Window]:
    """Open a window, and close it again.

    :param like: another window's context whose log-in it shares.
    :param settings: as Playwright's ``new_context`` takes them, such as ``viewport`` and ``color_scheme``.
    """
    shared: Mapping[str, Any] = {"storage_state": like.storage_state()} if like else {}
    context = browser.new_context(**{"viewport": DESKTOP, "timezone_id": "UTC", **shared, **settings})
    context.set_default_timeout(_MILLISECONDS)
    try:
        yield Window(context.new_page())
    finally:
        context.close()
