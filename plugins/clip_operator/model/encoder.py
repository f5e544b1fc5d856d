"""Turns images and texts into CLIP embeddings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from clip_operator.errors import JobError
from clip_operator.machine.processors import usable_cpus
from clip_operator.model.preprocessing import choose_preprocessing
from clip_operator.proof.manifest import ModelProvenance
from clip_operator.resizing import Resizing

if TYPE_CHECKING:
    from PIL import Image

    from clip_operator.model.checkpoint import Checkpoint
    from clip_operator.model.device import Device
    from clip_operator.model.preprocessing import Pixels

log = logging.getLogger(__name__)

InputT = TypeVar("InputT")

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

# A tokenizer that was saved without a limit says so with a number like 1e30.
_NO_LIMIT = 1_000_000

# Two lanes on an accelerator: while it computes one batch, the next is copied to it and its kernels are queued.
_ACCELERATOR_LANES = 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as its tokenizer gives it, cut at the model's length.

    :param inputs: the model's inputs by name, such as ``input_ids``, without padding.
    :param truncated: whether the text was longer than the model reads.
    """

    inputs: dict[str, list[int]]
    truncated: bool

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


# Characters, far more than any model reads, and tokenized in an instant.
_LONG_TEXT = 10_000


class ClipEncoder:
    """A CLIP-family model with its own tokenizer and image processor. Made by :func:`load_encoder`.

    ``preprocess`` may be called from many threads, ``tokenize`` from one at a time, and the ``encode_`` methods from
    the threads of :meth:`lane_pool`, or from one thread alone.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        checkpoint: Checkpoint,
        device: Device,
        precision: str,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._device = torch.device(device.name)
        self._preprocessing = choose_preprocessing(image_processor, self._device)
        self._precision = precision
        self._max_tokens = _max_text_tokens(model.config, tokenizer)
        self._long_text: int = getattr(tokenizer, "long_text", _LONG_TEXT)
        # CLIP's text tower is causal or masked, so padding past the longest text of a batch changes nothing. SigLIP
        # attends to its padding and was trained with all of it.
        self._pads_to_maximum = str(model.config.model_type).startswith("siglip")
        self.batch_size = 1
        """How many images are to go through the model together, if the memory takes them."""
        self._most_at_once: int | None = None  # known once a larger batch did not fit
        self._lock = threading.Lock()
        self.lanes = usable_cpus() if self._device.type == "cpu" else _ACCELERATOR_LANES
        self.provenance = ModelProvenance(
            name=checkpoint.name,
            source=checkpoint.source,
            revision=checkpoint.revision,
            digest=checkpoint.digest,
            architecture=type(model).__name__,
            image_processor=type(image_processor).__name__,
            preprocessing=self._preprocessing.name,
            tokenizer=type(tokenizer).__name__,
            max_text_tokens=self._max_tokens,
            parameters=sum(p.numel() for p in model.parameters()),
            precision=precision,
        )

    @property
    def dimensions(self) -> int:
        """The length of an embedding."""
        config = self._model.config
        return int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)

    @property
    def image_batch(self) -> int:
        """How many images go through the model together, or fewer where the memory proved too small for them."""
        return self.batch_size if self._most_at_once is None else min(self.batch_size, self._most_at_once)

    @property
    def resizing(self) -> Resizing | None:
        """All that :meth:`preprocess` does, where that is a resize and a crop and gives uint8 of [height, width, 3]."""
        return self._preprocessing.resizing

    def text_batch(self, tokens: int) -> int:
        """Return how many texts of up to this many tokens go together: those that have a batch of images' tokens."""
        length = self._max_tokens if self._pads_to_maximum else tokens
        return max(1, self.image_batch * image_tokens(self._model.config) // length)

    @contextmanager
    def lane_pool(self) -> Iterator[ThreadPoolExecutor]:
        """Give the threads in which batches are encoded, :attr:`lanes` of them; unfinished work is dropped at the end.

        On the CPU every lane computes in one thread. Two batches side by side are faster than both processors on one
        batch, where each layer ends by waiting for the slower half, and a decoder that takes a processor for a moment
        holds up one of them and not both.
        """
        threads_before = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.lanes, thread_name_prefix="clip-encode", initializer=self._enter_lane)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            torch.set_num_threads(threads_before)  # a lane's setting is inherited by every new thread

    def _enter_lane(self) -> None:
        if self._device.type == "cpu":
            torch.set_num_threads(1)

    def preprocess(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB image as the checkpoint's image processor says."""
        return self._preprocessing.prepare(image)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of texts, those that are too long cut at the model's own length."""
        texts = [self._beginning(text) if len(text) > self._long_text else text for text in texts]
        batch = self._tokenizer(texts, truncation=True, max_length=self._max_tokens)
        if batch.encodings is not None:  # the fast tokenizers keep what they cut off
            truncated = [bool(encoding.overflowing) for encoding in batch.encodings]
        else:
            whole = self._tokenizer(texts, verbose=False)
            truncated = [len(ids) > self._max_tokens for ids in whole["input_ids"]]
        return [Tokens({name: values[i] for name, values in batch.items()}, cut) for i, cut in enumerate(truncated)]

    def _beginning(self, text: str) -> str:
        """Return as much of a very long text as decides all the tokens that the model reads, or all of it.

        Tokenizers take their time and memory for what will be cut off, too: a minute and 9 GB for 10 MB of emoji.
        """
        length = self._long_text
        while length < len(text):
            # Where it breaks off, the last tokens may be others; those that are read are far from there. How many
            # characters they take cannot be known beforehand: runs of white space may be dropped.
            if len(self._tokenizer(text[:length], verbose=False)["input_ids"]) > 2 * self._max_tokens:
                return text[:length]
            length *= 2
        return text

    def encode_images(self, images: Sequence[Pixels]) -> torch.Tensor:
        """Return the embeddings of preprocessed images: float32 on the CPU, [images, dimensions], rows of length 1.

        A batch that does not fit into the device's memory is encoded in halves, and so are those after it.

        :raises JobError: the memory is too small for a single image.
        """
        return self._fitting(images, lambda part: self._model.get_image_features(**self._preprocessing.collate(part)))

    def encode_texts(self, texts: Sequence[Tokens]) -> torch.Tensor:
        """Return the embeddings of texts: float32 on the CPU, [texts, dimensions], rows of length 1.

        Texts of like length belong together: each batch is padded to its longest, or, for SigLIP, to the maximum.

        :raises JobError: the memory is too small for a single text, or the tokenizer does not belong to the model.
        """
        return self._fitting(texts, lambda part: self._model.get_text_features(**self._padded(part)))

    def _padded(self, texts: Sequence[Tokens]) -> Any:
        padding = "max_length" if self._pads_to_maximum else "longest"
        inputs = {name: [text.inputs[name] for text in texts] for name in texts[0].inputs}
        batch = self._tokenizer.pad(inputs, padding=padding, max_length=self._max_tokens, return_tensors="pt")
        known, highest = int(self._model.config.text_config.vocab_size), int(batch["input_ids"].max())
        if highest >= known:  # on a GPU it would end the process
            raise JobError(
                f"the model's tokenizer gives a text the token {highest}, and the model knows {known}; the tokenizer's "
                "files are another model's"
            )
        return batch.to(self._device)

    def _fitting(self, inputs: Sequence[InputT], forward: Callable[[Sequence[InputT]], Any]) -> torch.Tensor:
        """Return the normalised embeddings of ``inputs``, computed in as many parts as the memory asks for."""
        if self._most_at_once is None or len(inputs) <= self._most_at_once:
            try:
                with torch.inference_mode(), self._autocast():
                    return _normalised(forward(inputs))
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(inputs) == 1:
                    raise JobError(
                        f"the memory of {self._device} is too small for this model, even with a batch of one: "
                        f"{str(error).splitlines()[0]}"
                    ) from None
                self._halve(len(inputs))
        half = (len(inputs) + 1) // 2
        return torch.cat([self._fitting(inputs[:half], forward), self._fitting(inputs[half:], forward)])

    def _halve(self, size: int) -> None:
        with self._lock:
            most = size // 2
            if self._most_at_once is None or most < self._most_at_once:
                self._most_at_once = most
                log.warning(
                    "A batch of %d does not fit into the memory of %s; from here on %d at most",
                    size,
                    self._device,
                    most,
                )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=_AUTOCAST[self._precision])


# All those of an EfficientNet, ALIGN's image tower, which has no patches.
_STRIDE_OF_CONVOLUTIONS = 32


def image_tokens(config: Any) -> int:
    """Return about how many tokens the image tower makes of one image: its patches, and one for the whole.

    :param config: the model's configuration, as transformers has it.
    """
    vision = config.vision_config
    patches = getattr(vision, "num_patches", None)
    if patches is None:
        patches = (_side(vision.image_size) // _side(getattr(vision, "patch_size", _STRIDE_OF_CONVOLUTIONS))) ** 2
    return int(patches) + 1


def _side(size: int | list[int] | tuple[int, int]) -> int:
    return size if isinstance(size, int) else min(size)


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell whether torch could not allocate: CUDA has a class for it, other devices and the CPU have only words."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in words)


def _max_text_tokens(config: Any, tokenizer: Any) -> int:
    """Return how many tokens of a text the model reads, by the checkpoint's own word."""
    positions = int(config.text_config.max_position_embeddings)
    limit = int(min(tokenizer.model_max_length, _NO_LIMIT))
    if config.text_config.model_type in ("roberta", "xlm-roberta", "altclip_text_model"):
        positions -= int(config.text_config.pad_token_id) + 1  # RoBERTa numbers positions from after the padding id
    return min(positions, limit)


def _normalised(output: Any) -> torch.Tensor:
    """Return the pooled embeddings in float32 on the CPU, each row scaled to length 1."""
    pooled = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(pooled.float(), dim=-1).cpu()
