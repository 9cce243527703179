"""A signal ends a command, and what is half written is deleted."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from commands import run

from git_model.utils.atomic import new_file, new_folder
from git_model.utils.signals import cleanup_on_signals


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)  # Python's handler runs at the latest here


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_deletes_half_written_files_and_folders(tmp_path: Path, number: int) -> None:
    def write() -> None:
        with cleanup_on_signals(), new_folder(tmp_path / "out") as folder, new_file(tmp_path / "x"):
            (folder / "weights.bin").write_text("half")
            send(number)

    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    try:
        with pytest.raises(SystemExit) as end:
            write()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert end.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cleanup_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_may_run_a_command() -> None:
    handlers = []

    def note() -> None:
        with cleanup_on_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=note)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_every_command_ends_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(_model: str, folder: Path, **_options: object) -> None:
        with new_folder(folder):
            send(signal.SIGTERM)

    monkeypatch.setattr("git_model.export.write.export", export)
    assert run("export", "demo", tmp_path / "out").exit_code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
