"""What the driver hears of its workers, and when it gives one up; Ray is a fake here that answers when told to."""

from types import SimpleNamespace

import pytest

from sweeps.cluster import hearing
from sweeps.cluster.hearing import ASK_SECONDS, ASKS, PAUSE_SECONDS, SILENT_SECONDS, START_SECONDS, Hearing, Member
from sweeps.cluster.job import Progress, Report
from sweeps.scheduling.inventory import Resources

DONE = Report(state="done", result={})
LIVE = Report(state="running", progress=Progress(phase="training", step=3, steps=9))


class RayError(Exception):
    pass


class ActorUnavailableError(RayError):
    pass


class Ref:
    def __init__(self):
        self.answer = None


class Actor:
    """Every call is a reference whose answer the test gives."""

    def __init__(self):
        self.calls = []
        for name in ("run", "ended", "poll"):
            setattr(self, name, SimpleNamespace(remote=lambda *_, name=name: self._call(name)))

    def _call(self, name):
        self.calls.append((name, Ref()))
        return self.calls[-1][1]

    def last(self, name):
        return next(ref for called, ref in reversed(self.calls) if called == name)


class Ray:
    exceptions = SimpleNamespace(RayError=RayError, ActorUnavailableError=ActorUnavailableError)

    def wait(self, refs, num_returns, timeout):
        assert timeout == 0, "a look waits for nobody"
        return [ref for ref in refs if ref.answer is not None], None

    def get(self, ref):
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer


@pytest.fixture
def now(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(hearing, "time", clock)
    return clock


@pytest.fixture
def ears(now):
    return Hearing(SimpleNamespace(ray=Ray()))


def worker(now, *, at_work=True, born=True):
    found = Member(actor=Actor(), node="node", shape=Resources(cpus=1), born=born, since=now.now)
    if at_work:
        found.begin(None)
    return found


def pass_time(now, ears, member, seconds):
    """Looks as a driver does them, a few times a second."""
    end = now.now + seconds
    while now.now < end:
        now.now += min(PAUSE_SECONDS / 2, end - now.now)
        ears.hear([member])


def test_an_end_counts_as_soon_as_it_is_told(ears, now):
    member = worker(now)
    ears.hear([member])
    assert member.report.state == "running"
    member.actor.last("run").answer = DONE
    ears.hear([member])
    assert (member.report, member.ending) == (DONE, None)


def test_a_question_that_was_answered_late_does_not_undo_the_end(ears, now):
    member = worker(now)
    now.now += 1
    ears.hear([member])
    member.actor.last("run").answer = DONE
    member.actor.last("poll").answer = LIVE
    ears.hear([member])
    assert member.report == DONE


def test_progress_comes_by_asking(ears, now):
    member = worker(now)
    now.now += 1
    ears.hear([member])
    member.actor.last("poll").answer = LIVE
    ears.hear([member])
    assert member.report == LIVE


def test_a_dead_worker_is_known_at_once(ears, now):
    member = worker(now)
    member.actor.last("run").answer = RayError("killed")
    ears.hear([member])
    assert member.report.state == "lost"


def test_a_worker_out_of_reach_is_listened_to_again_and_lost_after_a_while(ears, now):
    member = worker(now)
    member.actor.last("run").answer = ActorUnavailableError("a broken connection")
    ears.hear([member])
    assert (member.report.state, member.ending) == ("running", None), "a wait for it would be over at once"
    now.now += ASK_SECONDS
    ears.hear([member])
    member.actor.last("ended").answer = DONE
    ears.hear([member])
    assert member.report == DONE, "the connection came back"

    gone = worker(now)
    for name in ("run", "poll", "ended"):
        setattr(gone.actor, name, SimpleNamespace(remote=lambda *_: _unreachable()))
    gone.begin(None)
    pass_time(now, ears, gone, SILENT_SECONDS)
    assert gone.report.state == "running"
    pass_time(now, ears, gone, PAUSE_SECONDS)
    assert gone.report.state == "lost"


def _unreachable():
    ref = Ref()
    ref.answer = ActorUnavailableError("a broken connection")
    return ref


def test_a_wait_that_grew_long_is_begun_again(ears, now):
    member = worker(now)
    member.actor.last("run").answer = Report(state="running")
    ears.hear([member])
    member.actor.last("ended").answer = DONE
    ears.hear([member])
    assert member.report == DONE


def test_a_worker_that_does_not_answer_is_given_up(ears, now):
    member = worker(now)
    now.now += 1
    ears.hear([member])
    pass_time(now, ears, member, SILENT_SECONDS - 2)
    assert member.report.state == "running"
    pass_time(now, ears, member, PAUSE_SECONDS)
    assert (member.report.state, member.ending) == ("lost", None)
    assert "has not answered" in member.report.error


def test_a_worker_that_is_never_born_is_given_up(ears, now):
    member = worker(now, born=False)
    ears.hear([member])
    pass_time(now, ears, member, START_SECONDS)
    assert member.report.state == "running"
    pass_time(now, ears, member, PAUSE_SECONDS)
    assert member.report.state == "unstarted"


def test_a_driver_that_was_stopped_for_an_hour_blames_nobody(ears, now):
    member = worker(now)
    now.now += 1
    ears.hear([member])
    now.now += 3600
    ears.hear([member])
    assert member.report.state == "running"
    member.actor.last("poll").answer = LIVE
    ears.hear([member])
    assert member.report == LIVE


def test_every_worker_is_asked_in_its_turn_and_few_at_a_look(ears, now):
    members = [worker(now) for _ in range(3 * ASKS)]
    for _ in range(3):
        now.now += 1
        before = sum(member.asked is not None for member in members)
        ears.hear(members)
        assert sum(member.asked is not None for member in members) - before == ASKS
    assert all(member.asked is not None for member in members)
