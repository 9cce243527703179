"""The progress bar."""

import os
import signal
from threading import Thread

from git_model.utils.progress import ProgressBar


def test_a_fork_that_is_killed_while_it_draws_stops_no_other_bar() -> None:
    lock = ProgressBar.get_lock()
    child = os.fork()
    if child == 0:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    def draw() -> None:
        with ProgressBar(total=1, disable=False) as bar:
            bar.update()

    drawing = Thread(target=draw, daemon=True)
    drawing.start()
    drawing.join(timeout=60)
    assert not drawing.is_alive()
