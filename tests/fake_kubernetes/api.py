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
from .log_answers import read_log
from .objects import ApiError, Json, labels_match, not_in_the_fake, selected_name
from .pods import Pod
from .store import Store
from .validation import Problem, check_labels, check_pod, refuse

_PODS = "/api/v1/namespaces/{namespace}/pods"
_EVENTS = "/api/v1/namespaces/{namespace}/events"
_DEFAULT_GRACE_SECONDS = 30
_DEFAULT_WATCH_SECONDS = 300.0


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
        if self._faults.out:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # which nobody gets
        refusal = self._faults.refusal(request.method, request.path_qs)
        if refusal is not None:
            error = ApiError(refusal.status, refusal.message)
            return web.json_response(error.status, status=error.code, headers=refusal.headers)
        with self._faults.connected(request.transport):
            answer = await self._answer(request, handler)
        if self._faults.loses_answer(request.method, request.path_qs) and request.transport is not None:
            request.transport.abort()
        return answer

    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
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
        pod = Pod(pod_json, self._store.changed, self._store.clock)
        self._store.created.append(manifest)
        self._store.add(pod)
        answer = pod.as_json()
        self._kubelet.accept(pod)
        return web.json_response(answer, status=201)

    async def _get_pod(self, request: web.Request) -> web.Response:
        return web.json_response(self._pod(request).as_json())

    async def _patch_pod(self, request: web.Request) -> web.Response:
        patch = await _body(request)
        pod = self._pod(request)
        changes = dict(patch.get("metadata") or {})
        uid, version = changes.pop("uid", pod.uid), changes.pop("resourceVersion", None)
        if uid != pod.uid:
            immutable = f"Invalid value: {json.dumps(uid)}: field is immutable"
            refuse(pod.name, [Problem("metadata.uid", "FieldValueInvalid", immutable)])
        if version not in (None, pod.metadata["resourceVersion"]):
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise _conflict("pods", pod, why)
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
        options = await _body(request) if request.can_read_body else {}
        pod = self._pod(request)
        _check_preconditions(options.get("preconditions") or {}, pod)
        grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        if grace is None:
            grace = pod.spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
        # A negative period means the shortest one, as in the API server.
        self._kubelet.delete(pod, int(grace) if int(grace) >= 0 else 1)
        return web.json_response(pod.as_json())

    async def _read_log(self, request: web.Request) -> web.StreamResponse:
        return await read_log(request, self._pod(request), self._faults)

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
        ended_before = self._faults.ended_watches
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._faults.open_watches += 1
        try:
            while True:
                while event := self._next_event(newer_than, wanted):
                    newer_than = _version_of(event)
                    kind = "ADDED" if event["count"] == 1 else "MODIFIED"
                    await response.write(json.dumps({"type": kind, "object": event}).encode() + b"\n")
                if self._faults.end_next_watch or self._faults.ended_watches != ended_before:
                    self._faults.end_next_watch = False
                    return response
                try:
                    await asyncio.wait_for(self._store.changes.wait(), end - time.monotonic())
                except TimeoutError:
                    return response
        finally:
            self._faults.open_watches -= 1

    def _next_event(self, newer_than: int, wanted: Callable[[Json], bool]) -> Json | None:
        newer = [event for event in self._store.events if _version_of(event) > newer_than and wanted(event)]
        return min(newer, key=_version_of, default=None)

    def _pod(self, request: web.Request) -> Pod:
        name = request.match_info["name"]
        pod = self._store.pods.get((request.match_info["namespace"], name))
        if pod is None:
            raise ApiError(404, f'pods "{name}" not found', {"name": name, "kind": "pods"})
        return pod

    def _listing(self, kind: str, items: list[Json]) -> Json:
        version = self._store.next_version()
        return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}


def _check_preconditions(preconditions: Json, pod: Pod) -> None:
    for kind, key, history in (
        ("UID", "uid", "deleted and then recreated"),
        ("ResourceVersion", "resourceVersion", "modified"),
    ):
        wanted, there = preconditions.get(key), pod.metadata[key]
        if wanted not in (None, there):
            words = f"the {kind} in the precondition ({wanted}) does not match the {kind} in record ({there})"
            # The API server names the kind here, and not the resource.
            raise _conflict("Pod", pod, f"{words}. The object might have been {history}")


def _conflict(resource: str, pod: Pod, why: str) -> ApiError:
    details = {"name": pod.name, "kind": resource}
    return ApiError(409, f'Operation cannot be fulfilled on {resource} "{pod.name}": {why}', details, "Conflict")


def _version_of(event: Json) -> int:
    return int(event["metadata"]["resourceVersion"])


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
