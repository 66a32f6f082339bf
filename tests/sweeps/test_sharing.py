"""Sweeps on one storage share the work, whatever the storage and whoever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import toy_grid

from thetaone.sweeps import make_trial, open_store
from thetaone.sweeps.storage._boards import FileBoard
from thetaone.sweeps.storage._leases import EXPIRY_SECONDS, Lease, Leases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends SIGKILL, reads /proc")

CODE = """
import sys
sys.path[:0] = {path!r}
from toy import Slow, adam, toy_grid
from thetaone.sweeps import Work, open_store, run_trials
store = open_store({storage!r}, experiment="toy")
print("open", flush=True)
sys.stdin.readline()
runs = run_trials(
    Work(task=Slow(), make_optimizer=adam), toy_grid(), store=store, engine="serial",
    progress=lambda event: print(event.kind, flush=True),
)
print("trained", runs.n_trained, len(runs.trials), [t.losses[-1] for t in runs.trials.values()])
"""


def start(storage: str) -> "subprocess.Popen[str]":
    code = CODE.format(path=[str(Path(__file__).parent), *sys.path], storage=storage)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def opened(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"


def ended(process: "subprocess.Popen[str]") -> tuple[int, int, str]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    _, n_trained, n_trials, losses = out.splitlines()[-1].split(maxsplit=3)
    return int(n_trained), int(n_trials), losses


def test_two_sweeps_that_open_a_fresh_storage_at_once_train_each_trial_once(storage: str) -> None:
    both = [start(storage), start(storage)]
    for process in both:
        opened(process)
    for process in both:
        go(process)
    (one, n_one, losses), (other, n_other, same) = map(ended, both)
    assert one + other == n_one == n_other == len(toy_grid())
    assert min(one, other) >= 2  # the work was shared
    assert losses == same


def test_what_a_killed_sweep_was_training_is_taken_over(tmp_path: Path) -> None:
    storage = f"{tmp_path}/s.journal"
    killed, other = start(storage), start(storage)
    for process in (killed, other):
        opened(process)
    go(killed)
    assert killed.stdout is not None
    while killed.stdout.readline() != "trial\n":
        pass
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    go(other)
    n_trained, n_trials, _ = ended(other)
    assert n_trials == len(toy_grid())
    assert n_trained < n_trials
    assert not list(tmp_path.glob("*.leases*"))  # nothing is left beside the journal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_of_another_machine_is_taken_over_when_its_heart_stops(tmp_path: Path) -> None:
    board, clock = FileBoard(tmp_path / "s.journal"), Clock()
    far = Lease("another-machine:1:2:3")
    assert board.replace("trial", None, far)
    assert not board.replace("trial", None, far)  # only one is first
    leases = Leases(board, clock)
    assert leases.claim(["trial", "free"]) == {"free"}
    clock.now += EXPIRY_SECONDS - 1
    board.beat(far.owner)
    assert leases.claim(["trial"]) == set()  # it beat
    clock.now += EXPIRY_SECONDS - 1
    assert leases.claim(["trial"]) == set()
    clock.now += 2
    assert leases.claim(["trial"]) == {"trial"}
    leases.release(["trial", "free"])
    assert board.read() == {}


def test_heartbeats_go_on_while_a_trial_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thetaone.sweeps.storage._leases.BEAT_SECONDS", 0.02)
    board = FileBoard(tmp_path / "s.journal")
    leases = Leases(board)
    with leases.beating():
        leases.claim(["trial"])
        deadline = time.monotonic() + 20
        while board.read()["trial"].beats < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert board.read()["trial"].beats >= 3
    assert board.read() == {}


def test_a_torn_tail_is_cut_before_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    one, other = (open_store(path, experiment="toy") for _ in range(2))
    first, second, third = toy_grid()[:3]
    one.keep(first, make_trial(first, [1.0], reason=""))
    with path.open("ab") as file:  # another writer dies in the middle of a line
        file.write(b'{"op_code": 4, "worker_id": "other", "study_id": 0, "user_at')
    assert set(other.known([first, second])) == {first}
    other.keep(second, make_trial(second, [2.0], reason=""))
    one.keep(third, make_trial(third, [3.0], reason=""))
    for store in (one, other, open_store(path, experiment="toy")):
        assert set(store.known([first, second, third])) == {first, second, third}
        assert store.notes == []


def test_a_missing_driver_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from thetaone.errors import MissingExtraError
    from thetaone.sweeps.storage import _open

    monkeypatch.setattr(_open.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"psycopg is not installed; run: pip install"):
        open_store("postgresql://me:hunter2@127.0.0.1:1/db", experiment="toy")


def test_no_password_in_what_a_database_says(server: str) -> None:
    from thetaone.errors import StorageError

    absent = server.replace("/postgres", "/no_such_database")
    with pytest.raises(StorageError, match="no_such_database") as caught:
        open_store(absent, experiment="toy")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
