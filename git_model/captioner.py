"""`Captioner`: model, tokenizer and preprocessing in one object; images in, text out."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from git_model.checkpoints.defaults import DEFAULT_MODEL
from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import TOKENIZER
from git_model.config import DecodingOptions, Style
from git_model.generation.arguments import with_hints
from git_model.generation.generate import generate, score_texts
from git_model.generation.sampling import Generation
from git_model.generation.trie import TokenTrie
from git_model.model.git import GIT, Scene
from git_model.preprocessing.image import group_by_shape, preprocess_batch
from git_model.preprocessing.inputs import ImageBatch, ImageInput, LoadedImage, load
from git_model.preprocessing.sampling import ReadOptions, Sampling
from git_model.preprocessing.tokenizer import Tokenizer, prompt_tokens
from git_model.utils.devices import DTYPES, dtype_of, on_device, usable_device
from git_model.utils.errors import GITError
from git_model.utils.kernels import pack_weights
from git_model.utils.serialize import short_repr

MAX_ROWS = 256  # texts that are generated at a time, or one for each image if these are more
MIN_VISIBLE_SHARE = 0.5  # of an image's area; if the crop keeps less there is a warning
T = TypeVar("T")


Texts = list[str] | tuple[str, ...]  # not Sequence[str], which a single str would be, too


@dataclass(frozen=True, repr=False)
class Caption:
    """A text about an image, and its log-probability.

    tokens: ids, with the end token if it was reached.
    logprob: log p(tokens | image), of an answer log p(tokens | image, question): the sum of
        `token_logprobs`, in nats.
    spelling: the tokens as the vocabulary spells them; a notebook uses them to shade the words.
    """

    text: str
    tokens: list[int]
    logprob: float
    token_logprobs: list[float]
    spelling: list[str] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Caption({self.text!r}, logprob={self.logprob:.3f}, {len(self.tokens)} tokens)"

    def _repr_html_(self) -> str:
        """The text for a notebook: the less probable a word, the darker its shade."""
        words = _words(self.spelling, self.token_logprobs) or [(self.text, 0.0)]
        spans = (
            f'<span title="p = {math.exp(logprob):.3f}" style="background: '
            f'rgba(230, 159, 0, {0.7 * (1 - math.exp(logprob)):.2f})">{escape(word)}</span>'
            for word, logprob in words
        )
        return f"<div>{' '.join(spans)} <small>log p {self.logprob:.3f}</small></div>"


@dataclass(frozen=True)
class Label:
    """A label, its probability among all labels of the call (these sum to 1), and log p(text |
    image) of the text that the template makes of the label."""

    label: str
    probability: float
    logprob: float


@dataclass(frozen=True, repr=False)
class ImageScene(Scene):
    """The scene of one image or clip. frames: the indices of a clip's frames, see `LoadedImage`."""

    frames: list[int] | None = None


@dataclass(frozen=True, repr=False)
class BatchScene:
    """The scenes of a batch. Images of one shape share a scene.

    parts: scenes, each with the positions of its images in the batch.
    frames: for each image the indices of a clip's frames, see `LoadedImage`.
    """

    parts: tuple[tuple[list[int], Scene], ...]
    frames: tuple[list[int] | None, ...]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.frames)

    def __repr__(self) -> str:
        return f"BatchScene({len(self)} images of {len(self.parts)} shapes)"

    def select(self, images: Sequence[int]) -> "BatchScene":
        """The scene of these images of the batch, in this order."""
        parts = []
        for members, scene in self.parts:
            chosen = [position for position, image in enumerate(images) if image in members]
            if chosen:
                index = [members.index(images[position]) for position in chosen]
                parts.append((chosen, scene.select(index)))
        return BatchScene(tuple(parts), tuple(self.frames[image] for image in images))


SceneOrImage = ImageScene | ImageInput
SceneOrBatch = BatchScene | ImageBatch


class Captioner:
    """A GIT with its tokenizer and its preprocessing.

    >>> captioner = Captioner.from_pretrained("demo")
    >>> scene = captioner.see("examples/images/two_shapes.png")
    >>> captioner.caption(scene).text
    """

    def __init__(self, model: GIT, tokenizer: Tokenizer | None) -> None:
        self.model = model
        self._tokenizer = tokenizer

    @classmethod
    @with_hints
    def from_pretrained(
        cls,
        name: str | Path = DEFAULT_MODEL,
        *,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        style: Style | None = None,
        integrity: bool = False,
        compile: bool = False,
        adapter: str | Path | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Open a model.

        Args:
            name: a hub id such as "microsoft/git-base-vqav2"; a folder in this project's format, in
                Hugging Face's or in the original's, or one that `git-model export` wrote; or
                "demo", the model inside this package, which knows drawn shapes only. Before a
                download one line on stderr names its size and licence.
            dtype: "float32", "bfloat16", "float16", "float64", or "auto": bfloat16 on a device that
                computes in it, on others float32.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto": a GPU if there is one.
            revision: a branch, tag or commit of a hub id.
            style: "huggingface" or "microsoft": run the checkpoint as that reference does; by
                default the style that the checkpoint names.
            integrity: first compare every file with its digest in the folder's SHA256SUMS; for
                folders that this project wrote, such as those of `git-model convert`.
            compile: run the encoder and the decoder's steps through torch.compile. The first calls
                take minutes, in later processes less, so it seldom saves time on a CPU
                (docs/speed.md). If the model cannot be compiled, a line on stderr says why, and it
                runs uncompiled.
            adapter: a folder with an adapter that was trained on this model (docs/adapters.md).
            token, cache_dir, local_files_only: for a hub id, as in `huggingface_hub`: the access
                token, the folder for downloads, and whether to use only files in that folder.

        Raises:
            GITError: there is no such model, or it is damaged; there is no such device or dtype; or
                the adapter belongs to another model.
        """
        return cls(
            *open_model(
                name,
                dtype=dtype,
                device=device,
                revision=revision,
                style=style,
                integrity=integrity,
                compile=compile,
                adapter=adapter,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )

    def __repr__(self) -> str:
        model = self.model
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        dtype = str(model.dtype).removeprefix("torch.")
        style = model.config.style
        return f"Captioner({size:.1f}M parameters, {dtype}, {model.device}, style {style!r})"

    def to(
        self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> Self:
        """Move the model to a device, convert its weights to a number format (dtype), or both.

        Args:
            device, dtype: as in `from_pretrained`; a dtype may be the first argument, as in torch.

        Returns:
            this captioner. A scene that was encoded before is not moved.

        Raises:
            GITError: no such device or number format, or the model is an exported one.
        """
        if isinstance(device, torch.dtype) or device in DTYPES:
            device, dtype = None, device
        target = self.device if device is None else usable_device(device)
        self.model.to(target, self.model.dtype if dtype is None else dtype_of(dtype, target))
        pack_weights(self.model.decoder)
        return self

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint.

        Raises:
            GITError: the checkpoint has no vocabulary, as the original's checkpoints have none.
        """
        if self._tokenizer is None:
            raise GITError(
                "this checkpoint has no vocabulary, so it cannot read or write text: add vocab.txt "
                "to its folder, or convert it again with --tokenizer FOLDER (for released models "
                "that of bert-base-uncased)"
            )
        return self._tokenizer

    @property
    def purpose(self) -> str:
        """What the model was made for, in a line; "" if its checkpoint does not say."""
        return self.model.config.purpose

    def image_warning(self, image: LoadedImage) -> str | None:
        """A warning in one line if the image is larger than those that the model was made for, or
        if the centre crop cuts off more than half of it.

        Args:
            image: as `load` returns it.

        Returns:
            the line, or None.
        """
        config = self.model.config
        if image.size is None:
            return None
        if not config.exceeds_purpose(image.size):
            return _crop_warning(config.preprocess.visible_share(image.size))
        side, (width, height) = config.purpose_side, image.size
        return (
            f"the model was made for {self.purpose or f'images of at most {side} pixels a side'}; "
            f"this has {width} x {height} pixels, so do not trust its text"
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """Pillow images, or the F frames of a clip, as pixels (B, 3, H, W) in float32, normalised.

        Raises:
            GITError: an image cannot be used, or their sizes differ after preprocessing.
        """
        return preprocess_batch(images, self.model.config.preprocess)

    @with_hints
    def load(self, image: ImageInput, sampling: Sampling | ReadOptions = "uniform") -> LoadedImage:
        """One image or clip as pixels; arguments and errors as in `preprocessing.inputs.load`."""
        return load(image, self.model.config, sampling)

    @overload
    def see(
        self, images: ImageInput, sampling: Sampling | ReadOptions = "uniform"
    ) -> ImageScene: ...

    @overload
    def see(
        self, images: ImageBatch, sampling: Sampling | ReadOptions = "uniform"
    ) -> BatchScene: ...

    @with_hints
    def see(
        self, images: ImageInput | ImageBatch, sampling: Sampling | ReadOptions = "uniform"
    ) -> ImageScene | BatchScene:
        """Encode an image or a clip, or a list of them as a batch, once.

        Args:
            images: as in `load`; a list is always a batch, and its images may have any sizes.
            sampling: as in `load`.

        Returns:
            what `caption`, `ask`, `score` and `classify` take: an `ImageScene` of an image or a
            clip, a `BatchScene` of a list.

        Warns:
            UserWarning: see `image_warning`.

        Raises:
            GITError: a file cannot be read, or the list is empty.
            TypeError: an image is of another type, shape or number format.
        """
        if isinstance(images, list | tuple):
            batch = [self.load(image, sampling) for image in images]
            if (line := warning_line(map(self.image_warning, batch))) is not None:
                warnings.warn(line, stacklevel=3)
            return self.see_batch(batch)
        loaded = self.load(images, sampling)
        if (warning := self.image_warning(loaded)) is not None:
            warnings.warn(warning, stacklevel=3)  # the caller of `see`, behind `with_hints`
        return ImageScene(self.encode(loaded.pixels[None]).layers, loaded.frames)

    def see_batch(self, images: Sequence[LoadedImage]) -> BatchScene:
        """As `see`, for a batch of images that `load` returned.

        Raises:
            GITError: there is no image.
        """
        if not images:
            raise GITError("no image was given, expected at least one")
        pixels = [image.pixels for image in images]
        parts = tuple(
            (group, self.encode(torch.stack([pixels[i] for i in group])))
            for group in group_by_shape(pixels)
        )
        return BatchScene(parts, tuple(image.frames for image in images))

    def see_pixels(self, pixels: Tensor) -> BatchScene:
        """As `see`, for a batch that is preprocessed already, such as a processor's `pixel_values`.

        Args:
            pixels: (B, 3, H, W), or clips (B, F, 3, H, W), resized and normalised.

        Raises:
            GITError: the pixels do not fit the model.
        """
        n_images = len(pixels)
        part = list(range(n_images)), self.encode(pixels)
        return BatchScene((part,), (None,) * n_images)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Scene:
        """The network's scene of a batch of pixels, as in `see_pixels`, on the model's device."""
        return self.model.see(on_device(pixels, self.device).to(self.model.dtype))

    @overload
    def caption(self, scene: SceneOrImage, options: DecodingOptions | None = None) -> Caption: ...

    @overload
    def caption(
        self, scene: SceneOrBatch, options: DecodingOptions | None = None
    ) -> list[Caption]: ...

    @with_hints
    def caption(
        self, scene: SceneOrImage | SceneOrBatch, options: DecodingOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption an image, or each image of a batch.

        Args:
            scene: what `see` returned, or what it takes.
            options: by default those of the checkpoint, `model.config.decoding`.

        Returns:
            the best caption, or for a batch a list with one for each image.

        Raises:
            GITError: as in `see`; or the options do not fit the model.
            TypeError: as in `see`.
        """
        scene = self._seen(scene)
        captions = self.generate(scene, [[None]] * len(scene), options)
        best = [texts[0] for [texts] in captions]
        return best if isinstance(scene, BatchScene) else best[0]

    @overload
    def ask(
        self, scene: SceneOrImage, questions: str, options: DecodingOptions | None = None
    ) -> Caption: ...

    @overload
    def ask(
        self, scene: SceneOrImage, questions: Texts, options: DecodingOptions | None = None
    ) -> list[Caption]: ...

    @overload
    def ask(
        self, scene: SceneOrBatch, questions: str, options: DecodingOptions | None = None
    ) -> list[Caption]: ...

    @overload
    def ask(
        self, scene: SceneOrBatch, questions: Texts, options: DecodingOptions | None = None
    ) -> list[list[Caption]]: ...

    @with_hints
    def ask(
        self,
        scene: SceneOrImage | SceneOrBatch,
        questions: str | Texts,
        options: DecodingOptions | None = None,
    ) -> Caption | list[Caption] | list[list[Caption]]:
        """Answer a question, or a list of them, about each image. Each image is encoded once.

        Args:
            scene, options: as in `caption`.

        Returns:
            a Caption whose text is the best answer; for a list of questions a list of Captions; for
            a batch a list with one of these results for each image.

        Raises:
            GITError: as in `caption`; or there is no question, or one is empty or too long for the
                model's positions.
            TypeError: as in `see`; or a question is not a str.
        """
        scene = self._seen(scene)
        row = [questions] if isinstance(questions, str) else _require_list(questions, "question")
        answers = self.generate(scene, [row] * len(scene), options)
        best = [[texts[0] for texts in image] for image in answers]
        rows = [answer for [answer] in best] if isinstance(questions, str) else best
        return rows if isinstance(scene, BatchScene) else rows[0]

    @overload
    def score(
        self, scene: SceneOrImage, texts: Texts, *, question: str | None = None
    ) -> list[Caption]: ...

    @overload
    def score(
        self, scene: SceneOrBatch, texts: Texts, *, question: str | None = None
    ) -> list[list[Caption]]: ...

    @with_hints
    def score(
        self, scene: SceneOrImage | SceneOrBatch, texts: Texts, *, question: str | None = None
    ) -> list[Caption] | list[list[Caption]]:
        """The exact log p(text | image) of each text, the end token included.

        Args:
            scene: as in `caption`.
            question: score the texts as answers to this question.

        Returns:
            the texts with their log-probabilities, in the order of `texts`; for a batch such a list
            for each image.

        Raises:
            GITError: as in `see`; or there is no text; a text is empty or holds the end token; the
                question is empty; or question and text are too long for the model's positions.
            TypeError: as in `see`; or a text is not a str.
        """
        scene = self._seen(scene)
        tokens = [self._ended(text) for text in _require_list(texts, "text")]
        scored = self._scored(scene, texts, tokens, question)
        return scored if isinstance(scene, BatchScene) else scored[0]

    @overload
    def classify(
        self,
        scene: SceneOrImage,
        labels: Texts,
        *,
        template: str = "{}",
        question: str | None = None,
        generate: Literal[False] = False,
    ) -> list[Label]: ...

    @overload
    def classify(
        self,
        scene: SceneOrBatch,
        labels: Texts,
        *,
        template: str = "{}",
        question: str | None = None,
        generate: Literal[False] = False,
    ) -> list[list[Label]]: ...

    @overload
    def classify(
        self,
        scene: SceneOrImage,
        labels: Texts,
        *,
        template: str = "{}",
        question: str | None = None,
        generate: Literal[True],
    ) -> Caption: ...

    @overload
    def classify(
        self,
        scene: SceneOrBatch,
        labels: Texts,
        *,
        template: str = "{}",
        question: str | None = None,
        generate: Literal[True],
    ) -> list[Caption]: ...

    @with_hints
    def classify(
        self,
        scene: SceneOrImage | SceneOrBatch,
        labels: Texts,
        *,
        template: str = "{}",
        question: str | None = None,
        generate: bool = False,
    ) -> Caption | list[Caption] | list[Label] | list[list[Label]]:
        """Rank labels for each image by their exact probabilities.

        Args:
            scene: as in `caption`.
            template: the text that is made of a label, such as "a photo of a {}".
            question: score the labels as answers to this question.
            generate: generate one label instead, by greedy search under a trie of all labels, as
                the paper classifies (section 4.4). It is not always the most probable label, but
                costs less if there are many.

        Returns:
            all labels, the most probable first; with `generate` a Caption with the generated label
            as its text. For a batch a list with one of these results for each image.

        Raises:
            GITError: as in `score`; or two labels have the same tokens, or the template has no {}.
            TypeError: as in `score`.
        """
        scene = self._seen(scene)
        tokens = self._label_tokens(labels, template)
        if generate:
            best = self._generated_labels(scene, labels, tokens, question)
            return best if isinstance(scene, BatchScene) else best[0]
        ranked = [_as_labels(row) for row in self._scored(scene, labels, tokens, question)]
        return ranked if isinstance(scene, BatchScene) else ranked[0]

    @with_hints
    def generate(
        self,
        scene: SceneOrImage | SceneOrBatch,
        questions: Sequence[Sequence[str | None]],
        options: DecodingOptions | None = None,
    ) -> list[list[list[Caption]]]:
        """All texts that a search returns; `caption` and `ask` keep the best one of them.

        Args:
            scene: as in `caption`.
            questions: for each image a list of its questions, in which None stands for a caption:
                [[None]] for the captions of one image. The lists may differ in length.
            options: as in `caption`.

        Returns:
            for each image, for each of its questions, `options.num_return_sequences` texts, best
            first.

        Raises:
            GITError: as in `ask`; or `questions` has not one list for each image.
            TypeError: as in `see`; or `questions` is not a list of lists.
        """
        options = self.model.config.decoding if options is None else options
        scene = self._seen(scene)
        _require_rows(questions, len(scene))
        prompts = [[self.prompt(question) for question in row] for row in questions]
        results: list[list[list[Caption]]] = [[] for _ in prompts]
        for images, part, chunk in _chunks(scene, prompts, options):
            flat = [prompt for image in images for prompt in prompts[image][chunk]]
            texts = iter(generate(self.model, part, flat, options))
            for image in images:
                n_prompts = len(prompts[image][chunk])
                results[image] += [self._captions(row) for row in islice(texts, n_prompts)]
        return results

    def decoding(self, **changes: Any) -> DecodingOptions:
        """The checkpoint's decoding options with some changes, as keyword arguments change them in
        Transformers' `generate`. `DecodingOptions(…)` has none of the checkpoint's options.

        Args:
            changes: fields of `DecodingOptions` by name.

        Raises:
            ConfigError: a value is wrong, or does not fit the others.
            TypeError: no such field.
        """
        return self.model.config.decoding.changed(**changes)

    @with_hints
    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write a checkpoint folder, the vocabulary included.

        Args:
            folder, overwrite: as in `GIT.save_pretrained`.

        Raises:
            GITError: as in `GIT.save_pretrained`; or the model is an exported one.
        """
        files = {} if self._tokenizer is None else {TOKENIZER: self._tokenizer.to_json()}
        self.model.save_pretrained(folder, overwrite=overwrite, files=files)

    def prompt(self, question: str | None) -> list[int]:
        """The token ids that a text is generated after: the start token and, for an answer, the
        tokens of the question.

        Raises:
            GITError: the question is empty, or too long for the model's positions.
        """
        config = self.model.config
        return (
            [config.bos_id] if question is None else prompt_tokens(question, self.tokenizer, config)
        )

    def _seen(self, scene: SceneOrImage | SceneOrBatch) -> ImageScene | BatchScene:
        return scene if isinstance(scene, ImageScene | BatchScene) else self.see(scene)

    def _captions(self, generations: Sequence[Generation]) -> list[Caption]:
        tokenizer = self.tokenizer
        return [
            _caption(tokenizer.decode(text.tokens), text, tokenizer.tokens(text.tokens))
            for text in generations
        ]

    def _scored(
        self,
        scene: ImageScene | BatchScene,
        names: Texts,
        tokens: Sequence[list[int]],
        question: str | None,
    ) -> list[list[Caption]]:
        """For each image a Caption for each text, with its log-probability. `names` are the texts
        as the caller wrote them, `tokens` their tokens."""
        prompt = self.prompt(question)

        def score(part: Scene, images: list[int]) -> list[list[Caption]]:
            rows = score_texts(self.model, part, [prompt] * len(images), tokens)
            return [
                [
                    Caption(name, text, sum(logprobs), logprobs, self.tokenizer.tokens(text))
                    for name, text, logprobs in zip(names, tokens, row, strict=True)
                ]
                for row in rows
            ]

        return _per_image(scene, score)

    def _generated_labels(
        self,
        scene: ImageScene | BatchScene,
        labels: Texts,
        tokens: Sequence[list[int]],
        question: str | None,
    ) -> list[Caption]:
        """For each image the label that greedy search finds under a trie of all labels."""
        prompt = self.prompt(question)
        name_of = dict(zip(map(tuple, tokens), labels, strict=True))
        longest = max(name_of, key=len)
        limit = self.model.config.decoder.positions - len(prompt)
        if len(longest) > limit:
            raise GITError(
                f"the label {name_of[longest]!r} has {len(longest)} tokens with its end, "
                f"expected at most {limit}"
            )
        options, trie = DecodingOptions(max_new_tokens=len(longest)), TokenTrie(tokens)

        def choose(part: Scene, images: list[int]) -> list[Caption]:
            texts = generate(self.model, part, [prompt] * len(images), options, trie)
            spell = self.tokenizer.tokens
            return [
                _caption(name_of[tuple(best.tokens)], best, spell(best.tokens))
                for best, *_ in texts
            ]

        return _per_image(scene, choose)

    def _ended(self, text: str) -> list[int]:
        """The tokens of a text, and the end token, which the text itself must not hold."""
        tokens, end = self.tokenizer.encode(text), self.model.config.eos_id
        if not tokens:
            raise GITError(f"the text {text!r} is empty, expected some words")
        if end in tokens:
            raise GITError(f"the text {text!r} holds the end token, which is appended anyway")
        return [*tokens, end]

    def _label_tokens(self, labels: Texts, template: str) -> list[list[int]]:
        if "{}" not in template:
            raise GITError(f"the template {template!r} has no place for the label, expected {{}}")
        label_of: dict[tuple[int, ...], str] = {}
        for number, label in enumerate(_require_list(labels, "label"), start=1):
            if not label.strip():
                raise GITError(f"label {number} is empty, expected some words")
            tokens = tuple(self._ended(template.replace("{}", label)))
            if tokens in label_of:
                raise GITError(
                    f"the labels {label_of[tokens]!r} and {label!r} have the same tokens, expected "
                    "distinct ones"
                )
            label_of[tokens] = label
        return [list(tokens) for tokens in label_of]


def _require_list(texts: Texts, kind: str) -> Texts:
    """The texts, if they are a list and not empty; a str would be taken letter by letter."""
    if not isinstance(texts, list | tuple) or not texts:
        raise GITError(f"the {kind}s are {texts!r}, expected a list of at least one {kind}")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"a {kind} is of type {type(text).__name__}, expected str")
    return texts


def warning_line(warnings_of_images: Iterable[str | None]) -> str | None:
    """The warnings about images in one line: the first warning, and the number of images that have
    one; None without a warning."""
    lines = list(warnings_of_images)
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line is not None]
    if not numbered:
        return None
    number, line = numbered[0]
    return f"image {number}: {line} ({len(numbered)} of {len(lines)} images have such a warning)"


def _crop_warning(visible: float) -> str | None:
    if visible >= MIN_VISIBLE_SHARE:
        return None
    return f"the model sees only the middle {visible:.0%} of this image: caption parts of it"


def _require_rows(questions: Sequence[Sequence[str | None]], n_images: int) -> None:
    """Refuse questions that are not a list for each image."""
    is_rows = isinstance(questions, list | tuple)
    if not is_rows or not all(isinstance(row, list | tuple) for row in questions):
        raise TypeError(
            f"questions is {short_repr(questions)}, expected for each image a list of questions, "
            "such as [[None]] for the captions of one image"
        )
    if len(questions) != n_images:
        raise GITError(
            f"questions has {len(questions)} lists, expected one for each image, {n_images} in all"
        )


def _chunks(
    scene: ImageScene | BatchScene, prompts: Sequence[Sequence[list[int]]], options: DecodingOptions
) -> Iterator[tuple[list[int], Scene, slice]]:
    """The work of `Captioner.generate` in parts of at most MAX_ROWS texts, or one prompt for each
    image: images of one shape with equally many prompts, their scene, a slice of their prompts."""
    width = max(options.num_beams, options.num_return_sequences)
    for members, part in _parts(scene):
        for count in sorted({len(prompts[image]) for image in members} - {0}):
            chosen = [n for n, image in enumerate(members) if len(prompts[image]) == count]
            images, selected = [members[n] for n in chosen], part.select(chosen)
            size = max(1, MAX_ROWS // (len(images) * width))
            for first in range(0, count, size):
                yield images, selected, slice(first, first + size)


def _parts(scene: ImageScene | BatchScene) -> Sequence[tuple[list[int], Scene]]:
    """Scenes of one shape, each with the positions of its images."""
    return [([0], scene)] if isinstance(scene, ImageScene) else scene.parts


def _per_image(
    scene: ImageScene | BatchScene, run: Callable[[Scene, list[int]], list[T]]
) -> list[T]:
    """The results of all images, in order; `run` gets the images of one shape at a time."""
    results: dict[int, T] = {}
    for images, part in _parts(scene):
        results.update(zip(images, run(part, images), strict=True))
    return [results[image] for image in sorted(results)]


def _caption(text: str, generation: Generation, spelling: list[str]) -> Caption:
    logprobs = generation.token_logprobs
    return Caption(text, generation.tokens, generation.logprob, logprobs, spelling)


def _words(spelling: Sequence[str], logprobs: Sequence[float]) -> list[tuple[str, float]]:
    """The words of a text with their log-probabilities. A token such as "##s" continues a word;
    special tokens are left out."""
    words: list[tuple[str, float]] = []
    for token, logprob in zip(spelling, logprobs, strict=False):
        if token.startswith("##") and words:
            word, before = words[-1]
            words[-1] = word + token.removeprefix("##"), before + logprob
        elif not (token.startswith("[") and token.endswith("]") and len(token) > 2):
            words.append((token, logprob))
    return words


def _as_labels(scored: Sequence[Caption]) -> list[Label]:
    """Labels with their probabilities among these texts, the most probable first."""
    logprobs = torch.tensor([caption.logprob for caption in scored], dtype=torch.float64)
    labels = [
        Label(caption.text, share, caption.logprob)
        for caption, share in zip(scored, logprobs.softmax(0).tolist(), strict=True)
    ]
    return sorted(labels, key=lambda label: -label.probability)
