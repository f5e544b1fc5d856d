"""Work that is found done: who asks for it is written into its proof, and what is asked of it is judged anew."""

from __future__ import annotations

from contextlib import suppress

from clip_operator.proof.gates import check_threshold
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.publication import confirm
from clip_operator.proof.standing import find_output, version
from clip_operator.report import page_beside
from clip_operator.report.samples import read_samples
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.steps import report_uri
from clip_operator.storage import ObjectChanged, Storage, Unchanged


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
    if is_judged_anew:
        _judge_report(storage, judged)
    return confirm(storage, judged, requester, even_unasked=is_judged_anew)


def _judge_report(storage: Storage, judged: EvaluationManifest) -> None:
    """Write the report anew, if there is one, whether this request asks for one or an earlier one did.

    Another run may replace the output at this moment. It writes its report after its output, so that what stood there
    before the output was looked at is of this one, and is all that is replaced.
    """
    output = judged.output.uri
    before, samples = storage.find(report_uri(output)), read_samples(storage, output)
    standing = find_output(storage, output)
    if before is None or samples is None or standing is None or version(standing) != judged.output:
        return
    with suppress(ObjectChanged):  # whether the output is still there, the manifest tells
        storage.write(page_beside(storage, judged, samples, output).encode(), report_uri(output), Unchanged(before))
