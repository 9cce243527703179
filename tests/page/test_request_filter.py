"""Hostile requests to the page: raw requests that no browser makes."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if find_spec("gradio") is None:  # not imported: it takes seconds, and the server does it
    pytest.skip("gradio is not installed", allow_module_level=True)

from starlette.requests import Request

from git_model.page import uploads as page_uploads
from git_model.page.request_filter import (
    Event,
    RefusalError,
    RequestFilter,
    check_host,
    checked_event,
    names_of,
)
from git_model.page.uploads import Uploads
from git_model.utils.errors import GITError

IMAGE = Path(__file__).parents[2] / "examples" / "images" / "five_shapes.png"
SECRET = "canary-5f1d8e"  # in files and in the server's environment
JOIN, STREAM = "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash="
NO_EVENTS = [-1, 7, 8, 99, 10**30, "0", 0.0, 0.5, True, None, [0], {}]
TEXT_EVENTS = (3, 4)


@dataclass
class Response:
    status: int
    text: str


@dataclass
class Server:
    """`git-model page` in its own process; no response may contain the secret."""

    port: int
    errors: Path
    folder: Path  # its folder for temporary files

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request unchanged: no dots are removed from the path."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=250)) as connection:
            connection.request(method, path, body, headers or {})
            raw = connection.getresponse()
            response = Response(raw.status, raw.read().decode("utf-8", "replace"))
        assert SECRET not in response.text
        assert str(self.folder) not in response.text  # and no path of the machine
        return response

    def join(self, sent: Any, **headers: str) -> Response:
        body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        return self.request("POST", JOIN, body, {"Content-Type": "application/json", **headers})

    def event(self, number: int, data: Any, fields: Any = None, session: str = "tab1") -> Response:
        """Send an event; if it passes, the response is its stream."""
        sent = {"fn_index": number, "data": data, "event_data": fields, "session_hash": session}
        response = self.join(sent)
        return self.request("GET", STREAM + session) if response.status == 200 else response

    def upload(self, data: bytes) -> str:
        response = self.request("POST", "/upload", data)
        assert response.status == 200
        return response.text


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    errors = folder / "stderr"
    folders = {name: str(folder) for name in ("TMPDIR", "GRADIO_TEMP_DIR")}
    environment = {**os.environ, **folders, "CANARY": SECRET, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "git_model", "page", "--model", "demo", "--port", "0"]
    with errors.open("w") as log, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    ) as process:  # fmt: skip
        line = process.stdout.readline()  # type: ignore[union-attr]
        address = re.match(r"http://127.0.0.1:(\d+)", line)
        assert address, errors.read_text()
        yield Server(int(address[1]), errors, folder)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=250)


@pytest.fixture(autouse=True)
def no_traceback(request: pytest.FixtureRequest) -> Iterator[None]:
    """In each test with a server, it prints no error and keeps no copy of the secret."""
    server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    before = len(server.errors.read_text()) if server else 0
    yield
    if server:
        assert server.errors.read_text()[before:] == ""
        assert [path for path in server.folder.rglob("*canary*") if not path.is_symlink()] == []


@pytest.fixture(scope="session")
def canary(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A file with the secret, and a link to it from where gradio keeps uploads."""
    path = tmp_path_factory.mktemp("private") / "canary.txt"
    path.write_text(SECRET)
    (server.folder / "link-to-canary.txt").symlink_to(path)
    return path


@pytest.fixture(scope="session")
def url_and_clients() -> Iterator[tuple[str, list[Any]]]:
    """A URL, and the addresses that have connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients: list[Any] = []

        def listen() -> None:
            try:
                while True:
                    clients.append(listening.accept()[1])
            except OSError:
                return

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/canary", clients
        listening.shutdown(socket.SHUT_RDWR)


def paths_to(canary: Path, server: Server) -> list[str]:
    return [
        str(canary),
        f"{server.folder}/../{canary.parent.name}/{canary.name}",
        f"{server.folder}/link-to-canary.txt",
        os.path.relpath(canary),
        f"/proc/self/root{canary}",
        "/proc/self/environ",
        "/etc/passwd",
        f"file://{canary}",
    ]


def file_data(path: str) -> list[Any]:
    """The forms in which gradio's clients name a file."""
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    url = {"path": "", "url": path, "meta": {"_type": "gradio.FileData"}}
    return [data, url, [data], {"video": data}, {**data, "is_stream": True}, {"path": path}]


def events_of(server: Server) -> list[int]:
    """Every event in the page's configuration."""
    return [
        event["id"] for event in json.loads(server.request("GET", "/config").text)["dependencies"]
    ]


def hostile_values(canary: Path, server: Server, url: str) -> list[Any]:
    """A path in every form, and the others as a path or as a URL."""
    first, *others = [*paths_to(canary, server), url]
    return [*file_data(first), *(file_data(path)[n % 2] for n, path in enumerate(others, 1))]


FORMS: list[Callable[[Any], tuple[Any, ...]]] = [  # the data and the fields of an event
    lambda value: ([value],),
    lambda value: (value,),
    lambda value: ([], value),
    lambda value: ([], {"token": value, "name": "x"}),
    lambda value: ([], {"reply": value, "word": 0, "deselect": False}),
]


def test_no_event_opens_a_file_or_an_address_that_a_request_names(
    server: Server, canary: Path, url_and_clients: tuple[str, list[Any]]
) -> None:
    url, clients = url_and_clients
    events = events_of(server)
    assert len(events) == 8
    values = hostile_values(canary, server, url)
    refused, accepted = [], []
    for number, form in product([*events, *NO_EVENTS], FORMS):
        n_accepted = 0
        for value in values if number in events else values[:2]:
            response = server.event(number, *form(value))
            if response.status in (400, 422):
                refused.append(response)
                continue
            accepted.append(response)
            n_accepted += 1
            if n_accepted == 2:  # gradio gets the same for the others: the next test
                break
    # events without values, whose event data is dropped
    assert {response.status for response in accepted} == {200}
    assert [response for response in accepted if "gradio.FileData" in response.text] == []
    assert [response for response in refused if response.text.count("\n") != 1] == []
    assert clients == []


def test_gradio_gets_nothing_of_a_request_to_an_event_without_values(
    server: Server, canary: Path, url_and_clients: tuple[str, list[Any]]
) -> None:
    plain = {"fn_index": 1, "trigger_id": 8, "session_hash": "tab1", "data": [], "event_data": None}
    n_refused = 0
    for value, form in product(hostile_values(canary, server, url_and_clients[0]), FORMS):
        data, fields = (*form(value), None)[:2]
        sent = {"fn_index": 1, "data": data, "event_data": fields, "session_hash": "tab1"}
        try:
            assert checked_event(json.dumps(sent).encode(), {1: Event(8)}) == plain
        except RefusalError:
            n_refused += 1
            assert data != []
    assert n_refused == 2 * len(hostile_values(canary, server, url_and_clients[0]))


def test_a_path_as_text_is_a_text(server: Server, canary: Path) -> None:
    server.event(0, [], {"token": server.upload(IMAGE.read_bytes()), "name": "x"}, "tabtext")
    for path in ["/etc/passwd", "/proc/self/environ", "file:///etc/passwd", f"..{canary}"]:
        assert server.event(3, [path], session="tabtext").status == 200
        assert "Exact probabilities" in server.event(4, [path], session="tabtext").text
        response = server.event(0, [], {"token": path[:60], "name": "x"}, "tabtext")
        assert "file is no longer kept" in response.text


def test_an_uploaded_image_is_read_once_by_its_token(server: Server) -> None:
    token = server.upload(IMAGE.read_bytes())
    response = server.event(0, [], {"token": token, "name": "x"}, "tabone")
    assert "The picture encoded once" in response.text
    assert (
        "file is no longer kept"
        in server.event(0, [], {"token": token, "name": "x"}, "tabone").text
    )
    assert (
        "file is no longer kept"
        in server.event(0, [], {"token": token, "name": "x"}, "tabtwo").text
    )
    assert (
        "file is no longer kept" in server.event(0, [], {"token": "", "name": "x"}, "tabtwo").text
    )
    assert "no picture yet" in server.event(3, ["what is it?"], session="tabtwo").text
    word = {"reply": 0, "word": 2, "deselect": False}
    assert "no picture yet" in server.event(5, [], word, "tabtwo").text
    assert "brighter parts" in server.event(5, [], word, "tabone").text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={file}", "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file={folder}/../{up}", "/gradio_api/file={folder}/link-to-canary.txt",
        "/gradio_api/file=..%2f..%2f..%2f..%2f..{file}", "/gradio_api/%66ile={file}",
        "/gradio_api/file/{file}", "/gradio_api/file={url}", "/gradio_api//file={file}",
        "/assets/../gradio_api/file={file}", "/static/../../../../../../../../..{file}",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{file}", "/assets//{file}",
        "/assets/%2e%2e/%2e%2e/%2e%2e/index.html", "/theme.css/../../etc/passwd",
        "/gradio_api/proxy={url}", "/gradio_api/stream/a/b/c/playlist-file",
        "/gradio_api/custom_component/a/client/component/..%2f..%2fx", "/svelte/../x",
        "/openapi.json", "/gradio_api/openapi.json", "/docs", "/redoc", "/gradio_api/info",
        "/monitoring", "/monitoring/summary", "/gradio_api/upload_progress?upload_id=x",
        "/gradio_api/deep_link?session_hash=tab1", "/gradio_api/runs", "/gradio_api/vibe-code",
        "/gradio_api/dev/reload", "/gradio_api/token", "/gradio_api/user", "/logout", "/upload",
        "/gradio_api/queue/join", "/gradio_api/call/x/tab1", "/gradio_api/heartbeat/..",
        "/gradio_api/heartbeat/tab1/x", "/gradio_api/profiling/traces", "/manifest.json",
    ],
)  # fmt: skip
def test_every_other_address_is_refused(
    server: Server, canary: Path, url_and_clients: tuple[str, list[Any]], path: str
) -> None:
    url, clients = url_and_clients
    up = f"{canary.parent.name}/{canary.name}"
    path = path.format(file=canary, folder=server.folder, up=up, url=url)
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert server.request(method, path).status == 404
    response = server.request("GET", path)
    assert (response.status, response.text) == (404, "there is no such page\n")
    assert clients == []


@pytest.mark.parametrize(
    "path",
    [
        "/", "/config", "/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/reset",
        "/gradio_api/cancel", "/gradio_api/call/look", "/gradio_api/run/predict", "/login",
        "/gradio_api/api/predict", "/gradio_api/process_recording", "/gradio_api/stream/x",
        "/gradio_api/vibe-edit", "/gradio_api/run-history/connect", "/gradio_api/call/v2/look",
    ],
)  # fmt: skip
def test_only_events_and_uploads_can_be_posted(server: Server, canary: Path, path: str) -> None:
    data = json.dumps({"data": file_data(str(canary))[:1], "fn_index": 3, "session_hash": "tab1"})
    response = server.request("POST", path, data, {"Content-Type": "application/json"})
    assert (response.status, response.text) == (404, "there is no such page\n")


def test_links_in_the_query_name_no_file(server: Server) -> None:
    plain = server.request("GET", "/").text
    assert server.request("GET", "/?deep_link=../../x&page=y&view=api").text == plain
    assert server.request("GET", "/config?deep_link=../x&page=y").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://[broken"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_a_request_of_another_site_is_refused(server: Server, headers: dict[str, str]) -> None:
    sent = {"fn_index": 1, "data": [], "session_hash": "tab1"}
    requests = [("POST", "/upload"), ("GET", "/config"), ("GET", STREAM + "tab1"), ("GET", "/")]
    requests += [("GET", "/gradio_api/heartbeat/tab1"), ("GET", "/gradio_api/file=/etc/passwd")]
    responses = [server.request(method, path, b"{}", headers) for method, path in requests]
    for number in range(9):
        responses.append(server.join({**sent, "fn_index": number}, **headers))
    assert {response.status for response in responses} == {403}
    assert [response for response in responses if "evil" in response.text] == []


def test_the_page_itself_and_links_to_it_are_answered(server: Server) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.request("POST", "/upload", b"hello", own).status == 200
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert server.request("GET", "/", None, link).status == 200
    assert server.request("GET", "/", None, {**link, "Sec-Fetch-Dest": "iframe"}).status == 403
    assert server.request("GET", "/config", None, link).status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_name_is_refused(server: Server, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method, path in (("GET", "/"), ("POST", "/upload"), ("POST", JOIN)):
        assert server.request(method, path, b"{}", headers).status == 400


def accepts(page_host: str, host: str, *allowed: str) -> bool:
    """Whether a page that listens on `page_host` answers to a request with this Host."""
    scope = {"type": "http", "headers": [(b"host", host.encode("latin-1"))]}
    try:
        check_host(scope, names_of(page_host, allowed))
    except RefusalError as error:
        return error.status != 400
    return True


@pytest.mark.parametrize(
    "page_host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "192.168.1.7", "0.0.0.0", "::"]
)
def test_a_name_of_another_site_is_refused_on_every_network_address(page_host: str) -> None:
    for host in (
        *("evil.example", "evil.example:7860", "localhost.evil.example", "", "[evil]", "["),
        *("127.0.0.1.evil.example:80", "a b", "localhost:x", "1.2.3", "\xe4.example"),
    ):
        assert not accepts(page_host, host), host
    # no name, so no site can let it resolve to this machine
    for host in ("127.0.0.1:7860", "[::1]:7860", "192.168.1.7", "localhost:1", "LOCALHOST"):
        assert accepts(page_host, host), host


def test_a_page_for_a_network_answers_to_the_machines_name_and_to_allowed_ones() -> None:
    own = socket.gethostname()
    assert accepts("0.0.0.0", f"{own}:7860")
    assert accepts("192.168.1.7", f"{own}.local")
    assert not accepts("127.0.0.1", f"{own}.local")
    assert accepts("pictures.lan", "Pictures.lan:80")
    assert accepts("127.0.0.1", "demo.example", "Demo.Example")


WORD = {"reply": 0, "word": 0, "deselect": False}
MALFORMED = [
    b"", b"null", b"[]", b"{", b"1", b'"text"', b"\xff\xfe", b"[" * 50_000, b"9" * 10_000,
    *({"fn_index": number, "data": []} for number in NO_EVENTS),
    {"data": []}, {"fn_index": 1}, {"fn_index": 1, "data": None}, {"fn_index": 1, "data": {}},
    {"fn_index": 1, "data": [1]}, {"fn_index": 3, "data": []}, {"fn_index": 3, "data": [None]},
    {"fn_index": 3, "data": [1]}, {"fn_index": 3, "data": [["x"]]}, {"fn_index": 3, "data": "x"},
    {"fn_index": 3, "data": ["x", "y"]}, {"fn_index": 3, "data": ["\ud800"]},
    {"fn_index": 3, "data": ["x" * 501]}, {"fn_index": 4, "data": ["x" * 20_001]},
    {"fn_index": 0, "data": []},
    {"fn_index": 0, "data": [], "event_data": {"token": 1, "name": "x"}},
    {"fn_index": 0, "data": [], "event_data": {"token": "x" * 65, "name": "x"}},
    {"fn_index": 0, "data": [], "event_data": {"token": "x", "name": "x", "more": 1}},
    {"fn_index": 0, "data": [], "event_data": {"token": "x", "name": 1}},
    {"fn_index": 0, "data": [], "event_data": {"token": "x", "name": "x" * 65}},
    *({"fn_index": 5, "data": [], "event_data": fields} for fields in [
        None, {}, [], "x", 0, {"reply": 0}, {**WORD, "word": "0"}, {**WORD, "word": 0.5},
        {**WORD, "word": -1}, {**WORD, "word": 10**30}, {**WORD, "word": True},
        {**WORD, "word": None}, {**WORD, "deselect": 0}, {**WORD, "reply": [0]},
    ]),
    *({"fn_index": 1, "data": [], "session_hash": session} for session in [
        None, "", "abc", 1, "x" * 41, "../x", "a b c d", "abc\n", ["tab1"], {"a": 1}, "äöüß",
    ]),
]  # fmt: skip


@pytest.mark.parametrize("sent", MALFORMED, ids=lambda sent: repr(sent)[:60])
def test_a_malformed_event_is_refused_in_one_line(server: Server, sent: Any) -> None:
    if isinstance(sent, dict):
        sent = {"session_hash": "tab1", **sent}
    response = server.join(sent)
    assert response.status in (400, 422)
    assert re.fullmatch(r"[\w ,:]+\n", response.text)


def test_missing_words_are_refused_on_the_page(server: Server) -> None:
    server.event(0, [], {"token": server.upload(IMAGE.read_bytes()), "name": "x"}, "tabword")
    for fields in ({**WORD, "word": 99}, {**WORD, "reply": 3}, {**WORD, "word": 1_000_000}):
        for number in (5, 6):
            assert "answer is no longer kept" in server.event(number, [], fields, "tabword").text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "\x1b[31m",
        "a" * 500,
        "\u202e",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
        "${value}{{x}}",
    ],
)
def test_any_text_is_answered(server: Server, text: str) -> None:
    server.event(0, [], {"token": server.upload(IMAGE.read_bytes()), "name": "x"}, "tabany")
    for number in TEXT_EVENTS:
        assert '"success":true' in server.event(number, [text], session="tabany").text


def test_a_large_event_and_a_large_file_are_refused(server: Server) -> None:
    assert server.join(b" " * 100_001).status == 413
    head = {"Content-Length": str(20 * 2**20 + 1)}
    response = server.request("POST", "/upload", b"x", head)
    assert (response.status, response.text) == (413, "The file is larger than 20,971,520 bytes\n")


def test_an_unknown_session_ends_the_stream(server: Server) -> None:
    assert '"session_not_found":true' in server.request("GET", STREAM + "nobody").text
    for query in ("", "..", "a" * 41, "x'y\"z", "%00%00%00%00", "a%0ab%0ac"):
        assert server.request("GET", STREAM + query).status == 400
    assert server.request("GET", "/gradio_api/queue/data").status == 400


def test_the_configuration_holds_no_path_of_the_machine(server: Server) -> None:
    for path in ("/config", "/", "/theme.css"):
        response = server.request("GET", path)
        assert response.status == 200
        assert [word for word in (str(Path.home()), sys.prefix, "site-packages")
                if word in response.text] == []  # fmt: skip


# The parts, within this process.

EVENTS = {1: Event(8), 3: Event(12, (500,)), 5: Event(11, (), {"reply": int, "deselect": bool})}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["reply", "deselect", "path", "meta", "_type"]), inner, max_size=3),
)  # fmt: skip


@given(st.sampled_from([1, 3, 5]) | JSON, JSON, JSON, st.just("tab1") | JSON)
def test_only_plain_values_of_any_event_pass(
    number: Any, data: Any, fields: Any, session: Any
) -> None:
    sent = {"fn_index": number, "data": data, "event_data": fields, "session_hash": session}
    try:
        event = checked_event(json.dumps(sent).encode(), EVENTS)
    except RefusalError:
        return
    expected = EVENTS[event["fn_index"]]
    assert event["trigger_id"] == expected.trigger
    assert [type(text) for text in event["data"]] == [str] * len(expected.max_lengths)
    assert {
        name: type(value) for name, value in (event["event_data"] or {}).items()
    } == expected.fields


def test_a_web_socket_is_closed() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(RequestFilter(None, EVENTS, ())({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close"}]


def test_a_token_is_long_random_and_works_once() -> None:
    uploads = Uploads()
    tokens = {uploads.put(b"x") for _ in range(10)}
    assert len(tokens) == 10
    assert min(map(len, tokens)) >= 43
    assert [uploads.take(token) for token in tokens] == [b"x"] * 10
    with pytest.raises(GITError, match="file is no longer kept"):
        uploads.take(tokens.pop())


def test_the_oldest_waiting_files_are_dropped_beyond_each_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    uploads = Uploads(clock=lambda: now[0])
    first, *others = [uploads.put(bytes([n])) for n in range(page_uploads.MAX_WAITING_FILES + 1)]
    assert len(uploads) == page_uploads.MAX_WAITING_FILES
    with pytest.raises(GITError, match="file is no longer kept"):
        uploads.take(first)
    monkeypatch.setattr(page_uploads, "MAX_WAITING_BYTES", 10)
    large = uploads.put(b"x" * 9)
    assert len(uploads) == 2  # and the newest of the others
    assert uploads.take(others[-1]) == bytes([page_uploads.MAX_WAITING_FILES])
    now[0] = page_uploads.MAX_WAITING_SECONDS + 1
    with pytest.raises(GITError, match="file is no longer kept"):
        uploads.take(large)


def upload_response(
    uploads: Uploads, parts: list[bytes], *, cut: bool = False
) -> tuple[int, bytes]:
    """The status and body of the response to a file in parts, of unknown length."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b""})

    async def receive() -> Any:
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/upload", "headers": []}
    response = asyncio.run(uploads.receive(Request(scope, receive)))
    return response.status_code, bytes(response.body)


def test_a_file_of_unknown_length_is_refused_at_the_limit() -> None:
    uploads = Uploads()
    mebibyte = b"x" * 2**20
    status, line = upload_response(uploads, [mebibyte] * 30)
    assert (status, line) == (413, b"The file is larger than 20,971,520 bytes\n")
    status, token = upload_response(uploads, [mebibyte] * 20)
    assert (status, len(uploads.take(token.decode()))) == (200, 20 * 2**20)


def test_an_incomplete_file_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads()
    assert upload_response(uploads, [b"half"], cut=True) == (400, b"The file is incomplete\n")
    assert len(uploads) == 0
    monkeypatch.setattr(page_uploads, "MAX_RECEIVING", 0)
    assert upload_response(uploads, [b"x"])[0] == 503
