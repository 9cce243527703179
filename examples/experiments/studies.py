"""The studies: run what is missing of them, and print their tables.

    python examples/experiments/studies.py RESULTS_FOLDER
    python examples/experiments/studies.py RESULTS_FOLDER --study mask --workers 2 --plot

A run that was stopped continues where it was. See study.py for the rules.
"""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import click
from calibration import scores_with_calibration
from composition import Composition
from composition import scores as composition_scores
from encoder_start import pretrained_encoder, with_pretrained_encoder
from fusion import cross_attention, pooled_queries
from image_mask import MASKS, scores_under_masks, with_mask
from lab import measure
from self_critical import NO_LEARNING, SCST, caption_scores, half_trained
from study import N_SEEDS, Arm, Study, plot, run_study, table
from temporal_embeddings import RANDOM, temporal
from worlds import HELD_OUT, real_pictures

from git_model import GITError
from git_model.training.recipe import Recipe, read_recipe

FOLDER = Path(__file__).parent
FROZEN_RATES = (2e-3, 4e-3)  # only the projector and a small decoder learn
MASK_STEPS = 2400  # from scratch: after 800 steps 30 % are right, after 2,400 92 %
COMPOSITION_STEPS = 1000  # images of one thing: after 500 steps 70 % are right, after 1,000 95 %
MASK_QUESTION = "Which image tokens must an image token of the decoder attend to?"
EXACT = {"loss": 3, "exact": 1}


def _recipe(name: str, steps: int | None) -> Recipe:
    """A recipe; with another number of steps for trying the studies."""
    recipe = read_recipe(FOLDER / f"{name}.toml")
    if steps is None:
        return recipe
    warmup = min(recipe.learning.warmup_steps, steps - 1)
    return replace(recipe, steps=steps, learning=replace(recipe.learning, warmup_steps=warmup))


@cache
def studies(steps: int | None = None) -> dict[str, Study]:
    """All studies by their names."""
    captions, frozen, clips = (_recipe(name, steps) for name in ("captions", "frozen", "clips"))
    tested = {"exact": 1} | {f"exact, tested {kind}": 1 for kind in MASKS}
    real = {name: real_pictures(name) for name in HELD_OUT}
    return {
        study.name: study
        for study in (
            Study(
                "mask_10",
                f"{MASK_QUESTION} (10 tokens, from scratch)",
                _recipe("captions", steps or MASK_STEPS),
                tuple(Arm(kind, with_mask(kind)) for kind in MASKS),
                scores_under_masks,
                {"loss": 3} | tested,
            ),
            Study(
                "mask_pretrained",
                f"{MASK_QUESTION} (pretrained encoder)",
                frozen,
                tuple(Arm(kind, with_mask(kind, pretrained_encoder)) for kind in MASKS),
                scores_under_masks,
                {"loss": 4} | tested,
                FROZEN_RATES,
            ),
            Study(
                "fusion",
                "Prefix, cross-attention, or pooled queries?",
                frozen,
                (
                    Arm("prefix", pretrained_encoder),
                    Arm("cross-attention", with_pretrained_encoder(cross_attention)),
                    Arm("pooled queries", with_pretrained_encoder(pooled_queries)),
                ),
                measure,
                EXACT | {"loss": 4},
                FROZEN_RATES,
            ),
            Study(
                "composition",
                "Can a model name a colour and a shape that training never shows together?",
                _recipe("captions", steps or COMPOSITION_STEPS),
                tuple(
                    Arm(f"{n} of 45 pairs held out", data=Composition(n).data) for n in (4, 12, 24)
                ),
                composition_scores,
                EXACT | {"exact, old pairs": 1, "probe, colour": 1, "probe, shape": 1},
            ),
            Study(
                "label_smoothing",
                "What does label smoothing do to the model's confidence?",
                frozen,
                tuple(
                    Arm(f"{share:g}", pretrained_encoder, learning={"label_smoothing": share})
                    for share in (0.0, 0.1, 0.3)
                ),
                scores_with_calibration,
                EXACT | {"calibration error": 2, "confidence": 1, "tokens right": 1},
                FROZEN_RATES,
            ),
            Study(
                "clips",
                "Which image tokens of a clip must attend to each other, and is their time needed?",
                clips,
                (
                    *(Arm(kind, with_mask(kind, temporal(RANDOM))) for kind in MASKS),
                    Arm(
                        "bidirectional, no temporal embeddings",
                        with_mask("bidirectional", temporal(0.0)),
                        {"frozen": ("encoder", "temporal_embedding")},
                    ),
                ),
                scores_under_masks,
                {"loss": 3} | tested,
                FROZEN_RATES,
            ),
            Study(
                "worlds",
                "Are real pictures harder than the drawn world?",
                captions,
                (
                    Arm("shapes"),
                    *(Arm(name, start, data=data) for name, (start, data) in real.items()),
                ),
                caption_scores,
                EXACT | {"CIDEr-D": 1},
            ),
            Study(
                "self_critical",
                "What does self-critical training do to CIDEr-D, after cross-entropy?",
                _recipe("self_critical", steps),
                (
                    Arm("cross-entropy", half_trained),
                    Arm("self-critical", half_trained, loss=SCST),
                    Arm("neither: the start", half_trained, NO_LEARNING),
                ),
                caption_scores,
                EXACT | {"CIDEr-D": 1},
                rates=(2e-4, 1e-3),
                rate_by="CIDEr-D",
            ),
        )
    }


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--study", "names", multiple=True, type=click.Choice(list(studies())),
              help="Of these alone; by default of all.")  # fmt: skip
@click.option("--seeds", default=N_SEEDS, show_default=True, type=click.IntRange(min=2))
@click.option("--steps", type=click.IntRange(min=8), help="By default those of the recipe.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--plot", "with_plot", is_flag=True, help="Draw the curves, too: STUDY.png.")
def main(
    folder: Path,
    names: tuple[str, ...],
    seeds: int,
    steps: int | None,
    workers: int,
    with_plot: bool,
) -> None:
    """Run the studies."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or studies():
        study = studies(steps)[name]
        try:
            runs = run_study(
                study,
                folder / f"{name}.jsonl",
                n_seeds=seeds,
                workers=workers,
                find=partial(find, steps),
                report=partial(click.echo, err=True),
            )
        except GITError as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"\n{study.question}\n\n{table(study, runs)}")
        if with_plot:
            plot(study, runs, folder / f"{name}.png")


def find(steps: int | None, name: str) -> Study:
    """A study by its name, for another process."""
    return studies(steps)[name]


if __name__ == "__main__":
    main()
