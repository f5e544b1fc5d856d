"""A whole job gives the scores of plain transformers, whichever way a family's images are prepared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest
from tests.model.families import FAMILIES


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
def test_scores_are_those_of_plain_transformers(tmp_path: Path, name: str) -> None:
    """SigLIP 2's image processor is used as it is, on whole images that workers have decoded, more than are held."""
    save, _ = FAMILIES[name]
    save(tmp_path / "model")
    random, rows = np.random.default_rng(0), []
    for number in range(24):
        size = (int(random.integers(40, 90)), int(random.integers(40, 90)), 3)
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image_path": f"{number}.png", "text": f"a red circle {number}"})
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(EvaluationRequest(input=str(source), output=str(output), model=str(tmp_path / "model"), report=False))
    scores = [json.loads(line)["clip_score"] for line in output.read_text().splitlines()]

    model = AutoModel.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model", backend="pil")
    padding = "max_length" if name.startswith("siglip") else False
    for row, score in zip(rows, scores, strict=True):
        limit = int(min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings))
        tokens = tokenizer(row["text"], padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode(), Image.open(tmp_path / row["image_path"]) as image:
            text = model.get_text_features(**tokens).pooler_output
            pixels = model.get_image_features(**processor(image.convert("RGB"), return_tensors="pt")).pooler_output
        cosine = float(torch.nn.functional.cosine_similarity(text, pixels))
        assert score == pytest.approx((cosine + 1) / 2, abs=1e-5)
