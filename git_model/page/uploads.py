"""Files on their way from a browser to the model: held in memory, known by a token, read once.

Needs starlette, which comes with gradio.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from git_model.page.wall import RefusalError, read_body
from git_model.settings import GITError

MEBIBYTE = 2**20
FILE_BYTES = 20 * MEBIBYTE  # that a file may have
HELD_BYTES = 100 * MEBIBYTE  # of all files that wait
HELD_SECONDS = 120  # that a file waits; its page asks for it at once
HELD = 16  # files that wait
ARRIVING = 8  # files that are received at the same time


class Uploads:
    """Files that were sent and not read yet. Who sent one gets a token that nobody can guess, and
    with it the bytes, once. The oldest ones make room."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._files: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._arriving = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._files)

    def put(self, data: bytes) -> str:
        """Hold a file; returns its token."""
        token = secrets.token_urlsafe()
        with self._lock:
            self._files[token] = self._clock(), data
            self._make_room()
        return token

    def take(self, token: str) -> bytes:
        """The file of a token, which is good for nothing from then on.

        Raises:
            GITError: there is none, or no longer.
        """
        with self._lock:
            self._make_room()
            if token not in self._files:
                raise GITError("That file is no longer here: drop it once more.")
            return self._files.pop(token)[1]

    async def receive(self, request: Request) -> Response:
        """Take a file from the network and answer with its token, or with what is wrong."""
        if self._arriving >= ARRIVING:
            return RefusalError(503, "Too many files arrive at this moment: try again.").response()
        self._arriving += 1
        try:
            data = await read_body(request, FILE_BYTES, "The file")
        except RefusalError as refusal:
            return refusal.response()
        finally:
            self._arriving -= 1
        return PlainTextResponse(self.put(data))

    def _make_room(self) -> None:
        """Drop what is too old, and the oldest ones of too many or too much."""
        size = sum(len(data) for _, data in self._files.values())
        while self._files:
            token, (since, data) = next(iter(self._files.items()))
            if (
                len(self._files) <= HELD
                and size <= HELD_BYTES
                and self._clock() - since <= HELD_SECONDS
            ):
                break
            del self._files[token]
            size -= len(data)
