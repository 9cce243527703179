"""The journal of a run, whatever happens to the run."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from forked import Forked
from hypothesis import given, settings
from hypothesis import strategies as st

from git_model.batch.journal import JournalError, Outcome, disk_set, open_journal

RECORD = {"file_name": "a.jpg", "text": "a cat"}


def test_an_outcome_that_was_noted_is_read_again(tmp_path: Path) -> None:
    with open_journal(tmp_path / "0.sqlite") as journal:
        journal.note([Outcome(b"a", RECORD), Outcome(b"b", failure="b: gone")])
    with open_journal(tmp_path / "0.sqlite") as journal:
        assert journal.find(b"a") == Outcome(b"a", RECORD)
        assert journal.find(b"b") == Outcome(b"b", failure="b: gone")
        assert journal.find(b"c") is None
        assert [outcome.key for outcome in journal] == [b"a", b"b"]


@settings(max_examples=25)  # each opens a file, and waits for the disk
@given(st.lists(st.tuples(st.binary(max_size=3), st.text(max_size=3)), max_size=12))
def test_an_input_has_one_outcome_the_last(notes: list[tuple[bytes, str]]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_journal(Path(folder) / "0.sqlite") as journal,
    ):
        for key, text in notes:
            journal.note([Outcome(key, {"text": text})])
        expected = {key: {"text": text} for key, text in notes}
        assert {outcome.key: outcome.record for outcome in journal} == expected
        assert len(list(journal)) == len(expected)
        assert all(journal.find(key).record == record for key, record in expected.items())


def test_a_process_reads_the_journals_of_all_and_writes_only_its_own_file(tmp_path: Path) -> None:
    for name in ("0", "1"):
        with open_journal(tmp_path / f"{name}.sqlite") as journal:
            journal.note([Outcome(name.encode(), RECORD)])
    before = (tmp_path / "0.sqlite").read_bytes()
    with open_journal(tmp_path / "1.sqlite") as journal:
        assert journal.find(b"0") is not None
        journal.note([Outcome(b"2", RECORD)])
        assert [outcome.key for outcome in journal] == [b"1", b"2", b"0"]
    assert (tmp_path / "0.sqlite").read_bytes() == before


@pytest.mark.parametrize("first", [0, 1])
def test_a_settled_outcome_counts_more_than_one_that_another_process_left(
    tmp_path: Path, first: int
) -> None:
    unsettled, settled = Outcome(b"a", RECORD, is_settled=False), Outcome(b"a", failure="a: gone")
    for number, outcome in ((first, unsettled), (1 - first, settled)):
        with open_journal(tmp_path / f"{number}.sqlite") as journal:
            journal.note([outcome])
    with open_journal(tmp_path / "0.sqlite") as journal:
        assert journal.find(b"a") == settled


def test_a_batch_is_noted_whole_or_not_at_all(tmp_path: Path) -> None:
    with open_journal(tmp_path / "0.sqlite") as journal:

        def broken():
            yield Outcome(b"a", RECORD)
            raise ValueError("in the middle")

        with pytest.raises(ValueError, match="middle"):
            journal.note(broken())
        assert journal.find(b"a") is None
        journal.note([Outcome(b"b", RECORD)])
        assert [outcome.key for outcome in journal] == [b"b"]


def note_and_die(file: str, n_batches: str) -> None:
    """Some batches, and half of one more."""

    def dying() -> Iterator[Outcome]:
        for i in range(50):
            yield Outcome(b"last %d" % i, {"text": "x"})
            if i == 30:
                os.kill(os.getpid(), signal.SIGKILL)

    with open_journal(Path(file)) as journal:
        for batch in range(int(n_batches)):
            journal.note(Outcome(b"%d %d" % (batch, i), {"text": "x"}) for i in range(50))
        journal.note(dying())


def test_a_killed_process_leaves_whole_batches(tmp_path: Path) -> None:
    file = tmp_path / "0.sqlite"
    assert Forked(note_and_die, file, 3).wait() == -signal.SIGKILL
    with open_journal(file) as journal:
        keys = [outcome.key for outcome in journal]
        assert keys == [b"%d %d" % (batch, i) for batch in range(3) for i in range(50)]
        journal.note([Outcome(b"next", RECORD)])


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.sqlite").write_bytes(os.urandom(5000))
    refusal = pytest.raises(JournalError, match=r"0\.sqlite: .*expected the journal of a run")
    with refusal, open_journal(tmp_path / "0.sqlite"):
        pass


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_noted(tmp_path: Path) -> None:
    with open_journal(tmp_path / "0.sqlite") as journal:
        journal.note([Outcome(b"a", RECORD)])
        journal._files[0].execute("PRAGMA max_page_count = 4")  # SQLite's own way to be full
        with pytest.raises(JournalError, match="full") as error:
            journal.note(Outcome(b"%d" % i, {"text": "x" * 500}) for i in range(100))
        assert "\n" not in str(error.value)
        assert [outcome.key for outcome in journal] == [b"a"]


def test_one_thread_may_ask_while_another_notes(tmp_path: Path) -> None:
    with open_journal(tmp_path / "0.sqlite") as journal:
        thread = Thread(
            target=lambda: [journal.note([Outcome(b"%d" % i, RECORD)]) for i in range(50)]
        )
        thread.start()
        while thread.is_alive():
            journal.find(b"49")
        thread.join()
        assert journal.find(b"49") is not None


def test_a_set_on_disk_says_which_keys_are_new() -> None:
    with disk_set() as keys:
        assert [keys.add(key) for key in (b"a", b"b", b"a", b"", b"")] == [
            True, True, False, True, False,
        ]  # fmt: skip
