"""What the log says at the end of a job: what would have made it faster, and only what this machine can do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from clip_operator.job.evaluation import evaluate
from clip_operator.job.summary import log_summary
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest
from tests.conftest import SHAPES

HALF_PRECISION = (
    "A faster device for the model would help most, or precision='bf16', for which this processor has instructions: "
    "scores then change by some 0.001 at most."
)


@pytest.fixture(scope="module")
def scored(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationManifest:
    """The manifest of a job on the CPU, in fp32."""
    output = tmp_path_factory.mktemp("scored") / "captions_step1.jsonl"
    return evaluate(
        EvaluationRequest(
            input=f"{shapes_dataset}/captions.jsonl", output=str(output), model=SHAPES, device="cpu", precision="auto"
        )
    )


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose processor has these flags, as the kernel writes them."""
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\nmodel name\t: a processor\nflags\t\t: fpu avx2 {request.param} sha_ni\n\n")
    monkeypatch.setattr("clip_operator.machine.processors._CPU_INFO", cpu_info)


def said(manifest: EvaluationManifest, caplog: pytest.LogCaptureFixture, **work: Any) -> str:
    """Return what is logged of a job as long as to be worth advice, most of whose time went into ``most``."""
    shares = dict.fromkeys(("read", "fetch", "decode", "encode", "write", "save"), 0.02) | {work.pop("most"): 0.9}
    assert manifest.throughput is not None
    throughput = manifest.throughput.model_copy(update={"seconds": 60.0, "time_shares": shares})
    changed = {"throughput": throughput}
    for part, fields in work.items():
        changed[part] = getattr(manifest, part).model_copy(update=fields)
    with caplog.at_level(logging.INFO):
        log_summary(manifest.model_copy(update=changed))
    return caplog.text


@pytest.mark.parametrize("machine", ["avx512_bf16", "amx_bf16"], indirect=True)
@pytest.mark.usefixtures("machine")
def test_half_precision_is_advised_where_the_processor_computes_in_it(
    scored: EvaluationManifest, caplog: pytest.LogCaptureFixture
) -> None:
    assert HALF_PRECISION in said(scored, caplog, most="encode")


@pytest.mark.parametrize(
    ("machine", "work"),
    [
        ("avx512f", {"most": "encode"}),
        ("not_avx512_bf16", {"most": "encode"}),
        ("avx512_bf16", {"most": "encode", "model": {"precision": "bf16"}}),
        ("avx512_bf16", {"most": "encode", "device": {"name": "cuda"}}),
        ("avx512_bf16", {"most": "decode"}),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_it_is_not_where_it_would_bring_nothing(
    scored: EvaluationManifest, caplog: pytest.LogCaptureFixture, work: dict[str, Any]
) -> None:
    text = said(scored, caplog, **work)
    assert "would help most" in text
    assert "bf16" not in text


def test_it_is_not_where_nothing_is_known_of_the_processor(
    scored: EvaluationManifest, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_operator.machine.processors._CPU_INFO", tmp_path / "none")
    assert "A faster device for the model would help most.\n" in said(scored, caplog, most="encode")
