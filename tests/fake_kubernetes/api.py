"""The routes of the API server."""

from __future__ import annotations

import asyncio
import copy
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .faults import Faults
from .kubelet import Kubelet
from .objects import ApiError, Json, labels_match, not_in_the_fake, selected_name
from .pods import Container, Pod
from .store import Store
from .validation import Problem, check_labels, check_pod, refuse

_PODS = "/api/v1/namespaces/{namespace}/pods"
_EVENTS = "/api/v1/namespaces/{namespace}/events"
_DEFAULT_GRACE_SECONDS = 30
_DEFAULT_WATCH_SECONDS = 300.0
_WAITING_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class Api:
    """Answers the requests that an Airflow task, its operator and its trigger make."""

    def __init__(self, store: Store, kubelet: Kubelet, faults: Faults, token: str) -> None:
        self._store = store
        self._kubelet = kubelet
        self._faults = faults
        self._token = token

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[self._middleware], client_max_size=3 * 2**20)
        application.add_routes(
            [
                web.get("/version", _version),
                web.get(_PODS, self._list_pods),
                web.post(_PODS, self._create_pod),
                web.get(_PODS + "/{name}", self._get_pod),
                web.patch(_PODS + "/{name}", self._patch_pod),
                web.delete(_PODS + "/{name}", self._delete_pod),
                web.get(_PODS + "/{name}/log", self._read_log),
                web.get(_EVENTS, self._list_events),
            ]
        )
        return application

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self._store.requests.append((request.method, request.path_qs))
        self._store.changed()
        try:
            refusal = self._faults.refusal(request.method, request.path_qs)
            if refusal is not None:
                error = ApiError(refusal.status, "a fault that the test ordered")
                return web.json_response(error.status, status=error.code, headers=refusal.headers)
            if request.headers.get("Authorization") != f"Bearer {self._token}":
                raise ApiError(401, "Unauthorized")
            namespace = request.match_info.get("namespace")
            if namespace is not None and namespace not in self._store.namespaces:
                raise ApiError(404, f'namespaces "{namespace}" not found')
            return await handler(request)
        except ApiError as error:
            return web.json_response(error.status, status=error.code)
        except web.HTTPNotFound:
            unknown = ApiError(404, "the server could not find the requested resource")
            return web.json_response(unknown.status, status=404)

    async def _list_pods(self, request: web.Request) -> web.Response:
        if request.query.get("watch", "").lower() == "true":
            raise not_in_the_fake("watch of pods")
        name = selected_name(request.query.get("fieldSelector", ""), "metadata.name")
        selector = request.query.get("labelSelector", "")
        found = [
            pod.as_json()
            for pod in self._store.pods.values()
            if pod.namespace == request.match_info["namespace"]
            and name in (None, pod.name)
            and labels_match(selector, pod.metadata.get("labels") or {})
        ]
        return web.json_response(self._listing("PodList", found))

    async def _create_pod(self, request: web.Request) -> web.Response:
        manifest = await _body(request)
        namespace = request.match_info["namespace"]
        pod_json = _with_defaults(manifest)
        if pod_json["metadata"].setdefault("namespace", namespace) != namespace:
            words = "the namespace of the provided object does not match the namespace sent on the request"
            raise ApiError(400, words)
        check_pod(pod_json)
        name = pod_json["metadata"]["name"]
        if (namespace, name) in self._store.pods:
            raise ApiError(409, f'pods "{name}" already exists', {"name": name, "kind": "pods"})
        pod = Pod(pod_json, self._store.changed)
        self._store.created.append(manifest)
        self._store.add(pod)
        answer = pod.as_json()
        self._kubelet.accept(pod)
        return web.json_response(answer, status=201)

    async def _get_pod(self, request: web.Request) -> web.Response:
        return web.json_response(self._pod(request).as_json())

    async def _patch_pod(self, request: web.Request) -> web.Response:
        pod = self._pod(request)
        patch = await _body(request)
        changes = patch.get("metadata") or {}
        if set(patch) - {"metadata"} or set(changes) - {"labels", "annotations"}:
            words = "Forbidden: pod updates may not change fields other than labels and annotations"
            refuse(pod.name, [Problem("spec", "FieldValueForbidden", words)])
        merged: Json = {}
        for kind, values in changes.items():
            both = {**(pod.metadata.get(kind) or {}), **(values or {})}
            merged[kind] = {key: value for key, value in both.items() if value is not None}
        check_labels(pod.name, merged)
        pod.metadata |= merged
        self._store.touch(pod)
        return web.json_response(pod.as_json())

    async def _delete_pod(self, request: web.Request) -> web.Response:
        pod = self._pod(request)
        options = await _body(request) if request.can_read_body else {}
        grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        if grace is None:
            grace = pod.spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
        # A negative period means the shortest one, as in the API server.
        self._kubelet.delete(pod, int(grace) if int(grace) >= 0 else 1)
        return web.json_response(pod.as_json())

    async def _read_log(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        container = _chosen_container(pod, request.query.get("container"))
        log = container.log
        waiting = container.state.get("waiting")
        if waiting is not None:
            why = _WAITING_WORDS.get(waiting["reason"], waiting["reason"])
            raise ApiError(400, f'container "{container.name}" in pod "{pod.name}" is waiting to start: {why}')
        timestamps = request.query.get("timestamps", "").lower() == "true"
        position = log.start(_count(request, "sinceSeconds", least=1), _count(request, "tailLines", least=0))
        if request.query.get("follow", "").lower() != "true":
            lines = b"".join(line.rendered(timestamps=timestamps) for line in log.lines[position:])
            return web.Response(body=lines, content_type="text/plain")
        lines_left = self._faults.lines_before_drop()
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            while position < len(log.lines):
                if lines_left == 0:
                    break
                await response.write(log.lines[position].rendered(timestamps=timestamps))
                position += 1
                lines_left = None if lines_left is None else lines_left - 1
            if lines_left == 0:
                # Without the end mark of the chunked encoding, so that the client sees a broken stream.
                if request.transport is not None:
                    request.transport.close()
                return response
            if log.closed:
                return response
            await log.more.wait()

    async def _list_events(self, request: web.Request) -> web.StreamResponse:
        name = selected_name(request.query.get("fieldSelector", ""), "involvedObject.name")
        namespace = request.match_info["namespace"]

        def wanted(event: Json) -> bool:
            return event["metadata"]["namespace"] == namespace and name in (None, event["involvedObject"]["name"])

        if request.query.get("watch", "").lower() == "true":
            return await self._watch_events(request, wanted)
        return web.json_response(self._listing("EventList", [event for event in self._store.events if wanted(event)]))

    async def _watch_events(self, request: web.Request, wanted: Callable[[Json], bool]) -> web.StreamResponse:
        newer_than = int(request.query.get("resourceVersion") or 0)
        end = time.monotonic() + float(request.query.get("timeoutSeconds") or _DEFAULT_WATCH_SECONDS)
        ended_before, position = self._faults.ended_watches, 0
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._faults.open_watches += 1
        try:
            while True:
                while position < len(self._store.events):
                    event = self._store.events[position]
                    position += 1
                    if wanted(event) and int(event["metadata"]["resourceVersion"]) > newer_than:
                        await response.write(json.dumps({"type": "ADDED", "object": event}).encode() + b"\n")
                if self._faults.end_next_watch or self._faults.ended_watches != ended_before:
                    self._faults.end_next_watch = False
                    return response
                try:
                    await asyncio.wait_for(self._store.changes.wait(), end - time.monotonic())
                except TimeoutError:
                    return response
        finally:
            self._faults.open_watches -= 1

    def _pod(self, request: web.Request) -> Pod:
        name = request.match_info["name"]
        pod = self._store.pods.get((request.match_info["namespace"], name))
        if pod is None:
            raise ApiError(404, f'pods "{name}" not found', {"name": name, "kind": "pods"})
        return pod

    def _listing(self, kind: str, items: list[Json]) -> Json:
        version = self._store.next_version()
        return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}


async def _version(_request: web.Request) -> web.Response:
    return web.json_response({"major": "1", "minor": "31", "gitVersion": "v1.31.0", "platform": "linux/amd64"})


async def _body(request: web.Request) -> Json:
    try:
        body = await request.json()
    except ValueError as error:
        raise ApiError(400, f"the body of the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "the body of the request is not a JSON object")
    return body


def _with_defaults(manifest: Json) -> Json:
    """Return a copy of a manifest with the fields that the API server sets by itself."""
    pod: Json = {"metadata": {}, "spec": {}, **copy.deepcopy(manifest)}
    metadata, spec = pod["metadata"], pod["spec"]
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
    _set_missing(spec, restartPolicy="Always", terminationGracePeriodSeconds=_DEFAULT_GRACE_SECONDS)
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        tag = str(container.get("image") or "").rpartition("/")[2].partition("@")[0].partition(":")[2]
        _set_missing(
            container,
            imagePullPolicy="Always" if tag in ("", "latest") else "IfNotPresent",
            terminationMessagePath="/dev/termination-log",
            terminationMessagePolicy="File",
        )
    return pod


def _set_missing(target: Json, **values: Any) -> None:
    for key, value in values.items():
        if target.get(key) in (None, ""):
            target[key] = value


def _chosen_container(pod: Pod, name: str | None) -> Container:
    if name is None:
        if len(pod.containers) == 1:
            return pod.containers[0]
        names = " ".join(container.name for container in pod.containers)
        raise ApiError(400, f"a container name must be specified for pod {pod.name}, choose one of: [{names}]")
    for container in pod.all_containers:
        if container.name == name:
            return container
    raise ApiError(400, f"container {name} is not valid for pod {pod.name}")


def _count(request: web.Request, name: str, *, least: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if int(text) < least:
        words = f"must be greater than or equal to {least}" if least == 0 else "must be greater than 0"
        field = Problem(name, "FieldValueInvalid", f"Invalid value: {text}: {words}")
        raise ApiError(422, f'PodLogOptions "" is invalid: {field.field}: {field.message}')
    return int(text)
