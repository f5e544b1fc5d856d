"""The two tasks around a step that many workers score: one that divides it into shards, and one that merges them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from clip_operator.errors import Cancelled, RequestError
from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator
from clip_operator.operators.parameters import own_parameters
from clip_operator.operators.task_instance import (
    choice_of,
    connection_of,
    requester_of,
    told_to_airflow,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

OUTPUT_LAYOUTS = ("file", "parts")

_SHOWN_SHARDS = 100

# What takes a second pass over the whole step.
_WHOLE_FILE = ("percentile_key", "min_score")

_SIZES = ("shards", "shard_rows", "shard_bytes")


class PlanShardsOperator(ImageCLIPEvaluatorOperator):
    """Check a step before anything is started, and divide it into shards for as many task instances.

    Takes the parameters of :class:`ImageCLIPEvaluatorOperator`, so that a step is described once; those that say where
    scoring runs are not looked at. Reads a text input once, from end to end; of Parquet the footer. The same work is
    always divided alike, so a task that is cleared costs no scores.

    Returns the names of the shards, ``["00001-of-00007", …]``, for the scoring task to be mapped over. There are none
    if the step is complete already. Further XCom: ``plan``, the URI of what the scoring tasks and the merge read.

    All its parameters are templated. At most one of the first three may be given.

    :param shards: how many shards there should be. There may be fewer: text is cut only every ``resume_point_rows``
        rows, Parquet between row groups, many files between files.
    :param shard_rows: the most rows a shard may have, but for what is not cut. Default: 131,072, or more where that
        would make too many shards.
    :param shard_bytes: the most bytes of the input a shard may have, but for what is not cut.
    :param output_layout: ``file``: the step is one file, with the bytes that a single task writes. ``parts``: each
        shard's table stays as it is, ``{file_name_prefix}_step{n}/part-*.{cache_type}``. Default: ``file``.
    """

    operator_extra_links = ()  # it scores nothing that a page could show

    def __init__(
        self,
        *,
        shards: int | str | None = None,
        shard_rows: int | str | None = None,
        shard_bytes: int | str | None = None,
        output_layout: str = "file",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shards = shards
        self.shard_rows = shard_rows
        self.shard_bytes = shard_bytes
        self.output_layout = output_layout

    template_fields: Sequence[str] = (*ImageCLIPEvaluatorOperator.template_fields, *own_parameters(__init__))

    def execute(self, context: Context) -> list[str]:
        """Work the step; see the class for what is returned and pushed.

        :raises AirflowFailException: a parameter is wrong, so another try would not help.
        :raises AirflowException: the step cannot be planned.
        """
        from clip_operator.machine.stopping import stopped_by
        from clip_operator.operators.work import work_of
        from clip_operator.preflight import check_before_pod
        from clip_operator.sharding import plan_shards

        with told_to_airflow():
            parameters, limits = self._parameters()
            sizes = {name: _count(name, parameters[name]) for name in _SIZES}
            most, in_parts = _most_mapped(sizes), _in_parts(parameters)
            storage = connection_of(parameters).storage()
            work = work_of(parameters, requester_of(context), storage, limits, in_parts=in_parts)
            self._check_not_stopped()
            check_before_pod(work.request, storage, self._stop)
            self._check_not_stopped()
            with stopped_by(self._stop):
                shards = plan_shards(work.request, storage, **sizes, most=most)
            self._check_not_stopped()
        for name in shards.names[:_SHOWN_SHARDS]:
            log.info("Shard %s", shards.describe(name))
        if len(shards.names) > _SHOWN_SHARDS:
            log.info("… and %s more", f"{len(shards.names) - _SHOWN_SHARDS:,}")
        context["ti"].xcom_push(key="plan", value=shards.uri)
        return list(shards.names)

    def _check_not_stopped(self) -> None:
        if self._stop.is_set():
            raise Cancelled("stopped before the shards were planned")


class MergeShardsOperator(ImageCLIPEvaluatorOperator):
    """Make one output of what the shards have written, prove it, and remove what they left.

    Takes the parameters of :class:`ImageCLIPEvaluatorOperator`; they must be those that the step was planned with, for
    what is written, and where, is for them to say, and not for a plan in a store. Fails if a shard has not done its
    part; merging again changes nothing.

    Returns and pushes what :class:`ImageCLIPEvaluatorOperator` does, for the whole step.
    """

    def execute(self, context: Context) -> list[str]:
        """Merge the shards; see the class for what is returned and pushed.

        :raises AirflowFailException: a parameter is wrong, so another try would not help.
        :raises AirflowException: a shard is missing, or the shards cannot be merged.
        """
        from clip_operator.operators.work import output_step, own_request
        from clip_operator.sharding import merge_shards

        with told_to_airflow():
            parameters, limits = self._parameters()
            if parameters["plan"] is None:
                raise RequestError("plan must not be empty: it is the XCom 'plan' of the task that planned the shards")
            storage, requester = connection_of(parameters).storage(), requester_of(context)
            manifest = merge_shards(
                parameters["plan"],
                storage,
                requester,
                self._stop,
                own=lambda planned: limits.bounded(own_request(parameters, planned, requester)),
            )
            step = output_step(parameters, manifest.output.uri)
        return self._hand_on(context, parameters, manifest, step, manifest.request)


def _count(name: str, value: object) -> int | None:
    """Return a number that templating may have made a string."""
    if value is None:
        return None
    if isinstance(value, bool) or not str(value).strip().isdecimal() or int(str(value)) < 1:
        raise RequestError(f"{name} must be a whole number from 1 on, not {value!r}")
    return int(str(value))


def _in_parts(parameters: Mapping[str, Any]) -> bool:
    """Tell whether the step is written as part files.

    :raises RequestError: something is asked for that its layout does not allow.
    """
    in_parts: bool = choice_of(parameters, "output_layout", OUTPUT_LAYOUTS) == "parts"
    for name in _WHOLE_FILE:
        if in_parts and parameters[name] is not None:
            raise RequestError(
                f"{name} takes all rows' scores, which are known when the part files are written already: "
                "leave it out, or take output_layout='file'"
            )
    if parameters["rescore"] is not None and not in_parts:
        raise RequestError(
            "rescore keeps scores of a whole output, which shards do not have before them: leave it to a "
            "single task or to output_layout='parts', or set reuse= to keep scores from run to run"
        )
    return in_parts


def _most_mapped(sizes: Mapping[str, int | None]) -> int:
    """Return the most task instances that Airflow makes of one mapped task."""
    most: int = conf.getint("core", "max_map_length", fallback=1024)
    if (asked := sizes["shards"]) is not None and asked > most:
        raise RequestError(
            f"shards={asked:,} is more than Airflow maps a task to: [core] max_map_length is {most:,}. Ask for fewer, "
            "or raise it (AIRFLOW__CORE__MAX_MAP_LENGTH) where the API server, the scheduler and the workers run"
        )
    return most
