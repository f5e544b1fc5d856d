"""A stand-in for Kubernetes with images that score, and one that only looks like it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fake_kubernetes import FakeKubernetes, Image, Processes, fake_kubernetes, forks
from tests.preloaded import PROCESSES

# A `python` that does not score: it says that it has begun, and goes on until it is ended.
_ENDLESS = '#!/bin/sh\necho "INFO: Scoring on cpu"\nexec sleep 600\n'
# The same, but it does not end when it is asked to.
_STUBBORN = "#!/bin/sh\ntrap '' TERM\n" + 'echo "INFO: Scoring on cpu"\nexec sleep 600\n'


@contextmanager
def scoring_cluster(folder: Path, access: Mapping[str, str] | None = None) -> Iterator[FakeKubernetes]:
    """Run a cluster, whose data is in ``folder``, for as long as the context lasts.

    Its images: ``scorer:1`` scores; ``scorer-with-access:1``, too, and has the variables in ``access``, as a pod whose
    service account has an identity that the store knows; ``scorer-from-scratch:1`` scores in an interpreter that is
    started for it, which takes seconds longer; ``endless:1`` goes on until it is ended; ``stubborn:1``, until it is
    killed.
    """
    for name, text in (("endless", _ENDLESS), ("stubborn", _STUBBORN)):
        python = folder / name / "python"
        python.parent.mkdir()
        python.write_text(text)
        python.chmod(0o755)
    scorer = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "CLIP_OPERATOR_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    images = {
        "scorer:1": Image(scorer, start=forks(PROCESSES)),
        "scorer-with-access:1": Image({**scorer, **(access or {})}, start=forks(PROCESSES)),
        "scorer-from-scratch:1": Image(scorer),
        "endless:1": Image({"PATH": f"{folder / 'endless'}:/usr/bin:/bin"}),
        "stubborn:1": Image({"PATH": f"{folder / 'stubborn'}:/usr/bin:/bin"}),
    }
    with fake_kubernetes(folder / "kubernetes", Processes(images)) as running:
        yield running
