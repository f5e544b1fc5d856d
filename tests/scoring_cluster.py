"""A stand-in for Kubernetes with images that score, and one that only looks like it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fake_kubernetes import FakeKubernetes, Image, Processes, fake_kubernetes

# A `python` that does not score: it says that it has begun, and goes on until it is ended.
_ENDLESS = '#!/bin/sh\necho "INFO: Scoring on cpu"\nexec sleep 600\n'


@contextmanager
def scoring_cluster(folder: Path, access: Mapping[str, str] | None = None) -> Iterator[FakeKubernetes]:
    """Run a cluster, whose data is in ``folder``, for as long as the context lasts.

    Its images: ``scorer:1`` scores; ``scorer-with-access:1``, too, and has the variables in ``access``, as a pod whose
    service account has an identity that the store knows; ``endless:1`` goes on until it is ended.
    """
    endless = folder / "endless" / "python"
    endless.parent.mkdir()
    endless.write_text(_ENDLESS)
    endless.chmod(0o755)
    scorer = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "CLIP_OPERATOR_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    images = {
        "scorer:1": Image(scorer),
        "scorer-with-access:1": Image({**scorer, **(access or {})}),
        "endless:1": Image({"PATH": f"{endless.parent}:/usr/bin:/bin"}),
    }
    with fake_kubernetes(folder / "kubernetes", Processes(images)) as running:
        yield running
