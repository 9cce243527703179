"""What self-critical training does after cross-entropy: both continue one half-trained model.

The start is trained with cross-entropy, START times as many steps as the study has, and is the same
in all runs.
"""

import copy
import json
from dataclasses import replace
from functools import cache

from lab import held_out_loss, train

from git_model import GIT, Captioner
from git_model.data.example import Source
from git_model.evaluation.run import predict, text_predictor
from git_model.evaluation.scores import PYTHON, score
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.recipe import CrossEntropyConfig, Recipe, ScstConfig
from git_model.utils.serialize import from_dict, to_dict

START = 8
START_RATE, START_SEED = 2e-3, 2000
NO_LEARNING = {"encoder_lr": 1e-12, "decoder_lr": 1e-12}  # a rate must be above 0
SCST = ScstConfig(max_new_tokens=24, counted=400)


def half_trained(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """The model that every run continues."""
    rates = {"encoder_lr": START_RATE, "decoder_lr": START_RATE}
    start = replace(
        recipe,
        seed=START_SEED,
        steps=START * recipe.steps,
        loss=CrossEntropyConfig(),
        learning=replace(recipe.learning, **rates),
    )
    captioner = _trained(json.dumps(to_dict(start)))
    return copy.deepcopy(captioner.model), captioner.tokenizer


@cache
def _trained(recipe: str) -> Captioner:
    return train(from_dict(Recipe, json.loads(recipe)))


def caption_scores(captioner: Captioner, source: Source) -> dict[str, float]:
    """The held-out loss, the texts exactly right, and CIDEr-D, times 100."""
    predictions = predict(captioner, source, text_predictor(captioner), batch_size=100)
    [scores] = score(predictions, ["exact", "cider_d"], PYTHON).values()
    return {
        "loss": held_out_loss(captioner, source),
        "exact": scores["exact"],
        "CIDEr-D": scores["cider_d"],
    }
