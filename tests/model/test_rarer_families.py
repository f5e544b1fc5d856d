"""Families that are seldom met give the embeddings that transformers gives of the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from clip_operator.errors import JobError
from clip_operator.model import choose_device, load_encoder
from tests.model.conftest import Find
from tests.model.families import TOWER
from tests.model.of_any_version import features, load_image_processor, load_in_float32, pixels

VISION = {**TOWER, "image_size": 32, "patch_size": 8}
TEXT = {**TOWER, "vocab_size": 519, "max_position_embeddings": 77, "bos_token_id": 517, "eos_token_id": 518}
GROUPS = {"depths": [1, 1, 1], "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 4], "num_hidden_layers": 3}
NARROW = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1}

CONFIGURATIONS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "aimv2": ("Aimv2Config", VISION, {"projection_dim": 16}),
    "align": ("AlignConfig", NARROW, {"projection_dim": 32}),
    "blip": ("BlipConfig", VISION, {"projection_dim": 16}),
    "clipseg": ("CLIPSegConfig", VISION, {"projection_dim": 16}),
    "groupvit": ("GroupViTConfig", {**VISION, **GROUPS}, {"projection_dim": 16, "projection_intermediate_dim": 16}),
    "owlv2": ("Owlv2Config", VISION, {"projection_dim": 16}),
    "owlvit": ("OwlViTConfig", VISION, {"projection_dim": 16}),
    "tipsv2": ("Tipsv2Config", {k: v for k, v in VISION.items() if k != "intermediate_size"}, {}),
    "vit with bert": ("VisionTextDualEncoderConfig", {**VISION, "model_type": "vit"}, {"projection_dim": 16}),
    "clip with roberta": (
        "VisionTextDualEncoderConfig",
        {**VISION, "model_type": "clip_vision_model"},
        {"projection_dim": 16},
    ),
}
KNOWN = [name for name, (configuration, *_) in CONFIGURATIONS.items() if hasattr(transformers, configuration)]


@pytest.mark.parametrize("family", KNOWN)
def test_a_rarer_family_is_loaded_as_transformers_loads_it(find: Find, checkpoint_folder: Path, family: str) -> None:
    configuration, vision, more = CONFIGURATIONS[family]
    text = dict(TEXT)
    if "with" in family:
        text |= {"model_type": family.split()[-1], "max_position_embeddings": 80}
    torch.manual_seed(3)
    config = getattr(transformers, configuration)(text_config=text, vision_config=dict(vision), **more)
    transformers.AutoModel.from_config(config).save_pretrained(checkpoint_folder)

    encoder = load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32")

    model = load_in_float32(checkpoint_folder)
    image = Image.linear_gradient("L").convert("RGB")
    tokens = transformers.AutoTokenizer.from_pretrained(checkpoint_folder)(["a red circle"], return_tensors="pt")
    seen = pixels(load_image_processor(checkpoint_folder), image)
    with torch.inference_mode():
        expected = features(model.get_text_features(**tokens)), features(model.get_image_features(**seen))
    found = encoder.encode_texts(encoder.tokenize(["a red circle"])), encoder.encode_images([encoder.preprocess(image)])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, torch.nn.functional.normalize(theirs, dim=-1), atol=1e-5)


def refusal(find: Find, folder: Path) -> str:
    with pytest.raises(JobError) as caught:
        load_encoder(find(folder), choose_device("cpu"), "fp32")
    return str(caught.value)


OTHERS = (
    "blip-2", "bridgetower", "clap", "clip_text_model", "clip_vision_model", "clvp", "colpali", "colqwen2", "flava",
    "git", "instructblip", "jina_embeddings_v3", "llava", "lxmert", "pe_video", "qwen2_vl", "sam3", "videoprism",
    "vilt", "visual_bert", "xclip",
)  # fmt: skip


@pytest.mark.parametrize("model_type", [name for name in OTHERS if name in CONFIG_MAPPING])
def test_what_is_no_pair_of_towers_for_images_and_texts_is_refused_by_its_name(
    find: Find, checkpoint_folder: Path, model_type: str
) -> None:
    """X-CLIP, VideoPrism and PE Video embed videos, and CLAP sounds; most of the others read both at once."""
    (checkpoint_folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert f"is a '{model_type}' model, not one of the CLIP family" in refusal(find, checkpoint_folder)


@pytest.mark.parametrize("model_type", ["jina_clip", "evaclip"])
def test_a_family_whose_code_comes_with_the_checkpoint_is_refused_by_its_name(
    find: Find, checkpoint_folder: Path, model_type: str
) -> None:
    content = {"model_type": model_type, "auto_map": {"AutoModel": "modeling.Model"}}
    (checkpoint_folder / "config.json").write_text(json.dumps(content))
    message = refusal(find, checkpoint_folder)
    assert f"model_type is '{model_type}', which transformers does not know, and a checkpoint's own code" in message


@pytest.mark.parametrize(
    "task", ["BlipForImageTextRetrieval", "BlipForConditionalGeneration", "BlipForQuestionAnswering"]
)
def test_a_blip_of_another_task_lacks_the_projections_of_its_embeddings(
    find: Find, checkpoint_folder: Path, task: str
) -> None:
    torch.manual_seed(3)
    config = transformers.BlipConfig(text_config=dict(TEXT), vision_config=dict(VISION), projection_dim=16)
    getattr(transformers, task)(config).save_pretrained(checkpoint_folder)
    message = refusal(find, checkpoint_folder)
    assert "the checkpoint lacks" in message
    assert "weights of BlipModel" in message
