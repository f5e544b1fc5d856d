"""
### Go on when scores are ready

Runs whenever a task with the outlet `AssetAlias("clip_scores")` has scored a step, as those of `clip_evaluation` and
`clip_in_shards` do. What the task found is in the event's `extra`: nothing need be looked up.

| Task | |
|---|---|
| `judge` | logs what the events say, and chooses how to go on |
| `curate` | runs if every step passed its gates and its scores mean something: an AUC of 0.7 or more |
| `look_into_it` | runs otherwise |

Both are stand-ins for your own tasks.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import AssetAlias, dag, task

SCORES = AssetAlias("clip_scores")

LOWEST_AUC = 0.7

log = logging.getLogger(__name__)


@dag(
    schedule=SCORES,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"owner": "data-platform", "retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["clip", "image-text", "example"],
    doc_md=__doc__,
)
def clip_scores_ready() -> None:
    @task.branch(doc_md="Logs what the events say, and chooses how to go on.")
    def judge(triggering_asset_events: Any = None) -> str:
        events = triggering_asset_events[SCORES]
        if not events:
            raise AirflowSkipException("Run by hand, so no scores are ready.")
        is_good = True
        for event in events:
            scores, calibration, gates = (event.extra[key] for key in ("scores", "calibration", "gates"))
            mean, auc = scores and scores["mean"], calibration and calibration["auc"]
            log.info("%s: mean %s, AUC %s", event.extra["output_path"], mean, auc)
            for breach in gates["breaches"]:
                log.warning("%s: %s", event.extra["output_path"], breach)
            is_good = is_good and gates["passed"] and auc is not None and auc >= LOWEST_AUC
        return "curate" if is_good else "look_into_it"

    @task(doc_md="Stands for what is done with good scores.")
    def curate(triggering_asset_events: Any = None) -> list[str]:
        return [event.extra["output_path"] for event in triggering_asset_events[SCORES]]

    @task(doc_md="Stands for what is done about bad scores, such as a message to those who own the data.")
    def look_into_it(triggering_asset_events: Any = None) -> list[str]:
        return [event.extra["output_path"] for event in triggering_asset_events[SCORES]]

    judge() >> [curate(), look_into_it()]


clip_scores_ready()
