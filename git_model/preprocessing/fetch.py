"""The file behind a web address.

A web address may come from anyone, so it must not lead to what only this machine can reach. Every
IP address that its name resolves to must be public, the connection goes to the IP address that was
checked, and each redirect is checked in the same way. Size and time are bounded.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from git_model.utils.errors import GITError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
REDIRECTS = (301, 302, 303, 307, 308)
BLOCK_BYTES = 1 << 16  # of one read
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses, seen from an IPv6 network
URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"  # that `quote` leaves as they are


class FetchError(GITError):
    """A web address from which no file can be fetched; the message names it."""


@dataclass(frozen=True, kw_only=True)
class FetchLimits:
    """Limits of one download."""

    max_bytes: int = 1 << 28
    seconds: float = 60.0  # for all of it: names, redirects, the file
    redirects: int = 5


def is_url(name: str) -> bool:
    """Whether a name is a web address, or one of another scheme (s3://…), which `fetch` refuses."""
    return SCHEME.match(name) is not None


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not to this machine or a private or
    link-local network, not multicast or reserved. An IPv4 address within an IPv6 address must be
    public, too."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(v4 is not None and not is_public(str(v4)) for v4 in inner):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def fetch(
    url: str,
    limits: FetchLimits | None = None,
    is_allowed: Callable[[str], bool] | None = None,
) -> bytes:
    """The bytes of the file behind an http or https address.

    Args:
        is_allowed: whether to connect to an IP address; by default `is_public`.

    Raises:
        FetchError: the address is not http or https or leads to a local network, or its server does
            not answer in time, answers with an error, or sends too many bytes.
    """
    limits = limits or FetchLimits()
    transfer = _Transfer(url, limits, is_allowed or is_public)
    # in a thread, because neither the look-up of a name nor a slow answer has a time limit of its
    # own
    thread = threading.Thread(target=transfer.run, daemon=True)
    thread.start()
    thread.join(limits.seconds)
    if thread.is_alive():
        transfer.stop()
        raise FetchError(f"{url}: not complete after {limits.seconds:g} seconds")
    if transfer.data is None:
        raise transfer.error or FetchError(f"{url}: no answer")
    return transfer.data


class _Transfer:
    """The transfer of one file.

    Attributes:
        data: the file, once it is complete.
        error: why there is none.
    """

    def __init__(self, url: str, limits: FetchLimits, is_allowed: Callable[[str], bool]) -> None:
        self._url, self._limits, self._is_allowed = url, limits, is_allowed
        self._socket: socket.socket | None = None
        self._is_stopped = False
        self.data: bytes | None = None
        self.error: FetchError | None = None

    def run(self) -> None:
        """Fetch the file."""
        try:
            self.data = self._follow()
        except FetchError as error:
            self.error = FetchError(f"{self._url}: {error}")
        except Exception as error:  # sockets, TLS and http.client have many kinds
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.error = FetchError(f"{self._url}: {text}, expected the address of a file")

    def stop(self) -> None:
        """End the transfer."""
        self._is_stopped = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _follow(self) -> bytes:
        """The file, through all redirects."""
        url = self._url
        for _ in range(self._limits.redirects + 1):
            response = self._request(url)
            try:
                target = response.getheader("Location")
                if response.status not in REDIRECTS or not target:
                    return self._body(response)
                url = urljoin(url, target)
            finally:
                response.close()
        raise FetchError(f"more than {self._limits.redirects} redirects")

    def _request(self, url: str) -> http.client.HTTPResponse:
        parts = _split(url)
        from git_model import __version__

        host = str(parts.hostname)
        connection = http.client.HTTPConnection(host, _port(parts))
        connection.sock = self._connect(parts)
        path = quote(parts.path or "/", safe=URL_CHARACTERS)
        query = "?" + quote(parts.query, safe=URL_CHARACTERS) if parts.query else ""
        headers = {
            "Host": _host_header(parts),
            "User-Agent": f"git-model/{__version__}",
            "Accept": "image/*, video/*, */*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request("GET", path + query, headers=headers)
        return connection.getresponse()

    def _connect(self, parts: SplitResult) -> socket.socket:
        """A connection to an address that was checked."""
        host, port = str(parts.hostname), _port(parts)
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise FetchError(f"the name {host} is not known: {error.strerror or error}") from None
        addresses = [str(answer[4][0]) for answer in answers]
        for address in addresses:
            if not self._is_allowed(address):
                raise FetchError(
                    f"{host} has the address {address}, which is local or private, expected one "
                    "of the public internet"
                )
        connection = self._first_connection(addresses, port)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=host)
        self._socket = connection
        if self._is_stopped:
            raise FetchError("stopped")
        return connection

    def _first_connection(self, addresses: list[str], port: int) -> socket.socket:
        error: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((address, port), self._limits.seconds)
            except OSError as reason:
                error = reason
        raise error or FetchError("the name has no address")

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """The bytes of an answer."""
        limit, length = self._limits.max_bytes, response.length
        if response.status != 200:
            raise FetchError(f"the server answers {response.status} {response.reason}")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise FetchError("the answer is compressed, expected the file as it is")
        data = bytearray()
        while (length or 0) <= limit and len(data) <= limit:
            block = response.read1(BLOCK_BYTES)
            if not block:
                break
            data += block
        if (length or 0) > limit or len(data) > limit:
            raise FetchError(f"the file is larger than {limit} bytes, which is the limit")
        if length is not None and len(data) < length:
            raise FetchError(f"the connection ended after {len(data)} of {length} bytes")
        return bytes(data)


def _split(url: str) -> SplitResult:
    """The parts of an http or https address."""
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and _port(parts) > 0
    except ValueError as error:  # a port that is not a number, brackets that do not match
        raise FetchError(f"not a web address: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"an address of {parts.scheme}, expected http or https")
    if not is_valid or parts.username is not None:
        raise FetchError("expected an address with a host, and without a user's name")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _host_header(parts: SplitResult) -> str:
    """The host as the server knows it, with a port if it is not the usual one."""
    host = str(parts.hostname)
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    return host if parts.port is None else f"{host}:{parts.port}"
