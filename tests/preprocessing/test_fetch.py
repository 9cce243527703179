"""Files behind web addresses: what is fetched, what is refused, and that nothing local is reached.
The server is this machine's own, allowed by a parameter of `fetch` in these tests only."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from git_model.preprocessing import fetch as fetch_module
from git_model.preprocessing.fetch import FetchError, FetchLimits, fetch, is_public, is_url

BODY = bytes(range(256)) * 8


class Handler(BaseHTTPRequestHandler):
    """Answers by the path of the address."""

    release = threading.Event()

    def do_GET(self) -> None:
        """Answer."""
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "to":
            self.answer(302, b"", Location=rest)
        elif kind == "loop":
            self.answer(302, b"", Location="/loop")
        elif kind == "short":
            self.answer(200, BODY[:100], **{"Content-Length": str(len(BODY))})
        elif kind == "stream":  # no length: ends with the connection
            self.answer(200, BODY, length=False)
        elif kind == "slow":
            self.release.wait(20)
        elif kind == "gzip":
            self.answer(200, BODY, **{"Content-Encoding": "gzip"})
        elif kind == "agent":
            self.answer(200, self.headers["User-Agent"].encode())
        else:
            self.answer(200 if kind == "file" else 404, BODY)

    def answer(self, status: int, body: bytes, *, length: bool = True, **headers: str) -> None:
        self.send_response(status)
        if length and "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    Handler.release.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Handler.release.set()
        running.shutdown()


def only_this_machine(address: str) -> bool:
    return address == "127.0.0.1"


def fetched(url: str, **limits: float) -> bytes:
    return fetch(url, FetchLimits(**limits), only_this_machine)  # type: ignore[arg-type]


def refusal(url: str, **limits: float) -> str:
    with pytest.raises(FetchError) as error:
        fetched(url, **limits)
    [line] = str(error.value).splitlines()
    assert line.startswith(f"{url}: ")
    return line.removeprefix(f"{url}: ")


@pytest.mark.parametrize("path", ["file", "file/a b.jpg?x=1#y", "stream", "to//file", "to/../file"])
def test_a_file_comes_whole_and_through_redirects(server: str, path: str) -> None:
    assert fetched(f"{server}/{path}") == BODY


def test_the_server_is_told_who_asks(server: str) -> None:
    assert fetched(f"{server}/agent").startswith(b"git-model/")


@pytest.mark.parametrize(
    ("path", "limits", "message"),
    [
        ("none", {}, "the server answers 404"),
        ("loop", {}, "more than 5 redirects"),
        ("short", {}, "the connection ended after 100 of 2048 bytes"),
        ("gzip", {}, "the answer is compressed"),
        ("file", {"max_bytes": 2047}, "larger than 2047 bytes"),
        ("stream", {"max_bytes": 2047}, "larger than 2047 bytes"),
        ("slow", {"seconds": 0.2}, "not complete after 0.2 seconds"),
        ("to/ftp://example.org/a.jpg", {}, "an address of ftp, expected http or https"),
        ("to/file:///etc/passwd", {}, "an address of file, expected http or https"),
    ],
)
def test_what_is_no_whole_file_is_refused(
    server: str, path: str, limits: dict[str, float], message: str
) -> None:
    assert message in refusal(f"{server}/{path}", **limits)


def test_as_many_bytes_as_allowed_are_no_error(server: str) -> None:
    for path in ("file", "stream"):
        assert fetched(f"{server}/{path}", max_bytes=2048) == BODY


def test_a_redirect_to_another_address_is_checked_like_the_first(server: str) -> None:
    port = server.rpartition(":")[2]
    message = refusal(f"{server}/to/http://127.0.0.2:{port}/file")
    assert message.startswith("127.0.0.2 has the address 127.0.0.2, which is local or private")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "0.0.0.0",
     "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1"],
)  # fmt: skip
def test_this_machine_and_private_networks_are_never_reached(host: str) -> None:
    with pytest.raises(FetchError, match=r"local or private|is not known"):
        fetch(f"http://{host}/latest/meta-data")


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.1.2.3")
    ]
    monkeypatch.setattr(fetch_module.socket, "getaddrinfo", lambda *_, **__: answers)
    monkeypatch.setattr(fetch_module.socket, "create_connection", lambda *_: pytest.fail("reached"))
    with pytest.raises(FetchError, match=r"has the address 10\.1\.2\.3"):
        fetch("http://example.org/a.jpg")


def test_the_connection_goes_to_the_address_that_was_checked(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves differently each time gets no second look-up."""
    port, looked_up = int(server.rpartition(":")[2]), []

    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        looked_up.append(1)
        ip = "127.0.0.1" if len(looked_up) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    connect = socket.create_connection
    targets = []

    def record(target: tuple[str, int], *rest: float) -> socket.socket:
        targets.append(target)
        monkeypatch.undo()
        return connect(target, *rest)

    monkeypatch.setattr(fetch_module.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetch_module.socket, "create_connection", record)
    assert fetched(f"http://changing.example:{port}/file") == BODY
    assert targets == [("127.0.0.1", port)]
    assert len(looked_up) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("0.0.0.0", False),
        ("10.0.0.1", False), ("100.64.0.1", False), ("169.254.169.254", False), ("::1", False),
        ("fe80::1", False), ("fc00::1", False), ("224.0.0.1", False), ("ff02::1", False),
        ("255.255.255.255", False), ("::ffff:10.0.0.1", False), ("2002:0a00:0001::", False),
        ("64:ff9b::10.0.0.1", False), ("192.0.2.1", False),
    ],
)  # fmt: skip
def test_public_addresses_are_told_from_others(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url", ["http://", "http://a:b/", "https://u:p@example.org/", "s3://b/a.jpg", "http://[::1/"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(FetchError, match=r"expected|not a web address|not known"):
        fetch(url)


def test_addresses_are_told_from_paths() -> None:
    assert all(map(is_url, ("http://a/b.jpg", "https://a", "s3://b", "HTTP://a")))
    assert not any(map(is_url, ("a/b.jpg", "C:/a.jpg", "c://a.jpg", "./http:/a", "", "a:b")))
