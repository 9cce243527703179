"""The page on the screen: gradio's parts, what happens on each event, and the server.

Needs gradio, the extra `page`; only the command `page` imports this file.
"""

import socket
from collections.abc import Callable, Iterator
from functools import wraps
from importlib.resources import files
from random import Random
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from git_model.captioner import Captioner
from git_model.page import html
from git_model.page.actions import Visits, look_back, rank, read, say, shapes_picture
from git_model.page.uploads import FILE_BYTES, Uploads
from git_model.page.wall import UPLOAD, Event, Wall
from git_model.settings import GITError
from git_model.shapes.texts import class_names

WAITING = 32  # events that may wait for the model
LOCAL = ("127.0.0.1", "localhost")
# Words are buttons within a piece of HTML: mark the one that is clicked, tell Python, and see to it
# that the picture can be seen, which on a phone may be far above.
ON_WORD = """
element.addEventListener('click', (event) => {
  const word = event.target.closest('button[data-word]');
  if (!word) return;
  const again = word.ariaPressed === 'true';
  document.querySelectorAll('button[data-word]').forEach((one) => one.ariaPressed = 'false');
  word.ariaPressed = String(!again);
  trigger('select', { said: Number(word.dataset.said), word: Number(word.dataset.word), again });
  document.getElementById('picture').scrollIntoView({ behavior: 'smooth', block: 'nearest' });
});
"""

Shown = dict[Any, Any]  # parts of the page, and what they show from now on


def careful(event: Callable[..., Iterator[Shown]]) -> Callable[..., Iterator[Shown]]:
    """An event of a page whose errors become its notice."""

    @wraps(event)
    def safely(page: "Page", *given: Any) -> Iterator[Shown]:
        yield {page.notice: ""}
        try:
            yield from event(page, *given)
        except GITError as error:
            yield {page.notice: html.notice(str(error))}

    return safely


class Page:
    """A model on a page: the parts, and what happens on each event.

    Args:
        name: of the model, as shown.
        shapes: whether to offer pictures of the built-in model's world.
    """

    def __init__(self, git: Captioner, name: str, *, shapes: bool) -> None:
        self.git = git
        self.visits = Visits()
        self.uploads = Uploads()
        self.events: dict[int, Event] = {}  # by gradio's number; all that it may be sent
        self.rng = Random()  # noqa: S311 (it draws shapes)
        with gr.Blocks(title=f"git-model: {name}", analytics_enabled=False) as self.blocks:
            gr.HTML(html.heading(name))
            self.notice = gr.HTML(elem_id="notice")
            with gr.Row():
                with gr.Column(min_width=300):
                    self._lay_out_picture(shapes)
                with gr.Column(min_width=300):
                    self._lay_out_words(shapes)
            self._connect()
        self.blocks.queue(max_size=WAITING)

    def _lay_out_picture(self, shapes: bool) -> None:
        # Not gradio's own part for files: it takes paths from the browser, and opens them.
        self.file = gr.HTML(
            html.drop_zone(FILE_BYTES), js_on_load=_text_of("upload.js"), elem_id="file"
        )
        with gr.Row(visible=shapes):
            self.draw_picture = gr.Button("Draw a picture", size="sm", min_width=100)
            self.draw_clip = gr.Button("Draw a clip", size="sm", min_width=100)
        self.picture = gr.HTML(html.waiting(), elem_id="picture")

    def _lay_out_words(self, shapes: bool) -> None:
        self.caption = gr.HTML(html.no_caption(), js_on_load=ON_WORD, elem_id="caption")
        self.question = gr.Textbox(
            label="Question",
            placeholder="what is at the top left?" if shapes else "what colour is the car?",
            max_length=500,
            submit_btn="Ask",
            elem_id="question",
        )
        self.answers = gr.HTML(js_on_load=ON_WORD, elem_id="answers")
        self.labels = gr.Textbox(
            label="Classes, one a line or with commas between them",
            value=", ".join(class_names()[:6]) if shapes else "",
            placeholder="a cat, a dog, a bird",
            lines=2,
            max_lines=8,
            max_length=20_000,
            elem_id="labels",
        )
        self.classify = gr.Button("Classify", elem_id="classify")
        self.bars = gr.HTML(elem_id="bars")

    def _connect(self) -> None:
        """Say which event changes which parts. One event at a time has the model, for watching
        where it looks puts hooks on it."""
        new = [self.notice, self.picture, self.caption, self.answers, self.bars]
        word = {"said": int, "word": int, "again": bool}
        for part, name, event, texts, fields, outputs in (
            (self.file, "upload", self.bring_file, [], {"token": str}, new),
            (self.draw_picture, "click", self.bring_picture, [], {}, new),
            (self.draw_clip, "click", self.bring_clip, [], {}, new),
            (self.question, "submit", self.ask, [self.question], {}, [self.answers, self.question]),
            (self.classify, "click", self.sort, [self.labels], {}, [self.bars]),
            (self.caption, "select", self.look, [], word, [self.picture]),
            (self.answers, "select", self.look, [], word, [self.picture]),
        ):
            listened = getattr(part, name)(
                event,
                texts,
                [self.notice, *outputs] if self.notice not in outputs else outputs,
                concurrency_limit=1,
                concurrency_id="model",
                api_visibility="private",
            )
            limits = tuple(text.max_length for text in texts)
            self.events[listened["id"]] = Event(part._id, limits, fields)
        self.blocks.unload(self.leave)  # which gradio does by itself; no browser may ask for it

    @careful
    def bring_file(self, request: gr.Request, event: gr.EventData) -> Iterator[Shown]:
        """As `_bring`, for a file that this page has sent."""
        yield from self._bring(self.uploads.take(event.token), request)

    @careful
    def bring_picture(self, request: gr.Request) -> Iterator[Shown]:
        """As `_bring`, for a new picture of shapes."""
        yield from self._bring(shapes_picture(self.rng, clip=False), request)

    @careful
    def bring_clip(self, request: gr.Request) -> Iterator[Shown]:
        """As `_bring`, for a new clip of shapes."""
        yield from self._bring(shapes_picture(self.rng, clip=True), request)

    def _bring(self, data: bytes, request: gr.Request) -> Iterator[Shown]:
        """Read a file and caption it; from then on this session's questions are about it."""
        visit = read(self.git, data)
        self.visits.put(session_of(request), visit)
        yield {self.picture: html.picture(visit), self.answers: "", self.bars: ""}
        yield {self.caption: html.caption(say(self.git, visit))}

    @careful
    def ask(self, question: str, request: gr.Request) -> Iterator[Shown]:
        """Answer a question about this session's picture."""
        yield {self.question: ""}  # now, for the next one may be typed while the model works
        try:
            visit = self.visits.get(session_of(request))
            say(self.git, visit, question)
        except GITError:
            yield {self.question: question}
            raise
        yield {self.answers: html.answers(visit)}

    @careful
    def sort(self, labels: str, request: gr.Request) -> Iterator[Shown]:
        """Say which labels fit this session's picture."""
        yield {self.bars: html.bars(rank(self.git, self.visits.get(session_of(request)), labels))}

    @careful
    def look(self, request: gr.Request, event: gr.EventData) -> Iterator[Shown]:
        """Show where the model looked for a word, or the picture again."""
        visit = self.visits.get(session_of(request))
        if event.again:
            visit.looked_at = None
            yield {self.picture: html.picture(visit)}
        else:
            yield {self.picture: html.gaze(look_back(self.git, visit, event.said, event.word))}

    def leave(self, request: gr.Request) -> None:
        """Forget the picture of a session whose page was closed."""
        self.visits.forget(session_of(request))


def session_of(request: gr.Request) -> str:
    """What tells one open page from another."""
    return str(request.session_hash)


def web_app(page: Page, host: str) -> FastAPI:
    """The page as a web application: no telemetry, nothing from the network, no interface for
    programs."""
    # gradio checks which files it opens only for a page that it has launched itself, and takes a
    # mounted one for not launched: it would open any path that a browser names.
    page.blocks.has_launched = True
    app = FastAPI(openapi_url=None)
    app.add_middleware(Wall, events=page.events)
    # Without this a web site could point a name of its own at this machine, and read along.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL if host in LOCAL else ["*"])
    app.add_api_route(UPLOAD, page.uploads.receive, methods=["POST"])
    font = ("system-ui", "sans-serif")
    return gr.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        theme=gr.themes.Default(primary_hue="blue", font=font, font_mono=("ui-monospace",)),
        css=_text_of("page.css"),
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises:
        GITError: the port is taken or not allowed, or there is no such host here.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise GITError(f"{host}:{port}: {error.strerror or error}, try another --port") from None


def server_of(app: FastAPI) -> uvicorn.Server:
    """A server for `run(sockets=[…])`; it ends at Ctrl-C, without waiting for open pages."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))


def _text_of(name: str) -> str:
    """A file beside this one."""
    return files("git_model.page").joinpath(name).read_text(encoding="utf-8")
