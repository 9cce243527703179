"""The page in gradio: its parts, the function of each event, and the server.

Needs gradio, the extra `page`; only the command `page` imports this file.
"""

import socket
from collections.abc import Callable, Collection, Iterator
from functools import wraps
from importlib.resources import files
from random import Random
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from git_model.captioner import Captioner
from git_model.page import html
from git_model.page.actions import (
    SessionStore,
    encode,
    generate_reply,
    rank_labels,
    read_picture,
    word_attention,
)
from git_model.page.purpose import doubt_about
from git_model.page.questions import learned_questions, name_hint, question_hint
from git_model.page.request_filter import UPLOAD, Event, RequestFilter, names_of
from git_model.page.samples import Samples, drawn_samples, file_suffixes
from git_model.page.uploads import MAX_FILE_BYTES, Uploads
from git_model.utils.errors import GITError

MAX_QUEUE = 32  # events that wait for the model
MAX_DEFAULT_LABELS = 5
EXAMPLE_QUESTIONS = {True: "what is at the top left?", False: "what is in the picture?"}
Updates = dict[Any, Any]  # from a part of the page to its new value
EventHandler = Callable[..., Iterator[Updates]]


def errors_beside(part: str) -> Callable[[EventHandler], EventHandler]:
    """Show the errors of an event beside their cause, and clear those of earlier events.

    Args:
        part: the attribute of the page that shows them.
    """

    def decorate(handler: EventHandler) -> EventHandler:
        @wraps(handler)
        def wrapper(page: "Page", *args: Any) -> Iterator[Updates]:
            yield dict.fromkeys(page.notices, "")
            try:
                yield from handler(page, *args)
            except GITError as error:
                yield {getattr(page, part): html.notice(str(error))}

        return wrapper

    return decorate


class Page:
    """A model on a page: the parts, and the function of each event.

    Args:
        name: of the model, as shown.
        shapes: whether it is the built-in model, which knows drawn shapes only.
        samples: the examples; by default drawings for the built-in model, and none for others.
    """

    def __init__(
        self, captioner: Captioner, name: str, *, shapes: bool, samples: Samples | None = None
    ) -> None:
        self.captioner = captioner
        self.shapes = shapes
        self.clips = captioner.model.config.frames > 0
        if samples is None and shapes:
            samples = drawn_samples(clips=self.clips)
        self.samples = samples
        self.sessions = SessionStore()
        self.uploads = Uploads()
        self.events: dict[int, Event] = {}  # by gradio's number; the browser may send only these
        self.rng = Random()  # noqa: S311 (it chooses examples)
        name = html.short_name(name)
        with gr.Blocks(title=f"git-model: {name}", analytics_enabled=False) as self.blocks:
            side = captioner.model.config.purpose_side
            gr.HTML(html.heading(name, captioner.purpose, shapes=shapes, max_side=side))
            with gr.Row(elem_id="columns"):
                with gr.Column(min_width=300):
                    self._lay_out_picture()
                with gr.Column(min_width=300):
                    self._lay_out_caption()
                    self._lay_out_question()
                    self._lay_out_classes()
            self.notices = (self.picture_notice, self.question_notice, self.labels_notice)
            self._connect()
        self.blocks.queue(max_size=MAX_QUEUE)

    def _lay_out_picture(self) -> None:
        has_samples = self.samples is not None
        self.no_image = html.no_image(clips=self.clips, has_samples=has_samples)
        self.image = gr.HTML(self.no_image, elem_id="image")
        self.picture_notice = gr.HTML(elem_id="picture-notice")
        # Not gradio's own file part: it takes paths from the browser, and opens them.
        self.file = gr.HTML(
            html.file_chooser(MAX_FILE_BYTES, file_suffixes(clips=self.clips), clips=self.clips),
            js_on_load=_file_text("upload.js"),
            elem_id="file",
        )
        with gr.Row(elem_id="examples", visible=has_samples):
            self.sample_buttons = gr.HTML(
                html.samples(self.samples.shown if self.samples else []),
                js_on_load=_file_text("samples.js"),
                elem_id="samples",
            )
            self.random_button = gr.Button("Random example", size="sm", elem_id="random")

    def _lay_out_caption(self) -> None:
        words_js = _file_text("words.js")
        with gr.Column(elem_id="result"):
            self.caption = gr.HTML(html.no_caption(), js_on_load=words_js, elem_id="caption")
            self.details = gr.HTML(html.no_details(), elem_id="details")

    def _lay_out_question(self) -> None:
        self.question = gr.Textbox(
            label="Ask about the picture",
            placeholder=EXAMPLE_QUESTIONS[self.shapes],
            max_length=500,
            submit_btn="Ask",
            elem_id="question",
        )
        questions = learned_questions(clips=False) if self.shapes else []
        clip_questions = learned_questions(clips=True) if self.shapes and self.clips else []
        gr.HTML(
            html.suggestions(questions, clip_questions),
            js_on_load=_file_text("suggestions.js"),
            elem_id="suggestions",
        )
        self.question_notice = gr.HTML(elem_id="question-notice")
        self.answers = gr.HTML(js_on_load=_file_text("words.js"), elem_id="answers")

    def _lay_out_classes(self) -> None:
        samples = self.samples.shown if self.samples else []
        texts = [sample.text for sample in samples if sample.text and "," not in sample.text]
        self.labels = gr.Textbox(
            label="Which name fits? One a line, or separated by commas",
            value="\n".join(texts[:MAX_DEFAULT_LABELS]),
            placeholder="a cat, a dog, a bird",
            lines=MAX_DEFAULT_LABELS if texts else 2,
            max_lines=8,
            max_length=20_000,
            elem_id="labels",
        )
        self.classify_button = gr.Button("Classify", elem_id="classify")
        self.labels_notice = gr.HTML(elem_id="labels-notice")
        self.bars = gr.HTML(elem_id="bars")

    def _connect(self) -> None:
        """Connect each event to its function and to the parts that it changes. Only one event at a
        time runs the model, since recording attention adds hooks to it."""
        picture = [self.image, self.caption, self.details, self.answers, self.bars]
        maps = [self.image, self.details]
        answer = [self.answers, self.question]
        word = {"reply": int, "word": int, "deselect": bool}
        file = {"token": str, "name": str}
        for part, name, handler, texts, fields, outputs in (
            (self.file, "upload", self.load_file, [], file, picture),
            (self.sample_buttons, "select", self.load_sample, [], {"sample": int}, picture),
            (self.random_button, "click", self.load_random, [], {}, picture),
            (self.question, "submit", self.ask, [self.question], {}, answer),
            (self.classify_button, "click", self.classify, [self.labels], {}, [self.bars]),
            (self.caption, "select", self.select_word, [], word, maps),
            (self.answers, "select", self.select_word, [], word, maps),
        ):
            listener = getattr(part, name)(
                handler,
                texts,
                [*self.notices, *outputs],
                concurrency_limit=1,
                concurrency_id="model",
                api_visibility="private",
                show_progress="hidden",  # the parts show themselves what the model is doing
            )
            max_lengths = tuple(text.max_length for text in texts)
            self.events[listener["id"]] = Event(part._id, max_lengths, fields)
        self.blocks.unload(self.close)  # gradio calls it; no browser may send this event

    @errors_beside("picture_notice")
    def load_file(self, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """As `_load`, for a file that this page has uploaded."""
        data = self.uploads.take(event.token)
        yield from self._load(data, request, event.name.strip() or "the file")

    @errors_beside("picture_notice")
    def load_sample(self, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """As `_load`, for an example that is shown."""
        yield from self._load(self._samples().read(event.sample), request)

    @errors_beside("picture_notice")
    def load_random(self, request: gr.Request) -> Iterator[Updates]:
        """As `_load`, for a random example."""
        yield from self._load(self._samples().random(self.rng), request)

    def _samples(self) -> Samples:
        if self.samples is None:
            raise GITError("This page has no examples: choose a picture of your own.")
        return self.samples

    def _load(self, data: bytes, request: gr.Request, name: str = "the file") -> Iterator[Updates]:
        """Show a file, encode it and caption it; it replaces the session's earlier image.

        Args:
            name: of the file, in the error lines.
        """
        session_id = session_id_of(request)
        try:
            picture = read_picture(self.captioner, data, name)
        except GITError as error:
            stays = ". The earlier picture stays." if session_id in self.sessions else ""
            raise GITError(f"{error}{stays}") from None
        config = self.captioner.model.config
        doubt = doubt_about(picture.frames, config, shapes=self.shapes)
        yield {
            self.image: html.image(picture.previews),
            self.caption: html.waiting("Describing the picture"),
            self.details: "",
            self.answers: "",
            self.bars: "",
        }
        try:
            session = encode(self.captioner, picture, doubt)
            generate_reply(self.captioner, session)
        except GITError:
            self.sessions.remove(session_id)
            yield {
                self.image: self.no_image,
                self.caption: html.no_caption(),
                self.details: html.no_details(),
            }
            raise
        self.sessions.put(session_id, session)
        yield {self.caption: html.caption(session), self.details: html.details(session)}

    @errors_beside("question_notice")
    def ask(self, question: str, request: gr.Request) -> Iterator[Updates]:
        """Answer a question about the session's image."""
        yield {self.question: ""}  # at once: the next question may be typed while the model runs
        session = None
        try:
            session = self.sessions.get(session_id_of(request))
            if not question.strip():
                raise GITError("Type a question first.")
            yield {self.answers: html.answers(session, question)}
            hint = question_hint(question, self.captioner.tokenizer, shapes=self.shapes)
            generate_reply(self.captioner, session, question, hint)
        except GITError:
            yield {self.question: question, self.answers: html.answers(session) if session else ""}
            raise
        yield {self.answers: html.answers(session)}

    @errors_beside("labels_notice")
    def classify(self, labels: str, request: gr.Request) -> Iterator[Updates]:
        """Rank labels for the session's image."""
        session = self.sessions.get(session_id_of(request))
        yield {self.bars: html.waiting("Comparing the names")}
        try:
            ranking = rank_labels(self.captioner, session, labels)
        except GITError:
            yield {self.bars: ""}
            raise
        names = [label.label for label in ranking.labels]
        hint = name_hint(names, self.captioner.tokenizer, shapes=self.shapes)
        yield {self.bars: html.bars(ranking, session, hint)}

    @errors_beside("picture_notice")
    def select_word(self, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """Show the attention of a word, or the image again."""
        session = self.sessions.get(session_id_of(request))
        if event.deselect:
            session.selected = None
            yield {self.image: html.image(session.previews), self.details: html.details(session)}
        else:
            yield {self.details: html.waiting("Finding the parts of the picture")}
            try:
                result = word_attention(self.captioner, session, event.reply, event.word)
            except GITError:
                yield {self.details: html.details(session)}
                raise
            yield {self.image: html.attention(result), self.details: html.attention_details(result)}

    def close(self, request: gr.Request) -> None:
        """Drop the session of a page that was closed."""
        self.sessions.remove(session_id_of(request))


def session_id_of(request: gr.Request) -> str:
    """The id of an open page."""
    return str(request.session_hash)


def web_app(page: Page, host: str, allowed: Collection[str] = ()) -> FastAPI:
    """The page as a web application without telemetry, network access or an API for programs.

    Args:
        host: what it listens on.
        allowed: other names that it may be called by, such as a proxy's.
    """
    # gradio checks which files it opens only for a page that it has launched itself, and treats a
    # mounted one as not launched: it would open any path that a browser names.
    page.blocks.has_launched = True
    app = FastAPI(openapi_url=None)
    app.add_middleware(RequestFilter, events=page.events, names=names_of(host, allowed))
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
    """A socket that listens on a port; port 0 is any free port.

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
