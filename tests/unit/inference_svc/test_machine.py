"""The machine: its time and energy at work and at rest, and who pays for which."""

from inference_svc.machine import Consumption, Machine, Meter, Spent
from tests.support.clock import Clock


def test_who_works_alone_has_all_and_two_have_half_each() -> None:
    clock = Clock()
    machine = Machine(clock)
    clock.now = 10
    first = machine.begin()
    clock.now = 14
    second = machine.begin()
    clock.now = 20
    first_has = machine.end().seconds - first.seconds
    clock.now = 21
    second_has = machine.end().seconds - second.seconds
    clock.now = 30
    assert (first_has, second_has) == (7, 4)
    assert machine.idle().seconds == 30 - (7 + 4)


def test_energy_is_that_of_the_power_at_the_time() -> None:
    clock = Clock()
    machine = Machine(clock)
    machine.draws(50)
    clock.now = 10
    machine.begin()
    clock.now = 11
    machine.draws(300)
    clock.now = 13
    machine.begin()
    clock.now = 15
    assert machine.each() == Spent(4, 50 + 600 + 300)
    assert machine.idle() == Spent(10, 500)


def test_what_comes_after_the_end_of_a_call_is_paid_for_as_it_comes() -> None:
    paid: list[Spent] = []
    consumption = Consumption()
    consumption.add(1, 10)
    consumption.add(2, 20)
    assert consumption.settle(paid.append) == Spent(3, 30)
    consumption.add(4, 40)
    assert paid == [Spent(3, 30), Spent(4, 40)]


def test_power_is_worked_out_from_what_was_used_between_two_readings() -> None:
    clock = Clock()
    machine = Machine(clock)
    meter = Meter(machine, most=100)
    drawn: list[float] = []
    for at, joules in [
        (1, 1000),
        (2, 1040),  # 40 W
        (4, 1200),  # 80 W
        (5, 1350),  # 150 W: more than there can be
        (5, 1350),  # no time has passed
        (6, 10),  # the driver was loaded anew
        (7, 70),  # 60 W
        (8, None),  # not told any more
        (9, 900),
        (10, 950),  # 50 W
    ]:
        meter.read(joules, at)
        before = machine.idle().joules
        clock.now += 1
        drawn.append(machine.idle().joules - before)
    assert drawn == [0, 40, 80, 100, 0, 0, 60, 0, 0, 50]
