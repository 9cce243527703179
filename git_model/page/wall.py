"""What stands between the network and gradio: what it does not name is refused, in one line.

gradio answers many more requests than the page makes: it serves files, fetches addresses, and takes
paths from whoever sends them. Here a request passes if it is one of those that the page makes, and
of an event gradio gets a copy, written anew from the few values that were looked at.

Needs starlette, which comes with gradio.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EVENT_BYTES = 100_000  # of an event, as JSON
FIELD_CHARACTERS = 64  # of a text in an event's own data
FIELD_NUMBER = 1_000_000  # the largest number there
SECONDS = 120  # in which a body has to be here
SESSION = re.compile(r"[A-Za-z0-9]{4,40}")
EVENTS = "/gradio_api/queue/join"
STREAM = "/gradio_api/queue/data"
UPLOAD = "/upload"
PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/app_id"}
# No part of a path begins with a dot, so that none leaves its folder.
STATIC = re.compile(r"/(assets|static)(/[A-Za-z0-9_@-][A-Za-z0-9_@.-]*)+")
HEARTBEAT = re.compile(rf"/gradio_api/heartbeat/{SESSION.pattern}")


@dataclass(frozen=True)
class Event:
    """What one event of the page takes; everything else is refused.

    trigger: the number of the part of the page that it belongs to.
    texts: of each text, how many characters it may have.
    fields: names and types (int, bool or str) of what comes with the event itself.
    """

    trigger: int
    texts: tuple[int, ...] = ()
    fields: Mapping[str, type] = field(default_factory=dict)


class RefusalError(Exception):
    """A request that is not let through: the status and the line of the answer. The line holds
    nothing of the request."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line

    def response(self) -> PlainTextResponse:
        """The answer; the connection ends with it, for a body may be left unread."""
        return PlainTextResponse(self.line + "\n", self.status, {"Connection": "close"})


class Wall:
    """ASGI middleware that lets through what the page itself asks for, and nothing else.

    Args:
        events: the page's events by gradio's number, see `Event`.
    """

    def __init__(self, app: ASGIApp, events: Mapping[int, Event]) -> None:
        self.app = app
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                scope, receive = await self._let_in(scope, receive)
            except RefusalError as refusal:
                await refusal.response()(scope, receive, send)
            else:
                await self._hand_on(scope, receive, send)
        else:  # the page opens no web socket
            await send({"type": "websocket.close"})

    async def _let_in(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """The request as gradio gets it.

        Raises:
            RefusalError: it is none that the page makes.
        """
        path, method, query = scope["path"], scope["method"], b""
        check_sender(scope)
        if method == "POST" and path == EVENTS:
            body = await read_body(Request(scope, receive), EVENT_BYTES, "the event")
            event = json.dumps(checked_event(body, self.events)).encode()
            return _with_body(scope, event), _sender(event, receive)
        if method in ("GET", "HEAD") and path == STREAM:
            asked = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
            query = b"session_hash=" + checked_session(asked[0] if asked else None).encode()
        elif not (
            (method == "POST" and path == UPLOAD)
            or (method in ("GET", "HEAD") and _is_part_of_the_page(path))
        ):
            raise RefusalError(404, "there is no such page")
        return {**scope, "query_string": query}, receive

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the page answer. gradio notices only within the answer that it does not know a
        session, says so there, and raises: that answer just ends."""
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def check_sender(scope: Scope) -> None:
    """See to it that no other web site has the visitor's browser send this. (A link to the page may
    stand anywhere.)

    Raises:
        RefusalError: it has.
    """
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise RefusalError(
            403, "this comes from another site; a proxy in between must hand on the header Host"
        )
    a_link = (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not a_link:
        raise RefusalError(403, "this comes from another site")


async def read_body(request: Request, most: int, what: str) -> bytes:
    """A request's body, of which never more than `most` bytes are held.

    Raises:
        RefusalError: it is larger, or too slow, or ended in between.
    """
    too_large = RefusalError(413, f"{what} is larger than {most:,} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise RefusalError(408, f"{what} took longer than {SECONDS} seconds") from None
    except ClientDisconnect:
        raise RefusalError(400, f"{what} ended in between") from None
    return bytes(body)


def checked_event(body: bytes, events: Mapping[int, Event]) -> dict[str, Any]:
    """An event as gradio gets it: the number, the session, and values of the kinds that the event
    takes. What else the sender wrote is left out.

    Raises:
        RefusalError: it is no event of the page, or not in its form.
    """
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusalError(400, "the event is not JSON") from None
    if not isinstance(sent, dict):
        raise RefusalError(400, "the event is not a JSON object")
    number = sent.get("fn_index")
    if type(number) is not int or number not in events:
        raise RefusalError(422, "the page has no such event")
    event = events[number]
    return {
        "fn_index": number,
        "trigger_id": event.trigger,
        "session_hash": checked_session(sent.get("session_hash")),
        "data": _checked_texts(sent.get("data"), event.texts),
        "event_data": _checked_fields(sent.get("event_data"), event.fields),
    }


def checked_session(session: object) -> str:
    """What a browser tab calls itself.

    Raises:
        RefusalError: it is not a short word of letters and digits.
    """
    if not isinstance(session, str) or not SESSION.fullmatch(session):
        raise RefusalError(400, "session_hash is expected to be 4 to 40 letters and digits")
    return session


def _checked_texts(sent: object, limits: tuple[int, ...]) -> list[str]:
    if not isinstance(sent, list) or len(sent) != len(limits):
        raise RefusalError(422, f"data is expected to be a list of {len(limits)} texts")
    return [_checked_text(text, most) for text, most in zip(sent, limits, strict=True)]


def _checked_fields(sent: object, fields: Mapping[str, type]) -> dict[str, Any] | None:
    if not fields:
        return None
    if not isinstance(sent, dict) or sent.keys() != fields.keys():
        raise RefusalError(422, f"event_data is expected to have just {', '.join(fields)}")
    for name, kind in fields.items():
        if type(sent[name]) is not kind:  # not isinstance: True is no int here
            raise RefusalError(422, f"event_data: {name} is expected to be of type {kind.__name__}")
        if kind is str:
            _checked_text(sent[name], FIELD_CHARACTERS)
        elif not 0 <= sent[name] <= FIELD_NUMBER:
            raise RefusalError(422, f"event_data: {name} is expected to be 0 to {FIELD_NUMBER:,}")
    return sent


def _checked_text(text: object, most: int) -> str:
    """A text that can be written again: half a pair of surrogates cannot."""
    if not isinstance(text, str):
        raise RefusalError(422, "a text is expected to be a string")
    if len(text) > most:
        raise RefusalError(422, f"a text is longer than {most:,} characters")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RefusalError(422, "a text is not Unicode")
    return text


def _is_part_of_the_page(path: str) -> bool:
    return bool(path in PAGES or STATIC.fullmatch(path) or HEARTBEAT.fullmatch(path))


def _with_body(scope: Scope, body: bytes) -> Scope:
    """The same request, about to send another body, in JSON and of a known length."""
    described = (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in described]
    headers += [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    ]
    return {**scope, "headers": headers, "query_string": b""}


def _sender(body: bytes, receive: Receive) -> Receive:
    """What receives this body, and then whatever comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return messages.pop() if messages else await receive()

    return receive_body
