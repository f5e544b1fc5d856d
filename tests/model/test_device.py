"""The device is the one asked for, or an error; by default the best there is."""

from __future__ import annotations

import pytest
import torch

from clip_operator.errors import JobError
from clip_operator.model import choose_device


def test_by_default_the_gpu_is_taken_if_there_is_one_and_the_choice_is_explained() -> None:
    device = choose_device(None)
    if torch.cuda.is_available():
        assert device.name == "cuda"
        assert torch.cuda.get_device_name() in device.reason
    else:
        assert device.name == "cpu"
        assert "no GPU" in device.reason


def test_the_cpu_can_be_asked_for() -> None:
    device = choose_device("cpu")
    assert (device.name, device.reason) == ("cpu", "asked for by the request")


@pytest.mark.parametrize("wanted", ["cuda:77", "banana", "cpu:x", "", "meta:", "cuda:-1"])
def test_a_device_that_is_not_there_is_an_error_and_not_replaced(wanted: str) -> None:
    with pytest.raises(JobError, match=f"device '{wanted}' cannot be used here: .*leave device out"):
        choose_device(wanted)
