"""The cluster that the environment names, with the eyes and hands of its administrator."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config

from demo.object_store import ObjectStore

T = TypeVar("T")

ENVIRONMENT: Mapping[str, str] = dict(os.environ)
"""As the tests were started with: what it says of stores is taken out of it for each test."""

KUBECONFIG = ENVIRONMENT.get("CLIP_CLUSTER_KUBECONFIG")

_LABEL = "clip-cluster-test"
_SECONDS = 120


def store_of_the_environment() -> ObjectStore:
    """Return the S3 server that this machine and the pods reach under the same URL."""
    return ObjectStore(
        ENVIRONMENT["CLIP_CLUSTER_STORE"], ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    )


def wait_until(look: Callable[[], T], seconds: float = _SECONDS) -> T:
    """Return what is seen as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not seen in {seconds} s"
        time.sleep(0.5)
    return seen


@dataclass(frozen=True)
class Cluster:
    """One namespace of a cluster, in which this session's tests have their Secret and ConfigMap.

    :param configuration: how its API is reached, with an administrator's rights.
    """

    configuration: client.Configuration
    namespace: str
    image: str
    box_image: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def api(self) -> client.ApiClient:
        """A client with an administrator's rights."""
        return client.ApiClient(self.configuration)

    @property
    def core(self) -> client.CoreV1Api:
        """What pods, nodes and the like are asked of."""
        return client.CoreV1Api(self.api)

    @property
    def version(self) -> tuple[int, int]:
        """The API server's."""
        told = client.VersionApi(self.api).get_code()
        return int(told.major), int(re.sub(r"\D.*", "", told.minor))

    @property
    def name(self) -> str:
        """Of this session's Secret and ConfigMap, and the beginning of whatever else it makes."""
        return f"clip-cluster-{self.session}"

    def labels(self, test: str) -> dict[str, str]:
        """What the pods of a test are known by."""
        return {_LABEL: f"{self.session}-{test}"}

    def pods(self, test: str, namespace: str | None = None) -> list[Any]:
        """Return the pods that a test's tasks have now."""
        selector = f"{_LABEL}={self.session}-{test}"
        return list(self.core.list_namespaced_pod(namespace or self.namespace, label_selector=selector).items)

    def log(self, pod: str) -> str:
        """Return what a pod's scorer has said so far."""
        try:
            answer = self.core.read_namespaced_pod_log(pod, self.namespace, container="base", _preload_content=False)
            return bytes(answer.data).decode()
        except client.ApiException:  # it has not begun
            return ""

    def evict(self, pod: str) -> None:
        """Do what `kubectl drain` does to a pod."""
        version = "policy/v1" if self.version >= (1, 22) else "policy/v1beta1"
        body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        self.core.create_namespaced_pod_eviction(pod, self.namespace, body)

    @contextmanager
    def own_namespace(self, store: ObjectStore, gate: str) -> Iterator[Cluster]:
        """Give a namespace that nobody else uses, with the Secret and the ConfigMap in it."""
        made = Cluster(
            self.configuration, f"{self.name}-{uuid.uuid4().hex[:4]}", self.image, self.box_image, self.session
        )
        self.core.create_namespace({"metadata": {"name": made.namespace}})
        try:
            wait_until(lambda: self.core.list_namespaced_service_account(made.namespace).items)
            with made.furnished(store, gate):
                yield made
        finally:
            self.core.delete_namespace(made.namespace)

    @contextmanager
    def furnished(self, store: ObjectStore, gate: str) -> Iterator[None]:
        """Have what the pods mount and read in the namespace while the context lasts.

        :param gate: the program that holds a pod.
        """
        metadata = {"name": self.name}
        self.core.create_namespaced_secret(self.namespace, {"metadata": metadata, "stringData": store.environment})
        script = {"sitecustomize.py": gate}
        self.core.create_namespaced_config_map(self.namespace, {"metadata": metadata, "data": script})
        try:
            yield
        finally:
            for pod in self.core.list_namespaced_pod(self.namespace, label_selector=_LABEL).items:
                if pod.metadata.labels[_LABEL].startswith(self.session):
                    self.delete(pod.metadata.name, grace_period_seconds=0)
            self.core.delete_namespaced_secret(self.name, self.namespace)
            self.core.delete_namespaced_config_map(self.name, self.namespace)

    def delete(self, pod: str, **options: Any) -> None:
        """Delete a pod that may be gone already."""
        with suppress(client.ApiException):
            self.core.delete_namespaced_pod(pod, self.namespace, **options)


def cluster_of_the_environment() -> Cluster:
    """Return the cluster that the environment names."""
    configuration = client.Configuration()
    config.load_kube_config(KUBECONFIG, client_configuration=configuration)
    return Cluster(
        configuration,
        ENVIRONMENT.get("CLIP_CLUSTER_NAMESPACE", "default"),
        ENVIRONMENT["CLIP_CLUSTER_IMAGE"],
        ENVIRONMENT.get("CLIP_CLUSTER_BOX_IMAGE", "busybox"),
    )


GATE = Path(__file__).with_name("gate.py").read_text()
