"""What the tasks of DAGs write: that no two write one output, and none reads what another has not written yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from clip_operator.errors import RequestError
from clip_operator.operators.asked import CALLED, defaults_of, has_own_init, known_among, marks_of, selections_of
from clip_operator.operators.parameters import is_unset
from clip_operator.request import EvaluationRequest, decides_output
from clip_operator.steps import StepSeries

NAMES_OF_OUTPUT = ("cache_path", "file_name_prefix", "cache_type", "step")
"""The parameters that name the output of a task."""

# What is the same for all tasks of a run.
_OF_THE_RUN = frozenset(
    {
        *("params", "var", "conn", "dag", "dag_run", "run_id"),
        *("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"),
        *("logical_date", "data_interval_start", "data_interval_end"),
    }
)
# What is the same for all DAGs.
_OF_AIRFLOW = frozenset({"var", "conn"})


@dataclass(frozen=True)
class Writer:
    """A task that writes a step.

    :param task: an operator, mapped or not.
    :param given: its parameters, as the DAG's file gives them.
    :param names: what the templates in the names of its output use.
    """

    file: str
    dag: Any
    task: Any
    given: Mapping[str, Any]
    names: frozenset[str]

    @property
    def key(self) -> tuple[str, ...]:
        """What names its output, as it is written down."""
        return tuple(str(self.given[name]) for name in NAMES_OF_OUTPUT)

    @property
    def output(self) -> str:
        """Its output, for people."""
        return _output_of(self.key)

    @property
    def steps(self) -> tuple[tuple[str, ...], ...]:
        """What names each step that it writes: its output and, where the DAG's file tells that there are such, those
        with some of the output's rows."""
        folder, prefix, cache_type, step = self.key
        series, known = StepSeries("", folder, prefix, cache_type), known_among(self.given, marks_of(self.dag))
        meant = {name: None if is_unset(self.given[name]) else self.given[name] for name in known}
        try:
            kinds = selections_of(meant).values()
        except RequestError:  # which is told of the task itself
            return (self.key,)
        return (self.key, *((folder, series.selection(kind).file_name_prefix, cache_type, step) for kind in kinds))

    @property
    def embeddings(self) -> str | None:
        """Its folder for embeddings, where the DAG's file tells which that is."""
        folder = self.given.get("embeddings_path")
        is_told = not is_unset(folder) and known_among({"embeddings_path": folder}, marks_of(self.dag))
        return str(folder).strip().rstrip("/") if is_told else None

    def is_the_runs(self, names: frozenset[str]) -> bool:
        """Tell whether the names of its output depend on nothing but what has one of these names."""
        return self.names <= names


def writer_of(file: str, dag: Any, task: Any, given: Mapping[str, Any], names: frozenset[str]) -> Writer | None:
    """Return a task as one that writes, if the names of what it writes stand in the DAG's file."""
    operator: type = task.operator_class if task.is_mapped else type(task)
    values = {**(defaults_of(operator) if has_own_init(operator) or not task.is_mapped else {}), **given}
    if not all(isinstance(values.get(name), str | int) for name in NAMES_OF_OUTPUT) or values["step"] == "latest":
        return None
    return Writer(file, dag, task, values, names)


def shared_within(writers: Sequence[Writer]) -> Iterator[tuple[Writer, str]]:
    """Yield what is wrong with the outputs of one DAG's tasks."""
    writers = [writer for writer in writers if writer.is_the_runs(_OF_THE_RUN)]
    for one, other in combinations(writers, 2):
        shared = _shared(one, other)
        if shared is None or _may_be_skipped(one.task) or _may_be_skipped(other.task):
            continue
        first, second = (other, one) if _waits_for(one.task, other.task) else (one, other)
        is_ordered = _waits_for(second.task, first.task)
        if is_ordered and (_replaces(second) or _is_alike(first, second)):
            continue
        yield (
            second,
            f"it writes {shared.place}, which {first.task.task_id!r} writes, too: give one of them another "
            f"{shared.named_by}",
        )
    for one in writers:
        if _is_in_mapped_group(one.task):
            yield (
                one,
                f"each instance of its mapped group writes {one.output}: give each a cache_path or file_name_prefix of "
                "its own, from what is mapped or with {{ ti.map_index }}",
            )


def not_waited_for(writers: Sequence[Writer]) -> Iterator[tuple[Writer, str]]:
    """Yield the tasks that read a step which another task of the DAG writes, and do not wait for it."""
    for reader in writers:
        step = reader.key[3]
        for writer in writers if step.isdecimal() and int(step) > 0 else ():
            is_read = (*reader.key[:3], str(int(step) - 1)) in writer.steps
            if is_read and not _waits_for(reader.task, writer.task):
                yield (
                    reader,
                    f"it reads step {step}, which {writer.task.task_id!r} writes, and does not wait for it: write "
                    f"{writer.task.task_id} >> {reader.task.task_id}",
                )


def shared_between(writers: Sequence[Writer]) -> Iterator[tuple[Writer, str]]:
    """Yield what is wrong with outputs that several DAGs write."""
    for one, other in combinations([writer for writer in writers if writer.is_the_runs(_OF_AIRFLOW)], 2):
        shared = None if one.dag.dag_id == other.dag.dag_id else _shared(one, other)
        if shared is None:
            continue
        if not (_is_alike(one, other) or _replaces(one) or _replaces(other)):
            yield (
                other,
                f"it writes {shared.place}, and so does {one.task.task_id!r} of the DAG {one.dag.dag_id!r} with other "
                f"parameters: give one of them another {shared.named_by}",
            )


@dataclass(frozen=True)
class _Shared:
    """What two tasks write, for people, and which parameters name it."""

    place: str
    named_by: str


def _shared(one: Writer, other: Writer) -> _Shared | None:
    theirs = one.steps
    if (key := next((key for key in other.steps if key in theirs), None)) is not None:
        return _Shared(_output_of(key), "cache_path or file_name_prefix")
    if other.embeddings is not None and other.embeddings == one.embeddings:
        return _Shared(f"its embeddings to {other.embeddings}", "embeddings_path")
    return None


def _output_of(key: tuple[str, ...]) -> str:
    folder, prefix, cache_type, step = key
    number = str(int(step) + 1) if step.isdecimal() else f"({step}) + 1"
    return f"{folder.rstrip('/')}/{prefix}_step{number}.{cache_type}"


def _replaces(writer: Writer) -> bool:
    """Tell whether a task may be meant to write over what stands there."""
    overwrite = writer.given.get("overwrite", False)
    return str(overwrite).strip().lower() not in ("false", "0", "no", "off", "f", "n") or not is_unset(
        writer.given.get("rescore")
    )


def _is_alike(one: Writer, other: Writer) -> bool:
    """Tell whether two tasks ask for the same, which is done once."""
    fields = (name for name in EvaluationRequest.model_fields if decides_output(name))
    names = ("first_entry_file_name", "output_layout", *(CALLED.get(name, name) for name in fields))
    return one.key == other.key and all(str(one.given.get(name)) == str(other.given.get(name)) for name in names)


def _waits_for(task: Any, other: Any) -> bool:
    return other.task_id in task.get_flat_relative_ids(upstream=True)


def _may_be_skipped(task: Any) -> bool:
    """Tell whether a task may be one of several ways, of which a run goes one."""
    if str(getattr(task.trigger_rule, "value", task.trigger_rule)) != "all_success":
        return True
    return any(getattr(before, "inherits_from_skipmixin", False) for before in task.get_flat_relatives(upstream=True))


def _is_in_mapped_group(task: Any) -> bool:
    return next(iter(task.iter_mapped_task_groups()), None) is not None
