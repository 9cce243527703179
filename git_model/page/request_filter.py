"""A filter in front of gradio: it refuses every request that the page itself does not make.

gradio answers many more requests than the page makes: it serves files, fetches URLs, and takes
paths from its clients. This filter lets a request pass if it is in the allowlist below. From an
event gradio gets a copy that holds only the few values that were checked.

Needs starlette, which comes with gradio.
"""

import asyncio
import ipaddress
import json
import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_EVENT_BYTES = 100_000  # of an event, as JSON
MAX_FIELD_LENGTH = 64  # characters of a text in an event's own data
MAX_FIELD_NUMBER = 1_000_000
BODY_TIMEOUT = 120  # seconds in which a body must arrive
SESSION_ID = re.compile(r"[A-Za-z0-9]{4,40}")
EVENTS = "/gradio_api/queue/join"
STREAM = "/gradio_api/queue/data"
UPLOAD = "/upload"
PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/app_id"}
# No part of a path begins with a dot, so that none leaves its folder.
STATIC = re.compile(r"/(assets|static)(/[A-Za-z0-9_@-][A-Za-z0-9_@.-]*)+")
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?")  # of a request, and its port
HEARTBEAT = re.compile(rf"/gradio_api/heartbeat/{SESSION_ID.pattern}")


@dataclass(frozen=True)
class Event:
    """The values that an event of the page takes; all others are refused.

    trigger: gradio's number of the part of the page that it belongs to.
    max_lengths: of each text, in characters.
    fields: names and types (int, bool or str) of the event's own data.
    """

    trigger: int
    max_lengths: tuple[int, ...] = ()
    fields: Mapping[str, type] = field(default_factory=dict)


class RefusalError(Exception):
    """A refused request: the status and the line of the response. The line repeats nothing of the
    request."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line

    def response(self) -> PlainTextResponse:
        """The response; it closes the connection, since a body may be left unread."""
        return PlainTextResponse(self.line + "\n", self.status, {"Connection": "close"})


class RequestFilter:
    """ASGI middleware that passes the page's own requests, and refuses all others.

    Args:
        events: the page's events by gradio's number, see `Event`.
        names: the hosts that a request may name, see `check_host`.
    """

    def __init__(self, app: ASGIApp, events: Mapping[int, Event], names: Collection[str]) -> None:
        self.app = app
        self.events = events
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                scope, receive = await self._checked(scope, receive)
            except RefusalError as refusal:
                await refusal.response()(scope, receive, send)
            else:
                await self._pass_on(scope, receive, send)
        else:  # the page opens no web socket
            await send({"type": "websocket.close"})

    async def _checked(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """The request as gradio gets it.

        Raises:
            RefusalError: the page makes no such request.
        """
        path, method, query = scope["path"], scope["method"], b""
        check_host(scope, self.names)
        check_same_origin(scope)
        if method == "POST" and path == EVENTS:
            body = await read_body(Request(scope, receive), MAX_EVENT_BYTES, "the event")
            event = json.dumps(checked_event(body, self.events)).encode()
            return _with_body(scope, event), _receive_body(event, receive)
        if method in ("GET", "HEAD") and path == STREAM:
            values = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [None])
            query = b"session_hash=" + checked_session_id(values[0]).encode()
        elif not (
            (method == "POST" and path == UPLOAD)
            or (method in ("GET", "HEAD") and _is_part_of_the_page(path))
        ):
            raise RefusalError(404, "there is no such page")
        return {**scope, "query_string": query}, receive

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let gradio respond. If gradio does not know a session, it says so in the stream and then
        raises an exception; here the stream just ends."""
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def names_of(host: str, others: Collection[str] = ()) -> set[str]:
    """The names of a page that listens on `host`: of this machine only `localhost`; of a network
    also this machine's names. `others` are added."""
    names = {"localhost", host.lower(), *(name.lower() for name in others)}
    if host != "localhost" and not (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        own = socket.gethostname().lower()
        names |= {own, f"{own}.local"}
    return names


def check_host(scope: Scope, names: Collection[str]) -> None:
    """Refuse a request whose `Host` is neither one of these names nor an IP address. A web site
    could let its own name resolve to this machine (DNS rebinding), but then `Host` is that name.

    Raises:
        RefusalError: it is such a request.
    """
    match = HOST.fullmatch(Headers(scope=scope).get("host", ""))
    host = (match[1] or match[2]).lower() if match else ""
    if host not in names and not _is_address(host):
        raise RefusalError(400, "the page does not answer to this name; --allow-host adds a name")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_same_origin(scope: Scope) -> None:
    """Refuse a request that another web site makes the visitor's browser send. Links to the page
    are allowed on every site.

    Raises:
        RefusalError: it is such a request.
    """
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise RefusalError(
            403, "this comes from another site; a proxy in between must pass on the header Host"
        )
    is_link = (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link:
        raise RefusalError(403, "this comes from another site")


async def read_body(request: Request, max_bytes: int, name: str) -> bytes:
    """A request's body; at most `max_bytes` of it are held.

    Args:
        name: of the body, in the error lines.

    Raises:
        RefusalError: it is larger, too slow, or incomplete.
    """
    too_large = RefusalError(413, f"{name} is larger than {max_bytes:,} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise RefusalError(408, f"{name} took longer than {BODY_TIMEOUT} seconds") from None
    except ClientDisconnect:
        raise RefusalError(400, f"{name} is incomplete") from None
    return bytes(body)


def checked_event(body: bytes, events: Mapping[int, Event]) -> dict[str, Any]:
    """An event as gradio gets it: its number, the session, and values of the types that the event
    takes. Everything else in the body is left out.

    Raises:
        RefusalError: it is not an event of the page, or has another form.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusalError(400, "the event is not JSON") from None
    if not isinstance(values, dict):
        raise RefusalError(400, "the event is not a JSON object")
    number = values.get("fn_index")
    if type(number) is not int or number not in events:
        raise RefusalError(422, "the page has no such event")
    event = events[number]
    return {
        "fn_index": number,
        "trigger_id": event.trigger,
        "session_hash": checked_session_id(values.get("session_hash")),
        "data": _checked_texts(values.get("data"), event.max_lengths),
        "event_data": _checked_fields(values.get("event_data"), event.fields),
    }


def checked_session_id(session_id: object) -> str:
    """The id of a browser tab.

    Raises:
        RefusalError: it is not a short string of letters and digits.
    """
    if not isinstance(session_id, str) or not SESSION_ID.fullmatch(session_id):
        raise RefusalError(400, "session_hash is expected to be 4 to 40 letters and digits")
    return session_id


def _checked_texts(values: object, max_lengths: tuple[int, ...]) -> list[str]:
    if not isinstance(values, list) or len(values) != len(max_lengths):
        raise RefusalError(422, f"data is expected to be a list of {len(max_lengths)} texts")
    return [
        _checked_text(text, max_length)
        for text, max_length in zip(values, max_lengths, strict=True)
    ]


def _checked_fields(values: object, fields: Mapping[str, type]) -> dict[str, Any] | None:
    if not fields:
        return None
    if not isinstance(values, dict) or values.keys() != fields.keys():
        raise RefusalError(422, f"event_data is expected to have just {', '.join(fields)}")
    for name, kind in fields.items():
        if type(values[name]) is not kind:  # not isinstance: True is not an int here
            raise RefusalError(422, f"event_data: {name} is expected to be of type {kind.__name__}")
        if kind is str:
            _checked_text(values[name], MAX_FIELD_LENGTH)
        elif not 0 <= values[name] <= MAX_FIELD_NUMBER:
            raise RefusalError(
                422, f"event_data: {name} is expected to be 0 to {MAX_FIELD_NUMBER:,}"
            )
    return values


def _checked_text(text: object, max_length: int) -> str:
    """A text that can be encoded again; half a surrogate pair cannot."""
    if not isinstance(text, str):
        raise RefusalError(422, "a text is expected to be a string")
    if len(text) > max_length:
        raise RefusalError(422, f"a text is longer than {max_length:,} characters")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RefusalError(422, "a text is not Unicode")
    return text


def _is_part_of_the_page(path: str) -> bool:
    return bool(path in PAGES or STATIC.fullmatch(path) or HEARTBEAT.fullmatch(path))


def _with_body(scope: Scope, body: bytes) -> Scope:
    """The same request with headers that describe another body: JSON of its length."""
    body_headers = (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in body_headers]
    headers += [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    ]
    return {**scope, "headers": headers, "query_string": b""}


def _receive_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body first, and then the messages that follow."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return messages.pop() if messages else await receive()

    return receive_body
