"""Measure the built-in model for the chapters' figures in prose, and write docs/measurements.json.

    python docs/measure.py [SECTION …]       # several minutes on one core, or some sections alone

The chapters read the file, and tests compare their sentences with it.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from git_model import Captioner, DecodingOptions
from git_model.data.example import Example
from git_model.evaluation.predictions import Prediction
from git_model.evaluation.run import predict, text_predictor
from git_model.evaluation.scores import PYTHON, score
from git_model.explain.explanation import Explanation, explain
from git_model.model.attention import prefix_mask
from git_model.model.layers import MLP, quick_gelu
from git_model.shapes.source import ShapesData
from git_model.shapes.texts import describe
from git_model.shapes.world import COLOURS, OUTLINES, SIZES, make_world

ROOT = Path(__file__).parent.parent
PATH = ROOT / "docs" / "measurements.json"
N_PICTURES, N_SCENES = 80, 300
TRAINING = ShapesData(size=358_400)  # of configs/train/demo.toml
SHAPE_WORDS = {f"{shape}{ending}" for shape in OUTLINES for ending in ("", "s", "es")}


def scenes(split: str = "held_out", size: int = 10_000) -> Iterator[Example]:
    """The captioned images of a split, in order."""
    source = ShapesData(tasks=("captions",), split=split, size=size).open()  # type: ignore[arg-type]
    return (source[n] for n in range(len(source)))


def caption_of(example: Example) -> str:
    """The right caption."""
    return example.annotations[0].texts[0]


def each_thing_is_named(example: Example) -> bool:
    """Whether each word of the caption is about one shape, in one patch; "two red stars" is not."""
    return any(size in caption_of(example) for size in SIZES)


def patches_with_a_shape(example: Example) -> set[int]:
    """The patches, counted from 0, that hold a shape of a held-out image."""
    index = int(example.key.rsplit("/", 1)[1])
    return {thing.cell for thing in make_world(Random(index), "held_out").things}


def occlusion_agreement(captioner: Captioner) -> dict[str, Any]:
    """How often the patch with the most attention is the one that costs the word most, and how
    often it is empty instead."""
    agreements: dict[str, Counter[str]] = {"colour": Counter(), "shape": Counter()}
    empty: dict[str, Counter[str]] = {"colour": Counter(), "shape": Counter()}
    n_words: Counter[str] = Counter()
    for example in islice(filter(each_thing_is_named, scenes()), N_PICTURES):
        explanation = explain(captioner, example.media, occlude=True)
        assert explanation.occlusion is not None
        decisive = explanation.occlusion.flatten(1).argmax(1)
        shapes = patches_with_a_shape(example)
        for index, token in enumerate(explanation.generated):
            kind = _kind(token.text)
            if kind is not None:
                n_words[kind] += 1
                for name, weights in _maps(explanation).items():
                    best = int(weights[index].flatten().argmax())
                    agreements[kind][name] += best == int(decisive[index])
                    empty[kind][name] += best != int(decisive[index]) and best not in shapes
    share, empty_share = (
        {
            kind: {name: round(n / n_words[kind], 4) for name, n in counts.items()}
            for kind, counts in table.items()
        }
        for table in (agreements, empty)
    )
    words = dict(n_words)
    return {
        "pictures": N_PICTURES, "words": words, "patches": 9, "share": share, "empty": empty_share,
    }  # fmt: skip


def _kind(word: str) -> str | None:
    return "colour" if word in COLOURS else "shape" if word in SHAPE_WORDS else None


def _maps(explanation: Explanation) -> dict[str, Tensor]:
    """Maps (G, F, rows, columns) that might show what a word depends on."""
    layers = {f"layer {n + 1}": explanation.patch_attention(layer=n) for n in range(3)}
    return {"all layers": explanation.patch_attention(), **layers, "rollout": explanation.rollout}


def training_captions() -> list[str]:
    """The caption of every image that the built-in model was trained on, without drawing it."""
    in_round = TRAINING.images + TRAINING.close_ups + TRAINING.clips
    images = (n for n in range(TRAINING.size) if n % in_round < TRAINING.images)
    return [describe(make_world(Random(n))) for n in images]


def memory(captioner: Captioner) -> dict[str, int]:
    """How many held-out captions occur word for word in training, and how many others are right."""
    training = training_captions()
    sentences = set(training)
    examples = list(islice(scenes(), N_SCENES))
    captions = captioner.caption(captioner.see([example.media for example in examples]))
    right = [
        caption.text == caption_of(example)
        for caption, example in zip(captions, examples, strict=True)
    ]
    seen = [caption_of(example) in sentences for example in examples]
    unseen_right = sum(ok and not old for ok, old in zip(right, seen, strict=True))
    return {
        "training_captions": len(training),
        "captions": N_SCENES,
        "seen": sum(seen),
        "right": sum(right),
        "unseen": N_SCENES - sum(seen),
        "unseen_right": unseen_right,
    }


@torch.no_grad()
def masks(captioner: Captioner) -> dict[str, int]:
    """Captions exactly right, of 300, when the decoder's mask is changed after training."""

    def image_rows(mask: Tensor, rows: Tensor) -> Tensor:
        mask[: len(rows), : rows.shape[1]] = rows
        return mask

    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "prefix mask": lambda mask: mask,
        "causal image tokens": lambda mask: image_rows(mask, torch.ones(10, 10).tril().bool()),
        "image tokens attend to themselves only": lambda mask: image_rows(mask, torch.eye(10) > 0),
        "image tokens attend to text": lambda mask: image_rows(mask, torch.ones(10, len(mask)) > 0),
    }
    examples = list(islice(scenes(), N_SCENES))
    pixels = torch.stack([captioner.load(example.media).pixels for example in examples])
    visual = captioner.model.projector(captioner.model.encode(pixels))
    return {
        name: sum(
            text == caption_of(example)
            for text, example in zip(_greedy(captioner, visual, change), examples, strict=True)
        )
        for name, change in changes.items()
    }


def _greedy(
    captioner: Captioner, visual: Tensor, change: Callable[[Tensor], Tensor], max_tokens: int = 40
) -> list[str]:
    """Greedy captions, each step one pass over image and text under a changed mask."""
    config, decoder = captioner.model.config, captioner.model.decoder
    tokens = torch.full((len(visual), 1), config.bos_id)
    for _ in range(max_tokens):
        mask = change(prefix_mask(visual.shape[1], tokens.shape[1]))
        logits = decoder.lm_head(decoder.one_pass(visual, tokens, mask))[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    texts = []
    for row in tokens[:, 1:].tolist():
        end = row.index(config.eos_id) if config.eos_id in row else len(row)
        texts.append(captioner.tokenizer.decode(row[:end]))
    return texts


@contextmanager
def exact_gelu(captioner: Captioner) -> Iterator[None]:
    """The exact GELU in the encoder instead of QuickGELU."""
    layers = [module for module in captioner.model.encoder.modules() if isinstance(module, MLP)]
    for layer in layers:
        layer.activation = F.gelu
    yield
    for layer in layers:
        layer.activation = quick_gelu


def gelu(captioner: Captioner) -> dict[str, int]:
    """Captions that change if the encoder computes the exact GELU."""
    media = [example.media for example in islice(scenes(), N_SCENES)]
    quick = [caption.text for caption in captioner.caption(captioner.see(media))]
    with exact_gelu(captioner):
        exact = [caption.text for caption in captioner.caption(captioner.see(media))]
    changed = sum(a != b for a, b in zip(quick, exact, strict=True))
    return {"captions": N_SCENES, "changed": changed}


def beams(captioner: Captioner) -> dict[str, Any]:
    """Greedy and beam search on 200 images with new pairs: texts that differ, and mean log p."""
    examples = list(scenes("recombination", 200))
    scene = captioner.see([example.media for example in examples])
    searches = {
        "greedy": DecodingOptions(),
        "beams 3": DecodingOptions(num_beams=3),
        "beams 3, no length penalty": DecodingOptions(num_beams=3, length_penalty=0.0),
    }
    captions = {name: captioner.caption(scene, options) for name, options in searches.items()}
    right = {
        name: [
            caption.text == caption_of(example)
            for caption, example in zip(texts, examples, strict=True)
        ]
        for name, texts in captions.items()
    }
    pairs = list(zip(right["greedy"], right["beams 3"], strict=True))
    return {
        "images": len(examples),
        "right": {name: sum(values) for name, values in right.items()},
        "mean_logprob": {
            name: round(sum(caption.logprob for caption in texts) / len(texts), 4)
            for name, texts in captions.items()
        },
        "only_greedy_right": sum(a and not b for a, b in pairs),
        "only_beams_right": sum(b and not a for a, b in pairs),
        "differ": sum(
            a.text != b.text for a, b in zip(captions["greedy"], captions["beams 3"], strict=True)
        ),
    }


def metrics(captioner: Captioner) -> dict[str, Any]:
    """What `git-model evaluate configs/evaluate/shapes.toml` prints, and the same metrics of the
    right captions themselves."""
    data = ShapesData(split="held_out", size=500)  # as that file says
    predictions = predict(captioner, data.open(), text_predictor(captioner))
    captions = [item for item in predictions if item.task == "captions"]
    right = [replace(item, text=item.answers[0]) for item in captions]
    lengths = [len(item.text.split()) for item in right]
    return {
        "captions": len(captions),
        "model": _text_scores(captions),
        "right captions": _text_scores(right),
        "of three words": lengths.count(3),
    }


def _text_scores(captions: Sequence[Prediction]) -> dict[str, float]:
    [scores] = score(captions, ["exact", "bleu", "cider_d"], PYTHON).values()
    return {name: round(scores[name], 2) for name in ("exact", "bleu_4", "cider_d")}


SECTIONS = (occlusion_agreement, memory, masks, gelu, beams, metrics)


def main(names: Sequence[str]) -> None:
    """Measure everything, or the sections of these names, and write the file."""
    captioner = Captioner.from_pretrained("demo")
    measured = json.loads(PATH.read_text()) if names else {}
    for function in SECTIONS:
        if function.__name__ in names or not names:
            measured[function.__name__] = function(captioner)
    PATH.write_text(json.dumps(measured, indent=1) + "\n")
    print(PATH.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
