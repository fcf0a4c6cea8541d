"""The Optuna storage as a queue: every slot runs once, whoever plans, claims, dies or races."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from postgres import database
from sweeps import SEARCH, claim_and_die, drain, spec

import kdbench.sweep.queue as queues
from kdbench.errors import BadInput
from kdbench.sweep import owner
from kdbench.sweep.manifest import without_password
from kdbench.sweep.owner import Heartbeat
from kdbench.sweep.plan import drawn_point
from kdbench.sweep.queue import Claim, Queue, open_storage

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    return database(str(request.getfixturevalue("server")), tmp_path.name)


@pytest.fixture
def lite(tmp_path: Path) -> str:
    """An empty SQLite file."""
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def open_queue(url: str, **options: Any) -> Queue:
    queue = Queue(open_storage(url), spec(**options))
    queue.study(SEARCH)
    return queue


def take(queue: Queue) -> Claim:
    claim = queue.claim(SEARCH)
    assert claim is not None
    return claim


def drop(queue: Queue, claim: Claim) -> None:
    """What an interrupted worker leaves: failed, but not on its own account."""
    claim.study.tell(claim.trial, state=TrialState.FAIL)
    assert queue.reclaim(SEARCH) == 1


def test_planning_again_or_by_another_planner_adds_nothing(url: str) -> None:
    first, second = open_queue(url, trials=5), open_queue(url, trials=5)
    for queue in (first, first, second):
        queue.enqueue_search(SEARCH)
    assert [t.user_attrs for t in first.trials(SEARCH)] == [{"slot": k, "attempt": 1} for k in range(5)]


def test_four_processes_take_every_slot_exactly_once_with_its_own_point(url: str, tmp_path: Path) -> None:
    options = {"trials": 24, "sampler": "random"}
    queue = open_queue(url, **options)
    files = [tmp_path / f"{k}.json" for k in range(4)]
    processes = [SPAWN.Process(target=drain, args=(url, options, file)) for file in files]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [0] * 4
    taken = sorted((row for file in files for row in json.loads(file.read_text())), key=lambda row: row["slot"])
    assert [row["slot"] for row in taken] == list(range(24))
    assert [row["params"] for row in taken] == [drawn_point(queue.sweep, SEARCH, k) for k in range(24)]
    assert queue.ended(SEARCH) == 24
    # all four planned at once: what they enqueued twice was dropped and comes back never
    assert queue.reclaim(SEARCH) == 0
    assert queue.claim(SEARCH) is None


def test_the_lowest_slot_is_taken_first(lite: str) -> None:
    queue = open_queue(lite)
    queue.enqueue(SEARCH, [(slot, {}) for slot in (4, 2, 0, 3, 1)])
    assert [take(queue).slot for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_dead_owners_slot_comes_back_first_with_its_point(url: str) -> None:
    options = {"trials": 6, "sampler": "tpe"}
    queue = open_queue(url, **options)
    queue.enqueue_search(SEARCH)
    for _ in range(3):
        claim = take(queue)
        claim.study.tell(claim.trial, queue.suggest(claim)["alpha"])
    process = SPAWN.Process(target=claim_and_die, args=(url, options))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 1
    (left,) = queue.trials(SEARCH, (TrialState.RUNNING,))
    assert len(left.params) == 2  # TPE's own suggestion
    assert queue.reclaim(SEARCH) == 1
    assert queue.reclaim(SEARCH) == 0
    again = take(queue)
    assert (again.slot, again.attempt, queue.suggest(again)) == (3, 2, left.params)


def test_a_living_owner_keeps_its_slot(lite: str) -> None:
    queue = open_queue(lite)
    queue.enqueue_search(SEARCH)
    take(queue)
    assert queue.reclaim(SEARCH) == 0
    assert take(queue).slot == 1


def test_a_number_taken_over_by_another_process_is_a_dead_owner(lite: str) -> None:
    queue = open_queue(lite)
    queue.enqueue_search(SEARCH)
    claim = take(queue)
    queue.storage.set_trial_user_attr(claim.trial._trial_id, "owner", {**owner.me(), "born": 1.0})
    assert queue.reclaim(SEARCH) == 1


def test_what_failed_for_good_does_not_come_back_even_as_a_late_duplicate(lite: str) -> None:
    queue = open_queue(lite)
    queue.enqueue_search(SEARCH)
    claim = take(queue)
    queue.study(SEARCH).enqueue_trial({}, user_attrs={"slot": 0, "attempt": 1})  # another planner, late
    claim.trial.set_user_attr("error", "non-finite loss")
    claim.study.tell(claim.trial, state=TrialState.FAIL)
    assert queue.reclaim(SEARCH) == 0
    assert queue.ended(SEARCH) == 1
    assert take(queue).slot == 1
    assert queue.claim(SEARCH) is None


def test_an_interrupted_slot_comes_back_with_its_point_although_a_duplicate_was_dropped(lite: str) -> None:
    queue = open_queue(lite)
    queue.enqueue(SEARCH, [(0, None)])
    queue.study(SEARCH).enqueue_trial({}, user_attrs={"slot": 0, "attempt": 1})
    claim = take(queue)
    point = queue.suggest(claim)
    assert queue.claim(SEARCH) is None  # the duplicate
    drop(queue, claim)
    again = take(queue)
    assert (again.attempt, queue.suggest(again)) == (2, point)
    assert queue.claim(SEARCH) is None


def test_an_unsigned_claim_is_waited_for_and_then_given_up(lite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue(lite)
    queue.enqueue_search(SEARCH)
    waiting = queue.trials(SEARCH)[0]
    queue.storage.set_trial_state_values(waiting._trial_id, state=TrialState.RUNNING)  # killed right here
    assert queue.reclaim(SEARCH) == 0
    assert queue.claim(SEARCH) is None  # slot 1 must not overtake slot 0
    monkeypatch.setattr(owner, "UNSIGNED", 0)
    assert queue.reclaim(SEARCH) == 1
    assert [take(queue).slot for _ in range(2)] == [0, 1]


def test_a_worker_elsewhere_is_given_up_when_its_heartbeat_stops(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "HEARTBEAT", 1)
    monkeypatch.setattr("kdbench.sweep.owner.HEARTBEAT", 1)
    monkeypatch.setattr(queues, "GRACE", 4)
    queue = open_queue(url)
    queue.enqueue_search(SEARCH)
    claim = take(queue)
    queue.storage.set_trial_user_attr(claim.trial._trial_id, "owner", {**owner.me(), "host": "elsewhere", "pid": 1})
    with Heartbeat(queue.storage, claim.trial._trial_id):
        time.sleep(6)
        assert queue.reclaim(SEARCH) == 0
    end = time.monotonic() + 30
    while not (back := queue.reclaim(SEARCH)) and time.monotonic() < end:
        time.sleep(0.5)
    assert back == 1
    again = take(queue)
    assert (again.slot, again.attempt) == (0, 2)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_an_adaptive_sampler_suggests_the_same_after_interruptions(sampler: str, tmp_path: Path) -> None:
    def search(name: str, stops: set[int]) -> list[dict[str, float]]:
        queue = open_queue(f"sqlite:///{tmp_path / name}.db", sampler=sampler, trials=8)
        queue.enqueue_search(SEARCH)
        points = []
        for slot in range(8):
            claim = take(queue)
            if slot in stops:
                if slot % 2:  # before or after its point was settled
                    queue.suggest(claim)
                drop(queue, claim)
                queue = open_queue(f"sqlite:///{tmp_path / name}.db", sampler=sampler, trials=8)
                claim = take(queue)
            assert claim.slot == slot
            point = queue.suggest(claim)
            points.append(point)
            claim.study.tell(claim.trial, round(1 - abs(point["alpha"] - 0.3) - point["temperature"] / 40, 1))
        return points

    plain = search("plain", set())
    assert search("stopped", {0, 1, 3, 5, 6}) == plain
    assert len({tuple(p.values()) for p in plain}) == 8


def test_the_winner_is_the_best_complete_trial_and_the_earlier_of_two(lite: str) -> None:
    queue = open_queue(lite, trials=4, sampler="random")
    queue.enqueue_search(SEARCH)
    assert queue.winner(SEARCH) is None
    points = {}
    for value in (0.5, 0.9, 0.9, None):
        claim = take(queue)
        points[claim.slot] = queue.suggest(claim)
        if value is None:
            claim.trial.report(0.99, 1)
            claim.study.tell(claim.trial, state=TrialState.PRUNED)
        else:
            claim.study.tell(claim.trial, value)
    won = queue.winner(SEARCH)
    assert won is not None
    assert won[1] == points[1]
    assert queue.finished(SEARCH, 4)


def test_a_study_of_another_spec_is_refused(lite: str) -> None:
    open_queue(lite).check_spec(SEARCH)
    with pytest.raises(BadInput, match="made from another spec"):
        open_queue(lite, trials=9).check_spec(SEARCH)


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:s3cret@host:5432/db?x=1", "mysql://a:b%40c@h/d"])
def test_a_password_is_shown_nowhere(url: str) -> None:
    secret = url.split(":")[2].split("@")[0]
    shown = without_password(f"kdbench sweep --storage {url} --name x")
    assert secret not in shown and ":***@" in shown
    assert without_password(url, mark="") == url.replace(f":{secret}", "")
    assert without_password("sqlite:////tmp/a:b@c.db") == "sqlite:////tmp/a:b@c.db"
