"""Every setting of a GIT model as a frozen, keyword-only dataclass; configs/ has them as TOML."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from git_model.utils.errors import ConfigError
from git_model.utils.serialize import coerce, from_dict, is_file, read_mapping, short_repr

T = TypeVar("T")
Style = Literal["huggingface", "microsoft"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
EarlyStopping = Literal[False, True, "never"]
NormPosition = Literal["post", "pre"]
NormKind = Literal["layer", "rms"]
Mask = Literal["prefix", "causal", "isolated"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # mean and std of SigLIP, and of VideoMAE's processor

# Checkpoints that the original runs without a crop, keeping the aspect ratio: image size -> longest
# side (its parameter.yaml: test_crop_size, test_respect_ratio_max). All of them answer questions.
KEEP_ASPECT = {480: 640, 420: 560}


# Upper limits, far above the sizes of every known model: a damaged or hostile file must not ask for
# the whole memory, or for hours of building layers.
MAX_SIZE = 2**16
MAX_SIZE_OF = {
    "vocab_size": 2**20,
    "layers": 2**10,
    "num_beams": 2**10,
    "num_return_sequences": 2**12,
}
MAX_FRAMES = 2**10
MAX_IMAGE_SIDE = 2**12  # pixels
MAX_EOS_IDS = 2**6
MAX_PURPOSE = 200  # characters
MAX_NEW_TOKENS = 20  # unless an option says otherwise


def _positive(config: Any, table: str, *names: str) -> None:
    for name in names:
        value, largest = getattr(config, name), MAX_SIZE_OF.get(name, MAX_SIZE)
        if not 1 <= value <= largest:
            limit = "at least 1" if value < 1 else f"at most {largest}"
            raise ConfigError(f"{table}: {name} is {value}, expected {limit}")


def _common_checks(config: Any, table: str) -> None:
    _positive(config, table, "width", "layers", "heads", "mlp_width")
    if config.width % config.heads:
        raise ConfigError(
            f"{table}: width {config.width} is not a multiple of heads {config.heads}"
        )


def _one_of(config: Any, table: str, name: str, choices: Any) -> None:
    value = getattr(config, name)
    if value not in get_args(choices):
        expected = ", ".join(map(str, get_args(choices)))
        raise ConfigError(f"{table}: {name} is {value!r}, expected one of {expected}")


def _fraction(config: Any, table: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ConfigError(f"{table}: {name} is {value}, expected 0 or more and less than 1")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A vision transformer that this project implements: CLIP's, or SigLIP's (see encoder.py). The
    defaults are CLIP's ViT-B/16 at 224 pixels (paper, section 3.1)."""

    kind: Literal["clip", "siglip"] = "clip"
    image_size: int = 224  # pixels a side; the positions are interpolated for other sizes
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: Activation = "quick_gelu"
    norm_eps: float = 1e-5
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "encoder", "kind", Literal["clip", "siglip"])
        _positive(self, "encoder", "image_size", "patch_size")
        _common_checks(self, "encoder")
        _one_of(self, "encoder", "activation", Activation)
        _fraction(self, "encoder", "attention_dropout", "norm_eps")
        if self.image_size < self.patch_size:
            raise ConfigError(
                f"encoder: image_size {self.image_size} is smaller than patch_size "
                f"{self.patch_size}, expected at least one patch"
            )

    @property
    def grid(self) -> int:
        """Patches a side that the positions were trained for."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Another image encoder: a model of the library timm, or one that your code registers (see
    towers.py)."""

    KINDS: ClassVar[set[str]] = {"timm"}  # `register_encoder` adds to them
    OTHER_KINDS: ClassVar[str] = "or a kind that your code has registered before (register_encoder)"

    kind: str
    name: str = ""  # which encoder of this kind, such as timm's "vit_small_patch14_dinov2"
    image_size: int  # pixels a side
    width: int  # of its tokens
    norm_eps: float = 1e-5  # of the projector

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            kinds = ", ".join(sorted(self.KINDS))
            raise ConfigError(
                f"encoder: kind is {short_repr(self.kind)}, expected one of clip, siglip, {kinds}, "
                f"{self.OTHER_KINDS}"
            )
        _positive(self, "encoder", "image_size", "width")
        _fraction(self, "encoder", "norm_eps")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The text decoder. The defaults are BERT's post-norm layers under a prefix mask (paper,
    section 3.1)."""

    vocab_size: int = 30522
    positions: int = 1024  # longest text, in tokens
    width: int = 768
    layers: int = 6
    heads: int = 12
    mlp_width: int = 3072
    activation: Activation = "gelu"
    norm_eps: float = 1e-12
    embedding_norm_eps: float = 1e-12  # the original has 1e-8
    dropout: float = 0.1
    attention_dropout: float = 0.1
    tied: bool = False  # the output layer uses the token embeddings as its weight
    norm: NormPosition = "post"  # after each residual connection (BERT), or before each sublayer
    norm_kind: NormKind = "layer"  # LayerNorm or RMSNorm, for every norm of the decoder
    mask: Mask = "prefix"  # what an image token attends to: see `prefix_mask`

    def __post_init__(self) -> None:
        _positive(self, "decoder", "vocab_size", "positions")
        _common_checks(self, "decoder")
        for name, choices in (("norm", NormPosition), ("norm_kind", NormKind), ("mask", Mask)):
            _one_of(self, "decoder", name, choices)
        _one_of(self, "decoder", "activation", Activation)
        _fraction(self, "decoder", "dropout", "attention_dropout", "norm_eps", "embedding_norm_eps")


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """From an image to pixels: resize, crop, scale, normalise. Every choice in which the references
    differ is a field here, so that each checkpoint stores its own choice."""

    short_side: int | None = 224  # resize until the short side has this many pixels; None: do not
    long_side_max: int | None = None  # limit of the long side (style microsoft, questions)
    exact: tuple[int, int] | None = None  # (height, width): stretch to this size instead
    crop: tuple[int, int] | None = (224, 224)  # (height, width) cut from the centre; None: do not
    resample: Resample = "bicubic"
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    transparency: Literal["white", "drop"] = "white"  # lay on white, or drop the alpha channel
    crop_offset: Literal["floor", "round"] = "floor"  # odd margins: Transformers, torchvision
    upright: bool = True  # rotate a photo by its EXIF orientation, as Transformers' `load_image`
    scale_16_bit: bool = True  # 16 bits and floats by their range; the references clip at 255

    def visible_share(self, size: tuple[int, int]) -> float:
        """The share of an image's area that the centre crop keeps, from 0 to 1.

        Args:
            size: (width, height) in pixels.
        """
        if self.crop is None or self.exact is not None or self.short_side is None:
            return 1.0
        scale = self.short_side / min(size)
        if self.long_side_max is not None:
            scale = min(scale, self.long_side_max / max(size))
        sides = zip(size, reversed(self.crop), strict=True)
        return math.prod(min(1.0, kept / (side * scale)) for side, kept in sides)

    def __post_init__(self) -> None:
        if self.exact is not None and (self.short_side or self.long_side_max):
            raise ConfigError("preprocess: give either exact or short_side, not both")
        if self.long_side_max is not None and self.short_side is None:
            raise ConfigError("preprocess: long_side_max needs short_side")
        sizes = (self.short_side, self.long_side_max, *(self.exact or ()), *(self.crop or ()))
        for size in sizes:
            if size is not None and not 1 <= size <= MAX_IMAGE_SIDE:
                raise ConfigError(
                    f"preprocess: a size is {size}, expected from 1 to {MAX_IMAGE_SIDE} pixels"
                )
        if any(not 0 < value < math.inf for value in self.std):
            raise ConfigError(f"preprocess: std is {self.std}, expected numbers above 0")
        for name, values in (("rescale", (self.rescale,)), ("mean", self.mean)):
            if not all(map(math.isfinite, values)):
                raise ConfigError(f"preprocess: {name} is {values}, expected finite numbers")


def style_preprocess(style: Style, *, image_size: int, video: bool) -> PreprocessConfig:
    """The preprocessing that a style's reference uses for a model of this size.

    huggingface: CLIP's; for video checkpoints VideoMAE's (mean and std 0.5, bilinear).
    microsoft: inference.py, `get_image_transform`; frames are treated like any image, and a
        photo's orientation is ignored.
    """
    square = PreprocessConfig(short_side=image_size, crop=(image_size, image_size))
    if style == "huggingface":
        changes: dict[str, Any] = {"mean": HALF, "std": HALF, "resample": "bilinear"}
        return dataclasses.replace(square, **changes) if video else square
    microsoft = dataclasses.replace(square, transparency="drop", crop_offset="round", upright=False)
    if image_size not in KEEP_ASPECT:
        return microsoft
    return dataclasses.replace(microsoft, long_side_max=KEEP_ASPECT[image_size], crop=None)


def siglip_preprocess(image_size: int) -> PreprocessConfig:
    """SigLIP's preprocessing: an image is stretched to a square; mean and std 0.5."""
    size = (image_size, image_size)
    return PreprocessConfig(short_side=None, exact=size, crop=None, mean=HALF, std=HALF)


def _option(default: Any, meaning: str) -> Any:
    """A field whose meaning is also the help text of the command line's option."""
    return field(default=default, metadata={"help": meaning})


# Names of options in other programs; they are not similar to the names here.
OTHER_NAMES = {
    "beam_size": "num_beams", "beam_width": "num_beams", "beams": "num_beams",
    "n": "num_return_sequences", "sample": "do_sample", "max_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "dialect": "style", "early_stop": "early_stopping", "generator": "seed",
}  # fmt: skip


def option_hint(name: str) -> str:
    """What to write instead of an unknown decoding option."""
    names = [item.name for item in dataclasses.fields(DecodingOptions)]
    close = get_close_matches(name, names, 1, 0.75)
    other = OTHER_NAMES.get(name) or (close[0] if close else None)
    return f"did you mean {other}?" if other else f"expected one of {', '.join(names)}"


def _with_hints(cls: type[T]) -> type[T]:
    """The dataclass with clearer errors: a TypeError about an unknown field names the right field,
    and a ConfigError names a value of a wrong type."""
    initialize = cls.__init__
    hints = functools.cache(lambda: get_type_hints(cls))
    names = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @functools.wraps(initialize)
    def checked(self: T, *args: Any, **values: Any) -> None:
        for name in values.keys() - names:
            raise TypeError(f"{cls.__name__} has no option {name!r}, {option_hint(name)}")
        plain = {
            name: value.item() if hasattr(value, "item") else value  # a number of NumPy or torch
            for name, value in values.items()
        }
        typed = {
            name: value  # `__post_init__` names the choices
            if get_origin(hints()[name]) is Literal
            else coerce(hints()[name], value, f"{cls.__name__}: {name}")
            for name, value in plain.items()
        }
        initialize(self, *args, **typed)

    cls.__init__ = checked  # type: ignore[assignment]
    return cls


@_with_hints
@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How tokens are chosen: greedily, by beam search (`num_beams`), or at random (`do_sample`).

    Names and meanings are those of Transformers' `generate`, unless a field's help says otherwise.
    """

    max_new_tokens: int = _option(
        None, "Maximum number of generated tokens, the end token included; without it max_length, "
        "if set, is the only limit."
    )  # fmt: skip
    max_length: int | None = _option(
        None, "Maximum number of tokens, prompt included; max_new_tokens, if set, is a limit, too."
    )  # fmt: skip
    min_new_tokens: int = _option(0, "Minimum number of generated tokens before an end token.")
    min_length: int = _option(
        0, "Minimum number of tokens, prompt included; min_new_tokens is a limit, too."
    )
    num_beams: int = _option(1, "Beam width; 1 is greedy search.")
    length_penalty: float = _option(
        1.0, "Beam search: exponent of the length; higher favours longer texts."
    )
    early_stopping: EarlyStopping = _option(
        False, "Beam search: stop at num_beams finished texts (true), by an estimate (false), or "
        "when no better text is possible (never). Style huggingface only."
    )  # fmt: skip
    style: Style = _option("huggingface", "Beam search: score and stop as this reference does.")
    num_return_sequences: int = _option(1, "Number of texts for each image or question.")
    do_sample: bool = _option(False, "Sample each token instead of taking the most probable one.")
    temperature: float = _option(1.0, "Sampling: divide the logits by this.")
    top_k: int = _option(0, "Sampling: keep the k most probable tokens only; 0 keeps all.")
    top_p: float = _option(
        1.0, "Sampling: keep the most probable tokens up to this total probability."
    )
    seed: int = _option(0, "Sampling: seed of the random numbers.")
    repetition_penalty: float = _option(
        1.0, "Above 1: tokens of the prompt and of the text so far become less probable."
    )
    no_repeat_ngram_size: int = _option(0, "No n-gram of this size occurs twice; 0 allows all.")
    no_repeat_token: bool = _option(
        False, "No token follows itself (the original's greedy search)."
    )
    suppress_tokens: tuple[int, ...] = _option((), "Ids of tokens that are never generated.")

    def __post_init__(self) -> None:
        if self.max_new_tokens is None:
            limit = MAX_NEW_TOKENS if self.max_length is None else max(1, self.max_length - 1)
            object.__setattr__(self, "max_new_tokens", limit)
        _positive(self, "decoding", "max_new_tokens", "num_beams", "num_return_sequences")
        for name, good, expected in (
            ("max_length", self.max_length is None or 2 <= self.max_length <= MAX_SIZE,
             f"from 2 to {MAX_SIZE}"),
            ("min_new_tokens", 0 <= self.min_new_tokens < self.max_new_tokens,
             "0 or more and less than max_new_tokens"),
            ("min_length", 0 <= self.min_length < (self.max_length or MAX_SIZE),
             "0 or more and less than max_length"),
            ("style", self.style in get_args(Style), f"one of {', '.join(get_args(Style))}"),
            ("early_stopping",
             isinstance(self.early_stopping, bool) or self.early_stopping == "never",
             "one of False, True, 'never'"),
            ("do_sample", not (self.do_sample and self.num_beams > 1),
             "either do_sample or num_beams"),
            ("num_return_sequences",
             self.do_sample or self.num_return_sequences <= self.num_beams,
             "at most num_beams, or do_sample"),
            ("length_penalty", -100 <= self.length_penalty <= 100, "from -100 to 100"),
            ("temperature", 1e-3 <= self.temperature <= 1e3, "from 0.001 to 1000"),
            ("seed", abs(self.seed) < 2**63, "a number of at most 63 bits"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty <= 1e3, "more than 0, at most 1000"),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "0 or more"),
        ):  # fmt: skip
            if not good:
                raise ConfigError(f"decoding: {name} is {getattr(self, name)}, expected {expected}")

    def changed(self, **values: Any) -> Self:
        """These options with some changes. As in Transformers' `generate`, max_length without
        max_new_tokens replaces both limits, and so does max_new_tokens without max_length.

        Args:
            values: fields by name.

        Raises:
            ConfigError: a value is wrong, or does not fit the others.
            TypeError: no such field.
        """
        limits = {"max_new_tokens", "max_length"}
        replaced = limits if limits & values.keys() else set()
        kept = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return type(self)(
            **{name: value for name, value in kept.items() if name not in replaced} | values
        )

    def max_tokens_after(self, prompt: Sequence[int], limit: int) -> int:
        """The maximum number of new tokens after this prompt, at least 1.

        Args:
            limit: one more limit of new tokens.
        """
        limit = min(limit, self.max_new_tokens)
        return (
            limit if self.max_length is None else max(1, min(limit, self.max_length - len(prompt)))
        )


def style_decoding(style: Style) -> DecodingOptions:
    """How a style's reference decodes by default.

    huggingface: `generate` without options, greedy. microsoft: model.py, `get_git_model`; its limit
    of 1,024 tokens, the start token included, is kept because its stopping rule depends on it.
    """
    if style == "huggingface":
        return DecodingOptions()
    return DecodingOptions(num_beams=4, length_penalty=0.6, style="microsoft", max_new_tokens=1023)


@dataclass(frozen=True, kw_only=True)
class GITConfig:
    """The configuration of a model: encoder, decoder, preprocessing, decoding, special tokens."""

    encoder: EncoderConfig | TowerConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    frames: int = 0  # temporal embeddings: the most frames a clip may have; 0 for images only
    bos_id: int = 101  # [CLS]
    eos_ids: tuple[int, ...] = (102,)  # [SEP] first: it ends training texts; each ends generation
    pad_id: int = 0  # [PAD]
    style: Style = "huggingface"
    purpose: str = ""  # what the model was made for, in a line, such as "captions of photos"
    purpose_side: int = 0  # pixels a side of the largest image it was made for; 0: of any size

    def __post_init__(self) -> None:
        if not 0 <= self.frames <= MAX_FRAMES:
            raise ConfigError(
                f"frames is {self.frames}, expected from 0 (images only) to {MAX_FRAMES}"
            )
        _one_of(self, "model", "style", Style)
        if not (self.purpose.isprintable() and len(self.purpose) <= MAX_PURPOSE):
            raise ConfigError(
                f"purpose is {short_repr(self.purpose)}, expected a line of at most {MAX_PURPOSE} "
                "characters"
            )
        if not 0 <= self.purpose_side <= MAX_SIZE:
            raise ConfigError(
                f"purpose_side is {self.purpose_side}, expected from 0 (any size) to {MAX_SIZE} "
                "pixels"
            )
        if not 1 <= len(set(self.eos_ids)) == len(self.eos_ids) <= MAX_EOS_IDS:
            raise ConfigError(
                f"eos_ids is {short_repr(self.eos_ids)}, expected distinct ids, at least one"
            )
        for name, values in (
            ("bos_id", (self.bos_id,)),
            ("eos_ids", self.eos_ids),
            ("pad_id", (self.pad_id,)),
        ):
            for value in values:
                if not 0 <= value < self.decoder.vocab_size:
                    raise ConfigError(
                        f"{name} has {value}, expected an id below vocab_size "
                        f"{self.decoder.vocab_size}"
                    )

    def exceeds_purpose(self, size: tuple[int, int]) -> bool:
        """Whether an image of this size, in pixels, is larger than what the model was made for."""
        return 0 < self.purpose_side < max(size)

    @property
    def eos_id(self) -> int:
        """The end token of training texts and scored texts."""
        return self.eos_ids[0]

    def with_style(self, style: Style) -> "GITConfig":
        """The configuration for running the model as a style's reference does (docs/styles.md)."""
        if style == self.style:
            return self  # keep its own settings, even if they are not the style's defaults
        eps = 1e-8 if style == "microsoft" else 1e-12
        preprocess = self.preprocess  # other encoders than CLIP's keep their own
        if self.encoder.kind == "clip":
            preprocess = style_preprocess(
                style, image_size=self.encoder.image_size, video=self.frames > 0
            )
        return dataclasses.replace(
            self,
            style=style,
            decoder=dataclasses.replace(self.decoder, embedding_norm_eps=eps),
            preprocess=preprocess,
            decoding=dataclasses.replace(
                style_decoding(style), suppress_tokens=self.decoding.suppress_tokens
            ),
        )


def read_config(path: Path) -> GITConfig:
    """A model's configuration from a .toml or .json file."""
    return from_dict(GITConfig, read_mapping(path), str(path))


def named_config(name: str) -> GITConfig:
    """A configuration that ships with the project (`git_base`, `git_large`, `demo`, …), or the one
    in a .toml file.

    Raises:
        ConfigError: there is no such configuration or file, or the file is damaged.
    """
    if name.endswith(".toml"):
        return read_config(Path(name))
    folder = config_folder() / "model"
    path = folder / f"{name}.toml"
    if not is_file(path):
        names = ", ".join(sorted(item.stem for item in folder.glob("*.toml")))
        raise ConfigError(f"no configuration named {name!r}, expected one of {names}")
    return read_config(path)


def config_folder() -> Path:
    """Where the `configs` data lies: inside an installed package, or at the repository's root."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
