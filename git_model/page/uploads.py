"""Uploaded files between browser and model: held in memory, named by a token, read once.

Needs starlette, which comes with gradio.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from git_model.page.request_filter import RefusalError, read_body
from git_model.utils.errors import GITError

MEBIBYTE = 2**20
MAX_FILE_BYTES = 20 * MEBIBYTE
MAX_WAITING_BYTES = 100 * MEBIBYTE  # of all files that wait to be read
MAX_WAITING_SECONDS = 120  # of each; the page requests its file at once
MAX_WAITING_FILES = 16
MAX_RECEIVING = 8  # files that are received at the same time


class Uploads:
    """Files that were received and not read yet. The sender gets a token that nobody can guess, and
    the file can be read with it once. The oldest files are dropped when a limit is exceeded."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._files: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._n_receiving = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._files)

    def put(self, data: bytes) -> str:
        """Hold a file and return its token."""
        token = secrets.token_urlsafe()
        with self._lock:
            self._files[token] = self._clock(), data
            self._drop_oldest()
        return token

    def take(self, token: str) -> bytes:
        """The file of a token; the token is invalid from then on.

        Raises:
            GITError: there is no such file, or it was taken or dropped.
        """
        with self._lock:
            self._drop_oldest()
            if token not in self._files:
                raise GITError("That file is no longer kept: drop it once more.")
            return self._files.pop(token)[1]

    async def receive(self, request: Request) -> Response:
        """Receive a file and answer with its token, or with an error line."""
        if self._n_receiving >= MAX_RECEIVING:
            return RefusalError(
                503, "Too many files are sent at this moment: try again."
            ).response()
        self._n_receiving += 1
        try:
            data = await read_body(request, MAX_FILE_BYTES, "The file")
        except RefusalError as refusal:
            return refusal.response()
        finally:
            self._n_receiving -= 1
        return PlainTextResponse(self.put(data))

    def _drop_oldest(self) -> None:
        """Drop files that are too old, and the oldest files while there are too many or too
        large."""
        n_bytes = sum(len(data) for _, data in self._files.values())
        while self._files:
            token, (received_at, data) = next(iter(self._files.items()))
            if (
                len(self._files) <= MAX_WAITING_FILES
                and n_bytes <= MAX_WAITING_BYTES
                and self._clock() - received_at <= MAX_WAITING_SECONDS
            ):
                break
            del self._files[token]
            n_bytes -= len(data)
