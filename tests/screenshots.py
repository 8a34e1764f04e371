"""`python -m tests.screenshots`: pictures of a running stack's console.

`make screenshots` starts one whose local model has a price, and writes to docs/pictures.
"""

import sys
from pathlib import Path

import httpx2
from playwright.sync_api import Page

from deploy.demo.addresses import gateway_url
from tests.support.browser import COMMAND, PACKAGE, Watched, chromium
from tests.support.processes import ROOT

FOLDER = ROOT / "docs" / "pictures"
QUESTIONS = ("What is a span?", "What does a vector database store?", "Why are traces sampled?")
CALL_SECONDS = 120.0


def calls(url: str) -> None:
    """Calls of three users, so that there is usage to be seen."""
    with httpx2.Client(base_url=url, timeout=CALL_SECONDS) as http:
        for user, question in zip(("ada", "ben", "cleo"), QUESTIONS, strict=True):
            body = {"message": question, "max_tokens": 48, "user_id": user}
            http.post("/chat", json=body).raise_for_status()


def playground(page: Page) -> None:
    page.get_by_label("pipeline", exact=True).check()
    page.get_by_label("Prompt").fill("What is a distributed trace?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector(".trace[data-complete=true]")


def usage(page: Page) -> None:
    page.locator("[name=group_by]").select_option("user")
    page.get_by_role("button", name="Show").click()
    page.locator("#usage tbody", has_text="ada").wait_for()


def main() -> int:
    if not Path(COMMAND).exists():
        print(f"The pictures need {PACKAGE}", file=sys.stderr)
        return 1
    url = gateway_url()
    calls(url)
    with chromium() as browser:
        for name, path, use in (
            ("playground", "/", playground),
            ("usage", "/console/usage", usage),
        ):
            watched = Watched(browser, url, width=1100)
            use(watched.open(path))
            file = FOLDER / f"{name}.png"
            watched.page.screenshot(path=file, full_page=True)
            watched.close()
            print(f"wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
