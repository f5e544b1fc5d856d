"""Checkpoints in open_clip's format give open_clip's own embeddings, and open no file but their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from clip_operator.errors import JobError, RowError
from clip_operator.job.evaluation import evaluate
from clip_operator.model import ClipEncoder, choose_device, find_checkpoint, load_encoder
from clip_operator.model.json_file import UnfitFile
from clip_operator.model.open_clip_configuration import read_open_clip_configuration
from clip_operator.model.packed_linear import can_pack
from clip_operator.request import EvaluationRequest
from clip_operator.storage import Storage
from tests.conftest import S3, missing_part
from tests.hub import COMMIT, stand_in_hub
from tests.model.conftest import Find
from tests.model.families import save_chinese_clip, save_siglip
from tests.model.test_hostile_checkpoints import edit, sparse
from tests.model.test_parity import SHAPES_OF_IMAGES, TEXTS, TOLERANCE, drawn, encode_images, encode_texts, is_truncated

pytestmark = pytest.mark.open_clip

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
TIMM = {"timm_model_name": "test_vit", "timm_model_pretrained": True, "timm_pool": "map", "timm_proj": "none"}
SIGLIP_TEXT = {
    **TEXT, "context_length": 24, "vocab_size": 64, "no_causal_mask": True, "pool_type": "last", "proj_bias": True,
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"},
    "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
}  # fmt: skip
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
CONV = {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": None, "timm_drop": 0.0}

FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[Path], None] | None]] = {
    "clip": ({"quick_gelu": True}, {}, None),
    "dfn": ({"vision_cfg": {**VISION, "image_size": 42}}, {"resize_mode": "squash"}, None),
    "resnet": ({"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}}, {}, None),
    "padded": (
        {"vision_cfg": {**VISION, "image_size": [32, 48]}},
        {"resize_mode": "longest", "fill_color": 7, "interpolation": "bilinear"},
        None,
    ),
    "coca": (
        {
            "custom_text": True,
            "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {
                "context_length": 76, "vocab_size": 49408, "width": 16, "heads": 4, "layers": 1, "attn_pooler_heads": 4
            },
        },
        {},
        None,
    ),
    "siglip": (
        {
            "embed_dim": 64,
            "custom_text": True,
            "init_logit_bias": -10,
            "vision_cfg": {**TIMM, "image_size": 160},
            "text_cfg": SIGLIP_TEXT,
        },
        {**HALF, "resize_mode": "squash"},
        save_siglip,
    ),
    "mobileclip": (
        {
            "custom_text": True,
            "vision_cfg": {**CONV, "image_size": 160},
            "text_cfg": {**TEXT, "no_causal_mask": True},
        },
        {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"},
        None,
    ),
    "clips": (
        {
            "custom_text": True,
            "text_cfg": {
                **TEXT, "context_length": 40, "vocab_size": 120, "pool_type": "last", "no_causal_mask": True,
                "hf_tokenizer_name": "bert-base-uncased", "tokenizer_mode": "clips",
            },
        },
        HALF,
        save_chinese_clip,
    ),
}  # fmt: skip
"""What each says beside VISION and TEXT, how images are prepared, and whose tokenizer it brings."""


def save(folder: Path, family: str) -> Path:
    """Save a tiny model as open_clip does."""
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    model_part, preprocessing, save_tokenizer = FAMILIES[family]
    folder.mkdir()
    if save_tokenizer is not None:
        save_tokenizer(folder)
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            (folder / name).unlink()
        if family == "clips":
            edit("tokenizer_config.json", "bos_token", "[CLS]")(folder)
            edit("tokenizer_config.json", "eos_token", "[SEP]")(folder)
    configuration = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT, **model_part}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": configuration, "preprocess_cfg": preprocessing}))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    seed = torch.Generator().manual_seed(7)
    weights = {
        name: torch.randn(value.shape, generator=seed) * 0.3 if value.dim() > 1 else value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(weights)
    save_config_for_hf(model, folder / CONFIG, model_config=configuration)
    save_file(model.state_dict(), folder / WEIGHTS)
    return folder


@dataclass(frozen=True)
class Family:
    """The encoder that is tested, and plain open_clip beside it."""

    name: str
    folder: Path
    encoder: ClipEncoder
    model: Any
    transform: Any
    tokenizer: Any

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> torch.Tensor:
        return torch.cat([self.model.encode_text(self.tokenizer([text]), normalize=True) for text in texts])

    @torch.inference_mode()
    def images(self, images: list[Image.Image]) -> torch.Tensor:
        return torch.cat([self.model.encode_image(self.transform(i).unsqueeze(0), normalize=True) for i in images])


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if find_spec("open_clip") is None:
        missing_part("open_clip (make open-clip-test)")


@pytest.fixture(scope="module", params=FAMILIES)
def family(_installed: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    import open_clip

    folder = save(tmp_path_factory.mktemp("open-clip") / "model", request.param)
    encoder = load_encoder(find_checkpoint(str(folder), None, Storage()), choose_device("cpu"), "fp32")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    return Family(request.param, folder, encoder, model.eval(), transform, tokenizer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "clip", "clip")


def test_texts_have_open_clips_embeddings(family: Family) -> None:
    expected = family.texts(TEXTS)
    assert float((encode_texts(family.encoder, TEXTS) - expected).abs().max()) < TOLERANCE
    assert float(torch.nn.functional.pdist(family.texts(["a red circle", "the blue square", "x 1"])).min()) > 1e-3


def test_images_have_open_clips_embeddings(family: Family) -> None:
    shapes = [*SHAPES_OF_IMAGES[:7], (33, 31), (64, 97), (97, 64), (95, 64)]
    images = [drawn(shape) for shape in shapes if family.name != "padded" or max(shape) < 10 * min(shape)]
    expected = family.images(images)
    assert float((encode_images(family.encoder, images) - expected).abs().max()) < TOLERANCE
    assert float(torch.nn.functional.pdist(expected[-3:]).min()) > 1e-4


def test_images_are_resized_by_workers_where_a_resize_and_a_crop_is_all(family: Family) -> None:
    assert (family.encoder.resizing is None) == (family.name == "padded")


@pytest.mark.skipif(not can_pack(), reason="linear layers are computed by oneDNN on x86 alone")
def test_linear_layers_are_packed_as_those_of_transformers(family: Family) -> None:
    """But for ResNets, whose pooling gives the weights of its layers to a function of PyTorch's."""
    plain = [module for module in family.encoder._model.modules() if type(module) is torch.nn.Linear]
    assert bool(plain) == (family.name == "resnet")


def test_a_text_is_called_truncated_if_it_is_longer_than_the_model_reads(family: Family) -> None:
    """Each ``the`` is one token, with two special ones beside them, or with CLIPS' three."""
    special = 3 if family.name == "clips" else 2
    limit = family.encoder.provenance.max_text_tokens
    texts = ["the " * (limit - special + more) for more in (-1, 0, 1, 2, 500)]
    assert is_truncated(family.encoder, texts) == [False, False, True, True, True]


def test_a_very_long_text_has_open_clips_embedding_at_once(family: Family) -> None:
    for text in ("the red square. " * 2000, "x" * 3000, " " * 5000 + "a red circle"):
        assert float((encode_texts(family.encoder, [text]) - family.texts([text])).abs().max()) < TOLERANCE


def test_a_whole_job_gives_open_clips_scores(family: Family, tmp_path: Path) -> None:
    random, rows, images = np.random.default_rng(0), [], []
    for number in range(6):
        images.append(drawn((int(random.integers(40, 90)), int(random.integers(40, 90))), number))
        images[-1].save(tmp_path / f"{number}.png")
        rows.append({"image_path": f"{number}.png", "text": f"a red circle {number}"})
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = evaluate(
        EvaluationRequest(input=str(source), output=str(output), model=str(family.folder), report=False)
    )
    scores = [json.loads(line)["clip_score"] for line in output.read_text().splitlines()]
    expected = ((family.images(images) * family.texts([row["text"] for row in rows])).sum(dim=1) + 1) / 2
    assert np.abs(np.array(scores) - expected.numpy()).max() < TOLERANCE
    assert manifest.libraries["open_clip_torch"] == "3.3.0"


def test_an_image_of_which_nothing_would_be_left_costs_its_row(tmp_path: Path, find: Find) -> None:
    encoder = load_encoder(find(save(tmp_path / "padded", "padded")), choose_device("cpu"), "fp32")
    with pytest.raises(RowError, match="resizing 5000x1 pixels leaves nothing of one side"):
        encoder.preprocess(Image.new("RGB", (5000, 1)))


# --- where it comes from, and what is read of it ---


def embedding(encoder: ClipEncoder) -> torch.Tensor:
    return encode_texts(encoder, ["a red circle"])


def test_it_is_loaded_from_a_prefix_and_from_the_hub(
    s3: S3, folder: Path, find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIP_OPERATOR_CACHE", str(tmp_path / "cache"))
    expected = find(folder)
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    in_store = find_checkpoint(s3.put_folder(folder, "open clip"), None, s3.storage)
    with stand_in_hub(folder) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        fetched = find_checkpoint("acme/clip", None, Storage())
        assert hub.fetched == {CONFIG, WEIGHTS}
    assert fetched.revision == COMMIT
    assert fetched.digest == in_store.digest == expected.digest
    assert not any((each.path / "open_clip_pytorch_model.bin").exists() for each in (in_store, fetched))
    for each in (in_store, fetched):
        assert torch.equal(
            embedding(load_encoder(each, choose_device("cpu"), "fp32")),
            embedding(load_encoder(expected, choose_device("cpu"), "fp32")),
        )


def test_a_checkpoint_in_both_formats_is_loaded_by_transformers(
    find: Find, folder: Path, checkpoint_folder: Path
) -> None:
    expected = embedding(load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32"))
    for name in (CONFIG, WEIGHTS):
        shutil.copy(folder / name, checkpoint_folder / name)
    both = load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32")
    assert torch.equal(embedding(both), expected)
    assert both.provenance.architecture == "CLIPModel"


def refusal(find: Find, folder: Path) -> str:
    with pytest.raises(JobError) as caught:
        load_encoder(find(folder), choose_device("cpu"), "fp32")
    return str(caught.value)


V, T, P = "model_cfg.vision_cfg", "model_cfg.text_cfg", "preprocess_cfg"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text tower": (edit(CONFIG, f"{T}.hf_model_name", "roberta-base"), "hf_model_name is 'roberta-base', another"),
    "tokenizer": (edit(CONFIG, f"{T}.hf_tokenizer_name", "owner/other"), "hf_tokenizer_name is 'owner/other', and"),
    "hub's tower": (edit(CONFIG, f"{V}.timm_model_name", "hf-hub:owner/x"), "timm_model_name is 'hf-hub:owner/x'"),
    "folder's tower": (edit(CONFIG, f"{V}.timm_model_name", "local-dir:/etc"), "timm_model_name is 'local-dir:/etc'"),
    "unknown tower": (edit(CONFIG, f"{V}.timm_model_name", "no_such"), "timm_model_name is 'no_such', which timm"),
    "other tower": (edit(CONFIG, f"{V}.timm_model_name", "test_vit"), "cannot be loaded from"),
    "random tokens": (
        edit(CONFIG, f"{T}.tokenizer_kwargs", {"reduction_mask": "random"}),
        "'reduction_mask', which",
    ),
    "code": (edit(CONFIG, f"{T}.tokenizer_kwargs", {"trust_remote_code": True}), "'trust_remote_code', which"),
    "unknown": (edit(CONFIG, f"{V}.surprise", 1), "model_cfg.vision_cfg has 'surprise', which is not supported"),
    "width": (edit(CONFIG, f"{V}.width", 8 * 10**5), "describes a model of"),
    "embeddings": (edit(CONFIG, "model_cfg.embed_dim", 10**9), "describes a model of"),
    "vocabulary": (edit(CONFIG, f"{T}.vocab_size", 10**9), "describes a model of"),
    "small vocabulary": (edit(CONFIG, f"{T}.vocab_size", 100), "cannot be loaded from"),
    "layers": (edit(CONFIG, f"{V}.layers", 10**7), "vision_cfg.layers is 10000000; it has to be"),
    "more layers": (edit(CONFIG, f"{T}.layers", 1000), "text_cfg.layers is 1000, and the weights are"),
    "negative": (edit(CONFIG, f"{T}.heads", -1), "text_cfg.heads is -1"),
    "no number": (edit(CONFIG, f"{T}.mlp_ratio", float("nan")), "text_cfg.mlp_ratio is nan"),
    "context": (edit(CONFIG, f"{T}.context_length", 10**6), "text_cfg.context_length is 1000000"),
    "image": (edit(CONFIG, f"{V}.image_size", 10**6), "vision_cfg.image_size is 1000000"),
    "patches": (edit(CONFIG, f"{V}.image_size", 4096), "make 262144 patches of an image"),
    "no patch": (edit(CONFIG, f"{V}.patch_size", 64), "make 0 patches of an image"),
    "deviation": (edit(CONFIG, f"{P}.std", [0.3, 0.0, 0.3]), "preprocess_cfg.std is 0.0, and has to be above 0"),
    "mean": (edit(CONFIG, f"{P}.mean", ["x"]), "preprocess_cfg.mean is 'x', and has to be a number"),
    "resize": (edit(CONFIG, f"{P}.resize_mode", "stretch"), "preprocess_cfg.resize_mode is 'stretch', not one of"),
    "oblong": (edit(CONFIG, f"{V}.image_size", [32, 64]), "images are not square, which is not supported"),
    "no model": (edit(CONFIG, "model_cfg", 7), "has no model_cfg"),
    "long": (sparse(CONFIG, 9 << 20), "open_clip_config.json has 9,437,184 bytes, and such a file has at most"),
    "weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 9), "was cut off: its header has"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_models_own_or_out_of_bounds_is_refused_by_its_name(
    find: Find, folder: Path, make: Callable[[Path], Any], words: str
) -> None:
    make(folder)
    assert words in refusal(find, folder)


def test_every_architecture_of_open_clip_is_known_but_for_those_with_a_text_tower_of_the_hub(tmp_path: Path) -> None:
    from open_clip.factory import get_model_config, list_models

    refused, of_the_hub = {}, set()
    for name in list_models():
        model = get_model_config(name)
        (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": model}))
        if "hf_model_name" in model["text_cfg"]:
            of_the_hub.add(name)
        try:
            read_open_clip_configuration(tmp_path / CONFIG, has_tokenizer=True)
        except UnfitFile as error:
            refused[name] = str(error)
    assert refused.keys() == of_the_hub
    assert all("another repository's text tower" in message for message in refused.values())
    assert len(list_models()) > len(refused) + 100


def test_weights_that_are_missing_are_named(find: Find, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS)
    del weights["text_projection"]
    save_file(weights, folder / WEIGHTS)
    assert 'Missing key(s) in state_dict: "text_projection"' in refusal(find, folder)


def test_names_of_elsewhere_change_nothing_where_the_files_are_there(find: Find, tmp_path: Path) -> None:
    """Nothing is asked of the hub: the tests have none."""
    siglip = save(tmp_path / "siglip", "siglip")
    expected = embedding(load_encoder(find(siglip), choose_device("cpu"), "fp32"))
    edit(CONFIG, f"{T}.hf_tokenizer_name", "/etc")(siglip)
    edit(CONFIG, f"{V}.timm_model_pretrained", True)(siglip)
    edit(CONFIG, "hf_model_name", "owner/other")(siglip)
    edit("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["code.A", None]})(siglip)
    assert torch.equal(embedding(load_encoder(find(siglip), choose_device("cpu"), "fp32")), expected)


def test_a_checkpoint_that_changed_since_its_digest_was_made_is_not_used(find: Find, folder: Path) -> None:
    checkpoint = find(folder)
    edit(CONFIG, f"{P}.resize_mode", "squash")(folder)
    with pytest.raises(JobError, match=f"{CONFIG} changed while the checkpoint was being read; run the task again"):
        load_encoder(checkpoint, choose_device("cpu"), "fp32")


def test_an_open_clip_that_cannot_be_imported_says_so(
    find: Find, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_operator.model.open_clip_loading.import_module", _broken)
    message = refusal(find, folder)
    assert "cannot be imported: ModuleNotFoundError: No module named 'ftfy'; install the extra open-clip" in message


def _broken(name: str) -> Any:
    raise ModuleNotFoundError("No module named 'ftfy'")
