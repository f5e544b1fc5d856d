"""An object of unknown size to S3 as its bytes come: parts are sent while the next one fills."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from clip_operator.storage.objects import ObjectInfo
from clip_operator.storage.s3.buffer import PartBuffer
from clip_operator.storage.s3.multipart import MultipartUpload
from clip_operator.storage.s3.parts import THREADS, next_part_bytes
from clip_operator.storage.s3.publication import Publication
from clip_operator.storage.s3.upload import put
from clip_operator.storage.writing import Draft


class S3Draft(Draft):
    """The object under way. One that fits into a single part is put in one request when it is published.

    :param publication: where and under which condition it will appear.
    """

    def __init__(self, publication: Publication) -> None:
        super().__init__()
        self._publication = publication
        self._sent_bytes = 0
        self._part_bytes = next_part_bytes(0)
        self._part: PartBuffer | None = None
        self._numbers = 0
        self._upload: MultipartUpload | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._under_way: deque[Future[None]] = deque()

    def begin(self) -> None:
        self._publication.check()
        self._part = PartBuffer(self._part_bytes)

    def append(self, data: memoryview) -> None:
        while data.nbytes:
            part = self._filling()
            if part.size == self._part_bytes:
                self._send(part)
                continue
            count = min(data.nbytes, self._part_bytes - part.size)
            part.put(data[:count], part.size)
            data = data[count:]

    def publish(self) -> ObjectInfo:
        part = self._filling()
        if self._upload is None:
            return put(self._publication, part.body(self._publication.s3.timeout_seconds))
        self._send(part)  # it is not empty: a full one is sent when the next byte comes
        while self._under_way:
            self._under_way.popleft().result()
        info = self._upload.complete(self._sent_bytes)
        self._upload = None
        return info

    def discard(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        if self._upload is not None:
            self._upload.abort()
        if self._part is not None:
            self._part.close()

    def _filling(self) -> PartBuffer:
        assert self._part is not None, "begun"
        return self._part

    def _send(self, part: PartBuffer) -> None:
        if self._upload is None or self._threads is None:
            self._upload = MultipartUpload(self._publication)
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3-part")
        while len(self._under_way) >= THREADS:  # no more parts than that are held
            self._under_way.popleft().result()
        self._numbers += 1
        self._sent_bytes += part.size
        self._under_way.append(self._threads.submit(self._send_one, self._upload, self._numbers, part))
        self._part_bytes = next_part_bytes(self._sent_bytes)
        self._part = PartBuffer(self._part_bytes)

    def _send_one(self, upload: MultipartUpload, number: int, part: PartBuffer) -> None:
        with closing(part):
            upload.send(number, part.body(self._publication.s3.timeout_seconds))
