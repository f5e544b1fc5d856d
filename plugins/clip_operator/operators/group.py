"""The task group that scores one step with many workers: plan, score, merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import TaskGroup, TriggerRule, XComArg

from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator
from clip_operator.operators.shards import MergeShardsOperator, PlanShardsOperator

# What says where a shard is scored. The other two tasks run on the worker, whatever that is.
_WHERE = ("execution_mode", "python", "pod", "gpus", "deferrable", "max_api_outage_seconds")

# What is said of a step when it is there: an asset event of the plan's would come too early.
_WHEN_DONE = ("outlets",)

# Until a mapped instance has run, Airflow knows the shard's name alone.
_MAP_INDEX_TEMPLATE = "{{ shard_label | default(task.shard) }}"


class ClipEvaluationGroup(TaskGroup):
    """The tasks ``plan``, ``score`` (one mapped instance for each shard) and ``merge``."""

    @property
    def output(self) -> Any:  # an XComArg, which type checkers do not take where a task's function wants its value
        """What the merge returns, the list of score columns. ``output["output_path"]``, ``["output_step"]``,
        ``["summary"]`` and ``["manifest"]`` are its further XComs."""
        merge = self.children[f"{self.group_id}.merge"]
        assert isinstance(merge, MergeShardsOperator)
        return merge.output


def clip_evaluation_group(
    group_id: str = "clip_evaluation",
    *,
    shards: int | str | None = None,
    shard_rows: int | str | None = None,
    shard_bytes: int | str | None = None,
    output_layout: str = "file",
    score: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> ClipEvaluationGroup:
    """Return a task group that scores one step with many workers, and ends as :class:`ImageCLIPEvaluatorOperator` does.

    ``plan`` divides the step into shards, ``score`` scores each in a mapped task instance of its own, on the worker or
    in a pod, and ``merge`` makes the step of them: the bytes, the manifest and the XComs of a single task. Shards that
    are done stay done, whatever becomes of the others.

    ::

        scored = clip_evaluation_group(
            first_entry_file_name="s3://my-bucket/captions.jsonl",
            cache_path="s3://my-bucket/steps",
            shards=20,
            score={"max_active_tis_per_dagrun": 4, "retries": 3},
        )
        report(scored.output)

    :param group_id: what the group is called; its tasks are ``{group_id}.plan``, ``.score`` and ``.merge``.
    :param shards: how many shards there should be; see :class:`PlanShardsOperator`, also for the next three.
    :param shard_rows: or the most rows one may have.
    :param shard_bytes: or the most bytes of the input.
    :param output_layout: ``file`` or ``parts``.
    :param score: arguments of Airflow's own for ``score`` alone: ``pool``, ``max_active_tis_per_dagrun``, ``retries``,
        ``executor``, ``queue``, ``execution_timeout``, …
    :param parameters: those of :class:`ImageCLIPEvaluatorOperator`, and arguments of Airflow's own for all three tasks;
        gates and ``outlets`` are for the whole step, so for ``merge``.
    """
    group = ClipEvaluationGroup(group_id=group_id)
    step = {name: value for name, value in parameters.items() if name not in _WHERE}
    unfinished = {name: value for name, value in parameters.items() if name not in _WHEN_DONE}
    with group:
        plan = PlanShardsOperator(
            task_id="plan",
            shards=shards,
            shard_rows=shard_rows,
            shard_bytes=shard_bytes,
            output_layout=output_layout,
            **{
                "doc_md": "Checks the step, and divides it into shards.",
                **{name: value for name, value in unfinished.items() if name not in _WHERE},
            },
        )
        plan_uri: Any = XComArg(plan, key="plan")  # in place of the text that a parameter is
        scoring = {
            "doc_md": "Scores one shard.",
            "map_index_template": _MAP_INDEX_TEMPLATE,
            **unfinished,
            **(score or {}),
        }
        scored = ImageCLIPEvaluatorOperator.partial(task_id="score", plan=plan_uri, **scoring).expand(shard=plan.output)
        merge = MergeShardsOperator(
            task_id="merge",
            plan=plan_uri,
            # With the step complete there is nothing to map, and Airflow skips what scores.
            trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
            **{"doc_md": "Makes one step of the shards, proves it, and removes what they left.", **step},
        )
        scored >> merge
    return group
