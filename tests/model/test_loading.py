"""A checkpoint that cannot give true scores is refused before any row is read, in words, and no code in it is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from clip_operator.errors import JobError
from clip_operator.model import choose_device, load_encoder
from clip_operator.request import Precision
from tests.conftest import SHAPES
from tests.model.conftest import Find
from tests.model.families import TOWER
from tests.model.of_any_version import features, load_in_float32


def refusal(find: Find, folder: Path) -> str:
    """Load the checkpoint, which shall be refused; return the message."""
    with pytest.raises(JobError) as caught:
        load_encoder(find(folder), choose_device("cpu"), "fp32")
    assert caught.value.__cause__ is None
    return str(caught.value)


class Touches:
    """Unpickling this creates a file: harmless, and as good a proof as any other code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_in_it_is_refused_and_the_code_is_not_run(
    find: Find, checkpoint_folder: Path, tmp_path: Path
) -> None:
    weights = load_file(checkpoint_folder / "model.safetensors")
    (checkpoint_folder / "model.safetensors").unlink()
    torch.save({**weights, "extra": Touches(tmp_path / "touched")}, checkpoint_folder / "pytorch_model.bin")

    message = refusal(find, checkpoint_folder)

    assert "hold more than weights, such as code to run, and are not loaded" in message
    assert "safetensors" in message
    assert not (tmp_path / "touched").exists()
    torch.load(checkpoint_folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "touched").exists(), "the pickle is as dangerous as it was meant to be"


def test_code_beside_the_checkpoint_is_not_run(find: Find, checkpoint_folder: Path, tmp_path: Path) -> None:
    code = f"import pathlib; pathlib.Path({str(tmp_path / 'touched')!r}).touch()"
    (checkpoint_folder / "configuration_own.py").write_text(code)
    (checkpoint_folder / "modeling_own.py").write_text(code)
    config = json.loads((checkpoint_folder / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {"AutoConfig": "configuration_own.Config", "AutoModel": "modeling_own.Model"}
    (checkpoint_folder / "config.json").write_text(json.dumps(config))

    assert "cannot be loaded" in refusal(find, checkpoint_folder)
    assert not (tmp_path / "touched").exists()


def test_a_checkpoint_that_lacks_weights_is_refused_by_their_names(find: Find, checkpoint_folder: Path) -> None:
    weights = load_file(checkpoint_folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, checkpoint_folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(find, checkpoint_folder)
    assert "lacks 1 weights of CLIPModel (text_projection.weight" in message
    assert "its scores would be random" in message


def test_weights_of_another_shape_are_refused(find: Find, checkpoint_folder: Path) -> None:
    weights = load_file(checkpoint_folder / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros(3, 5)
    save_file(weights, checkpoint_folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(find, checkpoint_folder)
    assert "1 weights do not fit config.json, such as text_projection.weight" in message
    assert "the shape (3, 5) and not (16, 32)" in message


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_weights_file_that_was_cut_off_is_refused(find: Find, checkpoint_folder: Path, kept: int) -> None:
    path = checkpoint_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(find, checkpoint_folder)
    assert f"model '{checkpoint_folder}' cannot be loaded" in message
    assert message.isprintable()


def test_a_missing_shard_is_refused(find: Find, checkpoint_folder: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(checkpoint_folder)
    (checkpoint_folder / "model.safetensors").unlink()
    model.save_pretrained(checkpoint_folder, max_shard_size="60KB")
    next(checkpoint_folder.glob("model-00002-of-*.safetensors")).unlink()
    assert "model-00002-of" in refusal(find, checkpoint_folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_a_damaged_configuration_is_refused(find: Find, checkpoint_folder: Path, name: str) -> None:
    (checkpoint_folder / name).write_text('{"half": ')
    assert "cannot be loaded" in refusal(find, checkpoint_folder)


def test_a_checkpoint_without_an_image_processor_is_refused(find: Find, checkpoint_folder: Path) -> None:
    (checkpoint_folder / "preprocessor_config.json").unlink()
    message = refusal(find, checkpoint_folder)
    assert message.endswith("preprocessor_config.json is missing, which says how images are prepared")


def test_a_checkpoint_without_a_tokenizer_is_refused(find: Find, checkpoint_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (checkpoint_folder / name).unlink(missing_ok=True)
    message = refusal(find, checkpoint_folder)
    assert "the tokenizer's files (tokenizer.json, or vocab.json and merges.txt) are missing" in message


def test_a_text_model_is_not_of_the_family(find: Find, tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(vocab_size=50, **TOWER)).save_pretrained(tmp_path / "bert")
    message = refusal(find, tmp_path / "bert")
    assert "is a 'bert' model, not one of the CLIP family: it has no pair of image and text towers" in message


def test_a_model_with_two_towers_and_no_common_space_is_not_of_the_family(find: Find, checkpoint_folder: Path) -> None:
    text, vision = {**TOWER, "vocab_size": 50}, {**TOWER, "image_size": 32, "patch_size": 8}
    config = transformers.BlipConfig(text_config=text, vision_config=vision)
    transformers.BlipForConditionalGeneration(config).save_pretrained(checkpoint_folder)
    assert "model" in refusal(find, checkpoint_folder)


def test_the_provenance_says_which_parts_were_loaded(find: Find, checkpoint_folder: Path) -> None:
    checkpoint = find(checkpoint_folder)
    provenance = load_encoder(checkpoint, choose_device("cpu"), "fp32").provenance
    assert provenance.name == str(checkpoint_folder)
    assert (provenance.source, provenance.revision, provenance.digest) == ("folder", None, checkpoint.digest)
    assert provenance.architecture == "CLIPModel"
    assert provenance.tokenizer in ("CLIPTokenizer", "CLIPTokenizerFast")
    assert provenance.image_processor.startswith("CLIPImageProcessor")
    weights = load_file(checkpoint_folder / "model.safetensors")
    assert provenance.parameters == sum(weight.numel() for weight in weights.values())
    assert provenance.precision == "fp32"


def test_half_precision_weights_are_computed_with_in_full_precision(find: Find, checkpoint_folder: Path) -> None:
    transformers.CLIPModel.from_pretrained(checkpoint_folder).half().save_pretrained(checkpoint_folder)
    model = load_in_float32(checkpoint_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folder)
    with torch.inference_mode():
        pooled = features(model.get_text_features(**tokenizer(["a red circle"], return_tensors="pt")))
    encoder = load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32")
    embedding = encoder.encode_texts(encoder.tokenize(["a red circle"]))
    assert torch.allclose(embedding, pooled / pooled.norm(), atol=1e-5)


# The largest change of a cosine: bf16 keeps 8 bits of a value, so that it is within 0.4 %, and fp16 keeps 11.
@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.01), ("fp16", 0.001)])
def test_half_precision_deviates_less_than_its_stated_bound_and_does_deviate(
    find: Find, precision: Precision, bound: float
) -> None:
    texts = ["a red circle", "a blue square on white", "two green triangles", "nothing"]
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green", "white")]

    def cosines(precision: Precision) -> torch.Tensor:
        encoder = load_encoder(find(SHAPES), choose_device("cpu"), precision)
        assert encoder.provenance.precision == precision
        encoded = encoder.encode_images([encoder.preprocess(image) for image in images])
        assert encoded.dtype == torch.float32
        return encoded @ encoder.encode_texts(encoder.tokenize(texts)).T

    deviation = float((cosines(precision) - cosines("fp32")).abs().max())
    assert 0 < deviation < bound


def test_the_automatic_precision_is_the_exact_one_on_a_cpu(find: Find) -> None:
    assert load_encoder(find(SHAPES), choose_device("cpu"), "auto").provenance.precision == "fp32"
