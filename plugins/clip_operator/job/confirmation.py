"""Work that is found done: who asks for it is written into its proof, and what is asked of it is judged anew."""

from __future__ import annotations

from clip_operator.proof.gates import check_threshold
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.publication import confirm
from clip_operator.report import page_beside
from clip_operator.report.samples import read_samples
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.steps import report_uri
from clip_operator.storage import Storage


def confirmed(
    storage: Storage, done: EvaluationManifest, request: EvaluationRequest, requester: Requester | None
) -> EvaluationManifest:
    """Return the manifest of a complete output as that of this request, which may have other gates.

    They decide nothing of what the output holds; manifest and report say how it fares with those of who asked last.

    :param requester: the task instance that asks.
    :raises JobError: the request does not take the threshold that the filtered step was made with.
    """
    if done.calibration is not None:
        check_threshold(request, done.calibration)
    judged = done.model_copy(update={"request": done.request.judged_as(request)})
    is_judged_anew = judged.request != done.request
    if is_judged_anew and request.report and (samples := read_samples(storage, done.output.uri)) is not None:
        page = page_beside(storage, judged, samples, done.output.uri)
        storage.write(page.encode(), report_uri(done.output.uri))
    return confirm(storage, judged, requester, even_unasked=is_judged_anew)
