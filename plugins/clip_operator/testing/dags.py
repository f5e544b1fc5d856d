"""All DAGs in a folder, loaded as Airflow loads them, and all that is wrong with them as far as that can be told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_operator.errors import RequestError
from clip_operator.testing.finding import Finding
from clip_operator.testing.imports import imports_of

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from clip_operator.testing.outputs import Writer


@dataclass(frozen=True)
class Examination:
    """What was found in a folder.

    :param findings: what is wrong, in the order of the files.
    :param seconds: how long each file took to read, beyond Airflow itself.
    """

    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]


def assert_dags_valid(path: str | os.PathLike[str]) -> None:
    """Fail a test, with one line for each finding, if something is wrong with the DAGs of a folder or a file.

    :raises AssertionError: something is.
    :raises RequestError: there is no such place.
    """
    findings = check_dags(path)
    if findings:
        raise AssertionError("\n".join(["DAGs are wrong:", *map(str, findings)]))


def check_dags(path: str | os.PathLike[str]) -> list[Finding]:
    """Return what is wrong with the DAGs of a folder or a file; of a DAG that is right, nothing.

    Looked at are all files, as Airflow takes them, whether they can be imported and what they import; and of the
    package's operators and groups, mapped ones too, their parameters and how these go together, templates, Params'
    defaults, pods, and outputs that several tasks write. What only a run tells is not judged.

    :raises RequestError: there is no such place.
    """
    return list(examine_dags(path).findings)


def examine_dags(path: str | os.PathLike[str]) -> Examination:
    """Return the same, and how long the files took to read.

    :raises RequestError: there is no such place.
    """
    place = Path(path).resolve()
    if not place.exists():
        raise RequestError(f"there is no folder or file {path}; name the folder of the DAGs")
    folder = place if place.is_dir() else place.parent
    bag = _load(place)
    findings = [_of_import(folder, file, error) for file, error in bag.import_errors.items()]
    findings += _of_dags(folder, bag)
    # Of a file that is named itself, Airflow tells a path below it, and so no name.
    files = [place.name] if place.is_file() else [_below(folder, stat.file) for stat in bag.dagbag_stats]
    imports = imports_of(folder, [file for file in files if file.endswith(".py")])
    for file, found in imports.items():
        for package, line in found.heavy.items():
            what = (
                f"{line} imports {package} each time that Airflow reads the file: import it in the task that needs it"
            )
            findings.append(Finding(file, what))
    return Examination(tuple(sorted(set(findings), key=str)), {file: each.seconds for file, each in imports.items()})


def _load(place: Path) -> Any:
    """Return Airflow's own bag of the DAGs, which takes no database."""
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ModuleNotFoundError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef]
    return DagBag(str(place))


def _below(folder: Path, file: str) -> str:
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(folder):
        return str(path.relative_to(folder))
    return file.lstrip("/")


def _of_import(folder: Path, file: str, error: str) -> Finding:
    from clip_operator.testing.templates import line_of

    return Finding(_below(folder, file), f"cannot be imported: {line_of(error)}")


def _of_dags(folder: Path, bag: Any) -> Iterator[Finding]:
    from clip_operator.testing.outputs import not_waited_for, shared_between, shared_within

    everywhere: list[Writer] = []
    for dag_id, dag in sorted(bag.dags.items()):
        file = _below(folder, dag.fileloc)
        writers: list[Writer] = []
        yield from _of_dag(file, dag, writers)
        for writer, what in [*shared_within(writers), *not_waited_for(writers)]:
            yield Finding(file, what, dag_id, writer.task.task_id)
        everywhere += writers
    for writer, what in shared_between(everywhere):
        yield Finding(writer.file, what, writer.dag.dag_id, writer.task.task_id)


def _of_dag(file: str, dag: DAG, writers: list[Writer]) -> Iterator[Finding]:
    """Yield what is wrong with the tasks of a DAG, and note those that write."""
    from clip_operator.operators.shards import MergeShardsOperator
    from clip_operator.testing.outputs import writer_of
    from clip_operator.testing.tasks import given_to, instances_given, operator_of, problems_of
    from clip_operator.testing.templates import Templates

    told: set[str] = set()
    for task in dag.tasks:
        if (operator := operator_of(task)) is None:
            continue
        params, wrong = _defaults(task)
        for name, why in wrong.items():
            if name not in told:
                told.add(name)
                yield Finding(file, f"the default of the Param {name!r} is not one: {why}", dag.dag_id)
        templates = Templates(dag, task, params)
        for problem in problems_of(dag, task, templates):
            yield Finding(file, problem, dag.dag_id, task.task_id)
        given, instances = given_to(task), instances_given(task)
        is_shard = given.get("plan") is not None and not issubclass(operator, MergeShardsOperator)
        if not is_shard and not (task.is_mapped and not instances):
            for own in instances or [{}]:
                every = {**given, **own}
                names = {
                    name: every[name]
                    for name in ("cache_path", "file_name_prefix", "cache_type", "step")
                    if name in every
                }
                writer = writer_of(file, dag, task, every, frozenset(templates.names_in(names)))
                writers += [] if writer is None else [writer]


def _defaults(task: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the defaults of a task's Params, and why some are none by what is said of them."""
    from airflow.providers.common.compat.sdk import ParamValidationError

    from clip_operator.operators.parameters import is_unset
    from clip_operator.testing.templates import UNKNOWN

    defaults: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name in task.params or {}:
        param = task.params.get_param(name)
        try:
            defaults[name] = param.resolve()
        except ParamValidationError as error:
            defaults[name] = UNKNOWN  # what nobody gives a default, he is to give who triggers the DAG
            if isinstance(param.value, str | int | float | list | dict) and not is_unset(param.value):
                wrong[name] = str(error).strip().splitlines()[0]
    return defaults, wrong
