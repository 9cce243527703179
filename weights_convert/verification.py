"""Checks of a checkpoint: its files, its weights, its vocabulary, and this project's computation
against its references, stage by stage.

The references are Transformers' `GitForCausalLM` on the same weights, where it is installed; the
first logits that were published for the released checkpoints; and this model's own definition, one
pass over image and text without a cache. A comparison loads the same file on both sides, so it
finds mistakes of an implementation, but not of a file, such as a flipped weight or swapped layers.
The sha256 of each file detects those.
"""

import dataclasses
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from git_model.checkpoints.native import CONFIG, is_checkpoint
from git_model.config import DecodingOptions, GITConfig, PreprocessConfig, style_preprocess
from git_model.generation.session import Session
from git_model.model.git import GIT
from git_model.preprocessing.image import decode_image, open_image, preprocess
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.distance import distance
from git_model.utils.errors import GITError
from weights_convert import huggingface
from weights_convert.files import Checkpoint
from weights_convert.inspection import (
    Inspection,
    checkpoint_folder,
    inspect_files,
    inspect_vocabulary,
    inspect_weights,
)
from weights_convert.rules import ConversionError

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # relative to the largest number
PUBLISHED_TOLERANCE = 1e-4  # absolute and relative, as in Transformers' own tests

COCO_CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"
BUS = ("nielsr/textvqa-sample", "bus.png")  # a dataset on the hub, and a file of it
# Source: Transformers' convert_git_to_pytorch.py, `prepare_video`. The indices follow from the
# seed and the number of frames, but the logits also need that video and decord's RGB values, and
# neither is available without a network.
VIDEO_NOTE = (
    "they belong to six random frames (NumPy seed 0) of nielsr/video-demo's eating_spaghetti.mp4, "
    "decoded by the library decord, which cannot be rebuilt exactly offline"
)
UNCACHED = "one uncached pass"


@dataclass(frozen=True)
class Check:
    """A comparison with a reference.

    distance: relative, the largest difference over the largest number; None if not measured.
    note: the reason why it was not measured, or a remark.
    """

    against: str
    stage: str
    distance: float | None
    tolerance: float
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether the distance is above the tolerance; NaN counts as above."""
        return self.distance is not None and not self.distance <= self.tolerance

    def __str__(self) -> str:
        if self.distance is None:
            return f"{self.against:22} {self.stage:18} not compared: {self.note}"
        verdict = "TOO FAR" if self.failed else "ok"
        note = f"  ({self.note})" if self.note else ""
        limit = f"(at most {self.tolerance:.0e})"
        return f"{self.against:22} {self.stage:18} {self.distance:8.1e} {limit} {verdict}{note}"


@torch.inference_mode()
def verify(
    model: GIT,
    source: str,
    *,
    tokenizer: Tokenizer | None = None,
    revision: str | None = None,
    released: str | None = None,
    image: Path | None = None,
) -> Iterator[Check | Inspection]:
    """Every check that can be made of a checkpoint, each as soon as it is done.

    Args:
        model: the checkpoint, opened by this project, in float32 or float64 on the CPU.
        source: where it came from: a folder or a hub id.
        tokenizer: the checkpoint's vocabulary, if it has one.
        released: the name of the released checkpoint, such as "git-base-coco"; by default from the
            hub id.
        image: the image that the published logits belong to; downloaded if not given.

    Raises:
        GITError: no checkpoint named `released` was released, or a file cannot be read.
    """
    if released is None and source.startswith("microsoft/"):
        released = source.removeprefix("microsoft/")
    logits = None if released is None else published_logits(released)
    yield from inspect_files(source, revision)
    yield inspect_weights(model)
    if tokenizer is not None:
        yield inspect_vocabulary(tokenizer, model.config)
    pixels, tokens = random_inputs(model)
    yield from against_one_pass(model, pixels, tokens)
    yield from against_transformers(model, source, revision, pixels, tokens)
    if logits is not None:
        yield against_published(model, str(released), logits, image)


def random_inputs(model: GIT) -> tuple[Tensor, Tensor]:
    """Pixels of two images, or of two clips for a video model, and 8 tokens for each."""
    rng = torch.Generator().manual_seed(0)
    config = model.config
    size = config.encoder.image_size
    shape = (2, config.frames, 3, size, size) if config.frames else (2, 3, size, size)
    pixels = torch.randn(shape, generator=rng, dtype=model.dtype)
    length = min(8, config.decoder.positions)
    return pixels, torch.randint(config.decoder.vocab_size, (2, length), generator=rng)


def against_one_pass(model: GIT, pixels: Tensor, tokens: Tensor) -> Iterator[Check]:
    """Logits with a cache, of the session's steps and of `forward`, against those of one pass over
    image and text together, in which no key or value is reused."""
    reference = model.one_pass(pixels, tokens)
    session = Session(model, model.see(pixels))
    steps = [session.step(tokens[:, n : n + 1]) for n in range(tokens.shape[1])]
    results = {"cached logits": torch.stack(steps, dim=1), "forward logits": model(pixels, tokens)}
    for stage, logits in results.items():
        yield Check(UNCACHED, stage, distance(logits, reference), _tolerance(model))


def against_transformers(
    model: GIT, source: str, revision: str | None, pixels: Tensor, tokens: Tensor
) -> Iterator[Check]:
    """The encoder, the projector, each decoder layer and the logits against Transformers'."""
    try:
        import transformers
    except ImportError:
        yield Check("Transformers", "every stage", None, 0, "pip install transformers")
        return
    name = f"Transformers {transformers.__version__}"
    try:
        huggingface.require_clip_and_bert(model.config)
    except ConversionError as error:
        yield Check(name, "every stage", None, 0, str(error))
        return
    if model.config.style != "huggingface":  # Transformers runs in this style only
        config = model.config.with_style("huggingface")
        model = GIT.from_state(config, model.tensors(), source)
    reference, note = _load_reference(model, source, revision)
    distances = _stage_by_stage(model, reference, pixels, tokens)
    for stage, value in distances.items():
        yield Check(name, stage, value, _tolerance(model), note if stage == "encoder" else "")


def published_logits(name: str) -> list[float]:
    """The first logits that were published for a released checkpoint.

    Source: Transformers' convert_git_to_pytorch.py, where they were checked against the original.

    Raises:
        ConversionError: no checkpoint of this name was released.
    """
    text = Path(__file__).with_name("released.json").read_text(encoding="utf-8")
    published: dict[str, list[float]] = json.loads(text)
    if name not in published:
        raise ConversionError(f"{name} was not released, expected one of {', '.join(published)}")
    return published[name]


def against_published(model: GIT, name: str, logits: list[float], image: Path | None) -> Check:
    """The first logits on the image that they were published for.

    Raises:
        ImageError: the image that was given cannot be read.
    """
    reference = f"published {name}"
    if model.config.frames:
        return Check(reference, "first logits", None, PUBLISHED_TOLERANCE, VIDEO_NOTE)
    try:
        picture = open_image(image) if image else _download_image(name)
    except (OSError, GITError) as error:
        if image:
            raise
        note = f"give its image with --image ({' '.join(str(error).split())})"
        return Check(reference, "first logits", None, PUBLISHED_TOLERANCE, note)
    size = model.config.encoder.image_size
    pixels = preprocess(picture, PreprocessConfig(short_side=size, crop=(size, size)))
    start = torch.tensor([[model.config.bos_id]])
    result = model(pixels[None].to(model.dtype), start)[0, -1, :3]
    published = torch.tensor(logits, dtype=model.dtype)
    tolerance = PUBLISHED_TOLERANCE * (1 + published.abs().max()) / published.abs().max()
    return Check(reference, "first logits", distance(result, published), tolerance.item())


def _tolerance(model: GIT) -> float:
    return TOLERANCE[model.dtype]


def _load_reference(model: GIT, source: str, revision: str | None) -> tuple[Any, str]:
    """Transformers' model of the same checkpoint, which Transformers loads itself if it can, and a
    note on the tensors that it left unset; those get this model's values."""
    folder = checkpoint_folder(source, revision)
    with tempfile.TemporaryDirectory() as temporary:
        if is_checkpoint(folder) or not (folder / CONFIG).is_file():
            folder = Path(temporary) / "hf"
            config = _without_texts(model.config)
            huggingface.write_folder(folder, Checkpoint(config, model.tensors(), None))
        reference, info = _from_pretrained(folder)
    reference = reference.to(model.dtype).eval()
    # The eager attention of its encoder rounds to float32 in between; this one does not.
    reference.config.vision_config._attn_implementation = "sdpa"
    unset = sorted(info["missing_keys"])
    state = huggingface.write_state(model.tensors(), model.config)
    state = {name: state[name] for name in unset if name in state}
    reference.load_state_dict(state, strict=False)
    note = f"Transformers left {len(unset)} tensors unset, such as {unset[0]}" if unset else ""
    return reference, note


def _without_texts(config: GITConfig) -> GITConfig:
    """The configuration of the network alone: logits need neither preprocessing nor decoding, and
    Transformers may lack a setting of those."""
    images = style_preprocess(
        "huggingface", image_size=config.encoder.image_size, video=config.frames > 0
    )
    return dataclasses.replace(config, preprocess=images, decoding=DecodingOptions())


def _from_pretrained(folder: Path) -> tuple[Any, dict[str, Any]]:
    from transformers import GitForCausalLM, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    loaded: tuple[Any, dict[str, Any]] = GitForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    return loaded


def _stage_by_stage(model: GIT, reference: Any, pixels: Tensor, tokens: Tensor) -> dict[str, float]:
    """The distance at each stage, in the order of the computation."""
    length = tokens.shape[1]
    modules = [model.projector, *model.decoder.blocks]
    reference_modules = [reference.git.visual_projection, *reference.git.encoder.layer]
    with _recorded(modules) as calls, _recorded(reference_modules) as reference_calls:
        logits = model(pixels, tokens)
        output = reference(input_ids=tokens, pixel_values=pixels, use_cache=False)
    pairs = list(zip(calls, reference_calls, strict=True))
    (encoded, projected), (reference_encoded, reference_projected) = pairs[0]
    distances = {
        "encoder": distance(encoded, reference_encoded),
        "projector": distance(projected, reference_projected),
    }
    for number, ((_, hidden), (_, reference_hidden)) in enumerate(pairs[1:]):
        distances[f"decoder layer {number}"] = distance(hidden, reference_hidden[:, -length:])
    return distances | {"logits": distance(logits, output.logits[:, -length:])}


@contextmanager
def _recorded(modules: list[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The input and the output of the last call of each of these modules."""
    calls: list[Any] = [None] * len(modules)

    def hook_for(number: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            calls[number] = inputs[0], output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [
        module.register_forward_hook(hook_for(number)) for number, module in enumerate(modules)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _download_image(name: str) -> Image.Image:
    """The image that the logits of a released checkpoint were published for."""
    if name.endswith("-textvqa"):
        from huggingface_hub import hf_hub_download

        return open_image(hf_hub_download(*BUS, repo_type="dataset"))
    with urllib.request.urlopen(COCO_CATS, timeout=20) as response:
        return decode_image(response.read(), COCO_CATS)
