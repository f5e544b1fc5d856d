"""The time that went by is divided among the model's work and what it waited for, and none is lost."""

from __future__ import annotations

import pytest

from clip_operator.scoring.utilisation import Activity, Utilisation


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("clip_operator.scoring.utilisation.time.perf_counter", made)
    return made


def test_lanes_that_compute_count_as_encoding_and_the_others_as_what_they_wait_for(clock: Clock) -> None:
    utilisation = Utilisation(lanes=2)
    clock.now += 1  # both idle, while rows are read
    utilisation.idle_lanes_wait_for(Activity.FETCH)
    clock.now += 2
    with utilisation.computing():
        clock.now += 2  # one of two
        utilisation.idle_lanes_wait_for(Activity.DECODE)
        clock.now += 2
        with utilisation.computing():
            clock.now += 2  # both
    utilisation.idle_lanes_wait_for(Activity.WRITE)
    clock.now += 1
    utilisation.end()
    clock.now += 100
    assert utilisation.seconds == 10
    assert utilisation.shares() == {"read": 0.1, "fetch": 0.3, "decode": 0.1, "encode": 0.4, "write": 0.1, "save": 0}


def test_work_that_fails_was_work_too(clock: Clock) -> None:
    utilisation = Utilisation(lanes=1)

    def fail() -> None:
        with utilisation.computing():
            clock.now += 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock.now += 1
    assert utilisation.shares()["encode"] == 0.75
