"""Memory for what layers compute on the CPU, kept from one layer to the next."""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Room for the outputs of layers in a batch of automatic size. Larger blocks would break up glibc's heaps of 64 MiB.
_LARGEST_KEPT = 8 << 20
_KEPT_PER_ARENA = 32 << 20


def keep_freed_memory() -> None:
    """Tell the allocator of this process to keep blocks of up to 8 MiB that are freed, for the next ones.

    A layer's output is some megabytes. By default glibc gives such blocks back to the system as soon as they are freed
    and asks for new ones, which the kernel fills with zeros, page by page: with a ViT-B/32 a tenth of all processor
    time. The memory that is kept is no more than what was in use at once. Without glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_PER_ARENA)
