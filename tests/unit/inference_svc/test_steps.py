"""The account of the steps: what was computed, and what of it was used."""

import pytest

from inference_svc.machine import Machine
from inference_svc.steps import Occupancy, Part, Steps, Work, occupancy


@pytest.fixture
def steps() -> Steps:
    return Steps(Machine())


def run(steps: Steps, work: Work, *lengths: int, past: int = 0) -> None:
    """Steps with this sequence alone, of so many tokens each; the last of them, and each after the
    first, brings a token.
    """
    for length in lengths:
        steps.landed(steps.begin([Part(work, past, length, True)], length))
        past += length


def test_a_sequence_alone_uses_all_that_was_computed(steps: Steps) -> None:
    work = Work()
    run(steps, work, 3, 1, 1, 1)  # 3 tokens of prompt, 4 of answer
    steps.settle(work, taken=6)
    assert occupancy([work]) == Occupancy(4, 1.0, 1, 1.0)
    assert work.tokens == 4


def test_padding_is_not_used(steps: Steps) -> None:
    work = Work()
    steps.begin([Part(work, 0, 6, True)], slots=8)
    assert occupancy([work]).efficiency == 6 / 8


def test_what_lies_past_the_last_token_taken_is_not_used(steps: Steps) -> None:
    work = Work()
    run(steps, work, 3, 1, 1, 1, 1)
    steps.settle(work, taken=5)
    assert occupancy([work]).efficiency == 5 / 7


def test_what_is_computed_after_the_end_is_not_used(steps: Steps) -> None:
    work = Work()
    run(steps, work, 3, 1)
    steps.settle(work)  # left: so far all was used
    assert occupancy([work]).efficiency == 1
    run(steps, work, 1, past=4)
    assert occupancy([work]).efficiency == 4 / 5


def test_what_an_eviction_makes_it_compute_again_is_not_used(steps: Steps) -> None:
    work = Work()
    run(steps, work, 3, 1, 1)
    run(steps, work, 4, 2)  # from the start, in two steps: 5 positions again, one new
    steps.settle(work, taken=6)
    assert occupancy([work]).efficiency == 6 / 11


def test_a_prefix_found_in_the_cache_is_neither_computed_nor_used(steps: Steps) -> None:
    work = Work()
    run(steps, work, 10, 1, past=64)
    steps.settle(work, taken=75)
    assert occupancy([work]).efficiency == 1


def test_nothing_of_a_step_that_failed_is_used(steps: Steps) -> None:
    work = Work()
    run(steps, work, 4)
    steps.failed(steps.begin([Part(work, 4, 1, True)], 1))
    steps.settle(work)
    assert occupancy([work]).efficiency == 4 / 5


def test_a_call_sees_the_others_in_its_steps_and_each_step_once(steps: Steps) -> None:
    mine, also_mine, other = Work(), Work(), Work()
    steps.begin([Part(other, 0, 5, True)], 5)  # not mine
    steps.begin([Part(mine, 0, 3, True), Part(also_mine, 0, 3, True), Part(other, 5, 1, True)], 7)
    steps.begin([Part(mine, 3, 1, True), Part(other, 6, 1, True)], 2)
    steps.settle(other, taken=5)  # a stop text: its last two were for nothing
    full = occupancy([mine, also_mine])
    assert (full.steps, full.mean, full.most) == (2, 2.5, 3)
    assert full.efficiency == 7 / 9


def test_one_who_has_gone_counts_but_is_not_used(steps: Steps) -> None:
    work = Work()
    steps.begin([Part(work, 0, 2, True)], slots=3, left=1)
    assert occupancy([work]) == Occupancy(1, 2.0, 2, 2 / 3)


def test_a_call_without_a_step_has_no_occupancy() -> None:
    assert occupancy([Work()]) == Occupancy(0, 0.0, 0, 0.0)
