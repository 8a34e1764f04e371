"""The stack that a storm comes to, and the ends of its parts."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psutil
from sqlalchemy import func, select

from accounting.database import connect
from accounting.tables import grants
from tests.support import openai_standin, tiny_model
from tests.support.llm import NO_EXPORT, provider
from tests.support.openai_standin import Step
from tests.support.postgres import postgres
from tests.support.processes import Service, environment, free_ports, service
from tests.support.redis import redis_server
from tests.support.waiting import until

KEYS = {name: f"o11y-sk-{name:0>12}-{name:0>32}" for name in ("a", "b", "c", "d")}
"""`a` and `b` share a tenant with a budget. `b` runs out of money soon, `c` has hardly any, and `d`
may make few calls in a minute.
"""

BUDGETS = {"a": Decimal(1000), "b": Decimal("0.02"), "c": Decimal("0.001")}
TENANT_BUDGET = Decimal(2000)


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


class Stack:
    """Two gateways, each before an llm-proxy of its own, that share vector-svc, inference-svc,
    PostgreSQL and Redis; two stand-ins bill what they answer.
    """

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
        self.told_usd = Decimal(0)
        """By `openai_cost_usd_total` of llm-proxies, as it was when they were killed."""

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

    def kills(self) -> list[tuple[str, Callable[[], None]]]:
        """What can be killed, in an order."""
        return [
            ("llm-proxy", partial(self._kill_proxy, 0)),
            ("gateway", self.gateways[0].kill),
            ("inference-svc", self.inference.kill),
            ("PostgreSQL", self._kill_postgres),
            ("Redis", self._kill_redis),
            ("vector-svc", self.vectors.kill),
            ("llm-proxy", partial(self._kill_proxy, 1)),
        ]

    def _kill_proxy(self, number: int) -> None:
        proxy = self.proxies[number]
        self.told_usd += told(proxy.url)  # as Prometheus has read it last
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

    def settle(self) -> None:
        """Wait until every row is in the database, and nothing is left of those who were killed."""
        living = [*self.proxies, self.inference]
        for part in living:
            until(partial(_is_posted, part.url), 120, 0.2)
        journals = self._folder / "journals"
        until(lambda: len(list(journals.glob("*/lock"))) == len(self.proxies), 120, 0.2)
        until(lambda: len(list(journals.glob("inference-svc/*/lock"))) == 1, 120, 0.2)
        until(lambda: self._reserved() == 0, 120, 0.5)

    def _reserved(self) -> int:
        engine = connect(self.database)
        with closing(engine.connect()) as connection:
            query = select(func.coalesce(func.sum(grants.c.reserved), 0))
            found = connection.execute(query).scalar_one()
        engine.dispose()
        return int(found)


def told(url: str) -> Decimal:
    """US dollars by `openai_cost_usd_total`."""
    text = httpx2.get(f"{url}/metrics", headers={"accept": "text/plain"}, timeout=30).text
    samples = [each for each in text.splitlines() if each.startswith("openai_cost_usd_total{")]
    return sum((Decimal(each.rpartition(" ")[2]) for each in samples), Decimal(0))


def _is_posted(url: str) -> bool:
    return "ledger_queue_rows 0.0" in httpx2.get(f"{url}/metrics", timeout=30).text
