"""The pixels that large images share: what waits for what, and in which order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.images.workers.pixel_budget import PixelBudget


def asked(budget: PixelBudget, *wishes: tuple[int, int]) -> list[int]:
    for holder, pixels in wishes:
        budget.ask(holder, pixels)
    return budget.grant()


def test_images_that_fit_together_are_decoded_at_once() -> None:
    budget = PixelBudget(400)
    assert asked(budget, (1, 200), (2, 200), (3, 1)) == [1, 2]
    budget.release(1)
    assert budget.grant() == [3]


def test_an_image_above_all_of_it_is_decoded_alone() -> None:
    budget = PixelBudget(100)
    assert asked(budget, (1, 1), (2, 200), (3, 1)) == [1]
    budget.release(1)
    assert budget.grant() == [2]
    budget.release(2)
    assert budget.grant() == [3]


def test_who_asks_first_is_served_first() -> None:
    budget = PixelBudget(200)
    assert asked(budget, (1, 190)) == [1]
    assert asked(budget, (2, 200), (3, 1)) == []  # the small one would fit
    budget.release(1)
    assert budget.grant() == [2]


def test_a_worker_that_dies_wishes_for_nothing_any_more() -> None:
    budget = PixelBudget(200)
    assert asked(budget, (1, 200), (2, 200), (3, 200)) == [1]
    budget.release(2)
    budget.release(1)
    assert budget.grant() == [3]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5)), max_size=40))
def test_never_more_than_the_budget_is_held_and_everyone_has_a_turn(wishes: list[tuple[int, int]]) -> None:
    budget, held, served = PixelBudget(200), dict[int, int](), []
    pixels_of: dict[int, int] = {}

    def grant() -> None:
        for holder in budget.grant():
            held[holder] = pixels_of[holder]
            served.append(holder)
        assert len(held) <= 1 or sum(held.values()) <= 200

    for holder, (pixels, leave) in enumerate(wishes):
        pixels_of[holder] = pixels
        budget.ask(holder, pixels)
        grant()
        for gone in list(held)[:leave]:
            del held[gone]
            budget.release(gone)
            grant()
    while held:
        gone = next(iter(held))
        del held[gone]
        budget.release(gone)
        grant()
    assert served == list(range(len(wishes)))
