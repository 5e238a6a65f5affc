"""The loop over workers elsewhere, with workers that are objects: who gets rows, who is lost, who comes later."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from execution_cases import row_task

from inpaint_batch import __version__
from inpaint_batch.errors import EngineError, FailureCode, StopRequestedError, WorkerLostError
from inpaint_batch.execution import member, pool, pool_executor
from inpaint_batch.execution.pool_executor import PoolExecutor
from inpaint_batch.execution.requeue import Chunk
from inpaint_batch.execution.tasks import EngineFacts, Failure, RowOutcome, RowTask
from inpaint_batch.execution.transport import WorkerGoneError
from inpaint_batch.execution.worker import ChunkResult, Pulse
from inpaint_batch.logids import Subject
from inpaint_batch.report.row_tiles import RowTiles

FACTS = EngineFacts("identity", "none", "none", "identity", (64,), ())


class Worker:
    """Answers a call when it is looked at for the `delay`-th time; `does` may raise."""

    def __init__(self, name: str, does: Callable[[str, RowTask], None], delay: int = 1) -> None:
        self.name = name
        self.does = does
        self.delay = delay
        self.starts = iter(itertools.repeat(FACTS))
        """What it answers when it is asked for its engine; an exception is raised."""
        self.rows: list[str] = []
        self.filling: tuple[RowTiles, ...] = ()


class Call:
    def __init__(self, worker: Worker, answer: Callable[[], Any]) -> None:
        self.worker, self.answer, self.looks_left = worker, answer, worker.delay


class Transport:
    """Workers that are hired in order; `wanted` may be changed while a run lasts."""

    rows_at_once = 4

    def __init__(self, *workers: Worker, wanted: int | None = None) -> None:
        self.workers = list(workers)
        self.wanted = len(workers) if wanted is None else wanted
        self.hired: list[Worker] = []
        self.verdicts: Iterator[bool | None] = itertools.repeat(False)
        """What it knows of how a worker was lost, each time it is asked."""
        self.taken_away: list[str] = []
        self.calls: list[Call] = []
        self.closed = False

    def num_wanted(self) -> int:
        return self.wanted

    def was_its_machine(self, worker: Worker) -> bool | None:
        return next(self.verdicts)

    def hire(self) -> Worker:
        self.hired.append(self.workers[len(self.hired)])
        return self.hired[-1]

    def call(self, worker: Worker, method: str, *arguments: Any) -> Call:
        call = Call(worker, lambda: getattr(self, method)(worker, *arguments))
        self.calls.append(call)
        return call

    def start(self, worker: Worker, version: str) -> EngineFacts:
        assert version == __version__
        facts = next(worker.starts)
        if isinstance(facts, Exception):
            raise facts
        return facts

    def do(self, worker: Worker, _: int, tasks: list[RowTask]) -> ChunkResult:
        for task in tasks:
            worker.does(worker.name, task)
        worker.rows += [task.row.id for task in tasks]
        return ChunkResult([RowOutcome(task, worker=worker.name) for task in tasks], 1, [])

    def pulse(self, worker: Worker) -> Pulse:
        return Pulse(len(worker.rows), worker.filling)

    def leave(self, worker: Worker, _: int) -> None:
        pass

    def wait(self, tokens: Sequence[Call], timeout_s: float) -> set[Call]:
        for token in tokens:
            token.looks_left -= 1
        return {token for token in tokens if token.looks_left <= 0}

    def answer(self, token: Call) -> Any:
        return token.answer()

    def take_away(self, worker: Worker) -> None:
        self.taken_away.append(worker.name)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(member, "BACK_OFF_S", (0.0, 0.0))
    monkeypatch.setattr(pool, "CENSUS_S", 0.0)
    monkeypatch.setattr(pool_executor, "POLL_S", 0.0)


def tasks(number: int) -> list[RowTask]:
    return [row_task(f"{index}.png") for index in range(number)]


def works(_: str, __: RowTask) -> None:
    pass


def ends(executor: PoolExecutor, number: int, **limits: Any) -> dict[str, str]:
    outcomes = list(executor.run(iter(tasks(number)), lambda: False, **limits))
    assert set(Counter(outcome.task.row.id for outcome in outcomes).values()) <= {1}
    return {o.task.row.id: o.failure.code.value if o.failure else "done" for o in outcomes}


def test_all_rows_are_shared_out_and_paths_are_absolute():
    seen: list[str] = []
    workers = [Worker(name, lambda _, task: seen.append(task.destination)) for name in "abc"]
    executor = PoolExecutor(Transport(*workers))
    assert Counter(ends(executor, 100).values()) == {"done": 100}
    assert all(worker.rows for worker in workers)
    assert all(Path(path).is_absolute() for path in seen)
    assert executor.num_batches >= 100 / member.MAX_CHUNK_ROWS
    assert executor.queues() == {"workers": 0}


def test_chunks_are_as_long_as_a_second_of_work(monkeypatch):
    one, now_s = member.Member(None), 100.0
    monkeypatch.setattr(member.time, "monotonic", lambda: now_s)
    assert one.chunk_rows(3) == 3
    one.sent("token", Chunk(tasks(4)))
    for num_rows, seconds, expected in ((4, 1.0, 4), (4, 0.2, 12), (12, 0.1, 64), (64, 640.0, 33), (33, 3300.0, 17)):
        now_s += seconds
        one.handed_over(num_rows)
        assert one.chunk_rows(3) == expected
    for _ in range(9):
        now_s += 60
        one.handed_over(1)
    assert one.chunk_rows(3) == 3  # slow rows are read at the same time all the same
    assert one.chunk_rows(1) == 1


def test_a_file_that_a_worker_alone_does_not_see_is_no_fault_of_the_manifest(tmp_path):
    (tmp_path / "seen.png").touch()

    class Blind(Transport):
        def do(self, worker: Worker, _: int, tasks: list[RowTask]) -> ChunkResult:
            told = [
                Failure(FailureCode.READ, f"the image {task.row.image} does not exist; correct it") for task in tasks
            ]
            return ChunkResult(
                [RowOutcome(task, each, worker="node7:1") for task, each in zip(tasks, told, strict=True)], 1, []
            )

    names = [str(tmp_path / name) for name in ("seen.png", "gone.png")]
    todo = [row_task(name) for name in names]
    outcomes = PoolExecutor(Blind(Worker("a", works))).run(iter(todo), lambda: False)
    seen, gone = (outcome.failure for outcome in outcomes)
    assert f"the worker node7:1 does not see the image {names[0]}, which is there where the run" in seen.message
    assert seen.retryable
    assert gone.message == f"the image {names[1]} does not exist; correct it"


def test_one_worker_that_is_left_finishes_the_run():
    def dies(_: str, task: RowTask) -> None:
        raise WorkerGoneError("its node is gone")

    lost = [Worker(name, dies) for name in "bc"]
    for worker in lost:
        worker.starts = itertools.chain([FACTS], itertools.repeat(WorkerGoneError("still gone")))
    left = Worker("a", works)
    executor = PoolExecutor(Transport(left, *lost))
    assert Counter(ends(executor, 200).values()) == {"done": 200}
    assert len(left.rows) == 200
    assert executor.num_lost == 2


def test_workers_that_join_later_are_used():
    late = Worker("late", works)
    transport = Transport(Worker("early", works, delay=3), late, wanted=1)

    def does(_: str, task: RowTask) -> None:
        transport.wanted = 2

    transport.workers[0].does = does
    assert Counter(ends(PoolExecutor(transport), 300).values()) == {"done": 300}
    assert late.rows


def test_a_worker_whose_node_was_lost_before_it_came_up_is_asked_again():
    pending = Worker("pending", works, delay=5)
    pending.starts = itertools.chain(
        [WorkerGoneError("node died"), WorkerGoneError("no node")], itertools.repeat(FACTS)
    )
    other = Worker("other", works, delay=4)
    assert Counter(ends(PoolExecutor(Transport(other, pending)), 400).values()) == {"done": 400}
    assert pending.rows


def test_a_worker_that_cannot_be_made_is_done_without_unless_it_is_the_last(caplog):
    broken = Worker("broken", works)
    broken.starts = itertools.repeat(WorkerGoneError("No module named 'inpaint_batch'", for_good=True))
    transport = Transport(broken, Worker("a", works))
    assert Counter(ends(PoolExecutor(transport), 20).values()) == {"done": 20}
    assert "goes on with 1 others: No module named" in caplog.text
    assert len(transport.hired) == 2  # nobody in its place
    alone = Transport(broken)
    with pytest.raises(WorkerLostError, match="no worker can be started: No module named 'inpaint_batch'"):
        PoolExecutor(alone)
    assert alone.closed


def test_workers_of_another_engine_end_the_run():
    other = Worker("b", works)
    other.starts = itertools.repeat(EngineFacts("identity", "none", "none", "another", (64,), ()))
    with pytest.raises(EngineError, match="another here, identity there"):
        ends(PoolExecutor(Transport(Worker("a", works), other)), 9)


def test_workers_that_chose_for_themselves_are_told_to_be_given_a_choice():
    other = Worker("b", works)
    other.starts = itertools.repeat(EngineFacts("onnxruntime", "default", "fp32", "another", (64,), ()))
    with pytest.raises(EngineError, match="onnxruntime fp32 here, identity none there; say which with --engine"):
        ends(PoolExecutor(Transport(Worker("a", works), other)), 9)


def test_a_worker_that_cannot_load_the_engine_is_done_without_once_another_could(caplog):
    """A node that joins without the model does not end a run of hours; where nobody can load it, that is the reason."""
    broken = Worker("broken", works, delay=2)
    broken.starts = itertools.repeat(EngineError("there is no model at /models/ours.onnx (on node 10.0.0.7)"))
    transport = Transport(Worker("a", works), broken)
    assert Counter(ends(PoolExecutor(transport), 200).values()) == {"done": 200}
    assert "goes on with 1 others: there is no model at /models/ours.onnx (on node 10.0.0.7)" in caplog.text
    assert len(transport.hired) == 2
    with pytest.raises(EngineError, match="there is no model"):
        PoolExecutor(Transport(broken))
    once = Worker("once", works)
    once.starts = itertools.chain([FACTS], itertools.repeat(EngineError("there is no model any more")))
    once.does = lambda _, __: (_ for _ in ()).throw(WorkerGoneError("killed"))
    with pytest.raises(EngineError, match="there is no model any more"):
        ends(PoolExecutor(Transport(once)), 9)


def test_a_worker_that_could_not_load_the_engine_is_used_once_it_can(monkeypatch, caplog):
    """Its node was replaced by a sound one, say, and Ray put it there."""
    monkeypatch.setattr(pool, "UNFIT_S", 0.0)
    mended = Worker("mended", works, delay=2)
    mended.starts = itertools.chain([EngineError("there is no model")] * 2, itertools.repeat(FACTS))
    assert Counter(ends(PoolExecutor(Transport(Worker("a", works), mended)), 3000).values()) == {"done": 3000}
    assert mended.rows
    assert caplog.text.count("there is no model") == 1


def test_a_worker_of_another_engine_that_joins_later_is_done_without(monkeypatch, caplog):
    """A spot instance with another processor does not end a run of hours."""
    late = Worker("late", works)
    late.starts = itertools.repeat(EngineFacts("onnxruntime", "default", "fp32", "another", (64,), ()))
    transport = Transport(Worker("early", works), late, wanted=1)

    def does(_: str, task: RowTask) -> None:
        transport.wanted = 2

    transport.workers[0].does = does
    assert Counter(ends(PoolExecutor(transport), 300).values()) == {"done": 300}
    assert not late.rows
    assert "goes on with 1 others: workers chose different engines" in caplog.text


def test_a_stop_is_heard_while_nobody_is_there(monkeypatch):
    silent = Transport(Worker("a", works, delay=10**9))
    answers = iter([False, False, True])
    with pytest.raises(StopRequestedError, match="before a worker was there"):
        PoolExecutor(silent, stopping=lambda: next(answers))
    assert silent.closed
    monkeypatch.setattr(pool, "GIVE_UP_S", 0.0)
    with pytest.raises(WorkerLostError, match="there was no worker for 0 s"):
        PoolExecutor(Transport(Worker("a", works, delay=10**9)))


def test_a_worker_that_died_of_the_same_signal_does_not_hide_it():
    worker = Worker("a", works)
    worker.starts = itertools.repeat(WorkerGoneError("interrupted", for_good=True))
    answers = iter([False, True, True])
    with pytest.raises(StopRequestedError):
        PoolExecutor(Transport(worker), stopping=lambda: next(answers))


def test_a_silent_worker_is_asked_and_taken_away_from_the_row_that_hangs():
    """Of sixteen rows one hangs: first nobody knows which, then it hangs alone. One that is slow is left alone."""
    transport = Transport(Worker("a", works))

    def do(worker: Worker, round_number: int, todo: list[RowTask]) -> ChunkResult:
        return Transport.do(transport, worker, round_number, todo)

    def call(worker: Worker, method: str, *arguments: Any) -> Call:
        made = Transport.call(transport, worker, method, *arguments)
        if method == "do" and any(task.row.id == "5.png" for task in arguments[1]):
            made.looks_left = 10**9
        return made

    transport.do, transport.call = do, call
    executor = PoolExecutor(transport, row_timeout_s=1e-9)
    found = ends(executor, 30)
    assert found.pop("5.png") == FailureCode.TIMEOUT
    assert Counter(found.values()) == {"done": 29}
    assert transport.taken_away == ["a", "a"]


class Silent(Transport):
    """One worker that takes rows and never hands them over; how it answers a question is up to the test."""

    def __init__(self) -> None:
        super().__init__(Worker("a", works))
        self.num_questions = 0
        self.answers_from_look = 1
        self.says: Pulse | WorkerGoneError = Pulse(0, ())

    def call(self, worker: Worker, method: str, *arguments: Any) -> Call:
        made = super().call(worker, method, *arguments)
        self.num_questions += method == "pulse"
        made.looks_left = {"do": 10**9, "pulse": self.answers_from_look}.get(method, 1)
        return made

    def pulse(self, worker: Worker) -> Pulse:
        if isinstance(self.says, WorkerGoneError):
            raise self.says
        return self.says


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now.s))
    monkeypatch.setattr(member, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def busy_with_two_rows(transport: Silent, **options: Any) -> pool.Pool:
    workers = pool.Pool(transport, **options)
    workers.look([], 0.0)
    workers.send(next(workers.least_busy()), Chunk(tasks(2)), 1)
    return workers


def test_a_silent_worker_is_asked_every_five_seconds(clock):
    transport = Silent()
    workers = busy_with_two_rows(transport)
    asked = []
    for _ in range(24):  # seconds; the answer is taken a look after the question
        clock.s += 0.5
        assert workers.look([], 0.0) == []
        asked.append(transport.num_questions)
    assert asked == [0] * 9 + [1] * 10 + [2] * 5


def test_a_worker_that_is_found_gone_when_asked_is_lost_with_its_rows(clock):
    transport = Silent()
    transport.says = WorkerGoneError("killed", of_memory=True)
    workers = busy_with_two_rows(transport)
    clock.s += 5.0
    assert workers.look([], 0.0) == []
    (loss,) = workers.look([], 0.0)
    assert [task.row.id for chunk in loss.chunks for task in chunk.tasks] == ["0.png", "1.png"]
    assert (loss.of_memory, loss.hung, workers.num_lost, transport.taken_away) == (True, False, 1, [])


def test_a_worker_that_dies_while_the_driver_is_away_was_there_until_then(clock):
    """The driver may pass over a million finished rows between two looks."""
    transport = Silent()
    transport.says = WorkerGoneError("killed")
    workers = busy_with_two_rows(transport)
    clock.s += 5.0
    assert workers.look([], 0.0) == []
    clock.s += pool.GIVE_UP_S + 1
    (loss,) = workers.look([], 0.0)
    assert len(loss.chunks) == 1
    clock.s += pool.GIVE_UP_S + 1
    transport.workers[0].starts = itertools.repeat(WorkerGoneError("it ended with 3"))
    with pytest.raises(WorkerLostError, match=r"no worker for 300 s \(asked for 1; the last one: it ended with 3\)"):
        workers.look([], 0.0)


def test_a_worker_that_says_nothing_at_all_has_the_limit_twice_and_thirty_seconds_at_least(clock):
    for timeout_s, patience_s in ((100.0, 200.0), (10.0, 40.0)):
        transport = Silent()
        transport.answers_from_look = 10**9
        workers = busy_with_two_rows(transport, row_timeout_s=timeout_s)
        for waited_s in (5.0, timeout_s - 5.0, patience_s - timeout_s):
            clock.s += waited_s
            assert workers.look([], 0.0) == []
        clock.s += 0.5
        (loss,) = workers.look([], 0.0)
        assert (loss.hung, transport.taken_away) == (True, ["a"])


def test_large_rows_are_told_of_while_they_last(monkeypatch):
    """Without any limit of time, too. What the worker said goes with the row."""
    clock = itertools.count(100.0)
    monkeypatch.setattr(pool.time, "monotonic", lambda: next(clock))
    large = RowTiles(Subject("0.png", 1, "a"), 7, 1000)

    class Slow(Transport):
        def call(self, worker: Worker, method: str, *arguments: Any) -> Call:
            made = super().call(worker, method, *arguments)
            made.looks_left = 30 if method == "do" else 1
            return made

        def pulse(self, worker: Worker) -> Pulse:
            return Pulse(0, (large,))

    executor = PoolExecutor(Slow(Worker("a", works)))
    told = []
    for _ in executor.run(iter(tasks(1)), lambda: told.append(tuple(executor.filling())) is not None):
        told.append(tuple(executor.filling()))
    assert told[0] == ()
    assert (large,) in told
    assert told[-1] == ()
    assert executor.num_lost == 0


def test_what_is_in_flight_when_time_is_over_is_left():
    transport = Transport(Worker("a", works))
    transport.workers[0].starts = iter([FACTS])
    executor = PoolExecutor(transport)
    transport.workers[0].delay = 10**9
    stop = iter([False, False, *itertools.repeat(True, 9)])
    assert list(executor.run(iter(tasks(30)), lambda: next(stop), lambda: next(stop))) == []
    assert executor.abandoned
    executor.close()
    assert (executor.num_lost, transport.closed) == (1, True)


@pytest.mark.parametrize(
    ("verdicts", "end"),
    [
        ([None, None, True] * 5, "done"),  # machines that are taken back, and noticed late
        ([None, False] * 5, "crash"),
        ([True] * 20, "crash"),  # a row that no machine survives
    ],
)
def test_a_row_is_not_blamed_for_its_machine(verdicts, end):
    lost = iter([True] * (5 if end == "done" else 100))

    def dies(_: str, __: RowTask) -> None:
        if next(lost, False):
            raise WorkerGoneError("gone")

    transport = Transport(Worker("a", dies))
    transport.verdicts = iter(verdicts)
    assert ends(PoolExecutor(transport), 1) == {"0.png": end}


def test_a_loss_that_nobody_understands_counts_after_a_while(monkeypatch):
    def dies(_: str, __: RowTask) -> None:
        raise WorkerGoneError("gone")

    monkeypatch.setattr(pool, "VERDICT_S", 0.0)
    transport = Transport(Worker("a", dies))
    transport.verdicts = itertools.repeat(None)
    assert ends(PoolExecutor(transport), 1) == {"0.png": "crash"}


def test_a_run_that_is_asked_to_stop_waits_for_no_verdict():
    dead: list[str] = []

    def dies(_: str, task: RowTask) -> None:
        dead.append(task.row.id)
        raise WorkerGoneError("gone")

    transport = Transport(Worker("a", dies))
    transport.verdicts = itertools.repeat(None)
    executor = PoolExecutor(transport)
    assert list(executor.run(iter(tasks(1)), lambda: bool(dead))) == []
    assert not executor.abandoned


def test_plans_of_their_own_are_told_as_that():
    first, second = Worker("a", works), Worker("b", works)
    for worker, plan in ((first, "1"), (second, "2")):
        worker.starts = itertools.repeat(
            EngineFacts("tensorrt", "default", "fp16", f"tensorrt:fp16:m:{plan}", (64,), ())
        )
    with pytest.raises(EngineError, match="give all nodes one cache of plans"):
        ends(PoolExecutor(Transport(first, second)), 9)
