"""This package: whole evaluations, from the input file to the output file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import boto3

from benchmarks.contestant import Answer, Reply, Settings, peak_resident_bytes, serve
from benchmarks.cpu_time import CpuClock
from clip_operator import evaluate, model
from clip_operator.request import EvaluationRequest
from clip_operator.storage import S3Access, Storage


def load(settings: Settings) -> Answer:
    """Make ready to evaluate.

    :param settings: ``request``, fields of every request; ``store``, the S3 server if there is one.
    """
    storage = _storage(settings.get("store"))
    clock = _LoadingClock()

    def answer(request: Settings) -> Reply:
        """Run an evaluation; ``request`` holds more fields of it.

        The reply's CPU times, less that of loading the model, are those of this process and of all of the job's.
        """
        clock.seconds, clock.cpu_seconds = None, 0.0
        cpu, began = CpuClock(), time.perf_counter()
        manifest = evaluate(EvaluationRequest(**{"overwrite": True, **settings["request"], **request}), storage)
        seconds, spent = time.perf_counter() - began, cpu.elapsed()
        if manifest.rows.failed:
            raise RuntimeError(f"{manifest.rows.failed} rows have no score: {manifest.rows.failures}")
        return {
            "rows": manifest.rows.total,
            "whole_seconds": seconds,
            "loading_seconds": clock.seconds,
            "own_cpu_seconds": spent.own - clock.cpu_seconds,
            "job_cpu_seconds": spent.job - clock.cpu_seconds,
            "peak_bytes": peak_resident_bytes(),
            **manifest.model_dump(mode="json")["throughput"],
        }

    return answer


class _LoadingClock:
    """Measures how long evaluations take to find and load their model, which the rates leave out, and the CPU time."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.cpu_seconds = 0.0
        for name in ("find_checkpoint", "load_encoder"):
            setattr(model, name, self._timed(getattr(model, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            cpu_before, began = time.process_time(), time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds = (self.seconds or 0.0) + time.perf_counter() - began
                self.cpu_seconds += time.process_time() - cpu_before

        return timed


def _storage(store: Settings | None) -> Storage:
    if store is None:
        return Storage()
    session = boto3.session.Session(store["access_key"], store["secret_key"], region_name="us-east-1")
    return Storage(S3Access(session, store["endpoint_url"]))


if __name__ == "__main__":
    serve(load)
