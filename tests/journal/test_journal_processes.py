"""The journal and death, owners, forks and full disks: each in a process of its own."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess

import pytest
from journals import happened, is_intact, run
from waiting import DEADLINE

from aggstream.errors import JournalInUse
from aggstream.journal import Journal, JournalOptions, JournalReader

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "journal.db"


def own(path: pathlib.Path) -> Journal:
    return Journal(JournalOptions(path=path))


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


# --- death ----------------------------------------------------------------------------------------------

BUSY = """
journal = own()
chance = random.Random(int(sys.argv[2]))
steps = int(sys.argv[3])
if steps:
    # In the middle of a statement: SQLite calls this after so many steps of its machine.
    calls = itertools.count()
    journal._file.connection.set_progress_handler(
        lambda: next(calls) >= steps and os.kill(os.getpid(), signal.SIGKILL), 20
    )
while True:
    events = [happened(f"o{chance.randrange(9)}", chance.choice(["dag_started", "filled"]))
              for _ in range(chance.randrange(1, 30))]
    seqs = journal.store(events)
    say("stored", *(f"{seq}:{event.id}" for seq, event in zip(seqs, events) if seq is not None))
    seqs = [stored.seq for stored in journal.pending(limit=chance.randrange(1, 30))]
    journal.done(seqs)
    say("done", *seqs)
    journal.retention(0)
"""


def books(output: str) -> tuple[dict[int, str], set[int]]:
    """Return which events were stored, and which of them were done, for all that the process lived to say."""
    stored: dict[int, str] = {}
    done: set[int] = set()
    for line in output.splitlines():
        word, *items = line.split()
        if word == "stored":
            stored.update((int(item.partition(":")[0]), item.partition(":")[2]) for item in items)
        else:
            done.update(map(int, items))
    return stored, done


def balance(path: pathlib.Path, output: str) -> None:
    """See that everything is there that the process said, and that the journal goes on."""
    stored, done = books(output)
    with own(path) as journal:
        assert journal.recall().closed_ns is None
        assert [seq for seq in journal.store([happened("after")]) if seq is not None]
        with JournalReader(path) as reader:
            found = {event.seq: event for event in reader.export()}
        assert {seq: found[seq].id for seq in stored} == stored
        assert all(found[seq].state == "done" for seq in done)
        assert all(event.event.id == event.id for event in found.values())
    assert is_intact(path)


@pytest.mark.parametrize("seed", range(6))
def test_a_process_killed_in_the_middle_of_a_statement_loses_nothing_that_it_had_stored(
    seed: int, path: pathlib.Path
) -> None:
    steps = random.Random(seed).randrange(50, 3000)
    with run(BUSY, path, seed, steps) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (-signal.SIGKILL, "")
    balance(path, out)


@pytest.mark.parametrize("seed", range(3))
def test_a_process_killed_at_any_moment_loses_nothing_that_it_had_stored(seed: int, path: pathlib.Path) -> None:
    with run(BUSY, path, seed, 0) as process:
        lines = [first_line(process) for _ in range(random.Random(seed).randrange(1, 100))]
        process.kill()
        out, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    balance(path, "".join(lines) + out)


# --- owners ---------------------------------------------------------------------------------------------

OWNER = """
journal = own()
journal.store([happened("o")])
say("owned by", os.getpid())
sys.stdin.read()
"""


def test_a_second_process_learns_whose_the_journal_is_and_gets_it_once_the_first_is_killed(
    path: pathlib.Path,
) -> None:
    with run(OWNER, path) as process:
        assert first_line(process) == f"owned by {process.pid}\n"
        with pytest.raises(JournalInUse, match=f"process {process.pid}:") as caught:
            own(path)
        assert caught.value.path == str(path)
        process.kill()
        process.wait(DEADLINE)
        with own(path) as journal:
            assert [stored.order_id for stored in journal.pending()] == ["o"]


def test_a_journal_that_was_closed_is_free_although_its_process_lives_on(path: pathlib.Path) -> None:
    with run('own().close()\nsay("closed")\nsys.stdin.read()', path) as process:
        assert first_line(process) == "closed\n"
        own(path).close()


def test_a_second_handle_in_the_process_is_refused_under_any_name_of_the_file(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    with own(path):
        for name in (path, link, pathlib.Path(path.name)):
            with pytest.raises(JournalInUse, match="another client of this process"):
                own(name)
            JournalReader(name).close()
            # The system drops a process's locks on a file when it closes any descriptor of it.
            pathlib.Path(f"{path}-wal").read_bytes()
        with run("own()", path) as process:
            assert "JournalInUse" in process.communicate(timeout=DEADLINE)[1]
    own(path).close()


def test_an_open_that_fails_frees_the_journal(path: pathlib.Path) -> None:
    path.write_text("no journal" * 100)
    for _ in range(2):
        with pytest.raises(Exception, match="not a database"):
            own(path)
    path.unlink()
    own(path).close()


def test_another_process_may_read_and_put_back_while_the_owner_goes_on(path: pathlib.Path) -> None:
    program = """
from aggstream.journal import replay, retry
with JournalReader(sys.argv[1]) as reader:
    say(*(f"{stored.seq}:{stored.state}" for stored in reader.export()))
say(retry(sys.argv[1]), replay(sys.argv[1], order_id="p"))
"""
    with own(path) as journal:
        journal.store([happened("o"), happened("p"), happened("q")])
        journal.failed(1, "why", final=True)
        journal.done([2, 3])
        with run(program, path) as process:
            out, err = process.communicate(timeout=DEADLINE)
        assert (out, err) == ("1:dead 2:done 3:done\n1 1\n", "")
        assert [stored.seq for stored in journal.pending()] == [1, 2]


# --- a full disk ----------------------------------------------------------------------------------------

FULL = """
import resource
journal = own()
journal.store([happened("before")])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))  # Python ignores the signal that comes with it
stored = 1
try:
    while True:
        stored += len(journal.store([happened(f"o{number}") for number in range(100)]))
except aggstream.JournalFull as error:
    assert "Make room" in str(error), error
try:
    journal.store([happened("still full") for number in range(1000)])
except aggstream.JournalFull:
    pass
assert len(journal.pending(limit=10**6)) == stored, "reading goes on"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.store([happened("room again")])
say(stored + 1)
journal.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="this system has no limit on a file's size")
def test_a_disk_that_is_full_costs_nothing_of_what_was_stored_and_the_journal_goes_on_when_there_is_room(
    path: pathlib.Path,
) -> None:
    with run(FULL, path) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    with own(path) as journal:
        assert journal.counts().pending == int(out) > 100
        assert journal.events_of("room again")
        assert not journal.events_of("still full")
    assert is_intact(path)


# --- forks ----------------------------------------------------------------------------------------------

FORKED = """
journal = own()
journal.store([happened("o")])
locked, go_on = threading.Event(), threading.Event()
def hold():  # a thread of the parent has the lock at the fork
    with journal._file.lock:
        locked.set()
        go_on.wait(30)
thread = threading.Thread(target=hold)
thread.start()
locked.wait()
calls = [
    lambda: journal.store([happened("child")]), lambda: journal.done([1]), lambda: journal.failed(1, ""),
    lambda: journal.remember(history_until=1), journal.pending, journal.recall,
    lambda: journal.events_of("o"), lambda: journal.user_id,
    lambda: journal.belongs_to("u"), lambda: journal.retention(0), journal.counts, journal.checkpoint,
]
pid = os.fork()
if pid == 0:
    for call in calls:
        try:
            call()
        except aggstream.StateError as error:
            assert "parent" in str(error), error
        else:
            say("worked")
    journal.close()
    try:
        own()
    except aggstream.JournalInUse:
        sys.exit(7)  # with everything that an interpreter does at its end
say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
go_on.set()
thread.join()
say(*journal.store([happened("p")]))
sys.stdin.read()
"""


@forks
def test_a_forked_childs_journal_says_that_it_is_its_parents_and_the_parent_goes_on_owning_it(
    path: pathlib.Path,
) -> None:
    with run(FORKED, path) as process:
        assert first_line(process) == "child 7\n"
        assert first_line(process) == "2\n"
        with pytest.raises(JournalInUse):
            own(path)
        process.kill()
        assert process.communicate(timeout=DEADLINE)[1] == ""
    with own(path) as journal:
        assert [stored.order_id for stored in journal.pending()] == ["o", "p"]


OUTLIVING = """
journal = own()
journal.store([happened("parents")])
if os.fork() == 0:
    say("child")
    sys.stdin.read()
    sys.exit()  # which would close what it had
os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED = """
journal = own()
journal.store([happened(sys.argv[2])])
os.kill(os.getpid(), signal.SIGKILL)
"""


@forks
def test_a_child_that_outlives_its_parent_does_nothing_to_the_next_owners_log(path: pathlib.Path) -> None:
    with run(OUTLIVING, path) as process:
        assert first_line(process) == "child\n"
        process.wait(DEADLINE)
        own(path).close()  # the parent's log is merged, and gone
        with run(KILLED, path, "next") as killed:
            killed.communicate(timeout=DEADLINE)
        assert pathlib.Path(f"{path}-wal").stat().st_size > 0
        process.communicate(timeout=DEADLINE)  # the child ends
    with own(path) as journal:
        assert [stored.order_id for stored in journal.pending()] == ["parents", "next"]
