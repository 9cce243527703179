"""The command `page`."""

import sys
from typing import Any

import click

from git_model.cli.options import ModelOptions, model_options
from git_model.utils.errors import GITError


@click.command()
@model_options
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="Where the page listens; 0 is any free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Who may reach the page: 127.0.0.1 is this machine only, 0.0.0.0 everyone who can reach "
    "this machine.",
)
def page(host: str, port: int, **model: Any) -> None:
    """Open a page in the browser to play with the model.

    Drop a picture or a clip there: it is read once, captioned, and answers questions. Click a word
    to see where the model looked for it.

    Needs gradio: pip install 'git-model[page]'. Ctrl-C ends it.
    """
    try:
        from git_model.page.layout import Page, open_port, server_of, web_app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("git_model"):
            raise
        raise GITError(
            f"the page needs gradio ({error.name} is missing): pip install 'git-model[page]'"
        ) from None

    options = ModelOptions(**model)
    with open_port(host, port) as listening:
        git = options.open_model()
        git.tokenizer  # noqa: B018 (a checkpoint without one is refused here)
        app = web_app(Page(git, options.model, shapes=options.model == "demo"), host)
        address = f"[{host}]" if ":" in host else host
        click.echo(f"http://{address}:{listening.getsockname()[1]}  (Ctrl-C ends it)")
        try:
            server_of(app).run(sockets=[listening])
        except KeyboardInterrupt:
            sys.exit(0)
