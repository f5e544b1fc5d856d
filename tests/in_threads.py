"""Stands for a job's image workers where a test has images of its own making: threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from PIL import Image

from clip_operator.images import ImageLocation
from clip_operator.images.workers.task import ImageTask
from clip_operator.resizing import Resizing


class ImagesInThreads:
    """Images that a subclass makes up in :meth:`fetch` and :meth:`decode`."""

    decoding = 0.0

    def locate(self, reference: object) -> ImageLocation:
        return ImageLocation(str(reference))

    def fetch(self, location: ImageLocation) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes, at_least: int | None = None) -> AbstractContextManager[Image.Image]:
        raise NotImplementedError

    @contextmanager
    def preparing(
        self, resizing: Resizing | None, slots: int, *, reduced: bool = False, versions: bool = False
    ) -> Iterator[Callable[[Sequence[ImageTask]], None]]:
        assert resizing is not None
        self._pixels = [b""] * slots

        def prepare(task: ImageTask) -> None:
            try:
                with self.decode(self.fetch(task.location)) as image:
                    small = resizing.apply(image)
                self._pixels[task.slot] = small.tobytes()
                task.size = small.size
            except BaseException as error:
                task.error = error
            task.done = True
            task.notify(task)

        threads = ThreadPoolExecutor(slots)

        def submit(tasks: Sequence[ImageTask]) -> None:
            for task in tasks:
                threads.submit(prepare, task)

        try:
            yield submit
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def slot(self, task: ImageTask) -> memoryview:
        return memoryview(self._pixels[task.slot])
