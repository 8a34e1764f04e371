"""A storm: calls of every sort at a whole stack, whose parts are killed one after another.

Two gateways, each before an llm-proxy of its own, share vector-svc, inference-svc, PostgreSQL and
Redis. Two stand-ins bill what they answer. When all is quiet again, every billed attempt must be in
the ledger, the ledger in the sums of budgets and in the metrics, and no budget passed.
"""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psutil
from sqlalchemy import func, select

from accounting.database import connect
from accounting.money import DOLLAR, dollars
from accounting.records import EXPIRED, RECOVERED, REMAINDER
from accounting.tables import grants, ledger, spend
from tests.support import openai_standin, tiny_model
from tests.support.llm import NO_EXPORT, Call, chat, complete, embed, provider
from tests.support.openai_standin import Step
from tests.support.postgres import postgres
from tests.support.processes import Service, environment, free_ports, service
from tests.support.redis import redis_server
from tests.support.waiting import until

AT_ONCE = 48
CALL_SECONDS = 30.0
KEYS = {name: f"o11y-sk-{name:0>12}-{name:0>32}" for name in ("a", "b", "c", "d")}
"""`a` and `b` share a tenant with a budget. `b` runs out of money soon, `c` has hardly any, and `d`
may make few calls in a minute.
"""

BUDGETS = {"a": Decimal(1000), "b": Decimal("0.02"), "c": Decimal("0.001")}
TENANT_BUDGET = Decimal(2000)

Make = Callable[[], tuple[str, dict[str, Any], str | None]]
"""A function that makes a call: path, body, and its id at the stand-ins."""


@dataclass
class Outcome:
    """The figures of a storm."""

    statuses: Counter[int] = field(default_factory=Counter)
    """Of the answers; 0 where a caller left or had none."""
    attempts: int = 0
    """Attempts that a stand-in bills."""
    billed_usd: Decimal = Decimal(0)
    known_usd: Decimal = Decimal(0)
    """The ledger's, of calls whose usage was told."""
    estimated_usd: Decimal = Decimal(0)
    local_usd: Decimal = Decimal(0)
    told_usd: Decimal = Decimal(0)
    """By `openai_cost_usd_total`, the last values of processes that were killed included."""
    rows: int = 0
    estimated_rows: int = 0
    unaccounted: int = 0
    """Billed attempts without a row."""
    differing: int = 0
    """Traces whose usage was told, and whose rows don't cost what was billed."""
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Part:
    """A process of the stack that can be killed, and comes back at the same address."""

    def __init__(self, stack: ExitStack, start: Callable[[int], Any]) -> None:
        self._stack = stack
        self._start = start
        self._port = free_ports(1)[0]
        self.running: Service = stack.enter_context(start(self._port))

    @property
    def url(self) -> str:
        return self.running.url

    def kill(self) -> None:
        self.running.kill()
        self.running = self._stack.enter_context(self._start(self._port))


class Storm:
    """The stack, and the calls that come to it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.first, self.second = (
            stack.enter_context(openai_standin.running(default=Step(latency=0.005)))
            for _ in range(2)
        )
        self.database, self._postgres = stack.enter_context(postgres(folder))
        self._redis_port = free_ports(1)[0]
        self._redis = stack.enter_context(redis_server(folder, self._redis_port))
        money = {"DATABASE_URL": self.database, "LEDGER_DIRECTORY": str(folder / "journals")}
        common = {**NO_EXPORT, "INTERNAL_TOKEN": "the-token-of-this-storm"}
        self._make_keys(money)
        model = str(tiny_model.save(folder / "tiny", 1024, ends=False))
        self.inference = self._part(
            "inference_svc",
            **common,
            **money,
            LOCAL_MODEL_NAME=model,
            USE_GPU="false",
            ENGINE_MAX_CONTEXT="1024",
            LOCAL_USD_PER_HOUR="0.36",
        )
        self.vectors = self._part(
            "vector_svc", **common, CHROMA_PERSIST_DIRECTORY=str(folder / "chroma")
        )
        patient = {"breaker_failures": 10**6, "retries": 1}
        providers = [
            provider(
                "p",
                self.first,
                embedding_model="text-embedding-3-small",
                chat_model="gpt-4o-mini",
                **patient,
            ),
            provider("q", self.second, **patient),
        ]
        self.proxies = [
            self._part("llm_proxy", **common, **money, LLM_PROVIDERS=json.dumps(providers))
            for _ in range(2)
        ]
        self.gateways = [
            self._part(
                "gateway",
                **common,
                **money,
                LLM_PROXY_URL=proxy.url,
                VECTOR_URL=self.vectors.url,
                INFERENCE_URL=self.inference.url,
                SEED_CORPUS="false",
                KEYS_FILE=str(folder / "keys.json"),
                LIMITS_URL=f"redis://127.0.0.1:{self._redis_port}",
            )
            for proxy in self.proxies
        ]
        self.outcome = Outcome()

    def _part(self, module: str, **settings: str) -> Part:
        def start(port: int) -> Any:
            return service(module, self._folder, **settings, APP_PORT=str(port))

        return Part(self._stack, start)

    def _make_keys(self, money: dict[str, str]) -> None:
        keys = [
            {
                "key": text,
                "name": name,
                "tenant": "one" if name in "ab" else name,
                "budgets": {"day": str(BUDGETS[name])} if name in BUDGETS else None,
                "limits": {"requests_per_minute": 20} if name == "d" else {"concurrent": 1000},
            }
            for name, text in KEYS.items()
        ]
        (self._folder / "keys.json").write_text(json.dumps(keys))
        made = [sys.executable, "-m", "gateway.keys", "tenant", "one"]
        subprocess.run(
            [*made, "--budget", f"month={TENANT_BUDGET}"],
            cwd=self._folder,
            env=environment(money),
            check=True,
            timeout=60,
            capture_output=True,
        )

    def run(self, count: int) -> Outcome:
        """Make so many calls, with a kill after each part of them, and compare all accounts."""
        began = time.monotonic()
        kills: list[tuple[str, Callable[[], None]]] = [
            ("llm-proxy", partial(self._kill_proxy, 0)),
            ("gateway", self.gateways[0].kill),
            ("inference-svc", self.inference.kill),
            ("PostgreSQL", self._kill_postgres),
            ("Redis", self._kill_redis),
            ("vector-svc", self.vectors.kill),
            ("llm-proxy", partial(self._kill_proxy, 1)),
        ]
        asyncio.run(self._all(count, kills))
        self._settle()
        self._compare()
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _all(self, count: int, kills: Sequence[tuple[str, Callable[[], None]]]) -> None:
        makes, chance = list(sorts()), random.Random(7)
        numbers = iter(range(count))
        points = {count * (at + 1) // (len(kills) + 1): kill for at, kill in enumerate(kills)}
        killing: list[asyncio.Future[None]] = []
        async with httpx2.AsyncClient(
            timeout=CALL_SECONDS, limits=httpx2.Limits(max_connections=AT_ONCE)
        ) as client:

            async def caller() -> None:
                for number in numbers:
                    if number in points:
                        name, kill = points[number]
                        self.outcome.kills.append(name)
                        killing.append(asyncio.ensure_future(asyncio.to_thread(kill)))
                    make, leaves = makes[number % len(makes)]
                    key = "aaaaaaaaaabbcd"[number * 5 % 14]
                    gateway = self.gateways[number % 2]
                    status = await self._call(client, gateway.url, KEYS[key], make, leaves)
                    self.outcome.statuses[status] += 1
                    if status == 503 or (status == 0 and not leaves):  # somebody was killed
                        await asyncio.sleep(chance.uniform(0.2, 1.0))

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
            await asyncio.gather(*killing)

    async def _call(
        self, client: httpx2.AsyncClient, url: str, key: str, make: Make, leaves: bool
    ) -> int:
        """The status; 0 where the caller left, or had no answer."""
        path, body, _ = make()
        headers = {"authorization": f"Bearer {key}"}
        try:
            async with client.stream("POST", url + path, json=body, headers=headers) as answer:
                async for _ in answer.aiter_bytes():
                    if leaves and answer.status_code == 200:
                        return 0
                return answer.status_code
        except httpx2.HTTPError:
            return 0

    def _kill_proxy(self, number: int) -> None:
        proxy = self.proxies[number]
        self.outcome.told_usd += told(proxy.url)  # as Prometheus has read it last
        proxy.kill()

    def _kill_postgres(self) -> None:
        """Kill its processes but the first, as it does itself when one of them crashes."""
        for child in psutil.Process(self._postgres).children():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)

    def _kill_redis(self) -> None:
        psutil.Process(self._redis[1]).send_signal(signal.SIGKILL)
        time.sleep(1)  # it is away for a while
        self._redis = self._stack.enter_context(redis_server(self._folder, self._redis_port))

    def _settle(self) -> None:
        """Wait until every row is in the database, and nothing is left of those who were killed."""
        living = [*self.proxies, self.inference]
        for part in living:
            until(partial(_is_posted, part.url), 120, 0.2)
        journals = self._folder / "journals"
        until(lambda: len(list(journals.glob("*/lock"))) == len(self.proxies), 120, 0.2)
        until(lambda: len(list(journals.glob("inference-svc/*/lock"))) == 1, 120, 0.2)
        until(lambda: self._sum(grants.c.reserved) == 0, 120, 0.5)

    def _sum(self, column: Any, *where: Any) -> int:
        engine = connect(self.database)
        with closing(engine.connect()) as connection:
            query = select(func.coalesce(func.sum(column), 0)).where(*where)
            found = connection.execute(query).scalar_one()
        engine.dispose()
        return int(found)

    def _compare(self) -> None:
        engine = connect(self.database)
        with closing(engine.connect()) as connection:
            rows = connection.execute(select(ledger)).mappings().all()
            sums = connection.execute(select(spend)).mappings().all()
        engine.dispose()
        outcome = self.outcome
        local = [row for row in rows if row["provider"] == "o11y-local"]
        outside = [row for row in rows if row["provider"] in ("p", "q")]
        outcome.rows = len([row for row in rows if row["status"] != REMAINDER])
        outcome.estimated_rows = len([row for row in rows if row["estimated"]])
        outcome.local_usd = dollars(sum(row["cost"] for row in local))
        outcome.known_usd = dollars(sum(row["cost"] for row in outside if not row["estimated"]))
        outcome.estimated_usd = dollars(sum(row["cost"] for row in outside if row["estimated"]))
        self._compare_attempts(outside)
        outcome.told_usd += sum((told(each.url) for each in self.proxies), Decimal(0))
        spent = outcome.known_usd + outcome.estimated_usd
        if abs(outcome.told_usd - spent) > Decimal("0.01"):
            outcome.faults.append(f"openai_cost_usd_total says {outcome.told_usd}, not {spent}")
        owners = Counter[tuple[str, str]]()
        for row in rows:
            owners["key", row["key_id"]] += row["cost"]
            owners["tenant", row["tenant"]] += row["cost"]
        found = Counter[tuple[str, str]]()
        for row in sums:
            found[row["scope"], row["owner"]] += row["amount"]
        if found != owners:
            outcome.faults.append(f"sums {dict(found)} are not those of the rows {dict(owners)}")
        limits = {("key", f"{name:0>12}"): usd for name, usd in BUDGETS.items()}
        for owner, limit in {**limits, ("tenant", "one"): TENANT_BUDGET}.items():
            if found[owner] > limit * DOLLAR:
                outcome.faults.append(f"{owner} spent {dollars(found[owner])} of {limit}")
        if expired := [row for row in rows if row["status"] in (EXPIRED, RECOVERED)]:
            outcome.faults.append(f"{len(expired)} reservations expired, and no journal was lost")
        if outcome.unaccounted:
            outcome.faults.append(f"{outcome.unaccounted} billed attempts are in no row")
        if outcome.differing:
            outcome.faults.append(f"{outcome.differing} calls cost other than they were billed")
        self._ask_again()

    def _compare_attempts(self, rows: Sequence[Any]) -> None:
        """Compare the stand-ins' bills with the rows, trace by trace."""
        outcome = self.outcome
        of_trace = Counter[str]()
        cost = Counter[str]()
        estimated = set()
        for row in rows:
            of_trace[row["trace_id"]] += 1
            cost[row["trace_id"]] += row["cost"]
            if row["estimated"]:
                estimated.add(row["trace_id"])
        for standin in (self.first, self.second):
            outcome.billed_usd += standin.ledger.usd()
        billed, usd = self._billed()
        outcome.attempts = sum(billed.values())
        for trace, count in billed.items():
            outcome.unaccounted += max(0, count - of_trace[trace])
            # each row is rounded up to a whole picodollar
            rounded = 0 <= cost[trace] - usd.get(trace, 0) * DOLLAR < count
            if trace in usd and trace not in estimated and not rounded:
                outcome.differing += 1

    def _billed(self) -> tuple[Counter[str], dict[str, Decimal]]:
        """The attempts that were billed by trace, and US dollars of those whose call is known."""
        billed: Counter[str] = Counter()
        usd: dict[str, Decimal] = {}
        for standin in (self.first, self.second):
            trace_of: dict[str, str] = {}
            for received in standin.requests:
                if received.method == "POST" and received.status == 200:
                    trace = received.headers["traceparent"].split("-")[1]
                    billed[trace] += 1
                    if received.id:
                        trace_of[received.id] = trace
            for bill in standin.ledger.bills():
                if bill.id and bill.usd is not None:
                    trace = trace_of[bill.id]
                    usd[trace] = usd.get(trace, Decimal(0)) + bill.usd
        return billed, usd

    def _ask_again(self) -> None:
        """Nobody is refused who has money, and nobody let in who has none."""
        for key, wanted in (("a", 200), ("c", 429)):
            body = chat(max_tokens=10_000, model="gpt-4o").body
            answer = httpx2.post(
                f"{self.gateways[0].url}/v1/chat/completions",
                json=body,
                headers={"authorization": f"Bearer {KEYS[key]}"},
                timeout=CALL_SECONDS,
            )
            if answer.status_code != wanted:
                fault = f"{answer.status_code} for {key} when all is quiet: {answer.text[:200]}"
                self.outcome.faults.append(fault)


def sorts() -> Iterator[tuple[Make, bool]]:
    """The sorts of calls, each with whether its caller leaves within the answer."""

    def openai(made: Callable[..., Call], *steps: Step, **fields: Any) -> Make:
        def make() -> tuple[str, dict[str, Any], str | None]:
            call = made(*steps, **fields)
            return call.path, call.body, call.id

        return make

    def own(path: str, **body: Any) -> Make:
        return lambda: (path, body, None)

    slow = Step(pace=0.01, chunks=40, size=400)
    bounded = {"max_tokens": 400}
    yield openai(chat, Step(), **bounded), False
    yield openai(chat, Step(pace=0.002), stream=True, **bounded), False
    yield openai(chat, Step(cut="mid_stream", size=400, chunks=40), stream=True, **bounded), False
    yield openai(chat, slow, stream=True, **bounded), True
    yield openai(chat, Step(status=500), Step(), **bounded), False
    yield openai(chat, Step(status=429, retry_after="0"), Step(), stream=True, **bounded), False
    yield openai(chat, Step(cut="before_first_byte"), Step(), **bounded), False
    yield openai(chat, Step(status=503), Step(status=503), Step(), **bounded), False
    yield openai(chat, Step(status=400), **bounded), False
    yield openai(chat, Step(usage="cached"), model="gpt-4o", **bounded), False
    yield openai(chat, Step(usage="absent"), **bounded), False
    yield openai(complete, Step(), **bounded), False
    yield openai(embed, Step()), False
    yield own("/chat", message="hi", max_tokens=200), False
    yield own("/search", query="plans"), False
    yield own("/local-inference", prompt="w1 w2", max_length=3), False
    yield own("/local-inference", prompt="w1", max_length=200, stream=True), True


def told(url: str) -> Decimal:
    """US dollars by `openai_cost_usd_total`."""
    text = httpx2.get(f"{url}/metrics", headers={"accept": "text/plain"}, timeout=30).text
    samples = [each for each in text.splitlines() if each.startswith("openai_cost_usd_total{")]
    return sum((Decimal(each.rpartition(" ")[2]) for each in samples), Decimal(0))


def _is_posted(url: str) -> bool:
    return "ledger_queue_rows 0.0" in httpx2.get(f"{url}/metrics", timeout=30).text


@contextmanager
def storm(folder: Path) -> Iterator[Storm]:
    """A stack that a storm may come to."""
    with ExitStack() as stack:
        yield Storm(folder, stack)


def table(outcome: Outcome) -> str:
    """The figures, for people."""
    statuses = ", ".join(
        f"{status or 'none'} x {n}" for status, n in sorted(outcome.statuses.items())
    )
    lines = (
        ("calls", f"{sum(outcome.statuses.values())} in {outcome.seconds:.0f} s: {statuses}"),
        ("kills", ", ".join(outcome.kills)),
        ("attempts billed", f"{outcome.attempts}, {outcome.billed_usd} USD"),
        ("rows", f"{outcome.rows}, of these {outcome.estimated_rows} estimates"),
        ("ledger", f"{outcome.known_usd} USD known, {outcome.estimated_usd} USD estimated"),
        ("local model", f"{outcome.local_usd} USD"),
        ("openai_cost_usd_total", f"{outcome.told_usd} USD"),
        ("attempts without a row", str(outcome.unaccounted)),
        ("calls that cost other than billed", str(outcome.differing)),
        ("faults", "; ".join(outcome.faults) or "none"),
    )
    return "\n".join(f"{name:<35}{value}" for name, value in lines)
