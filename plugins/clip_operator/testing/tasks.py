"""What is wrong with one task, told of its parameters, its templates and its pod."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clip_operator.errors import RequestError
from clip_operator.operators.asked import check_known, defaults_of, has_own_init, known_among, marks_of
from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator
from clip_operator.operators.mapping import instances_of
from clip_operator.operators.shards import MergeShardsOperator, PlanShardsOperator
from clip_operator.testing.templates import UNKNOWN, Templates

if TYPE_CHECKING:
    from airflow.sdk import DAG

log = logging.getLogger(__name__)


def operator_of(task: Any) -> type[ImageCLIPEvaluatorOperator] | None:
    """Return the operator of a task that is one of the package's, or made of one."""
    operator = task.operator_class if task.is_mapped else type(task)
    return operator if isinstance(operator, type) and issubclass(operator, ImageCLIPEvaluatorOperator) else None


def given_to(task: Any) -> dict[str, Any]:
    """Return the package's parameters that all instances of a task share, as they are before rendering."""
    operator = operator_of(task)
    names = () if operator is None else operator.template_fields
    if task.is_mapped:
        return {name: task.partial_kwargs[name] for name in names if name in task.partial_kwargs}
    return {name: getattr(task, name) for name in names if hasattr(task, name)}


def instances_given(task: Any) -> Sequence[Mapping[str, Any]]:
    """Return what each instance of a task is given beside: of a task that is not mapped, nothing."""
    mapped = getattr(task, "expand_input", None) if task.is_mapped else None
    value = getattr(mapped, "value", {})
    if isinstance(value, Mapping):
        return list(instances_of(value))
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


def problems_of(dag: DAG, task: Any, templates: Templates) -> Iterator[str]:
    """Yield what is wrong with a task, each once."""
    operator, shared = operator_of(task), given_to(task)
    assert operator is not None
    told: set[str] = set()
    for own in instances_given(task) or [{}]:
        for problem in _problems(operator, _all_of(operator, task, {**shared, **own}), templates, marks_of(dag)):
            if problem not in told:
                told.add(problem)
                yield problem


def _all_of(operator: type[ImageCLIPEvaluatorOperator], task: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of one instance, with defaults, unless something else may give them."""
    is_told = has_own_init(operator) and (not task.is_mapped or bool(instances_given(task)))
    names = operator.template_fields
    return {
        name: value for name, value in {**(defaults_of(operator) if is_told else {}), **given}.items() if name in names
    }


def _problems(
    operator: type[ImageCLIPEvaluatorOperator],
    given: Mapping[str, Any],
    templates: Templates,
    marks: tuple[str, ...],
) -> Iterator[str]:
    wrong = set()
    for name, value in given.items():
        for problem in templates.problems(value):
            wrong.add(name)
            yield f"{name}: {problem}"
    rendered = {name: templates.rendered(value) for name, value in given.items() if name not in wrong}
    known = {name: rendered[name] for name in known_among(rendered, marks) if rendered[name] is not UNKNOWN}
    try:
        check_known(operator, known)
    except RequestError as error:
        yield str(error)
        return
    if known.get("execution_mode") == "kubernetes" and "pod" in known and not _scores_elsewhere(operator):
        yield from _problems_of_pod(given["pod"] if isinstance(given["pod"], Mapping) else known["pod"], known, marks)


def _scores_elsewhere(operator: type[ImageCLIPEvaluatorOperator]) -> bool:
    return issubclass(operator, PlanShardsOperator | MergeShardsOperator)


def _problems_of_pod(pod: object, known: Mapping[str, Any], marks: tuple[str, ...]) -> Iterator[str]:
    try:
        from clip_operator.testing.pods import check_pod
    except ModuleNotFoundError as error:
        log.warning("Pods are not checked: there is no %r here; install the extra kubernetes", error.name)
        return
    try:
        check_pod(pod, known.get("gpus"), marks)
    except RequestError as error:
        yield str(error)
