"""What strangers send to the page: raw requests, as no browser would make them."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gradio")

from starlette.requests import Request

from git_model.page import uploads as page_uploads
from git_model.page.uploads import Uploads
from git_model.page.wall import Event, RefusalError, Wall, checked_event
from git_model.settings import GITError

PICTURE = Path(__file__).parent.parent / "examples" / "images" / "five_shapes.png"
SECRET = "canary-5f1d8e"  # stands in files, and in the server's environment
JOIN, STREAM = "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash="
NO_EVENTS = [-1, 7, 8, 99, 10**30, "0", 0.0, 0.5, True, None, [0], {}]
TEXT_EVENTS = (3, 4)


@dataclass
class Answer:
    status: int
    text: str


@dataclass
class Server:
    """`git-model page` as a process of its own; no answer may hold the secret."""

    port: int
    errors: Path
    folder: Path  # its folder for temporary files

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request just as it stands: no dots are taken out of the path."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            answer = Answer(response.status, response.read().decode("utf-8", "replace"))
        assert SECRET not in answer.text
        assert str(self.folder) not in answer.text  # nor any path of the machine
        return answer

    def join(self, sent: Any, **headers: str) -> Answer:
        body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        return self.ask("POST", JOIN, body, {"Content-Type": "application/json", **headers})

    def event(self, number: int, data: Any, fields: Any = None, session: str = "tab1") -> Answer:
        """An event, and if it is let in all that comes of it."""
        sent = {"fn_index": number, "data": data, "event_data": fields, "session_hash": session}
        answer = self.join(sent)
        return self.ask("GET", STREAM + session) if answer.status == 200 else answer

    def upload(self, data: bytes) -> str:
        answer = self.ask("POST", "/upload", data)
        assert answer.status == 200
        return answer.text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    errors = folder / "stderr"
    places = {name: str(folder) for name in ("TMPDIR", "GRADIO_TEMP_DIR")}
    environment = {**os.environ, **places, "CANARY": SECRET, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "git_model", "page", "--model", "demo", "--port", "0"]
    with errors.open("w") as log, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    ) as process:  # fmt: skip
        line = process.stdout.readline()  # type: ignore[union-attr]
        address = re.match(r"http://127.0.0.1:(\d+)", line)
        assert address, errors.read_text()
        yield Server(int(address[1]), errors, folder)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


@pytest.fixture(autouse=True)
def no_traceback(request: pytest.FixtureRequest) -> Iterator[None]:
    """In each test with a server: it prints nothing meanwhile, and in the end has no copy."""
    server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    before = len(server.errors.read_text()) if server else 0
    yield
    if server:
        assert server.errors.read_text()[before:] == ""
        assert [path for path in server.folder.rglob("*canary*") if not path.is_symlink()] == []


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A file with the secret, and a link to it from where gradio keeps uploads."""
    path = tmp_path_factory.mktemp("private") / "canary.txt"
    path.write_text(SECRET)
    (server.folder / "link-to-canary.txt").symlink_to(path)
    return path


@pytest.fixture(scope="module")
def fetched() -> Iterator[tuple[str, list[Any]]]:
    """An address, and who has connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        visitors: list[Any] = []

        def listen() -> None:
            try:
                while True:
                    visitors.append(listening.accept()[1])
            except OSError:
                return

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/canary", visitors
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
    """The forms in which gradio's own clients name a file."""
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    url = {"path": "", "url": path, "meta": {"_type": "gradio.FileData"}}
    return [data, url, [data], {"video": data}, {**data, "is_stream": True}, {"path": path}]


def events_of(server: Server) -> list[int]:
    """Every event that the page's configuration names."""
    return [event["id"] for event in json.loads(server.ask("GET", "/config").text)["dependencies"]]


def test_no_event_opens_a_file_or_an_address_that_a_request_names(
    server: Server, canary: Path, fetched: tuple[str, list[Any]]
) -> None:
    address, visitors = fetched
    events = events_of(server)
    assert len(events) == 8
    first, *others = [*paths_to(canary, server), address]
    values = file_data(first) + [value for path in others for value in file_data(path)[:2]]
    answers = []
    for number in [*events, *NO_EVENTS]:
        for value in values if number in events else values[:2]:
            answers += [
                server.event(number, [value]),
                server.event(number, value),
                server.event(number, [], value),
                server.event(number, [], {"token": value}),
                server.event(number, [], {"said": value, "word": 0, "again": False}),
            ]
    refused = [answer for answer in answers if answer.status in (400, 422)]
    # what is left: events that take nothing, given nothing but event data, which they never see
    done = [answer for answer in answers if answer not in refused]
    assert {answer.status for answer in done} == {200}
    assert [answer for answer in done if "gradio.FileData" in answer.text] == []
    assert [answer for answer in refused if answer.text.count("\n") != 1] == []
    assert visitors == []


def test_a_path_as_text_is_a_text(server: Server, canary: Path) -> None:
    server.event(0, [], {"token": server.upload(PICTURE.read_bytes())}, "tabtext")
    for path in ["/etc/passwd", "/proc/self/environ", "file:///etc/passwd", f"..{canary}"]:
        assert server.event(3, [path], session="tabtext").status == 200
        assert "Exact probabilities" in server.event(4, [path], session="tabtext").text
        answer = server.event(0, [], {"token": path[:60]}, "tabtext")
        assert "no longer here" in answer.text


def test_a_picture_that_a_tab_sent_is_read_once_by_its_token(server: Server) -> None:
    token = server.upload(PICTURE.read_bytes())
    answer = server.event(0, [], {"token": token}, "tabone")
    assert "Read the picture once" in answer.text
    assert "no longer here" in server.event(0, [], {"token": token}, "tabone").text
    assert "no longer here" in server.event(0, [], {"token": token}, "tabtwo").text
    assert "no longer here" in server.event(0, [], {"token": ""}, "tabtwo").text
    assert "no picture yet" in server.event(3, ["what is it?"], session="tabtwo").text
    word = {"said": 0, "word": 2, "again": False}
    assert "no picture yet" in server.event(5, [], word, "tabtwo").text
    assert "Where it looked" in server.event(5, [], word, "tabone").text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={file}", "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file={folder}/../{up}", "/gradio_api/file={folder}/link-to-canary.txt",
        "/gradio_api/file=..%2f..%2f..%2f..%2f..{file}", "/gradio_api/%66ile={file}",
        "/gradio_api/file/{file}", "/gradio_api/file={address}", "/gradio_api//file={file}",
        "/assets/../gradio_api/file={file}", "/static/../../../../../../../../..{file}",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{file}", "/assets//{file}",
        "/assets/%2e%2e/%2e%2e/%2e%2e/index.html", "/theme.css/../../etc/passwd",
        "/gradio_api/proxy={address}", "/gradio_api/stream/a/b/c/playlist-file",
        "/gradio_api/custom_component/a/client/component/..%2f..%2fx", "/svelte/../x",
        "/openapi.json", "/gradio_api/openapi.json", "/docs", "/redoc", "/gradio_api/info",
        "/monitoring", "/monitoring/summary", "/gradio_api/upload_progress?upload_id=x",
        "/gradio_api/deep_link?session_hash=tab1", "/gradio_api/runs", "/gradio_api/vibe-code",
        "/gradio_api/dev/reload", "/gradio_api/token", "/gradio_api/user", "/logout", "/upload",
        "/gradio_api/queue/join", "/gradio_api/call/x/tab1", "/gradio_api/heartbeat/..",
        "/gradio_api/heartbeat/tab1/x", "/gradio_api/profiling/traces", "/manifest.json",
    ],
)  # fmt: skip
def test_no_other_address_answers(
    server: Server, canary: Path, fetched: tuple[str, list[Any]], path: str
) -> None:
    address, visitors = fetched
    up = f"{canary.parent.name}/{canary.name}"
    path = path.format(file=canary, folder=server.folder, up=up, address=address)
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert server.ask(method, path).status == 404
    answer = server.ask("GET", path)
    assert (answer.status, answer.text) == (404, "there is no such page\n")
    assert visitors == []


@pytest.mark.parametrize(
    "path",
    [
        "/", "/config", "/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/reset",
        "/gradio_api/cancel", "/gradio_api/call/look", "/gradio_api/run/predict", "/login",
        "/gradio_api/api/predict", "/gradio_api/process_recording", "/gradio_api/stream/x",
        "/gradio_api/vibe-edit", "/gradio_api/run-history/connect", "/gradio_api/call/v2/look",
    ],
)  # fmt: skip
def test_nothing_but_events_and_files_is_taken(server: Server, canary: Path, path: str) -> None:
    data = json.dumps({"data": file_data(str(canary))[:1], "fn_index": 3, "session_hash": "tab1"})
    answer = server.ask("POST", path, data, {"Content-Type": "application/json"})
    assert (answer.status, answer.text) == (404, "there is no such page\n")


def test_links_in_the_query_name_no_file(server: Server) -> None:
    plain = server.ask("GET", "/").text
    assert server.ask("GET", "/?deep_link=../../x&page=y&view=api").text == plain
    assert server.ask("GET", "/config?deep_link=../x&page=y").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://[broken"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_what_another_site_sends_is_refused(server: Server, headers: dict[str, str]) -> None:
    sent = {"fn_index": 1, "data": [], "session_hash": "tab1"}
    requests = [("POST", "/upload"), ("GET", "/config"), ("GET", STREAM + "tab1"), ("GET", "/")]
    requests += [("GET", "/gradio_api/heartbeat/tab1"), ("GET", "/gradio_api/file=/etc/passwd")]
    answers = [server.ask(method, path, b"{}", headers) for method, path in requests]
    for number in range(9):
        answers.append(server.join({**sent, "fn_index": number}, **headers))
    assert {answer.status for answer in answers} == {403}
    assert [answer for answer in answers if "evil" in answer.text] == []


def test_the_page_itself_and_links_to_it_are_answered(server: Server) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.ask("POST", "/upload", b"hello", own).status == 200
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert server.ask("GET", "/", None, link).status == 200
    assert server.ask("GET", "/", None, {**link, "Sec-Fetch-Dest": "iframe"}).status == 403
    assert server.ask("GET", "/config", None, link).status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_name_of_this_machine_is_refused(server: Server, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method, path in (("GET", "/"), ("POST", "/upload"), ("POST", JOIN)):
        assert server.ask(method, path, b"{}", headers).status == 400


WORD = {"said": 0, "word": 0, "again": False}
MALFORMED = [
    b"", b"null", b"[]", b"{", b"1", b'"text"', b"\xff\xfe", b"[" * 50_000, b"9" * 10_000,
    *({"fn_index": number, "data": []} for number in NO_EVENTS),
    {"data": []}, {"fn_index": 1}, {"fn_index": 1, "data": None}, {"fn_index": 1, "data": {}},
    {"fn_index": 1, "data": [1]}, {"fn_index": 3, "data": []}, {"fn_index": 3, "data": [None]},
    {"fn_index": 3, "data": [1]}, {"fn_index": 3, "data": [["x"]]}, {"fn_index": 3, "data": "x"},
    {"fn_index": 3, "data": ["x", "y"]}, {"fn_index": 3, "data": ["\ud800"]},
    {"fn_index": 3, "data": ["x" * 501]}, {"fn_index": 4, "data": ["x" * 20_001]},
    {"fn_index": 0, "data": []}, {"fn_index": 0, "data": [], "event_data": {"token": 1}},
    {"fn_index": 0, "data": [], "event_data": {"token": "x" * 65}},
    {"fn_index": 0, "data": [], "event_data": {"token": "x", "more": 1}},
    *({"fn_index": 5, "data": [], "event_data": fields} for fields in [
        None, {}, [], "x", 0, {"said": 0}, {**WORD, "word": "0"}, {**WORD, "word": 0.5},
        {**WORD, "word": -1}, {**WORD, "word": 10**30}, {**WORD, "word": True},
        {**WORD, "word": None}, {**WORD, "again": 0}, {**WORD, "said": [0]},
    ]),
    *({"fn_index": 1, "data": [], "session_hash": session} for session in [
        None, "", "abc", 1, "x" * 41, "../x", "a b c d", "abc\n", ["tab1"], {"a": 1}, "äöüß",
    ]),
]  # fmt: skip


@pytest.mark.parametrize("sent", MALFORMED, ids=lambda sent: repr(sent)[:60])
def test_a_malformed_event_is_refused_in_one_line(server: Server, sent: Any) -> None:
    if isinstance(sent, dict):
        sent = {"session_hash": "tab1", **sent}
    answer = server.join(sent)
    assert answer.status in (400, 422)
    assert re.fullmatch(r"[\w ,:]+\n", answer.text)


def test_words_that_are_not_there_are_refused_on_the_page(server: Server) -> None:
    server.event(0, [], {"token": server.upload(PICTURE.read_bytes())}, "tabword")
    for fields in ({**WORD, "word": 99}, {**WORD, "said": 3}, {**WORD, "word": 1_000_000}):
        for number in (5, 6):
            assert "no longer kept" in server.event(number, [], fields, "tabword").text


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
    server.event(0, [], {"token": server.upload(PICTURE.read_bytes())}, "tabany")
    for number in TEXT_EVENTS:
        assert '"success":true' in server.event(number, [text], session="tabany").text


def test_a_large_event_and_a_large_file_are_refused(server: Server) -> None:
    assert server.join(b" " * 100_001).status == 413
    head = {"Content-Length": str(20 * 2**20 + 1)}
    answer = server.ask("POST", "/upload", b"x", head)
    assert (answer.status, answer.text) == (413, "The file is larger than 20,971,520 bytes\n")


def test_a_session_that_is_not_there_ends_the_stream(server: Server) -> None:
    assert '"session_not_found":true' in server.ask("GET", STREAM + "nobody").text
    for query in ("", "..", "a" * 41, "x'y\"z", "%00%00%00%00", "a%0ab%0ac"):
        assert server.ask("GET", STREAM + query).status == 400
    assert server.ask("GET", "/gradio_api/queue/data").status == 400


def test_the_configuration_says_nothing_of_the_machine(server: Server) -> None:
    for path in ("/config", "/", "/theme.css"):
        answer = server.ask("GET", path)
        assert answer.status == 200
        assert [word for word in (str(Path.home()), sys.prefix, "site-packages")
                if word in answer.text] == []  # fmt: skip


# Within one process: the parts by themselves.

EVENTS = {1: Event(8), 3: Event(12, (500,)), 5: Event(11, (), {"said": int, "again": bool})}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["said", "again", "path", "meta", "_type"]), inner, max_size=3),
)  # fmt: skip


@given(st.sampled_from([1, 3, 5]) | JSON, JSON, JSON, st.just("tab1") | JSON)
def test_of_whatever_is_sent_only_plain_values_get_through(
    number: Any, data: Any, fields: Any, session: Any
) -> None:
    sent = {"fn_index": number, "data": data, "event_data": fields, "session_hash": session}
    try:
        event = checked_event(json.dumps(sent).encode(), EVENTS)
    except RefusalError:
        return
    form = EVENTS[event["fn_index"]]
    assert event["trigger_id"] == form.trigger
    assert [type(text) for text in event["data"]] == [str] * len(form.texts)
    assert {name: type(value) for name, value in (event["event_data"] or {}).items()} == form.fields


def test_a_web_socket_is_closed() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Wall(None, EVENTS)({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close"}]


def test_a_token_is_long_random_and_works_once() -> None:
    uploads = Uploads()
    tokens = {uploads.put(b"x") for _ in range(10)}
    assert len(tokens) == 10
    assert min(map(len, tokens)) >= 43
    assert [uploads.take(token) for token in tokens] == [b"x"] * 10
    with pytest.raises(GITError, match="no longer here"):
        uploads.take(tokens.pop())


def test_waiting_files_are_few_small_and_young(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    uploads = Uploads(clock=lambda: now[0])
    first, *others = [uploads.put(bytes([n])) for n in range(page_uploads.HELD + 1)]
    assert len(uploads) == page_uploads.HELD
    with pytest.raises(GITError, match="no longer here"):
        uploads.take(first)
    monkeypatch.setattr(page_uploads, "HELD_BYTES", 10)
    large = uploads.put(b"x" * 9)
    assert len(uploads) == 2  # and the youngest of the others
    assert uploads.take(others[-1]) == bytes([page_uploads.HELD])
    now[0] = page_uploads.HELD_SECONDS + 1
    with pytest.raises(GITError, match="no longer here"):
        uploads.take(large)


def received(uploads: Uploads, parts: list[bytes], *, cut: bool = False) -> tuple[int, bytes]:
    """What the answer to a file in parts is, of unknown length."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b""})

    async def receive() -> Any:
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/upload", "headers": []}
    answer = asyncio.run(uploads.receive(Request(scope, receive)))
    return answer.status_code, bytes(answer.body)


def test_a_file_without_a_length_is_cut_off_at_the_limit() -> None:
    uploads = Uploads()
    mebibyte = b"x" * 2**20
    status, line = received(uploads, [mebibyte] * 30)
    assert (status, line) == (413, b"The file is larger than 20,971,520 bytes\n")
    status, token = received(uploads, [mebibyte] * 20)
    assert (status, len(uploads.take(token.decode()))) == (200, 20 * 2**20)


def test_a_file_that_ends_in_between_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads()
    assert received(uploads, [b"half"], cut=True) == (400, b"The file ended in between\n")
    assert len(uploads) == 0
    monkeypatch.setattr(page_uploads, "ARRIVING", 0)
    assert received(uploads, [b"x"])[0] == 503
