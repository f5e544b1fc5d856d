"""Nothing in a checkpoint opens other files, imports packages, or takes what its weights do not need."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_operator.errors import JobError
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from tests.conftest import S3, SHAPES
from tests.model.conftest import Find
from tests.model.families import save_siglip_with_sentencepiece
from tests.model.in_bounds import Loader

Edit = Callable[[Path], Any]

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def edit(name: str, where: str, value: Any) -> Edit:
    """Set one field of a JSON file; ``where`` has dots between objects."""

    def make(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        *outer, last = where.split(".")
        part = content
        for key in outer:
            part = part.setdefault(key, {})
        part[last] = value
        (folder / name).write_text(json.dumps(content))

    return make


def embedding(find: Find, folder: Path) -> torch.Tensor:
    encoder = load_encoder(find(folder), choose_device("cpu"), "fp32")
    return encoder.encode_texts(encoder.tokenize(["a red circle"]))


def refusal(find: Find, folder: Path) -> str:
    with pytest.raises(JobError) as caught:
        load_encoder(find(folder), choose_device("cpu"), "fp32")
    assert caught.value.__cause__ is None
    return str(caught.value)


# --- the weights that are loaded are those that the digest covers ---


def other_weights(folder: Path, path: Path) -> None:
    """Write weights that give other scores."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: -weight for name, weight in weights.items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "{outside}", "weights.safetensors", "deep/model.safetensors"]
)
def test_an_index_names_no_other_file_than_the_digest_covers(
    find: Find, checkpoint_folder: Path, tmp_path: Path, name: str
) -> None:
    (checkpoint_folder / "deep").mkdir()
    outside = tmp_path / "outside.safetensors"
    for path in (outside, checkpoint_folder / "weights.safetensors", checkpoint_folder / "deep/model.safetensors"):
        other_weights(checkpoint_folder, path)
    names = load_file(checkpoint_folder / "model.safetensors")
    (checkpoint_folder / "model.safetensors").rename(checkpoint_folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name.format(outside=outside))}
    (checkpoint_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "which is not among the checkpoint's weights" in refusal(find, checkpoint_folder)


def test_a_configuration_names_no_other_weights(find: Find, checkpoint_folder: Path) -> None:
    other_weights(checkpoint_folder, checkpoint_folder / "other.safetensors")
    edit(CONFIG, "transformers_weights", "other.safetensors")(checkpoint_folder)
    assert "config.json has transformers_weights, which is not supported" in refusal(find, checkpoint_folder)


def test_a_configuration_names_no_other_configuration(find: Find, checkpoint_folder: Path) -> None:
    shutil.copy(checkpoint_folder / CONFIG, checkpoint_folder / "config.4.0.0.json")
    edit(CONFIG, "configuration_files", ["config.4.0.0.json"])(checkpoint_folder)
    assert "config.json has configuration_files, which is not supported" in refusal(find, checkpoint_folder)


def test_a_link_that_leads_out_of_the_checkpoint_is_not_followed(
    find: Find, checkpoint_folder: Path, tmp_path: Path
) -> None:
    (checkpoint_folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (checkpoint_folder / "model.safetensors").symlink_to("../elsewhere")
    with pytest.raises(JobError, match=r"model\.safetensors is a link that leads out of .*, and is not followed"):
        find(checkpoint_folder)


def test_links_inside_a_checkpoint_and_those_of_the_hubs_cache_are_followed(
    find: Find, checkpoint_folder: Path, tmp_path: Path
) -> None:
    expected = embedding(find, checkpoint_folder)
    digest = find(checkpoint_folder).digest
    repository = tmp_path / "models--owner--tiny"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    inside = tmp_path / "mounted"  # as Kubernetes mounts a ConfigMap
    shutil.copytree(checkpoint_folder, inside / "..data")
    for path in checkpoint_folder.iterdir():
        shutil.copy(path, blobs / f"sha-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/sha-{path.name}")
        (inside / path.name).symlink_to(f"..data/{path.name}")
    (tmp_path / "named").symlink_to(snapshot)
    for folder in (snapshot, inside, tmp_path / "named"):
        assert find(folder).digest == digest
        assert torch.equal(embedding(find, folder), expected)


@pytest.mark.parametrize("name", ["model.safetensors", CONFIG, TOKENIZER])
def test_a_checkpoint_that_changed_since_its_digest_was_made_is_not_used(
    find: Find, checkpoint_folder: Path, name: str
) -> None:
    checkpoint = find(checkpoint_folder)
    if name == "model.safetensors":
        other_weights(checkpoint_folder, checkpoint_folder / name)
    else:
        (checkpoint_folder / name).write_text((checkpoint_folder / name).read_text() + " ")
    with pytest.raises(JobError, match=f"{name} changed while the checkpoint was being read; run the task again"):
        load_encoder(checkpoint, choose_device("cpu"), "fp32")


def test_a_file_of_a_prefix_that_is_too_long_is_not_copied(
    s3: S3, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIP_OPERATOR_CACHE", str(tmp_path / "cache"))
    sparse(CONFIG, 9 << 20)(checkpoint_folder)
    uri = s3.put_folder(checkpoint_folder, "model")
    with pytest.raises(JobError, match=r"config\.json has 9,437,184 bytes, and such a file has at most 8,388,608"):
        find_checkpoint(uri, None, s3.storage)
    assert not (tmp_path / "cache").exists()


def test_the_digest_of_the_shipped_model_is_what_it_was(find: Find) -> None:
    """Score stores and manifests of every earlier version name it by this."""
    assert find(SHAPES).digest == "ab7ad4779e72d59738ce84e05674ba91957ebef8cb2ad75d5f8a3783b4299c20"


# --- a field decides nothing but numbers ---


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packages beside the installed ones that anything has tried to import."""
    names: list[str] = []

    class Watch:
        @staticmethod
        def find_spec(name: str, path: Any = None, *_: Any) -> None:
            if path is None:
                names.append(name)

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Watch])
    return names


IGNORED: dict[str, Edit] = {
    "attention from the hub": edit(CONFIG, "attn_implementation", "owner/kernel:attention"),
    "attention of a tower": edit(CONFIG, "vision_config.attn_implementation", "flash_attention_2"),
    "attention, spelled from inside": edit(CONFIG, "_attn_implementation_internal", "owner/kernel"),
    "attention that shows itself": edit(CONFIG, "vision_config.output_attentions", True),
    "experts": edit(CONFIG, "experts_implementation", "owner/kernel"),
    "kernels": edit(CONFIG, "use_kernels", True),
    "fused layers": edit(CONFIG, "fusion_config", {"patch_embeddings": True}),
    "another type of numbers": edit(CONFIG, "dtype", "set_default_device"),
    "an old name for it": edit(CONFIG, "torch_dtype", "no_such_type"),
    "layers of their own": edit(CONFIG, "text_config.per_layer_config", {"0": {"hidden_size": 7}}),
    "another name": edit(CONFIG, "_name_or_path", "owner/other"),
    "feed forward in chunks": edit(CONFIG, "text_config.chunk_size_feed_forward", -5),
    "another tokenizer": edit(CONFIG, "tokenizer_class", "BertJapaneseTokenizer"),
    "another image processor": edit(CONFIG, "image_processor_type", "FuyuImageProcessor"),
    "code for a known type": edit(CONFIG, "auto_map", {"AutoModel": "owner/other--code.Model"}),
    "code for the tokenizer": edit(TOKENIZER_CONFIG, "auto_map", {"AutoTokenizer": ["code.A", "code.B"]}),
    "code for the image processor": edit(PREPROCESSOR, "auto_map", {"AutoImageProcessor": "code.A"}),
    "a vocabulary elsewhere": edit(TOKENIZER_CONFIG, "vocab_file", "/etc/hostname"),
    "a tokenizer elsewhere": edit(TOKENIZER_CONFIG, "tokenizer_file", "/etc/hostname"),
    "arguments": edit(TOKENIZER_CONFIG, "init_inputs", ["/etc/hostname"]),
    "a template": edit(TOKENIZER_CONFIG, "chat_template", "{{ ''.__class__ }}"),
    "a device": edit(PREPROCESSOR, "device", "cuda"),
    "an adapter": edit("adapter_config.json", "base_model_name_or_path", "owner/other"),
    "a way to generate": edit("generation_config.json", "custom_generate", "owner/other"),
    "a pipeline": edit(CONFIG, "custom_pipelines", {"x": {"impl": "code.X"}}),
    "padding": edit(TOKENIZER, "padding", {
        "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<|endoftext|>",
    }),
}  # fmt: skip


@pytest.mark.parametrize("make", IGNORED.values(), ids=IGNORED.keys())
def test_what_is_no_number_of_a_model_changes_nothing(
    find: Find, checkpoint_folder: Path, imported: list[str], make: Edit
) -> None:
    expected = embedding(find, checkpoint_folder)
    imported.clear()
    make(checkpoint_folder)
    assert torch.equal(embedding(find, checkpoint_folder), expected)
    assert not {"kernels", "peft", "flash_attn", "bitsandbytes", "code"} & {name.split(".")[0] for name in imported}


REFUSED: dict[str, tuple[Edit, str]] = {
    "quantized": (edit(CONFIG, "quantization_config", {"quant_method": "gptq", "bits": 4}), "has quantization_config"),
    "quantized tower": (edit(CONFIG, "text_config.quantization_config", {"quant_method": "x"}), "quantization_config"),
    "tokenizer": (edit(TOKENIZER_CONFIG, "tokenizer_class", "BertJapaneseTokenizer"), "tokenizer_class is 'BertJap"),
    "image processor": (edit(PREPROCESSOR, "image_processor_type", "FuyuImageProcessor"), "image_processor_type is 'F"),
    "activation": (edit(CONFIG, "text_config.hidden_act", "xielu"), "text_config.hidden_act is 'xielu', not one of"),
    "type": (edit(CONFIG, "model_type", "blip-2"), "is a 'blip-2' model, not one of the CLIP family"),
    "no type": (edit(CONFIG, "model_type", ["clip"]), "model_type is list of 1, which transformers does not know"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_need_other_code_is_refused_by_the_name_of_the_field(
    find: Find, checkpoint_folder: Path, imported: list[str], make: Edit, words: str
) -> None:
    make(checkpoint_folder)
    imported.clear()
    assert words in refusal(find, checkpoint_folder)
    assert not {"fugashi", "gptqmodel", "optimum", "xielu"} & {name.split(".")[0] for name in imported}


def test_a_dual_encoder_is_made_of_known_towers_only(find: Find, checkpoint_folder: Path) -> None:
    edit(CONFIG, "model_type", "vision-text-dual-encoder")(checkpoint_folder)
    edit(CONFIG, "vision_config.model_type", "timm_wrapper")(checkpoint_folder)
    edit(CONFIG, "text_config.model_type", "bert")(checkpoint_folder)
    assert "vision_config.model_type is 'timm_wrapper', not one of" in refusal(find, checkpoint_folder)


def test_what_the_first_conversions_of_clip_said_twice_is_read_as_it_was(find: Find, checkpoint_folder: Path) -> None:
    expected = embedding(find, checkpoint_folder)
    found = json.loads((checkpoint_folder / CONFIG).read_text())
    for name in ("text_config", "vision_config"):
        found[f"{name}_dict"] = found[name]
        found[name] = {**found[name], "hidden_size": 7, "torch_dtype": "float16", "id2label": {"0": "LABEL_0"}}
    (checkpoint_folder / CONFIG).write_text(json.dumps(found))
    assert torch.equal(embedding(find, checkpoint_folder), expected)


def test_an_image_processor_may_stand_in_the_processors_file(find: Find, checkpoint_folder: Path) -> None:
    expected = load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32").resizing
    processor = json.loads((checkpoint_folder / PREPROCESSOR).read_text())
    (checkpoint_folder / PREPROCESSOR).unlink()
    processor["image_processor_type"] = "CLIPImageProcessorPil"  # as transformers 5 names what it has saved
    content = {"image_processor": processor, "processor_class": "CLIPProcessor"}
    (checkpoint_folder / "processor_config.json").write_text(json.dumps(content))
    assert load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32").resizing == expected


def test_a_tokenizer_may_have_the_name_that_transformers_5_gives_it(find: Find, checkpoint_folder: Path) -> None:
    def embedding() -> torch.Tensor:
        encoder = load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32")
        return encoder.encode_texts(encoder.tokenize(["a red circle"]))

    expected = embedding()
    edit(TOKENIZER_CONFIG, "tokenizer_class", "TokenizersBackend")(checkpoint_folder)
    assert torch.equal(embedding(), expected)


# --- nothing absurd is allocated, and nothing takes years ---


def header(length: int, content: bytes = b"{}") -> Edit:
    return lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)


def tensors(**entries: dict[str, Any]) -> Edit:
    content = json.dumps(entries).encode()
    return header(len(content), content + bytes(1000))


def sparse(name: str, size: int) -> Edit:
    """A file that is long and takes no place on the disk."""

    def make(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return make


def nested(name: str) -> Edit:
    return lambda folder: (folder / name).write_text('{"a":' * 200_000)


def pickled(change: Callable[[dict[str, Any]], Any]) -> Edit:
    def make(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(change(weights), folder / "pytorch_model.bin")

    return make


class Asks:
    """Unpickling this calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def inflating(folder: Path) -> None:
    """A pickle that is a thousand times longer once it is inflated."""
    (folder / "model.safetensors").unlink()
    with (
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as file,
    ):
        for _ in range(64):
            file.write(bytes(1 << 20))


def no_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02\x8e" + b"\xff" * 8)


def replaced(*contents: str) -> Edit:
    rules = [{"type": "Replace", "pattern": {"String": "a"}, "content": content} for content in contents]
    return edit(TOKENIZER, "normalizer", {"type": "Sequence", "normalizers": rules})


def split(pattern: str) -> Edit:
    rule = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    return edit(TOKENIZER, "pre_tokenizer", {"type": "Sequence", "pretokenizers": [rule]})


TEXT, VISION = "text_config", "vision_config"
ABSURD: dict[str, tuple[Edit, str]] = {
    "hidden_size": (edit(CONFIG, f"{TEXT}.hidden_size", 10**9), "config.json describes a model of"),
    "hidden_size negative": (edit(CONFIG, f"{TEXT}.hidden_size", -4), "text_config.hidden_size is -4"),
    "layers": (edit(CONFIG, f"{TEXT}.num_hidden_layers", 10**7), "text_config.num_hidden_layers is 10000000"),
    "more layers than tensors": (edit(CONFIG, f"{VISION}.num_hidden_layers", 1000), "vision_config.num_hidden_layers"),
    "layers NaN": (edit(CONFIG, f"{TEXT}.num_hidden_layers", float("nan")), "text_config.num_hidden_layers is nan"),
    "heads": (edit(CONFIG, f"{TEXT}.num_attention_heads", 0), "cannot be loaded"),
    "vocabulary": (edit(CONFIG, f"{TEXT}.vocab_size", 10**10), "text_config.vocab_size is 10000000000"),
    "large vocabulary": (edit(CONFIG, f"{TEXT}.vocab_size", 2 * 10**9), "config.json describes a model of"),
    "positions": (edit(CONFIG, f"{TEXT}.max_position_embeddings", 10**9), "config.json describes a model of"),
    "intermediate": (edit(CONFIG, f"{VISION}.intermediate_size", 10**9), "config.json describes a model of"),
    "projection": (edit(CONFIG, "projection_dim", 10**9), "config.json describes a model of"),
    "image_size": (edit(CONFIG, f"{VISION}.image_size", 10**6), "vision_config.image_size is 1000000"),
    "image_size list": (edit(CONFIG, f"{VISION}.image_size", [32, 10**6]), "vision_config.image_size is 1000000"),
    "patches": (edit(CONFIG, f"{VISION}.image_size", 4096), "make 262144 patches of an image"),
    "patch_size 0": (edit(CONFIG, f"{VISION}.patch_size", 0), "vision_config.patch_size is 0"),
    "patch_size negative": (edit(CONFIG, f"{VISION}.patch_size", -8), "vision_config.patch_size is -8"),
    "patch_size float": (edit(CONFIG, f"{VISION}.patch_size", 7.5), "vision_config.patch_size is 7.5"),
    "patch_size large": (edit(CONFIG, f"{VISION}.patch_size", 1000), "make 0 patches of an image"),
    "channels": (edit(CONFIG, f"{VISION}.num_channels", 10**9), "config.json describes a model of"),
    "a number of 5000 digits": (
        lambda folder: (folder / CONFIG).write_text('{"model_type": "clip", "projection_dim": ' + "9" * 5000 + "}"),
        "config.json is not JSON",
    ),
    "a number of 4000 digits": (edit(CONFIG, "projection_dim", 10**4000), "more than 40 digits"),
    "epsilon": (edit(CONFIG, f"{TEXT}.layer_norm_eps", float("inf")), "text_config.layer_norm_eps is inf"),
    "tower that is none": (edit(CONFIG, TEXT, [1]), "text_config is list of 1"),
    "list": (edit(CONFIG, f"{TEXT}.eos_token_id", [1] * 100), "text_config.eos_token_id is list of 100"),
    "deep configuration": (nested(CONFIG), "config.json is not JSON"),
    "deep tokenizer": (nested(TOKENIZER), "tokenizer.json is not JSON"),
    "long configuration": (sparse(CONFIG, 1 << 30), "config.json has 1,073,741,824 bytes, and such a file has at most"),
    "long tokenizer": (sparse(TOKENIZER, 1 << 30), "tokenizer.json has 1,073,741,824 bytes"),
    "long image processor": (sparse(PREPROCESSOR, 1 << 30), "preprocessor_config.json has 1,073,741,824 bytes"),
    "header of 2^40": (header(1 << 40), "model.safetensors was cut off: its header has 1099511627776 bytes"),
    "header of 2^63": (header(1 << 63), "model.safetensors was cut off"),
    "header that is long": (
        lambda folder: [header(1 << 26)(folder), sparse("model.safetensors", (1 << 26) + 8)(folder)],
        "model.safetensors has a header of 64 MiB",
    ),
    "header nested": (header(100_000, b'{"a":' * 20_000), "model.safetensors has a header that cannot be read"),
    "shape of 10^9": (
        tensors(a={"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 1000]}),
        "model.safetensors has a header that cannot be read: the shape list of 2 does not fit into its 1000 bytes",
    ),
    "shape of a million dimensions": (
        tensors(a={"dtype": "F32", "shape": [2] * 1_000_000, "data_offsets": [0, 1000]}),
        "model.safetensors has a header that cannot be read: the shape list of 1000000 does not fit",
    ),
    "negative shape": (
        tensors(a={"dtype": "F32", "shape": [-10, -25], "data_offsets": [0, 1000]}),
        "model.safetensors has a header that cannot be read",
    ),
    "overlapping tensors": (
        tensors(**{f"t{n}": {"dtype": "F32", "shape": [250], "data_offsets": [0, 1000]} for n in range(9)}),
        "model.safetensors has a header that cannot be read: its tensors overlap",
    ),
    "offsets outside": (
        tensors(a={"dtype": "F32", "shape": [1], "data_offsets": [10**9, 10**9 + 4]}),
        "model.safetensors has a header that cannot be read",
    ),
    "pickle that asks for memory": (
        pickled(lambda weights: {**weights, "x": Asks(bytearray, 1 << 34)}),
        "hold more than weights, such as code to run, and are not loaded",
    ),
    "pickle that asks for a tensor": (
        pickled(lambda weights: {**weights, "x": Asks(torch.FloatTensor, 1 << 33)}),
        "hold more than weights, such as code to run, and are not loaded",
    ),
    "pickle with an expanded tensor": (
        pickled(lambda weights: {**weights, "text_projection.weight": torch.zeros(1).expand(10**6, 10**6)}),
        "weights do not fit config.json, such as text_projection.weight",
    ),
    "pickle that inflates": (inflating, "pytorch_model.bin is compressed"),
    "pickle that is none": (no_pickle, "pytorch_model.bin cannot be read"),
    "size": (edit(PREPROCESSOR, "size", {"shortest_edge": 10**5}), "size.shortest_edge is 100000"),
    "size of both": (edit(PREPROCESSOR, "size", {"height": 10**5, "width": 10**5}), "size.height is 100000"),
    "size 0": (edit(PREPROCESSOR, "size", {"shortest_edge": 0}), "preprocessor_config.json: size.shortest_edge is 0"),
    "crop": (edit(PREPROCESSOR, "crop_size", {"height": 10**5, "width": 10**5}), "crop_size.height is 100000"),
    "mean NaN": (edit(PREPROCESSOR, "image_mean", [float("nan")] * 3), "preprocessor_config.json: image_mean is nan"),
    "std 0": (edit(PREPROCESSOR, "image_std", [0, 1, 1]), "preprocessor_config.json: image_std is 0"),
    "std NaN": (edit(PREPROCESSOR, "image_std", [float("nan")] * 3), "preprocessor_config.json: image_std is nan"),
    "std of a million channels": (edit(PREPROCESSOR, "image_std", [1] * 10**6), "image_std is list of 1000000"),
    "rescale": (edit(PREPROCESSOR, "rescale_factor", float("inf")), "preprocessor_config.json: rescale_factor is inf"),
    "resample": (edit(PREPROCESSOR, "resample", 77), "preprocessor_config.json: resample is 77"),
    "flag": (edit(PREPROCESSOR, "do_resize", {"a": 1}), "preprocessor_config.json: do_resize is dict of 1"),
    "long replacement": (replaced("x" * 10**5), "tokenizer.json: its rules make 400004 characters of one"),
    "replacement of replacements": (replaced(*["aa"] * 60), "tokenizer.json: its rules make"),
    "endless rules": (replaced(*["a"] * 10**5), "tokenizer.json has more than 256 KiB of rules"),
    "repetition in a repetition": (split("(a+)+$"), "tokenizer.json: the pattern '(a+)+$' may take years for a text"),
    "repeated choice": (split("(?:a|a)*b"), "tokenizer.json: the pattern '(?:a|a)*b' may take years"),
    "reference back": (split(r"(a*)\1b"), "may take years"),
    "repetition in disguise": (split("(?#[)(a+)+](?#])b"), "may take years"),
    "normalizer that is none": (
        edit(TOKENIZER, "normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
        "tokenizer.json: precompiled_charsmap has 4 bytes, and its trie 4294967295",
    ),
    "normalizer of long characters": (
        edit(TOKENIZER, "normalizer", {
            "type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(4) + b"x" * 10**6).decode(),
        }),
        "tokenizer.json: its rules make 4000000 characters of one",
    ),
    "token that the model has not": (
        edit(TOKENIZER, "model.vocab.a", 4_000_000),
        "the model's tokenizer gives a text the token 4000000, and the model knows 519",
    ),
    "extra ids": (edit(TOKENIZER_CONFIG, "extra_ids", 10**9), "tokenizer_config.json: extra_ids is 1000000000"),
    "token": (edit(TOKENIZER_CONFIG, "pad_token", "x" * 10**6), "tokenizer_config.json: pad_token has"),
    "text limit": (edit(TOKENIZER_CONFIG, "model_max_length", -1), "tokenizer_config.json: model_max_length is -1"),
    "dropout": (edit(TOKENIZER, "model.dropout", 0.5), "gives a text other tokens each time"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bounded() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


@pytest.mark.parametrize(("make", "words"), ABSURD.values(), ids=ABSURD.keys())
def test_what_asks_for_the_absurd_ends_in_words_in_little_memory(
    bounded: Loader, checkpoint_folder: Path, make: Edit, words: str
) -> None:
    make(checkpoint_folder)
    message = bounded.load(checkpoint_folder, text="a" * 60)
    assert words in message
    assert str(checkpoint_folder) in message or "the model's tokenizer" in message
    assert "clip-operator-job-" not in message, "the folder that is gone is not named"
    assert len(message) < 1000
    assert message.isprintable()


def test_a_scale_that_is_no_number_changes_no_score(find: Find, checkpoint_folder: Path) -> None:
    expected = embedding(find, checkpoint_folder)
    weights = load_file(checkpoint_folder / "model.safetensors")
    weights["logit_scale"] = torch.tensor(float("nan"))
    save_file(weights, checkpoint_folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(embedding(find, checkpoint_folder), expected)


def test_a_number_that_no_embedding_needs_takes_no_memory(bounded: Loader, checkpoint_folder: Path) -> None:
    edit(CONFIG, "num_labels", 10**10)(checkpoint_folder)
    assert bounded.load(checkpoint_folder) == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff" * 1000, "spiece.model is no SentencePiece model"),
        (b"\xff" * (8 << 20), "spiece.model is no SentencePiece model"),  # of one number it would be hours
        (b"\x0a\xff\xff\xff\x07a", "could not parse "),
        (
            b"\x1a\x06\x12\x04\xff\xff\xff\xff",
            "spiece.model: precompiled_charsmap has 4 bytes, and its trie 4294967295",
        ),
    ],
)
def test_a_damaged_sentencepiece_model_is_refused_by_its_name(
    find: Find, tmp_path: Path, content: bytes, words: str
) -> None:
    save_siglip_with_sentencepiece(tmp_path)
    (tmp_path / "spiece.model").write_bytes(content)
    assert words in refusal(find, tmp_path)


# The patterns of tokenizers that are in use: CLIP's, GPT-2's, Llama's, GPT-4o's, and those of normalizers.
PATTERNS = [
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}(?=(?:\p{N}{3})*\b)| ?[^\s]+[\r\n/]*",
    r"[\^!\"#$%&'()*+,\-./:;<=>?@\[\]_`{|}~]",
    r" {2,}",
    r"\s+",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_patterns_of_tokenizers_in_use_are_taken(find: Find, checkpoint_folder: Path, pattern: str) -> None:
    split(pattern)(checkpoint_folder)
    load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32")
