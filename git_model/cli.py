"""The command line: one function a command. Heavy imports stand inside them, so that `--help`
answers at once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from git_model.commands.batch import batch
from git_model.commands.evaluate import evaluate
from git_model.commands.explain import explain
from git_model.commands.images import ImageRun, Record, reads_images
from git_model.commands.options import (
    Decoding,
    Template,
    decoding_options,
    question_option,
    text_list,
)
from git_model.commands.page import page
from git_model.commands.train import train
from git_model.settings import GITError

if TYPE_CHECKING:
    from git_model.model import Scene
    from git_model.speaker import Caption

TOP = 5  # labels that `classify` prints


class Commands(click.Group):
    """A group that turns an error the user can mend into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except GITError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:  # a full disk behind stdout, or a closed folder
            raise click.ClickException(str(error)) from None
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            raise click.ClickException(
                "there is not enough memory: use a smaller --batch-size, or a smaller model"
            ) from None

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The commands in the order of this file."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="git-model")
def main() -> None:
    """GIT, the Generative Image-to-text Transformer: it looks at images and writes about them."""


@main.command()
@reads_images
@decoding_options
def caption(run: ImageRun, decoding: Decoding) -> None:
    """Say what is to be seen in each IMAGE.

    A file that cannot be read gets a line on stderr, the others are captioned, and the exit code
    is 1.
    """
    git = run.open_model()
    options = decoding(git.model.config.decoding)

    def task(scene: "Scene") -> list[list[Record]]:
        found = git.captions(scene, options)
        return [[{"caption": one.text} | _evidence(one) for one in texts] for texts in found]

    run.report(git, task, "{caption}  (log p {logprob:.3f})")


@main.command()
@text_list("question", "What to ask; may come several times.")
@reads_images
@decoding_options
def ask(run: ImageRun, questions: list[str], decoding: Decoding) -> None:
    """Answer every question about each IMAGE.

    An image is read once, however many questions there are. A file that cannot be read gets a
    line on stderr, the others are answered for, and the exit code is 1.
    """
    git = run.open_model()
    options = decoding(git.model.config.decoding)

    def task(scene: "Scene") -> list[list[Record]]:
        return [
            [
                {"question": question, "answer": one.text} | _evidence(one)
                for question, answers in zip(questions, row, strict=True)
                for one in answers
            ]
            for row in git.answers(scene, questions, options)
        ]

    run.report(git, task, "{question}  {answer}  (log p {logprob:.3f})")


@main.command()
@text_list("label", "A class; may come several times.", distinct=True)
@click.option(
    "--template",
    type=Template(),
    default="{}",
    help="What a label is put into, such as 'a photo of a {}'.",
)
@question_option
@click.option(
    "--top", type=click.IntRange(min=1), help=f"Labels to print for each image.  [default: {TOP}]"
)
@click.option(
    "--generate",
    is_flag=True,
    help="Write one of the labels word by word, as the paper does, instead of scoring them all.",
)
@reads_images
def classify(
    run: ImageRun,
    labels: list[str],
    template: str,
    question: str | None,
    top: int | None,
    generate: bool,
) -> None:
    """Say which of the labels fit each IMAGE, with exact probabilities among them.

    A file that cannot be read gets a line on stderr, the others are classified, and the exit code
    is 1.
    """
    if generate and top is not None:
        raise click.UsageError("--generate writes one label, so it goes without --top")
    git = run.open_model()

    def pick(scene: "Scene") -> list[list[Record]]:
        found = git.picks(scene, labels, template=template, question=question)
        return [[{"label": one.text} | _evidence(one)] for one in found]

    def rank(scene: "Scene") -> list[list[Record]]:
        found = git.labels(scene, labels, template=template, question=question)
        return [[vars(label) for label in row[: top or TOP]] for row in found]

    if generate:
        run.report(git, pick, "{label}  (log p {logprob:.3f})")
    else:
        run.report(git, rank, "{label}  {probability:.1%}  (log p {logprob:.3f})")


@main.command()
@text_list("text", "What might be said; may come several times.")
@question_option
@reads_images
def score(run: ImageRun, texts: list[str], question: str | None) -> None:
    """Say how likely each text is, given each IMAGE: the exact log p(text | image).

    A file that cannot be read gets a line on stderr, the others are scored, and the exit code
    is 1.
    """
    git = run.open_model()

    def task(scene: "Scene") -> list[list[Record]]:
        found = git.scores(scene, texts, question=question)
        return [[{"text": one.text} | _evidence(one) for one in row] for row in found]

    run.report(git, task, "{text}  (log p {logprob:.3f})")


def _evidence(found: "Caption") -> Record:
    """How sure the model is of a text."""
    return {name: getattr(found, name) for name in ("logprob", "tokens", "token_logprobs")}


@main.command()
@click.argument("source", metavar="SOURCE")
@click.argument("destination", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option(
    "--to",
    type=click.Choice(["native", "hf"]),
    default="native",
    show_default=True,
    help="Our own form, or Hugging Face's (then SOURCE is in our form).",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A folder with the vocabulary, for sources that have none.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Number format to store.  [default: as it is]",
)
def convert(
    source: str,
    destination: Path,
    to: Any,
    tokenizer: Path | None,
    revision: str | None,
    dtype: str | None,
) -> None:
    """Bring a checkpoint into another form.

    SOURCE is a Hugging Face folder or hub id, or an original folder with snapshot/model.pt. The
    result is written to the new FOLDER, whole or not at all.
    """
    from weights_convert import convert as run

    click.echo(run(source, destination, to=to, tokenizer=tokenizer, revision=revision, dtype=dtype))


@main.command()
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Number format to compare in.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option(
    "--released",
    metavar="NAME",
    help="The released checkpoint it is, such as git-base-coco.  [default: by its id]",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="The picture that its published logits belong to.  [default: fetched]",
)
@click.argument("model", metavar="MODEL")
def verify(
    model: str, image: Path | None, released: str | None, revision: str | None, dtype: str
) -> None:
    """Compare MODEL, a folder or a hub id, with its references, stage by stage.

    The exit code is 1 if any distance is beyond its tolerance.
    """
    if image is not None and released is None and not model.startswith("microsoft/"):
        raise click.UsageError("--image is for released checkpoints, say which with --released")
    from git_model.captioner import Captioner
    from weights_convert.verify import verify as run

    git = Captioner.from_pretrained(model, revision=revision, dtype=dtype).model
    failed = 0
    for check in run(git, model, revision=revision, released=released, image=image):
        click.echo(str(check))
        failed += check.failed
    sys.exit(1 if failed else 0)


main.add_command(batch)
main.add_command(explain)
main.add_command(page)
main.add_command(train)
main.add_command(evaluate)
