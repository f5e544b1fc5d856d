"""Processes that are forks of one which has imported what scoring takes, so that each is there in a moment."""

from __future__ import annotations

import multiprocessing

# Nothing has used torch in the process that is forked, so that there are no threads of its own that a fork would leave
# behind. What libraries read of the environment when they are imported is what the tests run with.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "clip_operator.job.evaluation",
        "clip_operator.cli",
        "clip_operator.model.loading",
        "clip_operator.storage.s3.backend",
        "transformers.models.clip.modeling_clip",
        "transformers.models.clip.image_processing_pil_clip",
        "transformers.models.clip.tokenization_clip",
        "tests.tries",
        "tests.fake_kubernetes.forks",
    ]
)
