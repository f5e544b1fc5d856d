"""What it costs to feed a device that computes at once, over bare decoding of the same files."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant, Reply
from benchmarks.cpu_time import seconds_of
from benchmarks.dataset import Dataset, write_dataset
from benchmarks.latency import distant
from benchmarks.photos import VGA, photos
from benchmarks.record import Goal, Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench
from demo.object_store import ObjectStore, object_store, weed_command

ROUNDS = 3
_SMALL = (256, 256)
_LATENCY_SECONDS = 0.02
_BUCKET = "benchmark"
LOCAL, NEAR, FAR = "local files", "S3", "S3, 20 ms away"
_MOST_OWN_MILLISECONDS = 0.15


@dataclass(frozen=True)
class Scenario:
    """Images of a size from a place, and what is wanted of the job.

    :param most_cpu: CPU time of a row, over that of bare decoding.
    :param least_rate: rows/s, over those of bare decoding.
    """

    size: tuple[int, int]
    place: str
    most_cpu: float | None = None
    least_rate: float | None = None

    @property
    def name(self) -> str:
        return f"{_named(self.size)}, {self.place}"


SCENARIOS = [
    Scenario(_SMALL, LOCAL, most_cpu=1.25),
    Scenario(_SMALL, NEAR, most_cpu=1.5),
    Scenario(VGA, LOCAL, least_rate=0.85),
    Scenario(VGA, NEAR, most_cpu=1.15),
    Scenario(VGA, FAR, least_rate=0.80),
]


def run(bench: Workbench) -> Record:
    """Evaluate without computing embeddings, from each place in turn, beside bare decoding in a process a core."""
    record = Record("feeding", {"latency_seconds": _LATENCY_SECONDS, "device": "cpu"})
    found = measure(bench, "cpu", SCENARIOS, record)
    for scenario in SCENARIOS:
        fed, bare = found.get(scenario.name), found[_named(scenario.size)]
        own = None if fed is None else median([1000 * each["own_cpu_seconds_of_a_row"] for each in fed])
        record.goals.append(Goal(f"{scenario.name}: own CPU ms a row", own, at_most=_MOST_OWN_MILLISECONDS))
        if scenario.most_cpu is not None:
            cpu = None if fed is None else median(_over(fed, "job_cpu_seconds_of_a_row", bare))
            record.goals.append(Goal(f"{scenario.name}: CPU over bare decoding", cpu, at_most=scenario.most_cpu))
        if scenario.least_rate is not None:
            rate = None if fed is None else median(_over(fed, "rows_per_second_without_server", bare))
            record.goals.append(Goal(f"{scenario.name}: rate over bare decoding", rate, at_least=scenario.least_rate))
    return record


def measure(
    bench: Workbench, device: str, scenarios: Sequence[Scenario], record: Record
) -> dict[str, list[dict[str, Any]]]:
    """Measure scenarios, and bare decoding of their images; add tables, figures and settings to the record.

    :returns: what was measured in each round, by scenario, and by size of bare decoding.
    """
    sizes = list(dict.fromkeys(scenario.size for scenario in scenarios))
    datasets = {size: _datasets(bench, size) for size in sizes}
    rounds = bench.pick(ROUNDS, 1)
    record.settings["feeding"] = {
        "rounds": rounds,
        **{_named(size): {"rows": [len(part.rows) for part in parts]} for size, parts in datasets.items()},
    }
    if weed_command() is None:
        record.not_measured.append("feeding from S3: SeaweedFS is not installed")
        scenarios = [scenario for scenario in scenarios if scenario.place == LOCAL]
    with ExitStack() as stack:
        sources = {LOCAL: _Source(str(bench.data), str(bench.scratch))}
        if any(scenario.place != LOCAL for scenario in scenarios):
            sources |= stack.enter_context(_stores(bench, [part for parts in datasets.values() for part in parts]))
        request = {"model": str(vit_b_32(bench.data)), "device": device, "embedding_cache_bytes": 0}
        jobs = {}
        for place in dict.fromkeys(scenario.place for scenario in scenarios):
            settings = {"request": request, "store": sources[place].access}
            log = bench.log(f"feeding-{place.replace(', ', '-').replace(' ', '-')}")
            jobs[place] = stack.enter_context(Contestant("feeding", settings, log))
            _evaluate(jobs[place], sources[place], datasets[sizes[0]][0])  # warms it up
        images = {size: [path for path, _ in full.first(len(full.rows))] for size, (_, full) in datasets.items()}
        bare_settings = {"processes": _cores(), "warm_up": images[sizes[0]][0]}
        bare = stack.enter_context(Contestant("bare_decoding", bare_settings, bench.log("feeding-bare")))
        runs: dict[str, Callable[[], Reply]] = {}
        for size in sizes:
            runs[_named(size)] = partial(_decode, bare, images[size])
            for scenario in scenarios:
                if scenario.size == size:
                    parts = datasets[size]
                    runs[scenario.name] = partial(_feed, jobs[scenario.place], sources[scenario.place], *parts)
        found = alternate(runs, rounds)
    record.measurements["feeding"] = found
    record.tables += _tables(found, [scenario for scenario in scenarios if scenario.name in found])
    return found


@dataclass(frozen=True)
class _Source:
    """Where data sets are and results go.

    :param access: how a contestant reaches the server, if it is one.
    :param server: the server's process.
    """

    folder: str
    results: str
    access: Mapping[str, str] | None = None
    server: int | None = None

    def server_seconds(self) -> float:
        """Return the CPU time of the server, and of the proxy, which is in this process."""
        return 0.0 if self.server is None else seconds_of(self.server) + time.process_time()


@contextmanager
def _stores(bench: Workbench, datasets: Sequence[Dataset]) -> Iterator[dict[str, _Source]]:
    """Run an S3 server with the data sets, and a proxy that lets it be far away."""
    folder = bench.scratch / "feeding-store"
    shutil.rmtree(folder, ignore_errors=True)
    with object_store(folder) as store, distant(store.endpoint_url, _LATENCY_SECONDS) as far_url:
        store.make_bucket(_BUCKET)
        client = store.client()
        for dataset in datasets:
            for name in {dataset.path.name, *(image for image, _ in dataset.rows)}:
                client.put_object(Bucket=_BUCKET, Key=name, Body=(dataset.path.parent / name).read_bytes())
        yield {
            place: _Source(
                f"s3://{_BUCKET}",
                f"s3://{_BUCKET}/results",
                {"endpoint_url": at.endpoint_url, "access_key": at.access_key, "secret_key": at.secret_key},
                store.process,
            )
            for place, at in {NEAR: store, FAR: ObjectStore(far_url)}.items()
        }
    shutil.rmtree(folder, ignore_errors=True)


def _datasets(bench: Workbench, size: tuple[int, int]) -> tuple[Dataset, Dataset]:
    """Return a data set of a few rows and one of many, which repeat the images and are all prepared all the same."""
    rows = bench.pick(4096 if size == _SMALL else 2048, 48)
    few, images = bench.pick(256, 16), bench.pick(1024, 16)
    names = photos(bench.data, images, size)

    def dataset(count: int) -> Dataset:
        title = f"feeding-{size[0]}x{size[1]}-{count}"
        return write_dataset(bench.data, title, [names[row % images] for row in range(count)])

    return dataset(few), dataset(few + rows)


def _feed(job: Contestant, source: _Source, few: Dataset, many: Dataset) -> Reply:
    """Return what the rows cost that the larger data set has more: without what a job takes whatever its rows."""
    less, more = (_evaluate(job, source, dataset) for dataset in (few, many))
    costs = {name: more[name] - less[name] for name in ("rows", "seconds", *_CPU)}
    rows, seconds = costs["rows"], costs["seconds"]
    share = costs["server_cpu_seconds"] / (seconds * _cores())
    return {
        **costs,
        **{f"{name}_of_a_row": costs[name] / rows for name in _CPU},
        "rows_per_second": rows / seconds,
        "server_share_of_the_machine": share,
        "rows_per_second_without_server": rows / seconds / (1 - share),
        "jobs": [less, more],
    }


_CPU = ("own_cpu_seconds", "job_cpu_seconds", "server_cpu_seconds")


def _evaluate(job: Contestant, source: _Source, dataset: Dataset) -> Reply:
    before = source.server_seconds()
    reply = job.ask(input=f"{source.folder}/{dataset.path.name}", output=f"{source.results}/{dataset.path.name}")
    server = source.server_seconds() - before
    if reply["images_encoded"] != len(dataset.rows):
        raise RuntimeError(f"{reply['images_encoded']} images were prepared for {len(dataset.rows)} rows")
    seconds = reply["whole_seconds"] - (reply["loading_seconds"] or 0.0)
    return {**reply, "seconds": seconds, "server_cpu_seconds": server}


def _decode(bare: Contestant, images: Sequence[str]) -> Reply:
    reply = bare.ask(images=images)
    rows = reply["rows"]
    return {
        **reply,
        "job_cpu_seconds_of_a_row": reply["cpu_seconds"] / rows,
        "rows_per_second_without_server": rows / reply["seconds"],
    }


def _over(fed: Sequence[Reply], figure: str, bare: Sequence[Reply]) -> list[float]:
    return ratios([each[figure] for each in fed], [each[figure] for each in bare])


def _tables(found: Mapping[str, Sequence[Reply]], scenarios: Sequence[Scenario]) -> Iterator[Table]:
    rates, costs = [], []
    for size in dict.fromkeys(scenario.size for scenario in scenarios):
        bare = found[_named(size)]
        name = f"{_named(size)}, bare decoding"
        rates.append([name, spread([each["rows_per_second_without_server"] for each in bare], 0), "", "", ""])
        costs.append([name, "", _milliseconds(bare, "job_cpu_seconds_of_a_row"), "", ""])
        for scenario in (each for each in scenarios if each.size == size):
            fed = found[scenario.name]
            rates.append(
                [
                    scenario.name,
                    spread([each["rows_per_second"] for each in fed], 0),
                    f"{median([each['server_share_of_the_machine'] for each in fed]):.0%}",
                    spread([each["rows_per_second_without_server"] for each in fed], 0),
                    spread(_over(fed, "rows_per_second_without_server", bare), 2),
                ]
            )
            costs.append(
                [
                    scenario.name,
                    _milliseconds(fed, "own_cpu_seconds_of_a_row"),
                    _milliseconds(fed, "job_cpu_seconds_of_a_row"),
                    spread(_over(fed, "job_cpu_seconds_of_a_row", bare), 2),
                    _milliseconds(fed, "server_cpu_seconds_of_a_row"),
                ]
            )
    columns = ["", "rows/s", "of the machine: the server", "rows/s without it", "of bare decoding"]
    yield Table(f"Feeding a device that computes at once, on {_cores()} cores", columns, rates)
    columns = ["", "own process", "whole job", "over bare decoding", "the server"]
    yield Table("CPU time of a row, ms", columns, costs)


def _milliseconds(found: Sequence[Reply], figure: str) -> str:
    return spread([1000 * each[figure] for each in found], 2)


def _named(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
