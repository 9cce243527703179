"""The command `page`."""

import sys
from pathlib import Path
from typing import Any

import click

from git_model.checkpoints.defaults import DEMO, MODEL_HELP
from git_model.cli.options import GroupedCommand, ModelOptions, model_options, option
from git_model.utils.errors import GITError


@click.command(cls=GroupedCommand)
@model_options(f"{MODEL_HELP}  [default: {DEMO}]", default=DEMO)
@option(
    "Server",
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="Port of the page; 0 is any free port.",
)
@option(
    "Server",
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Network address of the page: 127.0.0.1 for this machine only, 0.0.0.0 for everyone who "
    "can reach this machine.",
)
@option(
    "Server",
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Also answer requests for the host NAME, such as that of a proxy in front of the page.",
)
@option(
    "Input",
    "--samples",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Offer the pictures in FOLDER as examples. The built-in model has drawn ones.",
)
def page(
    host: str, port: int, allowed: tuple[str, ...], samples: Path | None, **model: Any
) -> None:
    """Open a web page for the model in the browser.

    Choose an example or drop a picture there. The model encodes it once, captions it, answers
    questions about it and ranks the names that you give. Click a word to show its attention.

    Needs gradio: pip install 'git-model[page]'. Ctrl-C ends it.
    """
    try:
        from git_model.page.layout import Page, open_port, server_of, web_app
        from git_model.page.samples import folder_samples
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("git_model"):
            raise
        raise GITError(
            f"the page needs gradio ({error.name} is missing): pip install 'git-model[page]'"
        ) from None

    options = ModelOptions(**model)
    with open_port(host, port) as listener:
        captioner = options.open_model()
        captioner.tokenizer  # noqa: B018 (a checkpoint without one is refused here)
        examples = folder_samples(samples, captioner.model.config) if samples else None
        shapes = options.model == DEMO
        app = web_app(
            Page(captioner, options.model, shapes=shapes, samples=examples), host, allowed
        )
        address = f"[{host}]" if ":" in host else host
        click.echo(f"http://{address}:{listener.getsockname()[1]}  (Ctrl-C ends it)")
        try:
            server_of(app).run(sockets=[listener])
        except KeyboardInterrupt:
            sys.exit(0)
