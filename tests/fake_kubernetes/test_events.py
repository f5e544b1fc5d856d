"""Events, listed and watched, with the synchronous client and the asynchronous one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import kubernetes_asyncio
from kubernetes.client import CoreV1Api
from kubernetes.watch import Watch

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import has_phase, pod

T = TypeVar("T")
OF_ONE = "involvedObject.name=one"
USUAL = ["Scheduled", "Pulled", "Created", "Started"]


def with_async_api(
    cluster: FakeKubernetes, use: Callable[[kubernetes_asyncio.client.CoreV1Api], Coroutine[Any, Any, T]]
) -> T:
    """Run a coroutine with the client that Airflow's triggers use."""

    async def run() -> T:
        client = await kubernetes_asyncio.config.new_client_from_config(str(cluster.kubeconfig))
        async with client:
            return await asyncio.wait_for(use(kubernetes_asyncio.client.CoreV1Api(client)), timeout=30)

    return asyncio.run(run())


def test_the_events_of_a_pod_are_listed(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", ""))
    api.create_namespaced_pod("default", pod("two", ""))
    cluster.wait_until(has_phase("one", "Succeeded"))
    events = api.list_namespaced_event("default", field_selector=OF_ONE).items
    assert [event.reason for event in events] == USUAL
    assert events[0].message == "Successfully assigned default/one to fake-node"
    assert events[-1].involved_object.field_path == "spec.containers{base}"
    assert {event.type for event in events} == {"Normal"}
    versions = [int(event.metadata.resource_version) for event in events]
    assert versions == sorted(set(versions))


def test_a_watch_tells_what_there_was_and_what_comes(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo ready; sleep 1000"))
    cluster.wait_for_log("ready")
    reasons = []
    watch = Watch()
    for event in watch.stream(api.list_namespaced_event, "default", field_selector=OF_ONE, timeout_seconds=20):
        reasons.append(event["object"].reason)
        if reasons[-1] == "Started":
            api.delete_namespaced_pod("one", "default")
        if reasons[-1] == "Killing":
            watch.stop()
    assert reasons == [*USUAL, "Killing"]


def test_a_watch_goes_on_after_the_version_that_it_names(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", ""))
    cluster.wait_until(has_phase("one", "Succeeded"))
    first = api.list_namespaced_event("default", field_selector=OF_ONE).items[0].metadata.resource_version
    stream = Watch().stream(
        api.list_namespaced_event, "default", field_selector=OF_ONE, resource_version=first, timeout_seconds=1
    )
    assert [event["object"].reason for event in stream] == USUAL[1:]


def test_a_watch_can_end_early(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", ""))
    cluster.wait_until(has_phase("one", "Succeeded"))

    async def watched(async_api: kubernetes_asyncio.client.CoreV1Api, *, open_before: bool) -> list[str]:
        response: Any = await async_api.list_namespaced_event(
            "default", field_selector=OF_ONE, watch=True, timeout_seconds=300, _preload_content=False
        )
        if open_before:
            cluster.end_watches_early()
        return [json.loads(line)["object"]["reason"] async for line in response.content]

    cluster.end_watches_early()
    assert with_async_api(cluster, lambda async_api: watched(async_api, open_before=False)) == USUAL
    assert with_async_api(cluster, lambda async_api: watched(async_api, open_before=True)) == USUAL


def test_the_asynchronous_client_reads_pods_logs_and_events(cluster: FakeKubernetes) -> None:
    async def use(async_api: kubernetes_asyncio.client.CoreV1Api) -> tuple[str, bytes, list[str]]:
        manifest: Any = pod("one", "echo a line")
        await async_api.create_namespaced_pod("default", manifest)
        await asyncio.to_thread(cluster.wait_until, has_phase("one", "Succeeded"))
        read = await async_api.read_namespaced_pod("one", "default")
        response: Any = await async_api.read_namespaced_pod_log(
            "one", "default", timestamps=True, _preload_content=False
        )
        line = (await response.read()).split(b" ", 1)[1]
        events = await async_api.list_namespaced_event("default", field_selector=OF_ONE)
        await async_api.delete_namespaced_pod(
            "one", "default", body=kubernetes_asyncio.client.V1DeleteOptions(grace_period_seconds=1)
        )
        return read.status.phase, line, [event.reason for event in events.items]

    assert with_async_api(cluster, use) == ("Succeeded", b"a line\n", USUAL)
    assert cluster.pods() == []
