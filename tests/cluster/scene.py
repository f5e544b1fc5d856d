"""What a test has: a task, its pods, the way to the API server, and the store."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.standing import proof
from clip_operator.request import parse_request
from tests.cluster.api_server import ApiServer
from tests.cluster.cluster import Cluster, wait_until
from tests.conftest import S3, SHAPES
from tests.operators.tasks import TaskInstance

HELD = "Waiting at the gate"

# So that a node of the smallest kind takes several at once.
_REQUESTS = {"cpu": "50m", "memory": "64Mi"}


@functools.cache
def local_bytes(s3: S3, parameters: tuple[tuple[str, int], ...] = ()) -> bytes:
    """Score the session's data set on this machine."""
    output = f"s3://{s3.bucket}/local/{len(parameters)}.jsonl"
    fields = {"input": f"s3://{s3.bucket}/data/captions.jsonl", "output": output, "model": SHAPES, **dict(parameters)}
    evaluate(parse_request(fields), s3.storage)
    return s3.get(output)


@dataclass(frozen=True)
class Scene:
    """One test's.

    :param name: its own, of which labels and paths in the store are made.
    :param s3: whose bucket all tests of the session share.
    """

    name: str
    cluster: Cluster
    api: ApiServer
    s3: S3

    def task(
        self, pod: Mapping[str, Any] | None = None, *, dag_id: str | None = None, **parameters: Any
    ) -> TaskInstance:
        """Make a task instance that scores the demo data set in a pod.

        :param pod: what differs from the ordinary pod.
        :param parameters: what differs from the operator's ordinary parameters.
        """
        pod = pod or {}
        settings = {
            "image": self.cluster.image,
            "namespace": self.cluster.namespace,
            "config_file": str(self.api.kubeconfig),
            "labels": self.cluster.labels(self.name),
            "env_from": [{"secretRef": {"name": self.cluster.name}}],
            "startup_check_interval_seconds": 1,
            "poll_interval": 1,
            **pod,
            "container_resources": {"requests": _REQUESTS, **pod.get("container_resources", {})},
        }
        defaults = {
            "first_entry_file_name": f"s3://{self.s3.bucket}/data/captions.jsonl",
            "cache_path": f"s3://{self.s3.bucket}/{self.name}",
            "file_name_prefix": "captions",
            "model_name": SHAPES,
            "aws_conn_id": "store",
            "execution_mode": "kubernetes",
            "pod": settings,
        }
        return TaskInstance({**defaults, **parameters}, dag_id=dag_id or f"cluster-{self.cluster.session}-{self.name}")

    def held_task(
        self, pod: Mapping[str, Any] | None = None, *, stubborn: bool = False, **parameters: Any
    ) -> TaskInstance:
        """Make a task instance whose pod does not begin before :meth:`let_go`.

        :param stubborn: until then it ignores SIGTERM, and so takes its time to go.
        """
        pod = pod or {}
        gate = {"PYTHONPATH": "/gate", "CLIP_CLUSTER_GATE": f"s3://{self.s3.bucket}/gates/{self.name}"}
        settings = {
            **pod,
            "env_vars": {**gate, "CLIP_CLUSTER_STUBBORN": str(int(stubborn))},
            "volumes": [{"name": "gate", "configMap": {"name": self.cluster.name}}, *pod.get("volumes", [])],
            "volume_mounts": [{"name": "gate", "mountPath": "/gate"}, *pod.get("volume_mounts", [])],
        }
        return self.task(settings, **parameters)

    def let_go(self, pod: str = "all") -> None:
        """Let a held pod begin."""
        self.s3.put(f"gates/{self.name}/{pod}", b"")

    def pods(self) -> list[str]:
        """Return the names of the pods that are there now, those that are on their way out included."""
        return [pod.metadata.name for pod in self.cluster.pods(self.name)]

    def look(self, name: str) -> Any:
        """Return a pod as it is now, None if it is gone."""
        return next((pod for pod in self.cluster.pods(self.name) if pod.metadata.name == name), None)

    def wait_for_held(self, *known: str) -> str:
        """Return the name of a pod that waits to be let go, as soon as there is one beside those that are known."""
        return wait_until(
            lambda: next((pod for pod in self.pods() if pod not in known and HELD in self.cluster.log(pod)), "")
        )

    def wait_for_end(self, name: str) -> None:
        """Return when a pod has ended, and is still there."""
        wait_until(lambda: (seen := self.look(name)) and seen.status.phase in ("Succeeded", "Failed"))

    def wait_until_gone(self) -> None:
        """Return when the test has no pods any more."""
        wait_until(lambda: not self.pods())

    def has_done(self, ti: TaskInstance) -> bool:
        """Tell whether the step is what local mode writes, and proved to be this task instance's."""
        manifest = self.manifest(ti)
        assert manifest is not None
        assert ti.requester in (manifest.request.requested_by, manifest.confirmed_by)
        return self.s3.get(self.output(ti)) == self.local_bytes()

    def local_bytes(self, **parameters: int) -> bytes:
        """Return what local mode writes; `resume_point_rows` decides which rows are encoded together."""
        return local_bytes(self.s3, tuple(parameters.items()))

    def manifest(self, ti: TaskInstance) -> EvaluationManifest | None:
        """Return the proof of a task's step."""
        return proof(self.s3.storage, self.output(ti))

    def nothing_was_written(self) -> bool:
        """Tell whether the store holds nothing of the test."""
        listed = self.s3.client.list_objects_v2(Bucket=self.s3.bucket, Prefix=f"{self.name}/")
        return not listed.get("Contents")

    @staticmethod
    def output(ti: TaskInstance) -> str:
        """Return where a task's step is."""
        return f"{ti.parameters['cache_path']}/captions_step1.jsonl"

    def elsewhere(self, cluster: Cluster) -> Scene:
        """Return the same in another namespace."""
        return replace(self, cluster=cluster)
