"""The page in gradio: its parts, the function of each event, and the server.

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
from git_model.page.actions import (
    SessionStore,
    generate_reply,
    open_session,
    random_shapes,
    rank_labels,
    word_attention,
)
from git_model.page.request_filter import UPLOAD, Event, RequestFilter
from git_model.page.uploads import MAX_FILE_BYTES, Uploads
from git_model.shapes.texts import class_names
from git_model.utils.errors import GITError

MAX_QUEUE = 32  # events that wait for the model
LOCAL_HOSTS = ("127.0.0.1", "localhost")
Updates = dict[Any, Any]  # from a part of the page to its new value
EventHandler = Callable[..., Iterator[Updates]]


def errors_as_notice(handler: EventHandler) -> EventHandler:
    """Show the errors of an event of the page as its notice."""

    @wraps(handler)
    def wrapper(page: "Page", *args: Any) -> Iterator[Updates]:
        yield {page.notice: ""}
        try:
            yield from handler(page, *args)
        except GITError as error:
            yield {page.notice: html.notice(str(error))}

    return wrapper


class Page:
    """A model on a page: the parts, and the function of each event.

    Args:
        name: of the model, as shown.
        shapes: whether to offer random images of the built-in model's world.
    """

    def __init__(self, captioner: Captioner, name: str, *, shapes: bool) -> None:
        self.captioner = captioner
        self.sessions = SessionStore()
        self.uploads = Uploads()
        self.events: dict[int, Event] = {}  # by gradio's number; the browser may send only these
        self.rng = Random()  # noqa: S311 (it draws shapes)
        with gr.Blocks(title=f"git-model: {name}", analytics_enabled=False) as self.blocks:
            gr.HTML(html.heading(name))
            self.notice = gr.HTML(elem_id="notice")
            with gr.Row():
                with gr.Column(min_width=300):
                    self._lay_out_image(shapes)
                with gr.Column(min_width=300):
                    self._lay_out_texts(shapes)
            self._connect()
        self.blocks.queue(max_size=MAX_QUEUE)

    def _lay_out_image(self, shapes: bool) -> None:
        # Not gradio's own file part: it takes paths from the browser, and opens them.
        self.file = gr.HTML(
            html.drop_zone(MAX_FILE_BYTES), js_on_load=_file_text("upload.js"), elem_id="file"
        )
        with gr.Row(visible=shapes):
            self.draw_image = gr.Button("Draw an image", size="sm", min_width=100)
            self.draw_clip = gr.Button("Draw a clip", size="sm", min_width=100)
        self.image = gr.HTML(html.no_image(), elem_id="image")

    def _lay_out_texts(self, shapes: bool) -> None:
        words_js = _file_text("words.js")
        self.caption = gr.HTML(html.no_caption(), js_on_load=words_js, elem_id="caption")
        self.question = gr.Textbox(
            label="Question",
            placeholder="what is at the top left?" if shapes else "what colour is the car?",
            max_length=500,
            submit_btn="Ask",
            elem_id="question",
        )
        self.answers = gr.HTML(js_on_load=words_js, elem_id="answers")
        self.labels = gr.Textbox(
            label="Classes, one a line or separated by commas",
            value=", ".join(class_names()[:6]) if shapes else "",
            placeholder="a cat, a dog, a bird",
            lines=2,
            max_lines=8,
            max_length=20_000,
            elem_id="labels",
        )
        self.classify_button = gr.Button("Classify", elem_id="classify")
        self.bars = gr.HTML(elem_id="bars")

    def _connect(self) -> None:
        """Connect each event to its function and to the parts that it changes. Only one event at a
        time runs the model, since recording attention adds hooks to it."""
        all_parts = [self.notice, self.image, self.caption, self.answers, self.bars]
        word = {"reply": int, "word": int, "deselect": bool}
        for part, name, handler, texts, fields, outputs in (
            (self.file, "upload", self.load_file, [], {"token": str}, all_parts),
            (self.draw_image, "click", self.load_shapes_image, [], {}, all_parts),
            (self.draw_clip, "click", self.load_shapes_clip, [], {}, all_parts),
            (self.question, "submit", self.ask, [self.question], {}, [self.answers, self.question]),
            (self.classify_button, "click", self.classify, [self.labels], {}, [self.bars]),
            (self.caption, "select", self.select_word, [], word, [self.image]),
            (self.answers, "select", self.select_word, [], word, [self.image]),
        ):
            listener = getattr(part, name)(
                handler,
                texts,
                [self.notice, *outputs] if self.notice not in outputs else outputs,
                concurrency_limit=1,
                concurrency_id="model",
                api_visibility="private",
            )
            max_lengths = tuple(text.max_length for text in texts)
            self.events[listener["id"]] = Event(part._id, max_lengths, fields)
        self.blocks.unload(self.close)  # gradio calls it; no browser may send this event

    @errors_as_notice
    def load_file(self, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """As `_load`, for a file that this page has uploaded."""
        yield from self._load(self.uploads.take(event.token), request)

    @errors_as_notice
    def load_shapes_image(self, request: gr.Request) -> Iterator[Updates]:
        """As `_load`, for a random image of shapes."""
        yield from self._load(random_shapes(self.rng, clip=False), request)

    @errors_as_notice
    def load_shapes_clip(self, request: gr.Request) -> Iterator[Updates]:
        """As `_load`, for a random clip of shapes."""
        yield from self._load(random_shapes(self.rng, clip=True), request)

    def _load(self, data: bytes, request: gr.Request) -> Iterator[Updates]:
        """Encode a file and caption it; it replaces the session's earlier image."""
        session = open_session(self.captioner, data)
        self.sessions.put(session_id_of(request), session)
        yield {self.image: html.image(session), self.answers: "", self.bars: ""}
        yield {self.caption: html.caption(generate_reply(self.captioner, session))}

    @errors_as_notice
    def ask(self, question: str, request: gr.Request) -> Iterator[Updates]:
        """Answer a question about the session's image."""
        yield {self.question: ""}  # at once: the next question may be typed while the model runs
        try:
            session = self.sessions.get(session_id_of(request))
            generate_reply(self.captioner, session, question)
        except GITError:
            yield {self.question: question}
            raise
        yield {self.answers: html.answers(session)}

    @errors_as_notice
    def classify(self, labels: str, request: gr.Request) -> Iterator[Updates]:
        """Rank labels for the session's image."""
        session = self.sessions.get(session_id_of(request))
        yield {self.bars: html.bars(rank_labels(self.captioner, session, labels))}

    @errors_as_notice
    def select_word(self, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """Show the attention of a word, or the image again."""
        session = self.sessions.get(session_id_of(request))
        if event.deselect:
            session.selected = None
            yield {self.image: html.image(session)}
        else:
            result = word_attention(self.captioner, session, event.reply, event.word)
            yield {self.image: html.attention(result)}

    def close(self, request: gr.Request) -> None:
        """Drop the session of a page that was closed."""
        self.sessions.remove(session_id_of(request))


def session_id_of(request: gr.Request) -> str:
    """The id of an open page."""
    return str(request.session_hash)


def web_app(page: Page, host: str) -> FastAPI:
    """The page as a web application without telemetry, network access or an API for programs."""
    # gradio checks which files it opens only for a page that it has launched itself, and treats a
    # mounted one as not launched: it would open any path that a browser names.
    page.blocks.has_launched = True
    app = FastAPI(openapi_url=None)
    app.add_middleware(RequestFilter, events=page.events)
    # Against DNS rebinding: a web site could resolve its own name to this machine.
    hosts = LOCAL_HOSTS if host in LOCAL_HOSTS else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_api_route(UPLOAD, page.uploads.receive, methods=["POST"])
    font = ("system-ui", "sans-serif")
    return gr.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        theme=gr.themes.Default(primary_hue="blue", font=font, font_mono=("ui-monospace",)),
        css=_file_text("page.css"),
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens on a port; port 0 is any free one.

    Raises:
        GITError: the port is taken or not allowed, or this machine has no such host.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise GITError(f"{host}:{port}: {error.strerror or error}, try another --port") from None


def server_of(app: FastAPI) -> uvicorn.Server:
    """A server for `run(sockets=[…])`; Ctrl-C ends it without waiting for open pages."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))


def _file_text(name: str) -> str:
    """The text of a file in this folder."""
    return files("git_model.page").joinpath(name).read_text(encoding="utf-8")
