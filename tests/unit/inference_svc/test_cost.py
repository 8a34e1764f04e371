"""The cost of the local model: the machine's price, shared out by what each call used of it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError

from inference_svc.app import build
from inference_svc.batching import Batcher
from inference_svc.cost import Costs, priced
from inference_svc.settings import Settings
from inference_svc.steps import Part, Steps, Work
from o11y.telemetry import schema
from tests.support.recorded import Recorded, attributes


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded("inference-svc", Settings())
    yield recorded
    recorded.telemetry.shutdown()


def test_a_step_is_shared_by_slots_and_nothing_of_it_is_lost() -> None:
    steps = Steps()
    steps.busy_since = time.monotonic() - 4.0
    prompt, answer = Work(), Work()
    steps.share([Part(prompt, 0, 30, False), Part(answer, 7, 10, True)])
    first = prompt.seconds + answer.seconds
    assert first == pytest.approx(4.0, abs=0.5)
    assert prompt.seconds == pytest.approx(3 * answer.seconds)
    steps.share([Part(answer, 17, 1, True)])  # right after it
    assert prompt.seconds + answer.seconds == pytest.approx(first, abs=0.5)
    steps.busy_since = None
    steps.share([Part(answer, 18, 1, True)])  # the engine rested: that time is nobody's
    assert prompt.seconds + answer.seconds == pytest.approx(first, abs=0.5)
    steps.share([])


async def test_a_batch_is_shared_by_the_size_of_its_items() -> None:
    def work(items: list[int]) -> list[int]:
        time.sleep(0.2)
        return items

    batcher = Batcher("doublings", work, int, 100, max_waiting=10)
    small, large = await asyncio.gather(batcher.run([1]), batcher.run([2, 7]))
    assert small.seconds * 9 == pytest.approx(large.seconds)
    assert small.seconds + large.seconds == pytest.approx(0.2, abs=0.15)
    batcher.close()


def test_without_a_price_nothing_is_charged(recorded: Recorded) -> None:
    assert Costs(None, recorded.telemetry).charge("m", "chat", 3.0) is None
    assert recorded.points(schema.MODEL_COST.name) == []
    assert recorded.points(schema.MODEL_IDLE_COST.name) == []
    assert priced({"total_tokens": 1}, None) == {"total_tokens": 1}


def test_what_nobody_worked_for_is_a_figure_of_its_own(recorded: Recorded) -> None:
    costs = Costs(3600.0, recorded.telemetry)
    assert costs.charge("m", "chat", 0.25) == 0.25
    [cost] = recorded.points(schema.MODEL_COST.name)
    assert (cost.value, cost.labels["model"], cost.labels["tenant"]) == (0.25, "m", "_none")
    [idle] = recorded.points(schema.MODEL_IDLE_COST.name)
    assert 0 <= idle.value < 60


@pytest.mark.parametrize("price", [3600.0, None])
async def test_answers_say_what_they_cost(
    model_folder: Path, recorded: Recorded, price: float | None
) -> None:
    settings = Settings(local_model_name=str(model_folder), local_usd_per_hour=price)
    app = build(settings, recorded.telemetry)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://a", timeout=60) as http,
    ):
        own = await http.post("/local-inference", json={"prompt": "w1 w2", "max_length": 5})
        chat = {"messages": [{"role": "user", "content": "w1"}], "max_tokens": 5}
        whole = await http.post("/v1/chat/completions", json=chat)
        asked = {**chat, "stream": True, "stream_options": {"include_usage": True}}
        stream = await http.post("/v1/chat/completions", json=asked)
        embedded = await http.post("/v1/embeddings", json={"input": ["a", "b"]})
        models = (await http.get("/v1/models")).json()["data"]
    usages = [whole.json()["usage"], embedded.json()["usage"]]
    local = own.json()["metadata"]["cost_usd"]
    spans = [attributes(span) for span in recorded.spans()]
    told = [each[schema.LOCAL_COST_USD] for each in spans if schema.LOCAL_COST_USD in each]
    if price is None:
        assert local == 0
        assert told == []
        assert all("cost" not in each for each in usages)
        assert '"cost"' not in stream.text
        assert all("max_usd_per_second" not in each for each in models)
        return
    assert all(each["cost"] > 0 for each in usages)
    assert '"cost":' in stream.text
    assert local > 0
    assert [each["max_usd_per_second"] for each in models] == [1.0, 1.0]
    charged = sum(point.value for point in recorded.points(schema.MODEL_COST.name))
    assert charged == pytest.approx(sum(float(str(each)) for each in told))
    assert len(told) == 4


@pytest.mark.parametrize("price", ["-1", "much", "nan"])
def test_a_price_that_is_none_stops_the_service(price: str) -> None:
    with pytest.raises(ValidationError, match="local_usd_per_hour"):
        Settings(local_usd_per_hour=price)
