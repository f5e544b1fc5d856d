"""How the API server answers a request for a container's log."""

from __future__ import annotations

from aiohttp import web

from .faults import Faults
from .objects import ApiError
from .pods import Container, Pod
from .validation import Problem

_WAITING_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


async def read_log(request: web.Request, pod: Pod, faults: Faults) -> web.StreamResponse:
    """Send the log that is there, or follow it to its end.

    :raises ApiError: the container has none, or the request is not valid.
    """
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
    lines_left = faults.lines_before_drop()
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
