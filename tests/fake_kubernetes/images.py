"""How a kubelet comes by an image, or does not."""

from __future__ import annotations

import re

from .pods import Container, Pod
from .runtimes import ContainerRefusedError, Runtime
from .store import Store

_IMAGE_NAME = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


async def find_image(pod: Pod, container: Container, runtime: Runtime, store: Store) -> None:
    """Find the image of a container. After a pull that failed, the next call backs off, and only the one after pulls.

    :raises ContainerRefusedError: there is none, for now.
    """
    image = container.spec["image"]
    if not _IMAGE_NAME.fullmatch(image):
        message = (
            f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
            "invalid reference format"
        )
        store.add_event(pod, "InspectFailed", message, of=container)
        raise ContainerRefusedError("InvalidImageName", message)
    problem = store.pull_problems.get(image)
    if problem is None and await runtime.has_image(image):
        store.add_event(pod, "Pulled", f'Container image "{image}" already present on machine', of=container)
        return
    if container.spec["imagePullPolicy"] == "Never":
        message = f'Container image "{image}" is not present with pull policy of Never'
        store.add_event(pod, "Failed", message, of=container)
        raise ContainerRefusedError("ErrImageNeverPull", message)
    container.backs_off = not container.backs_off
    if not container.backs_off:
        message = f'Back-off pulling image "{image}"'
        store.add_event(pod, "BackOff", message, of=container)
        store.add_event(pod, "Failed", "Error: ImagePullBackOff", of=container)
        raise ContainerRefusedError("ImagePullBackOff", message)
    why = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
    message = f'Failed to pull image "{image}": {problem or f"rpc error: code = NotFound desc = {why}"}'
    store.add_event(pod, "Pulling", f'Pulling image "{image}"', of=container)
    store.add_event(pod, "Failed", message, of=container)
    store.add_event(pod, "Failed", "Error: ErrImagePull", of=container)
    raise ContainerRefusedError("ErrImagePull", message)
