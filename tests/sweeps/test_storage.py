import contextlib
import json
import math
import multiprocessing
import random
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from toy import toy_grid

from thetaone.errors import StorageError
from thetaone.records import TrialSpec
from thetaone.sweeps import make_trial, open_store
from thetaone.sweeps._trials import failed_trial
from thetaone.sweeps.storage import NoStore, Store

SPECS = toy_grid()


def keep(store: Store, spec: TrialSpec, *losses: float, reason: str = "") -> None:
    store.keep(spec, make_trial(spec, list(losses), reason=reason, n_parameters=3))


@pytest.fixture(params=["journal", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "journal":
        return str(tmp_path / "deeper" / "sweep.journal")
    return f"sqlite:///{tmp_path}/sweep.db"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlalchemy's pool closes with the process
def test_a_kept_trial_is_found_again_as_it_was(where: str) -> None:
    store = open_store(where, experiment="toy, Adam")
    keep(store, SPECS[0], 2.0, 1 / 3)
    keep(store, SPECS[1], 2.0, math.nan, reason="loss nan at step 1")
    keep(store, SPECS[2], 2.0, math.inf, reason="loss inf at step 1")
    again = open_store(where, experiment="toy, Adam").known(SPECS)
    assert list(again) == list(SPECS[:3])
    assert again[SPECS[0]].losses == (2.0, 1 / 3)
    assert math.isnan(again[SPECS[1]].losses[1])
    assert again[SPECS[2]].losses[1] == again[SPECS[2]].final_loss == math.inf


def test_another_experiment_rule_or_length_is_another_trial(tmp_path: Path) -> None:
    path = tmp_path / "sweep.journal"
    keep(open_store(path, experiment="toy, Adam"), SPECS[0], 1.0)
    assert open_store(path, experiment="toy, SGD").known(SPECS) == {}
    store = open_store(path, experiment="toy, Adam")
    assert store.known(toy_grid(n_steps=11)) == {}
    assert store.known(SPECS[1:]) == {}
    assert set(store.known(SPECS)) == {SPECS[0]}


def test_a_failed_trial_is_kept_but_not_known(tmp_path: Path) -> None:
    store = open_store(tmp_path / "sweep.journal", experiment="toy")
    store.keep(SPECS[0], failed_trial(SPECS[0], "no room"))
    assert store.known(SPECS) == {}
    assert "no room" in (tmp_path / "sweep.journal").read_text()


def test_optuna_reads_it(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    path = tmp_path / "sweep.journal"
    store = open_store(path, experiment="toy, Adam")
    keep(store, SPECS[0], 3.0)
    keep(store, SPECS[1], 2.0)
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name="toy, Adam, sp, 10 steps", storage=storage)
    assert study.best_value == 2.0
    assert study.best_params == {"width": SPECS[1].width, "lr": SPECS[1].lr, "seed": SPECS[1].seed}
    assert study.best_trial.user_attrs["losses"] == [2.0]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_torn_by_a_kill_costs_one_trial(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "sweep.journal"
    store = open_store(path, experiment="toy")
    for index in range(3):
        keep(store, SPECS[index], float(index))
    path.write_bytes(path.read_bytes()[:-cut])
    resumed = open_store(path, experiment="toy")
    assert set(resumed.known(SPECS)) == set(SPECS[:2])
    keep(resumed, SPECS[2], 2.0)
    assert set(open_store(path, experiment="toy").known(SPECS)) == set(SPECS[:3])


@pytest.mark.parametrize("damage", ["not json\n", "{}\n", "[1]\n", '{"op_code": 999}\n', "tor"])
def test_a_damaged_line_among_good_ones_is_left_out_with_its_number(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "sweep.journal"
    store = open_store(path, experiment="toy")
    keep(store, SPECS[0], 1.0)
    keep(store, SPECS[1], 2.0)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], damage, lines[-1]]))
    damaged = open_store(path, experiment="toy")
    kept = damaged.known(SPECS)
    assert set(kept) == set(SPECS[:1] if damage == "tor" else SPECS[:2])  # glued to the next line
    assert damaged.notes == [f"line {len(lines)} of {path} is damaged and left out"]
    keep(damaged, SPECS[2], 3.0)
    assert SPECS[2] in open_store(path, experiment="toy").known(SPECS)


@pytest.mark.parametrize("text", ["torn", "# a README\n\ntext\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sweep.journal"
    path.write_text(text)
    with pytest.raises(StorageError, match=r"damaged or not a journal .*Move it away"):
        open_store(path, experiment="toy").known(SPECS)
    assert path.read_text() == text


def test_any_changed_byte_of_a_record_costs_that_record_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.journal"
    store = open_store(path, experiment="toy")
    for index in range(3):
        keep(store, SPECS[index], 1.0, 0.1 + index / 7)
    truth = open_store(path, experiment="toy").known(SPECS)
    whole = path.read_bytes()
    draw = random.Random(0)
    for place in draw.sample(range(len(whole)), 150):
        other = bytes([draw.choice([b for b in range(32, 127) if b != whole[place]])])
        path.write_bytes(whole[:place] + other + whole[place + 1 :])
        kept = open_store(path, experiment="toy").known(SPECS)
        assert all(trial == truth[spec] for spec, trial in kept.items()), (place, other)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("value", ["losses", "trial"])
def test_a_changed_value_in_a_database_is_not_served(tmp_path: Path, value: str) -> None:
    path = tmp_path / "sweep.db"
    store = open_store(f"sqlite:///{path}", experiment="toy")
    keep(store, SPECS[0], 2.5, 1.5)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = '[2.5, 1.4]' WHERE key = 'losses'"
            if value == "losses"
            else "UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'trial'"
        )
        database.commit()
    again = open_store(f"sqlite:///{path}", experiment="toy")
    assert again.known(SPECS) == {}
    assert "is damaged and left out: its checksum differs" in again.notes[0]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot use the storage .*Pass a path"):
        open_store(tmp_path / "file" / "sweep.journal", experiment="toy")
    with pytest.raises(StorageError, match="cannot use the storage nosuch://"):
        open_store("nosuch://host/db", experiment="toy")


def test_no_storage_keeps_nothing() -> None:
    store = open_store(None, experiment="toy")
    assert isinstance(store, NoStore)
    keep(store, SPECS[0], 1.0)
    assert store.known(SPECS) == {}


def _write(path: str, seed: int) -> None:
    store = open_store(path, experiment="toy")
    for spec in toy_grid(seeds=[seed]):
        keep(store, spec, 1.0)


def test_two_writers_at_a_time_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "sweep.journal")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, seed)) for seed in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert set(open_store(path, experiment="toy").known(SPECS)) == set(SPECS)
    for line in Path(path).read_text().splitlines():
        json.loads(line)


def test_a_journal_leaves_the_losses_of_its_trials_in_the_file(tmp_path: Path) -> None:
    store, losses = open_store(tmp_path / "sweep.journal", experiment="toy"), [0.5] * 5000
    store.known(SPECS)
    tracemalloc.start()
    try:
        for spec in SPECS[:11]:
            keep(store, spec, *losses)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * len(losses) * 11 / 2
    assert not store.grown(SPECS)
    keep(open_store(tmp_path / "sweep.journal", experiment="toy"), SPECS[11], 1.0)
    assert store.grown(SPECS)
    assert len(store.known(SPECS)) == 12
    assert store.known(SPECS)[SPECS[10]].losses == tuple(losses)
