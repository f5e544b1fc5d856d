"""What the tasks of DAGs write: that no two write one output, and none reads what another has not written yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from clip_operator.operators.asked import CALLED, defaults_of, has_own_init
from clip_operator.operators.parameters import is_unset
from clip_operator.request import EvaluationRequest, decides_output

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
        folder, prefix, cache_type, step = self.key
        number = str(int(step) + 1) if step.isdecimal() else f"({step}) + 1"
        return f"{folder.rstrip('/')}/{prefix}_step{number}.{cache_type}"

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
        if one.key != other.key or _may_be_skipped(one.task) or _may_be_skipped(other.task):
            continue
        first, second = (other, one) if _waits_for(one.task, other.task) else (one, other)
        is_ordered = _waits_for(second.task, first.task)
        if is_ordered and (_replaces(second) or _is_alike(first, second)):
            continue
        yield (
            second,
            f"it writes {second.output}, which {first.task.task_id!r} writes, too: give one of them another cache_path "
            "or file_name_prefix",
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
            is_read = writer.key[:3] == reader.key[:3] and writer.key[3] == str(int(step) - 1)
            if is_read and not _waits_for(reader.task, writer.task):
                yield (
                    reader,
                    f"it reads step {step}, which {writer.task.task_id!r} writes, and does not wait for it: write "
                    f"{writer.task.task_id} >> {reader.task.task_id}",
                )


def shared_between(writers: Sequence[Writer]) -> Iterator[tuple[Writer, str]]:
    """Yield what is wrong with outputs that several DAGs write."""
    for one, other in combinations([writer for writer in writers if writer.is_the_runs(_OF_AIRFLOW)], 2):
        if one.dag.dag_id == other.dag.dag_id or one.key != other.key:
            continue
        if not (_is_alike(one, other) or _replaces(one) or _replaces(other)):
            yield (
                other,
                f"it writes {other.output}, and so does {one.task.task_id!r} of the DAG {one.dag.dag_id!r} with other "
                "parameters: give one of them another cache_path or file_name_prefix",
            )


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
    return all(str(one.given.get(name)) == str(other.given.get(name)) for name in names)


def _waits_for(task: Any, other: Any) -> bool:
    return other.task_id in task.get_flat_relative_ids(upstream=True)


def _may_be_skipped(task: Any) -> bool:
    """Tell whether a task may be one of several ways, of which a run goes one."""
    if str(getattr(task.trigger_rule, "value", task.trigger_rule)) != "all_success":
        return True
    return any(getattr(before, "inherits_from_skipmixin", False) for before in task.get_flat_relatives(upstream=True))


def _is_in_mapped_group(task: Any) -> bool:
    return next(iter(task.iter_mapped_task_groups()), None) is not None
