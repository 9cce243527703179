"""How far a checkpoint, run by this project, is from its references, stage by stage.

Three references: Transformers' `GitForCausalLM` on the same weights, where it is installed; the
first logits that were published for the released checkpoints; and this model itself, its text fed
token by token through the cache.
"""

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

from git_model.checkpoints.native import CONFIG, folder_of, is_checkpoint
from git_model.config import PreprocessConfig
from git_model.generation.session import Session
from git_model.model.git import GIT
from git_model.preprocessing.image import decode_image, open_image, preprocess
from git_model.utils.errors import GITError
from weights_convert import huggingface
from weights_convert.files import Checkpoint
from weights_convert.hub import find_folder
from weights_convert.rules import ConversionError

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # relative to the largest number
PUBLISHED_TOLERANCE = 1e-4  # absolute and relative, as in Transformers' own tests

COCO_CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"
BUS = ("nielsr/textvqa-sample", "bus.png")  # a dataset on the hub, and a file of it


@dataclass(frozen=True)
class Check:
    """One comparison.

    distance: relative, the largest difference over the largest number; None if not measured.
    note: why it was not measured, or what else to know.
    """

    against: str
    stage: str
    distance: float | None
    tolerance: float
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether the two are further apart than they may be; not a number counts as far."""
        return self.distance is not None and not self.distance <= self.tolerance

    def __str__(self) -> str:
        if self.distance is None:
            return f"{self.against:22} {self.stage:18} not compared: {self.note}"
        verdict = "TOO FAR" if self.failed else "ok"
        more = f"  ({self.note})" if self.note else ""
        limit = f"(at most {self.tolerance:.0e})"
        return f"{self.against:22} {self.stage:18} {self.distance:8.1e} {limit} {verdict}{more}"


@torch.inference_mode()
def verify(
    model: GIT,
    source: str,
    *,
    revision: str | None = None,
    released: str | None = None,
    image: Path | None = None,
) -> Iterator[Check]:
    """Every comparison that can be made, as it is made.

    Args:
        model: the checkpoint, opened by this project, in float32 or float64 on the CPU.
        source: where it came from: a folder or a hub id.
        released: the released checkpoint it is, such as "git-base-coco"; by default told by the
            hub id.
        image: the picture that the published logits belong to; fetched if not given.
    """
    if released is None and source.startswith("microsoft/"):
        released = source.removeprefix("microsoft/")
    expected = None if released is None else published_logits(released)
    draw = torch.Generator().manual_seed(0)
    config, dtype = model.config, model.dtype
    size = config.encoder.image_size
    shape = (2, config.frames, 3, size, size) if config.frames else (2, 3, size, size)
    pixels = torch.randn(shape, generator=draw, dtype=dtype)
    length = min(8, config.decoder.positions)
    tokens = torch.randint(config.decoder.vocab_size, (2, length), generator=draw)
    yield cached_against_uncached(model, pixels, tokens)
    yield from against_transformers(model, source, revision, pixels, tokens)
    if expected is not None:
        yield against_published(model, str(released), expected, image)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def cached_against_uncached(model: GIT, pixels: Tensor, tokens: Tensor) -> Check:
    """Logits of a text fed token by token against those of one pass."""
    scene = model.see(pixels)
    session = Session(model, scene)
    steps = [session.step(tokens[:, n : n + 1]) for n in range(tokens.shape[1])]
    apart = distance(torch.stack(steps, dim=1), model(scene, tokens))
    return Check("one uncached pass", "cached logits", apart, _tolerance(model))


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
    if model.config.style != "huggingface":  # theirs runs in one style only, so ours does, too
        config = model.config.with_style("huggingface")
        model = GIT.from_state(config, model.tensors(), source)
    theirs, note = _load_theirs(model, source, revision)
    apart = _stage_by_stage(model, theirs, pixels, tokens)
    for stage, value in apart.items():
        yield Check(name, stage, value, _tolerance(model), note if stage == "encoder" else "")


def published_logits(name: str) -> list[float]:
    """The first logits that were published for a released checkpoint.

    Source: Transformers' convert_git_to_pytorch.py, where they were checked against the original.

    Raises:
        ConversionError: no checkpoint of this name was released.
    """
    published = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
    if name not in published:
        raise ConversionError(f"{name} was not released, expected one of {', '.join(published)}")
    found: list[float] = published[name]
    return found


def against_published(model: GIT, name: str, logits: list[float], image: Path | None) -> Check:
    """The first logits on the picture that they were published for.

    Raises:
        ImageError: the picture that was given cannot be read.
    """
    against = f"published {name}"
    if model.config.frames:
        note = "they belong to six frames of a video that is read with another library"
        return Check(against, "first logits", None, PUBLISHED_TOLERANCE, note)
    try:
        picture = open_image(image) if image else _fetch(name)
    except (OSError, GITError) as error:
        if image:
            raise
        note = f"give its picture with --image ({' '.join(str(error).split())})"
        return Check(against, "first logits", None, PUBLISHED_TOLERANCE, note)
    size = model.config.encoder.image_size
    pixels = preprocess(picture, PreprocessConfig(short_side=size, crop=(size, size)))
    start = torch.tensor([[model.config.bos_id]])
    weight = model.decoder.lm_head.bias
    found = model(pixels[None].to(weight.dtype), start)[0, -1, :3]
    expected = torch.tensor(logits, dtype=weight.dtype)
    allowed = PUBLISHED_TOLERANCE * (1 + expected.abs().max()) / expected.abs().max()
    return Check(against, "first logits", distance(found, expected), allowed.item())


def _tolerance(model: GIT) -> float:
    return TOLERANCE[model.dtype]


def _load_theirs(model: GIT, source: str, revision: str | None) -> tuple[Any, str]:
    """Transformers' model of the same checkpoint, loaded by Transformers where it can be; and what
    it left unset there, which is filled in from ours."""
    folder = folder_of(source)
    if not is_checkpoint(folder):
        folder = find_folder(source, revision)
    with tempfile.TemporaryDirectory() as temporary:
        if is_checkpoint(folder) or not (folder / CONFIG).is_file():
            folder = Path(temporary) / "hf"
            huggingface.write_folder(folder, Checkpoint(model.config, model.tensors(), None))
        theirs, info = _from_pretrained(folder)
    theirs = theirs.to(model.dtype).eval()
    # The eager attention of their encoder rounds to float32 in between; this one does not.
    theirs.config.vision_config._attn_implementation = "sdpa"
    unset = sorted(info["missing_keys"])
    state = huggingface.write_state(model.tensors(), model.config)
    theirs.load_state_dict({name: state[name] for name in unset if name in state}, strict=False)
    note = f"Transformers left {len(unset)} tensors unset, such as {unset[0]}" if unset else ""
    return theirs, note


def _from_pretrained(folder: Path) -> tuple[Any, dict[str, Any]]:
    from transformers import GitForCausalLM, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found: tuple[Any, dict[str, Any]] = GitForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    return found


def _stage_by_stage(model: GIT, theirs: Any, pixels: Tensor, tokens: Tensor) -> dict[str, float]:
    """The distance at each stage, in the order of the computation."""
    length = tokens.shape[1]
    layers = list(theirs.git.encoder.layer)
    with (
        _recorded(model.projector, *model.decoder.blocks) as ours,
        _recorded(theirs.git.visual_projection, *layers) as their_outputs,
    ):
        our_logits = model(pixels, tokens)
        out = theirs(input_ids=tokens, pixel_values=pixels, use_cache=False)
    (encoded, projected), *_ = ours
    (their_encoded, their_projected), *_ = their_outputs
    found = {
        "encoder": distance(encoded, their_encoded),
        "projector": distance(projected, their_projected),
    }
    for number, ((_, mine), (_, other)) in enumerate(zip(ours[1:], their_outputs[1:], strict=True)):
        found[f"decoder layer {number}"] = distance(mine, other[:, -length:])
    return found | {"logits": distance(our_logits, out.logits[:, -length:])}


@contextmanager
def _recorded(*modules: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What each of these modules was given and gave when it ran last."""
    seen: list[Any] = [None] * len(modules)

    def hook_for(place: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            seen[place] = inputs[0], output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [
        module.register_forward_hook(hook_for(place)) for place, module in enumerate(modules)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _fetch(name: str) -> Image.Image:
    """The picture on which the logits of a released checkpoint were published."""
    if name.endswith("-textvqa"):
        from huggingface_hub import hf_hub_download

        return open_image(hf_hub_download(*BUS, repo_type="dataset"))
    with urllib.request.urlopen(COCO_CATS, timeout=20) as answer:
        return decode_image(answer.read(), COCO_CATS)
