"""Files in, text out: model, vocabulary and preprocessing in one object."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from git_model.config import DecodingOptions, Style
from git_model.model import Scene
from git_model.opening import open_model
from git_model.preprocess import open_image, preprocess_batch
from git_model.settings import GITError
from git_model.speaker import Caption, Label, Speaker, Texts
from git_model.video import Clip, Sampling, read_media

Picture = str | Path | Image.Image
View = Picture | Sequence[Picture]  # a picture, or the frames of a clip
T = TypeVar("T")


@dataclass(frozen=True)
class PictureScene(Scene):
    """A scene that remembers whether one picture was given or a list of them."""

    single: bool
    frames: tuple[list[int] | None, ...]  # for each clip from a file, which of its frames

    def unpacked(self, rows: list[T]) -> T | list[T]:
        """What was found about each picture, without the list if there was but one picture."""
        return rows[0] if self.single else rows


Seen = PictureScene | View | Sequence[View]


class Captioner(Speaker):
    """A GIT that works on files.

    >>> git = Captioner.from_pretrained("demo")
    >>> scene = git.see("examples/images/two_shapes.png")
    >>> git.caption(scene).text
    """

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "demo",
        *,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        style: Style | None = None,
        compile: bool = False,
    ) -> Self:
        """Open a model.

        Args:
            name: "demo" (comes with this package), a folder in our form, in Hugging Face's or in
                the original's, or a hub id such as "microsoft/git-base-coco".
            dtype: "float32", "bfloat16", "float16", "float64", or "auto": bfloat16 on a device that
                computes in it, on others float32.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto": a GPU if there is one.
            revision: of a hub id: a branch, tag or commit.
            style: "huggingface" or "microsoft": run the checkpoint as that reference does; by
                default as the checkpoint says.
            compile: run the encoder through torch.compile, for many pictures: the first of each
                size takes some seconds more.

        Raises:
            GITError: no such model, or a damaged one; or no such device.
        """
        return cls(
            *open_model(
                name,
                dtype=dtype,
                device=device,
                revision=revision,
                style=style,
                compile=compile,
            )
        )

    def preprocess(self, pictures: Sequence[Picture]) -> Tensor:
        """Pictures, or the frames of a clip, as pixels (B, 3, H, W)."""
        images = [p if isinstance(p, Image.Image) else open_image(Path(p)) for p in pictures]
        return preprocess_batch(images, self.model.config.preprocess)

    def look(self, view: View, sampling: Sampling = "uniform") -> tuple[Tensor, list[int] | None]:
        """One view as pixels: (3, H, W) of a picture, (F, 3, H, W) of a clip.

        Args:
            view: a picture, a list of frames, or a path. Behind a path a model with temporal
                embeddings sees a video or an animation as a clip of as many frames.
            sampling: which frames of a file to take, see `sample_indices`.

        Returns:
            the pixels, and the numbers of the frames in their file where they were picked.
        """
        if isinstance(view, str | Path):
            media = read_media(Path(view), self.model.config.frames, sampling)
            if isinstance(media, Clip):
                return self.preprocess(media.frames), media.indices
            view = media
        if isinstance(view, Image.Image):
            return self.preprocess([view])[0], None
        return self.preprocess(view), None

    def see(self, views: View | Sequence[View], sampling: Sampling = "uniform") -> PictureScene:
        """Read a picture, a clip, or a batch of either, once.

        Args:
            views: a path or Pillow image; a list of Pillow images (the frames of one clip if the
                model has temporal embeddings, else a batch); or a list of views (a batch).
            sampling: as in `look`.

        Raises:
            GITError: a file cannot be read, or the views of a batch differ in size.
        """
        single = isinstance(views, str | Path | Image.Image) or self._is_clip(views)
        batch: Sequence[View] = [views] if single else views  # type: ignore[assignment,list-item]
        if not batch:
            raise GITError("no picture was given")
        looks = [self.look(view, sampling) for view in batch]
        shapes = [tuple(pixels.shape) for pixels, _ in looks]
        for shape in shapes:
            if shape != shapes[0]:
                raise GITError(
                    f"the views of a batch come out as {shapes[0]} and as {shape}: see those of "
                    "one shape together"
                )
        return self.see_pixels(
            torch.stack([pixels for pixels, _ in looks]),
            single=single,
            frames=[indices for _, indices in looks],
        )

    @torch.inference_mode()
    def see_pixels(
        self,
        pixels: Tensor,
        *,
        single: bool = False,
        frames: Sequence[list[int] | None] | None = None,
    ) -> PictureScene:
        """As `see`, for pixels (B, 3, H, W) or (B, F, 3, H, W) that are preprocessed already."""
        weight = self.model.projector.linear.weight
        scene = self.model.see(pixels.to(weight.device, weight.dtype))
        return PictureScene(scene.layers, single, tuple(frames or [None] * len(scene)))

    def _is_clip(self, views: View | Sequence[View]) -> bool:
        """Whether a list is the frames of one clip, not a batch."""
        return (
            self.model.config.frames > 0
            and isinstance(views, Sequence)
            and len(views) > 0
            and all(isinstance(view, Image.Image) for view in views)
        )

    def caption(
        self, scene: Seen, options: DecodingOptions | None = None
    ) -> Caption | list[Caption]:
        """Say what is to be seen: the best caption, or a list of them for a batch.

        Args:
            scene: what `see` returned, or what it takes.
            options: by default those of the checkpoint, `model.config.decoding`.
        """
        seen = self._seen(scene)
        return seen.unpacked([best for best, *_ in self.captions(seen, options)])

    @overload
    def ask(
        self, scene: Seen, questions: str, options: DecodingOptions | None = None
    ) -> Caption | list[Caption]: ...

    @overload
    def ask(
        self, scene: Seen, questions: Texts, options: DecodingOptions | None = None
    ) -> list[Caption] | list[list[Caption]]: ...

    def ask(
        self, scene: Seen, questions: str | Texts, options: DecodingOptions | None = None
    ) -> Caption | list[Caption] | list[list[Caption]]:
        """Answer a question, or several, about each picture; the picture is read once.

        Returns:
            a Caption whose text is the best answer, a list of them for several questions; for a
            batch a list of either, picture by picture.

        Raises:
            GITError: a question is empty, or longer than the model's positions.
        """
        seen = self._seen(scene)
        several = [questions] if isinstance(questions, str) else questions
        rows = [[best for best, *_ in row] for row in self.answers(seen, several, options)]
        lists = seen.unpacked(rows)
        single = seen.unpacked([row[0] for row in rows])
        return single if isinstance(questions, str) else lists

    def score(
        self, scene: Seen, texts: Texts, *, question: str | None = None
    ) -> list[Caption] | list[list[Caption]]:
        """The exact log p(text | picture) of each text, its end included.

        Args:
            question: score the texts as answers to it.

        Returns:
            the texts in the order given, for a batch a list of them for each picture.
        """
        seen = self._seen(scene)
        return seen.unpacked(self.scores(seen, texts, question=question))

    def classify(
        self, scene: Seen, labels: Texts, *, template: str = "{}", question: str | None = None
    ) -> list[Label] | list[list[Label]]:
        """Which of these labels fits each picture: all of them with their probabilities, the
        likeliest first. The probabilities are exact: each label is scored, none is sampled.

        Args:
            template: the text that a label makes, such as "a photo of a {}".
            question: take the labels as answers to it.

        Raises:
            GITError: a label is empty, or there twice once it is in tokens.
        """
        seen = self._seen(scene)
        return seen.unpacked(self.labels(seen, labels, template=template, question=question))

    def pick(
        self, scene: Seen, labels: Texts, *, template: str = "{}", question: str | None = None
    ) -> Caption | list[Caption]:
        """One of these labels for each picture, generated under a trie of all labels, as the paper
        classifies (section 4.4): greedy, so not always the likeliest, but cheaper than `classify`
        where there are many. Arguments as there."""
        seen = self._seen(scene)
        return seen.unpacked(self.picks(seen, labels, template=template, question=question))

    def _seen(self, scene: Seen) -> PictureScene:
        return scene if isinstance(scene, PictureScene) else self.see(scene)
