"""The console in a real browser, before real services."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.conftest import EmbeddedStack
from tests.support import openai_standin
from tests.support.browser import COMMAND, PACKAGE, SECONDS, Watched, chromium
from tests.support.llm import exports_to, gateway, llm_proxy, provider
from tests.support.openai_standin import Standin, Step
from tests.support.processes import trace_store

ADMIN_KEY = "the-admin-key-0123456789"
PAGES = ["/", "/console/traces", "/console/usage", "/console/system"]
EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'>"
COMPLETE = ".trace[data-complete=true]"

expect.set_options(timeout=SECONDS * 1000)

Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(COMMAND).exists():
        pytest.skip(f"needs {PACKAGE}")
    with chromium() as running:
        yield running


@pytest.fixture
def watch(browser: Browser) -> Iterator[Open]:
    """A function that opens a page of a gateway; at the end it has done nothing it shouldn't."""
    with ExitStack() as pages:
        watched: list[Watched] = []

        def opened(url: str, path: str = "/", **options: object) -> Watched:
            page = Watched(browser, url, **options)  # type: ignore[arg-type]
            pages.callback(page.close)
            watched.append(page)
            page.open(path)
            return page

        yield opened
        for page in watched:
            assert page.faults == []


@contextmanager
def before_standin(folder: Path, **settings: str) -> Iterator[tuple[str, Standin]]:
    """A gateway before a stand-in for OpenAI, and the trace store they export to."""
    with openai_standin.running() as standin, trace_store(folder) as (store, otlp):
        exports = {
            **exports_to(otlp),
            "DATABASE_URL": f"sqlite:///{folder / 'o11y.db'}",
            "LEDGER_DIRECTORY": str(folder / "ledger"),
        }
        openai = provider("openai", standin, retries=0, chat_model="gpt-4o-mini")
        with (
            llm_proxy(folder, openai, **exports) as llm,
            gateway(folder, llm, TEMPO_URL=store.url, **exports, **settings) as running,
        ):
            yield running.url, standin


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Standin]]:
    with before_standin(tmp_path_factory.mktemp("console")) as found:
        yield found


def send(page: Page, kind: str, prompt: str = "What is a span?") -> None:
    page.get_by_label(kind, exact=True).check()
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()


def spans(page: Page) -> list[str]:
    return page.locator(".spans .name").all_inner_texts()


# Playground


def test_an_answer_is_written_while_its_trace_grows_to_its_end(
    stack: EmbeddedStack, watch: Open
) -> None:
    watched = watch(stack.url("GATEWAY_PORT"))
    page = watched.page
    send(page, "local model")
    expect(page.locator(".answers .text")).not_to_be_empty()
    page.wait_for_selector(COMPLETE)
    expect(page.locator(".figures")).to_contain_text("tokens/s")
    names = spans(page)
    assert names[0].startswith("POST /local-inference gateway")
    assert any("text_completion" in name and "tokens" in name for name in names)
    page.locator(".spans summary").last.click()
    expect(page.locator(".spans details[open]")).to_contain_text("session.id")
    expect(page.locator(".spans details[open]")).to_contain_text("console-")
    assert watched.errors == []


def test_a_pipeline_shows_its_sources_and_each_service(stack: EmbeddedStack, watch: Open) -> None:
    address = stack.url("GATEWAY_PORT")
    body = {"texts": [f"A span is a unit of work. {EVIL}"]}
    httpx2.post(f"{address}/embed", json=body, timeout=60).raise_for_status()
    watched = watch(address)
    page = watched.page
    send(page, "pipeline", "What is a span, a unit of work?")
    page.wait_for_selector(COMPLETE)
    expect(page.locator(".answers")).to_contain_text("Documents found, and their similarity")
    expect(page.locator(".answers")).to_contain_text("<script>window.evil")
    told = " ".join(spans(page))
    for service in ("gateway", "llm-proxy", "vector-svc", "inference-svc"):
        assert service in told
    assert page.evaluate("window.evil") is None
    assert watched.errors == []


def test_a_chat_shows_its_cost_and_where_its_trace_can_be_opened(
    edge: tuple[str, Standin], watch: Open
) -> None:
    url, _ = edge
    watched = watch(url)
    page = watched.page
    page.get_by_label("Models").fill("gpt-4o-mini, gpt-4o")
    send(page, "chat")
    expect(page.locator(COMPLETE)).to_have_count(2)
    for section in page.locator(".answers > section").all():
        expect(section.locator(".figures")).to_contain_text("USD")
        expect(section.locator(".spans")).to_contain_text("USD")
    page.locator(".trace a").first.click()
    expect(page.locator("#trace .spans")).to_contain_text("POST /chat")
    assert watched.errors == []


def test_a_failing_provider_shows_the_error_at_its_span(
    edge: tuple[str, Standin], watch: Open
) -> None:
    url, standin = edge
    page = watch(url).page
    standin.next.append(Step(status=500))
    send(page, "chat")
    page.wait_for_selector(COMPLETE)
    expect(page.locator(".answers .text .error")).not_to_be_empty()
    failed = [name for name in spans(page) if "failed" in name]
    assert any("POST" in name and "llm-proxy" in name for name in failed)


def test_what_a_model_writes_is_text(edge: tuple[str, Standin], watch: Open) -> None:
    url, standin = edge
    page = watch(url).page
    standin.next.append(Step(text=EVIL))
    send(page, "chat")
    expect(page.locator(".answers .text")).to_have_text(EVIL)
    assert page.evaluate("window.evil") is None


# Traces


def test_traces_are_searched_and_opened(edge: tuple[str, Standin], watch: Open) -> None:
    url, _ = edge
    for user in ("ada", "ben"):
        body = {"message": "hi", "user_id": user}
        httpx2.post(f"{url}/chat", json=body, timeout=30).raise_for_status()
    watched = watch(url, "/console/traces")
    page = watched.page
    page.get_by_label("User").fill("ada")
    # spans come by and by
    for _ in range(50):
        page.get_by_role("button", name="Search").click()
        expect(page.locator("#note")).to_contain_text("user.id")
        if page.locator("#found tbody tr").count():
            break
        page.wait_for_timeout(100)
    expect(page.locator("#found tbody tr")).to_have_count(1)
    page.locator("#found tbody a").click()
    expect(page.locator("#trace .spans")).to_contain_text("POST /chat")
    page.get_by_label("TraceQL").fill("nonsense")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#note.error")).to_contain_text("q: ")


# Usage and keys


def test_a_keys_whole_life(tmp_path: Path, watch: Open) -> None:
    with before_standin(tmp_path, ADMIN_KEY=ADMIN_KEY) as (url, _):
        page = watch(url, "/console/usage").page
        page.get_by_label("Key", exact=True).fill("a-wrong-key")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#key")).to_be_visible()  # it is asked for again
        page.get_by_label("Key", exact=True).fill(ADMIN_KEY)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#keys")).to_be_visible()
        page.get_by_label("Name").fill("web")
        page.get_by_label("Tenant", exact=True).fill("acme")
        page.get_by_label("USD a day").fill("5")
        page.get_by_role("button", name="Make a key").click()
        expect(page.locator("#new-key output")).to_contain_text("o11y-sk-")
        first = page.locator("#new-key output").inner_text()
        row = page.locator("#keys tbody tr")
        expect(row).to_contain_text("valid")
        expect(row).to_contain_text("day: 5")

        def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            body = {"message": "hi"}
            return httpx2.post(f"{url}/chat", json=body, headers=headers, timeout=30).status_code

        assert status(first) == 200
        page.get_by_role("button", name="Rotate web").click()
        expect(page.locator("#new-key output")).not_to_have_text(first)
        second = page.locator("#new-key output").inner_text()
        assert (status(first), status(second)) == (200, 200)
        page.get_by_role("button", name="Disable web").click()
        expect(row).to_contain_text("disabled")
        assert (status(first), status(second)) == (401, 401)
        page.get_by_role("button", name="Enable web").click()
        expect(row).to_contain_text("valid")
        assert status(second) == 200

        page.get_by_role("button", name="Key …").click()
        page.get_by_label("Key", exact=True).fill(second)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#usage tfoot")).to_contain_text("all")
        expect(page.locator("#budgets")).to_contain_text("web (acme)")
        expect(page.locator("#keys")).to_be_hidden()
        expect(page.locator("#chart canvas")).to_be_visible()
        page.locator("[name=group_by]").select_option("model")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#usage tbody")).to_contain_text("gpt-4o-mini")
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").click()
        assert download.value.path().read_text().startswith("model,calls,")


# All pages


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1600, "dark")])
def test_pages_fit_and_axe_finds_nothing(
    width: int, scheme: str, path: str, edge: tuple[str, Standin], watch: Open
) -> None:
    url, _ = edge
    watched = watch(url, path, width=width, scheme=scheme)
    if path == "/":
        send(watched.page, "chat")
        watched.page.wait_for_selector(COMPLETE)
        watched.page.locator(".spans summary").first.click()
    assert watched.violations() == ""
    assert not watched.overflows()


def test_the_pages_are_used_by_keyboard(edge: tuple[str, Standin], watch: Open) -> None:
    url, _ = edge
    page = watch(url).page
    page.get_by_label("Prompt").focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Send":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(COMPLETE)
    page.locator(".spans summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".spans details[open]")).to_be_visible()
