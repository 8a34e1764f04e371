"""Pages in Debian's Chromium, driven by Playwright."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

COMMAND = "/usr/bin/chromium"
PACKAGE = "Debian's package chromium"

SECONDS = 30.0
"""Longest wait for something to appear: the machine may be busy."""

ALONE = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Arguments without which Chromium wants a sandbox that containers lack, and asks other hosts."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=COMMAND, args=list(ALONE))
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and what it did that it shouldn't."""

    def __init__(
        self, browser: Browser, url: str, width: int = 1200, scheme: str = "light"
    ) -> None:
        self.url = url
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        context.set_default_timeout(SECONDS * 1000)
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        """Errors of scripts, and requests to elsewhere."""
        self.errors: list[str] = []
        """Lines of the browser's console."""
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))
        self.page.on("console", lambda line: self._said(line.type, line.text))

    def _asked(self, url: str) -> None:
        host = urlsplit(url).netloc
        if urlsplit(url).scheme != "blob" and host != urlsplit(self.url).netloc:
            self.faults.append(f"asked {url}")

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            (self.errors if "status of" in text else self.faults).append(text)

    def open(self, path: str) -> Page:
        """Open a page, and wait until it has got what it asks for by itself."""
        self.page.goto(f"{self.url}{path}")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def violations(self) -> str:
        """The findings of axe about what the page shows now; empty where it has none."""
        found = Axe().run(self.page)
        return found.generate_report() if found.violations_count else ""

    def overflows(self) -> bool:
        """True if the page is wider than the window."""
        width = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(width))

    def close(self) -> None:
        self.page.context.close()
