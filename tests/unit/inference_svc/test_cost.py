"""The cost of the local model: the machine's price, shared out by what each call used of it."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span
from pydantic import ValidationError

from accounting.budget import Budget, with_budgets
from accounting.caller import with_charged
from accounting.ledger import Ledger
from accounting.money import DOLLAR
from accounting.posting import Typical
from accounting.records import INTERRUPTED, Begun
from inference_svc.app import build
from inference_svc.batching import Batcher
from inference_svc.cost import PROVIDER, Costs, Price, estimate, price, priced
from inference_svc.engine import Engine
from inference_svc.generation import Generator
from inference_svc.machine import Consumption, Machine
from inference_svc.model import LanguageModel
from inference_svc.recovery import EngineFailed
from inference_svc.settings import Settings
from inference_svc.steps import Part, Steps, Work
from o11y.telemetry import schema
from o11y.web.problems import Problem
from tests.support.clock import Clock
from tests.support.engines import greedy
from tests.support.recorded import Recorded, attributes
from tests.support.steered import Steered
from tests.unit.inference_svc.conftest import LIMITS

DOLLAR_A_SECOND = Price(1.0)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded("inference-svc", Settings())
    yield recorded
    recorded.telemetry.shutdown()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def machine(clock: Clock) -> Machine:
    return Machine(clock)


@pytest.fixture
def costs(machine: Machine, recorded: Recorded) -> Costs:
    return Costs(DOLLAR_A_SECOND, machine, recorded.telemetry)


def pay(costs: Costs, work: Work) -> float:
    """US dollars that the end of a call with this sequence costs."""
    usd = charge(costs, work.consumption)
    assert usd is not None
    return usd


def charge(costs: Costs, consumption: Consumption, span: Span = INVALID_SPAN) -> float | None:
    """US dollars that a call with this consumption is charged at its end."""

    async def begin_and_settle() -> float | None:
        return (await costs.begin("m", "chat", 1)).settle(span, consumption, 1)

    return asyncio.run(begin_and_settle())


def charged(recorded: Recorded) -> float:
    return sum(point.value for point in recorded.points(schema.MODEL_COST.name))


def idle(recorded: Recorded) -> float:
    [point] = recorded.points(schema.MODEL_IDLE_COST.name)
    return point.value


def test_a_step_is_paid_for_by_slots_and_its_padding_in_proportion(
    clock: Clock, machine: Machine, costs: Costs
) -> None:
    steps = Steps(machine)
    clock.now = 5
    steps.work()
    prompt, answer = Work(), Work()
    parts = [Part(prompt, 0, 30, False), Part(answer, 7, 10, True)]
    steps.begin(parts, slots=64)
    clock.now = 9
    steps.share(parts)
    clock.now = 10  # results are handed over: the next step's
    steps.begin(parts[1:], slots=8)
    clock.now = 11
    steps.share(parts[1:])
    steps.rest()
    clock.now = 100
    assert (pay(costs, prompt), pay(costs, answer)) == (3.0, 3.0)
    assert machine.idle().seconds == 94


def test_a_step_that_fails_and_one_whose_caller_leaves_are_paid_for(
    clock: Clock, machine: Machine, costs: Costs, recorded: Recorded
) -> None:
    steps = Steps(machine)
    left, stayed = Work(), Work()
    parts = [Part(left, 0, 1, True), Part(stayed, 0, 3, True)]
    steps.work()
    step = steps.begin(parts, slots=4)
    clock.now = 4
    steps.share(parts)
    steps.failed(step)
    assert pay(costs, left) == 1.0
    steps.begin(parts, slots=4)
    clock.now = 8
    steps.share(parts)  # its caller had left
    steps.begin([], slots=1, left=1)
    clock.now = 9
    steps.share([])  # nobody is there: the next one's
    assert charged(recorded) == 2.0
    steps.share(parts[1:])
    steps.rest()
    assert pay(costs, stayed) == 7.0
    assert charged(recorded) == machine.each().seconds == 9.0
    assert idle(recorded) == 0


@pytest.fixture
async def engine(
    language_model: LanguageModel, steered: Steered, machine: Machine, clock: Clock
) -> AsyncIterator[Engine]:
    """One whose steps take a second each."""

    def passes(_: int) -> None:
        clock.now += 1

    steered.before = passes
    engine = Engine(language_model, dataclasses.replace(LIMITS, max_requests=2), machine)
    engine.start()
    yield engine
    await engine.stop()


async def test_calls_pay_for_every_second_of_the_engine(
    engine: Engine, steered: Steered, machine: Machine, costs: Costs, recorded: Recorded
) -> None:
    generator = Generator(engine, recorded.telemetry, costs)
    requests = greedy([1, 2, 3]).choices(2)
    calls = [generator.run("chat", requests), generator.run("chat", [greedy([4])])]
    outcomes = await asyncio.gather(*calls)
    steered.errors.append(RuntimeError("a cosmic ray"))
    with pytest.raises(EngineFailed):
        await generator.run("chat", [greedy([1])])
    steered.hold()
    leaving = asyncio.create_task(generator.run("chat", [greedy([1])]))
    await steered.held()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    steered.release()
    outcomes.append(await generator.run("chat", [greedy([1])]))
    busy = machine.each().seconds
    assert charged(recorded) == pytest.approx(busy)
    told = sum(float(str(attributes(each)[schema.LOCAL_COST_USD])) for each in recorded.spans())
    assert told == pytest.approx(busy - 1)  # but for the step in which one left
    assert all(each.usd == each.metadata.cost_usd for each in outcomes)
    assert idle(recorded) == 0


async def test_a_batch_is_paid_for_by_the_size_of_its_items_whatever_becomes_of_it(
    clock: Clock, machine: Machine
) -> None:
    leaving: list[asyncio.Task[object]] = []

    def work(items: list[int]) -> list[int]:
        clock.now += 10
        for task in leaving:
            loop.call_soon_threadsafe(task.cancel)
        if 0 in items:
            raise ValueError("zero")
        return items

    loop = asyncio.get_running_loop()
    batcher = Batcher("items", work, lambda item: item or 5, 100, max_waiting=10, machine=machine)
    small, large, failed, left = (Consumption() for _ in range(4))
    await asyncio.gather(batcher.run([1], small), batcher.run([2, 7], large))
    with pytest.raises(Problem):
        await batcher.run([0], failed)
    paid: list[float] = []
    leaving.append(asyncio.create_task(batcher.run([3], left)))
    with pytest.raises(asyncio.CancelledError):
        await leaving[0]
    left.settle(lambda spent: paid.append(spent.seconds))
    leaving.clear()
    last = Consumption()
    await batcher.run([4], last)
    paid += [each.settle(lambda _: None).seconds for each in (small, large, failed, last)]
    assert sum(paid) == pytest.approx(machine.each().seconds) == 40
    assert paid[-4:] == [1, 9, 10, 10]
    batcher.close()


def test_without_a_price_nothing_is_charged(clock: Clock, recorded: Recorded) -> None:
    machine = Machine(clock)
    consumption = Consumption()
    consumption.add(3.0, 0.0)
    costs = Costs(None, machine, recorded.telemetry)
    assert charge(costs, consumption) is None
    clock.now = 5
    for metric in (schema.MODEL_COST, schema.MODEL_IDLE_COST, schema.MODEL_ENERGY):
        assert recorded.points(metric.name) == []
    assert recorded.points(schema.MODEL_IDLE_ENERGY.name) == []
    assert priced({"total_tokens": 1}, None) == {"total_tokens": 1}


def test_what_nobody_worked_for_is_a_figure_of_its_own(
    clock: Clock, machine: Machine, costs: Costs, recorded: Recorded
) -> None:
    clock.now = 3
    assert idle(recorded) == 3
    began = machine.begin()
    clock.now = 60
    assert idle(recorded) == 3  # not the work that nobody has paid for yet
    consumption = Consumption()
    consumption.add(machine.end().seconds - began.seconds, 0.0)
    charge(costs, consumption)
    clock.now = 61
    assert (charged(recorded), idle(recorded)) == (57, 4)


def test_a_call_that_never_ran_is_no_series(costs: Costs, recorded: Recorded) -> None:
    assert charge(costs, Consumption()) == 0
    assert recorded.points(schema.MODEL_COST.name) == []


def test_energy_has_its_price_beside_the_time(
    clock: Clock, machine: Machine, recorded: Recorded
) -> None:
    both = price(3.6, 0.36, 400.0)  # a dollar in a thousand seconds, another in ten megajoules
    assert both is not None
    assert both.max_usd_per_second == pytest.approx(0.001 + 400 * 1e-7)
    costs = Costs(both, machine, recorded.telemetry)
    machine.draws(50)
    clock.now = 10
    began = machine.begin()
    machine.draws(300)
    clock.now = 30
    spent = machine.end()
    consumption = Consumption()
    consumption.add(spent.seconds - began.seconds, spent.joules - began.joules)
    with recorded.telemetry.tracer.start_as_current_span("chat m") as span:
        usd = charge(costs, consumption, span)
    assert usd == pytest.approx(20 * 0.001 + 6000 * 1e-7)
    assert attributes(recorded.span("chat m")) == {
        schema.ENERGY_JOULES: 6000.0,
        schema.LOCAL_COST_USD: usd,
    }
    [energy] = recorded.points(schema.MODEL_ENERGY.name)
    assert (energy.value, energy.labels) == (
        6000.0,
        {"model": "m", "operation": "chat", "tenant": "_none"},
    )
    [at_rest] = recorded.points(schema.MODEL_IDLE_ENERGY.name)
    assert at_rest.value == 500.0
    assert idle(recorded) == pytest.approx(10 * 0.001 + 500 * 1e-7)


def test_energy_is_told_without_a_price(machine: Machine, recorded: Recorded) -> None:
    consumption = Consumption()
    consumption.add(1.0, 250.0)
    charge(Costs(None, machine, recorded.telemetry), consumption)
    [energy] = recorded.points(schema.MODEL_ENERGY.name)
    assert energy.value == 250.0
    assert recorded.points(schema.MODEL_COST.name) == []


def test_the_price_of_energy_alone_is_one_where_energy_is_measured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert price(None, 0.36, 500.0) == Price(0.0, 0.36 / 3.6e6, 500.0)
        assert price(None, None, 500.0) is None
        assert caplog.messages == []
        assert price(None, 0.36, None) is None
        assert price(3600, 0.36, None) == Price(1.0)
    assert (
        caplog.messages == ["USD_PER_KWH has no effect: no GPU here tells the energy it uses"] * 2
    )


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
    usages = [whole.json()["usage"], embedded.json()["usage"]]
    local = own.json()["metadata"]["cost_usd"]
    spans = [attributes(span) for span in recorded.spans()]
    told = [each[schema.LOCAL_COST_USD] for each in spans if schema.LOCAL_COST_USD in each]
    if price is None:
        assert local == 0
        assert told == []
        assert all("cost" not in each for each in usages)
        assert '"cost"' not in stream.text
        return
    assert all(each["cost"] > 0 for each in usages)
    assert '"cost":' in stream.text
    assert local > 0
    charged = sum(point.value for point in recorded.points(schema.MODEL_COST.name))
    assert charged == pytest.approx(sum(float(str(each)) for each in told))
    assert len(told) == 4


@pytest.mark.parametrize(("usd_per_second", "is_refused"), [(1.0, True), (None, False)])
async def test_budgets_need_a_ledger_where_there_is_a_price(
    machine: Machine, recorded: Recorded, usd_per_second: float | None, is_refused: bool
) -> None:
    price = None if usd_per_second is None else Price(usd_per_second)
    costs = Costs(price, machine, recorded.telemetry)
    token = context.attach(with_budgets(Context(), [Budget("key", "k", "day", DOLLAR)]))
    try:
        if is_refused:
            with pytest.raises(Problem, match="DATABASE_URL at inference-svc"):
                await costs.begin("m", "chat", 1)
        else:
            await costs.begin("m", "chat", 1)
    finally:
        context.detach(token)


async def test_what_costs_nothing_needs_no_budget(
    machine: Machine, recorded: Recorded, tmp_path: Path
) -> None:
    """Also while the database is away."""
    (tmp_path / "away").touch()
    away = f"sqlite:///{tmp_path}/away/o11y.db"
    ledger = Ledger(away, tmp_path, lambda *_: pytest.fail("a call died"))
    token = context.attach(with_budgets(Context(), [Budget("key", "k", "day", 1)]))
    try:
        await Costs(None, machine, recorded.telemetry, ledger).begin("m", "chat", 1)
        with pytest.raises(Problem, match="the database is away"):
            await Costs(DOLLAR_A_SECOND, machine, recorded.telemetry, ledger).begin("m", "chat", 1)
    finally:
        context.detach(token)


async def test_what_its_caller_charges_is_not_charged_here(
    machine: Machine, recorded: Recorded, tmp_path: Path
) -> None:
    ledger = Ledger(
        f"sqlite:///{tmp_path}/o11y.db", tmp_path, lambda *_: pytest.fail("a call died")
    )
    costs = Costs(DOLLAR_A_SECOND, machine, recorded.telemetry, ledger)
    async with ledger.running():
        for parent, rows in ((with_charged(Context()), 0), (Context(), 1)):
            token = context.attach(parent)
            charge = await costs.begin("m", "chat", 1)
            context.detach(token)
            consumption = Consumption()
            consumption.add(2.0, 0.0)
            before = ledger.waiting
            assert charge.settle(INVALID_SPAN, consumption, 1) == 2.0
            assert ledger.waiting - before == rows


@pytest.mark.parametrize(
    ("price", "cost", "expected"),
    [
        (DOLLAR_A_SECOND, DOLLAR // 100, DOLLAR // 100),
        (DOLLAR_A_SECOND, None, 60 * DOLLAR),
        (None, None, 0),
        (None, DOLLAR, 0),
    ],
)
def test_a_call_that_died_costs_what_others_do_or_the_most_it_can(
    price: Price | None, cost: int | None, expected: int
) -> None:
    begun = Begun("a", 1.0, "chat", PROVIDER, "m", 7, 20, "t", "k")
    row = estimate(price, 60, begun, Typical(12, cost))
    assert (row.cost, row.estimated, row.status) == (expected, True, INTERRUPTED)
    assert (row.input_tokens, row.output_tokens, row.tenant) == (7, 12, "t")


@pytest.mark.parametrize("name", ["local_usd_per_hour", "usd_per_kwh"])
@pytest.mark.parametrize("price", ["-1", "much", "nan", "inf"])
def test_a_price_that_is_none_stops_the_service(name: str, price: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: price})
