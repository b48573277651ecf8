"""Which rank does not come, by the signs that ranks give: the pure judge."""

import functools
import sys
import threading
import time
import types

import pytest

from gpt3core import pulse
from gpt3core.parallel.watch import STILL_SECONDS, Judge, Sign, standing


def judged(signs, seconds, limit=10.0):
    """The verdict after so long of signs: ``signs(rank, now)`` once a second, None for no sign, "left" at its end."""
    judge = Judge(ranks=range(3), limit=limit, began=0.0)
    for now in range(int(seconds) + 1):
        for rank in range(3):
            said = signs(rank, now)
            if said == "left":
                judge.left(rank)
            elif said is not None:
                judge.heard(rank, said, float(now))
    return judge.verdict(float(seconds)), judge.silent(float(seconds))


def sign(now, *, gates=0, beats=0, waiting=False, works=False, **words):
    return Sign(tick=now, gates=gates, beats=beats, waiting=waiting, works=works, **words)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (lambda now: sign(now, beats=now), ""),  # it works, and says so
        (lambda now: sign(now, beats=7) if now <= 20 else None, "rank 1 has shown no sign of life for 12 s"),
        (lambda now: None, "rank 1 has shown no sign of life for 32 s"),
        (lambda now: sign(now, beats=7), "rank 1 has not come to a collective for 32 s, and ranks 0, 2 wait for it"),
        (lambda now: sign(now, beats=7, doing="preparing the text"), ""),
        (lambda now: sign(now, gates=3, waiting=True), "rank 1 waits in an earlier collective than the others"),
        (lambda now: sign(now, gates=4, waiting=True), "all ranks have waited in the same collective for 32 s"),
        (lambda now: "left", "all ranks have waited"),
    ],
)
def test_the_rank_that_others_wait_for_is_named(second, verdict):
    def signs(rank, now):
        return second(now) if rank == 1 else sign(now, gates=4, waiting=True)

    said, _ = judged(signs, 32)
    assert said.startswith(verdict)
    assert bool(said) == bool(verdict)


def test_what_says_that_it_is_long_is_waited_for_an_hour():
    def signs(rank, now):
        return sign(now, doing="compiling") if rank == 1 else sign(now, gates=4, waiting=True)

    assert judged(signs, pulse.LONG_SECONDS - 1)[0] == ""
    assert "rank 1 has not come to a collective for 3605 s, where it is compiling" in judged(signs, 3605)[0]


@pytest.mark.parametrize(
    ("takes", "other", "stuck"),
    [
        (lambda now: 0.1 * now, None, pulse.LONG_SECONDS),  # a tenth of a processor
        (lambda now: 0.01 * now, None, STILL_SECONDS),  # what threads take that only listen
        (lambda now: min(now, 100), None, 100 + STILL_SECONDS),
        (lambda now: now if now < 300 else 0.05 * now, None, pulse.LONG_SECONDS),  # without what an ended process took
        (lambda now: 0.0, lambda now: min(now, 200), 200 + STILL_SECONDS),  # it may wait for what another one compiles
    ],
)
def test_what_computes_for_long_is_stuck_when_it_takes_no_processor(takes, other, stuck):
    def signs(rank, now):
        if rank == 1:
            return sign(now, doing="compiling", computes=True, spent=5.0 + takes(now))
        if rank == 2 and other is not None and now < 230:
            return sign(now, doing="compiling", computes=True, spent=5.0 + other(now))
        return sign(now, gates=4, waiting=True, doing="in its first step", computes=True)

    assert judged(signs, stuck - 1)[0] == ""
    assert judged(signs, stuck + 15)[0].startswith("rank 1 has not come to a collective")


def test_a_host_that_waits_for_its_gpu_is_no_sign_that_another_rank_computes():
    """It takes a processor, in its first step too (``train.readback``), for as long as the other rank is stuck."""

    def signs(rank, now):
        if rank == 1:
            return sign(now, doing="compiling", computes=True, spent=5.0)
        return sign(now, gates=4, waiting=True, works=True, doing="in its first step", spent=float(now))

    assert judged(signs, STILL_SECONDS - 1)[0] == ""
    assert judged(signs, STILL_SECONDS + 1)[0].startswith("rank 1 has not come to a collective")


@pytest.mark.parametrize(
    ("gates", "verdict"),
    [(4, "all ranks have waited in the same collective for 32 s"), (3, "rank 1 waits in an earlier collective")],
)
def test_who_surely_waits_inside_something_long_is_not_waited_for_an_hour(gates, verdict):
    """Ranks that prepare a text or write a checkpoint meet there too; one is left behind, or the network ends."""

    def signs(rank, now):
        return sign(now, gates=gates if rank == 1 else 4, waiting=True, doing="preparing the text")

    assert judged(signs, 32)[0].startswith(verdict)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (lambda now: sign(now, gates=4, beats=7), "rank 1 has not come to a collective for 32 s, and ranks 0, 2"),
        (lambda now: sign(now, gates=4, waiting=True, works=True), "all ranks have waited in the same collective"),
        (lambda now: sign(now, gates=4, waiting=True, works=True, doing="in its first step"), ""),
        (lambda now: sign(now, gates=3, waiting=True, works=True), "rank 1 waits in an earlier collective"),
        (lambda now: sign(now, gates=3, waiting=True, works=True, doing="in its first step"), ""),
        (lambda now: sign(now, gates=5, waiting=True), "rank 0 has not come to a collective for 32 s, and rank 1 "),
    ],
)
def test_in_a_pass_with_collectives_inside_or_for_a_gpu_a_rank_waits_or_works(second, verdict):
    def signs(rank, now):
        return second(now) if rank == 1 else sign(now, gates=4, waiting=True, works=True)

    said, _ = judged(signs, 32)
    assert said.startswith(verdict)
    assert bool(said) == bool(verdict)


@pytest.mark.parametrize(
    ("slow", "since", "verdict"),
    [
        (1, 12, "rank 1 has not come to a collective for 12 s, where it is at gpt.py:7, and ranks 0, 2 wait for it"),
        (1, 10, ""),
        (20, 79, ""),  # of ranks between whose collectives lie twenty seconds
        (20, 82, "rank 1 has not come to a collective for 82 s, where it is at gpt.py:7, and ranks 0, 2 wait for it"),
    ],
)
def test_a_rank_that_is_stuck_inside_a_pass_is_told_from_those_that_wait_for_it_there(slow, since, verdict):
    """All are in the same pass, and begin a collective every so many seconds; rank 1 stops after the hundredth."""

    def signs(rank, now):
        begun = min(now, 100) // slow
        return sign(now, gates=4, beats=begun, waiting=True, works=rank == 1, line="gpt.py:7" if rank == 1 else "")

    assert judged(signs, 100 + since)[0] == verdict


def test_of_two_that_may_be_at_work_the_one_that_stopped_first_is_named():
    """Rank 1 waits for rank 2 in code that was compiled, where its stack does not tell."""

    def signs(rank, now):
        return sign(now, gates=4, beats=min(now, 102 - rank), waiting=True, works=rank > 0)

    assert judged(signs, 120)[0].startswith("rank 2 has not come to a collective for 20 s")


def test_a_first_step_says_how_long_the_next_may_be_unless_it_compiles():
    """In the first step a rank computes for half a minute between two collectives, in the second a little longer."""

    def signs(rank, now, doing):
        first = now < 31
        if rank == 1 and first and doing:
            return sign(now, gates=4, doing=doing)  # it is not in the pass while it compiles
        said = "in its first step" if first else ""
        return sign(now, gates=4, beats=int(now >= 30), waiting=True, works=rank == 1, doing=said)

    assert judged(lambda rank, now: signs(rank, now, ""), 30 + 45)[0] == ""
    assert judged(lambda rank, now: signs(rank, now, ""), 30 + 125)[0].startswith("rank 1 has not come")
    assert judged(lambda rank, now: signs(rank, now, "compiling"), 30 + 15)[0].startswith("rank 1 has not come")


def test_a_pause_is_known_though_a_rank_is_seen_in_something_long_right_after_it():
    """Half a minute of the first step's pass, and a second of what comes after the pass; the second step is as slow."""

    def signs(rank, now):
        waits, said = now != 30, "in its first step" if now < 31 else ""
        beats = min(max(30, now), 31)
        return sign(now, gates=4, beats=beats, waiting=waits, works=waits and rank == 1, doing=said)

    assert judged(signs, 31 + 115)[0] == ""
    assert judged(signs, 31 + 125)[0].startswith("rank 1 has not come")


def test_what_compiles_inside_a_pass_is_not_waiting_there():
    here = pulse.Pulse()
    with here.at_gate(works=True):
        with here.busy("compiling"):
            assert (here.waiting, here.working, here.doing) == (0, 0, "compiling")
        assert (here.waiting, here.working, here.doing) == (1, 1, "")


def test_threads_leave_collectives_and_what_is_long_in_any_order():
    here = pulse.Pulse()
    gate, long = here.at_gate(works=True), here.busy("compiling")
    gate.__enter__()
    long.__enter__()
    gate.__exit__(None, None, None)
    assert (here.waiting, here.working, here.doing) == (0, 0, "compiling")
    long.__exit__(None, None, None)
    assert (here.waiting, here.working, here.doing) == (0, 0, "")


def test_what_a_run_that_was_left_behind_leaves_is_nothing_of_the_next():
    here = pulse.Pulse()
    with here.at_gate():
        here.begin(None)
        assert here.waiting == 0
    assert here.waiting == 0


def test_ranks_that_work_in_large_pieces_are_waited_for_four_times_as_long():
    """Passes of half a minute, in which all wait for one another, are no hang at a limit of ten seconds."""

    def signs(rank, now):
        return sign(now, gates=min(now, 300) // 30, waiting=True)

    assert judged(signs, 300 + 119)[0] == ""
    assert judged(signs, 300 + 122)[0].startswith("all ranks have waited in the same collective for 122 s")


def test_a_step_of_a_gpu_is_one_wait_and_a_longer_one_where_the_batch_grows_is_no_hang():
    """A minute a step, then two and a half; and the last one does not end."""

    def signs(rank, now):
        steps = min(now, 180) // 60 + max(0, min(now, 480) - 180) // 150
        return sign(now, gates=steps, waiting=True, works=True, doing="in its first step" if now < 60 else "")

    for seconds in (110, 170, 320, 470, 480 + 590):
        assert judged(signs, seconds, limit=45)[0] == ""
    assert judged(signs, 480 + 610, limit=45)[0].startswith("all ranks have waited in the same collective for 610 s")


def test_the_longest_pause_is_remembered_until_sixty_four_others_that_matter_have_come():
    """One of twenty seconds, then quick ones for an hour; or some of three seconds. Then ranks hang."""

    def signs(rank, now, every, last):
        gates = 0 if now < 20 else 1 + min(now - 20, last) // every
        return sign(now, gates=gates, waiting=True)

    assert judged(functools.partial(signs, every=1, last=3600), 3620 + 79)[0] == ""
    assert judged(functools.partial(signs, every=1, last=3600), 3620 + 82)[0].startswith("all ranks have waited")
    assert judged(functools.partial(signs, every=3, last=3 * 63), 20 + 3 * 63 + 79)[0] == ""
    said = judged(functools.partial(signs, every=3, last=3 * 64), 20 + 3 * 64 + 14)[0]
    assert said.startswith("all ranks have waited in the same collective for 14 s")


def test_a_long_validation_between_two_steps_of_a_gpu_makes_nobody_impatient():
    """Steps of fifty seconds, twenty minutes of batches of a second each, and a step again."""
    judge, ends = Judge(ranks=range(3), limit=45.0, began=0.0), 200 + 1200
    for now in range(ends + 400):
        beats = min(now, 200) // 50 + min(max(0, now - 200), 1200)
        for rank in range(3):
            doing = "in its first step" if now < 50 else ""
            waits = not 200 <= now < ends
            judge.heard(rank, sign(now, beats=beats, waiting=waits, works=waits, doing=doing), float(now))
        assert bool(judge.verdict(float(now))) == (now > ends + 200), now


def test_quick_collectives_at_the_end_of_a_step_do_not_make_its_long_pieces_forgotten():
    """Micro-batches of half a minute, then sums of many buckets; rank 1 is slower, and the others wait for it."""

    judge = Judge(ranks=range(3), limit=10.0, began=0.0)
    for now in range(3 * 145):
        step, second = divmod(now, 120 + 25)
        sums = max(0, second - 120)
        for rank in range(3):
            beats = step * 30 + sums + (second // 30 if rank == 1 else 0)
            judge.heard(rank, sign(now, gates=step, beats=beats, waiting=rank != 1 or sums > 0), float(now))
        assert step == 0 or judge.verdict(float(now)) == ""


def test_what_was_said_to_be_long_does_not_make_a_hang_last_longer():
    """Ten minutes in which one rank prepares a text and the other waits for it, steps of 20 s, then a hang."""

    def signs(rank, now):
        if now < 600:
            return sign(now, gates=1, waiting=rank != 1, doing="preparing the text" if rank == 1 else "")
        return sign(now, gates=min(now, 700) // 20, waiting=True)

    assert judged(signs, 700 + 79, limit=45)[0] == ""
    assert judged(signs, 700 + 82, limit=45)[0].startswith("all ranks have waited in the same collective for 82 s")


def test_a_rank_that_sees_one_other_only_says_whether_that_one_lives():
    judge = Judge(ranks=range(1), limit=10.0, began=0.0)
    for now in range(100):
        judge.heard(0, sign(now, gates=4, waiting=True), float(now))
    assert judge.silent(99.0) == ""
    assert "rank 0" in judge.silent(120.0)


def test_of_a_rank_in_a_collective_inside_a_pass_it_is_sure_that_it_waits():
    here = pulse.Pulse()
    with here.at_gate(works=True):
        assert here.waiting == here.working == 1
        with here.at_gate():
            assert (here.waiting, here.working) == (2, 1)
    assert (here.waiting, here.working, here.gates) == (0, 0, 2)


def _call(lock):
    inner(lock) if inner else lock.acquire()  # noqa: F821 (a global that is given)


GPT, TORCH = "gpt3core.model.gpt", "torch.distributed"


@pytest.mark.parametrize(
    ("calls", "meets", "file"),
    [
        ([GPT, f"{TORCH}.distributed_c10d"], True, "gpt3core/model/gpt.py:"),
        ([GPT, f"{TORCH}._functional_collectives", "torch._ops"], True, "gpt3core/model/gpt.py:"),
        ([GPT, f"{TORCH}.tensor._dispatch", "torch._ops"], False, "gpt3core/model/gpt.py:"),
        ([f"{TORCH}.pipelining.schedules", GPT], False, "gpt3core/model/gpt.py:"),
        (["somewhere"], False, ""),
    ],
)
def test_the_stack_of_a_thread_tells_whether_it_is_in_a_collective_and_at_which_line(calls, meets, file):
    lock, inner = threading.Lock(), None
    for module in reversed(calls):
        inner = types.FunctionType(_call.__code__, {"__name__": module, "inner": inner})
    with lock:
        thread = threading.Thread(target=inner, args=(lock,), daemon=True)
        thread.start()
        while sys._current_frames()[thread.ident].f_globals.get("__name__") != calls[-1]:
            time.sleep(0.001)
        found, line = standing(thread.ident)
    assert (found, line.rstrip("0123456789")) == (meets, file)
