#!/usr/bin/env python3
"""Generate random conformance programs in asyncio's statements, and keep those whose trace asyncio promises.

Usage:  generate_asyncio.py --seed S --count N --out FOLDER [--jobs J]   N programs that are kept, with what is expected of them
        generate_asyncio.py --check CASE.json [..] [--got FOLDER]        is the trace the same whatever the order of ties? With --got:
                                                                         does one of the orders do what this library did?
        generate_asyncio.py --shrink CASE.json --runner EXE              a smaller program that still differs on this library

Needs CPython 3.13, as asyncio_oracle.py does.

Program number i of seed S is drawn from Random(f"{S}/{i}"), once: so a case is named by theme, seed and number, and can be made again.
The order in which asyncio runs what is ready is promised, first come first served, and is not varied. What is not promised, and is drawn
anew in each of 8 runs that all have to agree:
- the order of timers that are due at the same time (O3, F9);
- the order of tasks in a set: in which `wait` and `as_completed` look at what they got, and in which a group cancels its tasks.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter

import asyncio_oracle
from asyncio_oracle import Machine
from programs_asyncio import BLOCK, LEAF, SCENES, Generator
from shrinking import differing, same_record, save, smaller

warnings.simplefilter("ignore")
gc.freeze()
# What a destroyed coroutine says, of a program that was given up.
sys.unraisablehook = lambda what: None
RUNS = 8


class Refused(Exception):
    """Why a program is not kept."""


# ---- Orders that are not promised --------------------------------------------------------------------------------------


class AnyOrder:
    """Timers that are due together, and the members of sets, in an order drawn from a seed, for the time of a run."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)

        class Timer(asyncio.events.TimerHandle):
            __slots__ = ("salt",)

            def __init__(timer, *args):
                super().__init__(*args)
                timer.salt = rng.random()

            def __lt__(timer, other):
                return (timer._when, timer.salt) < (other._when, other.salt)

        class Set(dict):
            def __init__(all, of=()):
                super().__init__((one, None) for one in of)

            def __iter__(all):
                order = list(super().__iter__())
                rng.shuffle(order)
                return iter(order)

            def add(all, one):
                all[one] = None

            def discard(all, one):
                all.pop(one, None)

            def remove(all, one):
                del all[one]

        class AsCompleted(asyncio.tasks._AsCompletedIterator):
            def __init__(it, aws, timeout):
                it._done = asyncio.Queue()
                it._timeout_handle = None
                loop = asyncio.get_running_loop()
                it._todo = Set(Set(aws))
                it._todo_left = len(it._todo)
                for one in it._todo:
                    one.add_done_callback(it._handle_completion)
                if it._todo and timeout is not None:
                    it._timeout_handle = loop.call_later(timeout, it._handle_timeout)

        self.patches = [
            (asyncio.events, "TimerHandle", Timer),
            (asyncio.tasks, "set", Set),
            (asyncio.taskgroups, "set", Set),
            (asyncio.tasks, "_AsCompletedIterator", AsCompleted),
        ]

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        for owner, name, new in self.patches:
            patch(self.stack, owner, name, new)

    def __exit__(self, *_):
        self.stack.close()


def patch(stack, owner, name, new):
    if name in vars(owner):
        stack.callback(setattr, owner, name, getattr(owner, name))
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, new)


# ---- What happens in a program -----------------------------------------------------------------------------------------

WAITS = {
    "Lock": (asyncio.Lock, "acquire"), "Event": (asyncio.Event, "wait"), "Condition": (asyncio.Condition, "wait"),
    "Semaphore": (asyncio.Semaphore, "acquire"), "Barrier": (asyncio.Barrier, "wait"), "Queue.get": (asyncio.Queue, "get"),
    "Queue.put": (asyncio.Queue, "put"), "Queue.join": (asyncio.Queue, "join"), "wait": (Machine, "do_wait"),
    "gather": (Machine, "do_gather"), "wait_for": (Machine, "do_wait_for"), "as_completed": (Machine, "do_as_completed"),
    "shield": (Machine, "do_shield"), "await": (Machine, "do_await"), "sleep": (Machine, "do_sleep"),
    "TaskGroup": (asyncio.TaskGroup, "__aexit__"),
}  # fmt: skip
LABELS = ["Timeout", "InvalidState", "QueueEmpty", "QueueFull", "QueueShutDown", "BrokenBarrier", "Misuse"]
# All of these have to be in what is kept.
EXPECTED = (
    sorted({*LEAF, *BLOCK} - SCENES)
    + [f"a task waits: {name}" for name in WAITS]
    + [f"a wait is cancelled: {name}" for name in WAITS]
    + [f"error {label}" for label in LABELS]
    + [
        "time advances",
        "main fails",
        "a cancellation is swallowed",
        "a group of errors",
        "groups in each other",
        "a timeout expires",
        "timeouts in each other",
        "cancelled twice, or more",
        "cancelled before it began",
        "cancelled in the turn in which it wakes",
        "a task itself is cancelled by it",
        "gather fails",
        "gather returns an exception",
        "wait returns with some pending",
        "a condition notifies",
    ]
)
# What cannot happen in many of them.
RARE = {"a wait is cancelled: Queue.join": 0.015, "barrier_abort": 0.03, "error Misuse": 0.02}
LEAST = 0.02


def strange(error):
    """The name of an error that no case may have."""
    if isinstance(error, asyncio_oracle.Return | GeneratorExit | asyncio_oracle.Stuck):
        return None
    try:
        asyncio_oracle.leaves(error)
    except BaseException as what:
        return "Return out of a group" if isinstance(what, asyncio_oracle.Return) else type(what).__name__
    return "RecursionError" if isinstance(error, RecursionError) else None


class Seen:
    """Collects, in `with`, what happens, and the errors of statements that no case may have."""

    def __init__(self):
        self.all, self.errors = set(), Counter()
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        for name in list(vars(Machine)):
            if name.startswith("do_"):
                self.patch(Machine, name, self.statement(name.removeprefix("do_")))
        for name, (owner, method) in WAITS.items():
            self.patch(owner, method, self.wait(name))
        self.patch(Machine, "do_cancel", self.cancel)
        self.patch(asyncio.Timeout, "_on_timeout", self.expire)
        self.patch(asyncio_oracle.JumpingLoop, "call_exception_handler", self.callback_error)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def patch(self, owner, name, make):
        patch(self.stack, owner, name, make(getattr(owner, name)))

    def statement(self, verb):
        def make(old):
            async def seen(machine, task, arg):
                self.all.add(verb)
                if verb in ("group", "timeout"):
                    key = (verb, asyncio.current_task())
                    self.all.add(key) if key not in self.all else self.all.add(f"{verb}s in each other")
                try:
                    return await old(machine, task, arg)
                except BaseException as error:
                    if what := strange(error):
                        self.errors[what] += 1
                    if verb == "gather" and not isinstance(error, asyncio.CancelledError):
                        self.all.add("gather fails")
                    if not isinstance(error, asyncio_oracle.Return | asyncio.CancelledError | GeneratorExit) and not what:
                        self.all.update(f"error {label}" for label in asyncio_oracle.leaves(error))
                    raise

            return seen

        return make

    def wait(self, name):
        def make(old):
            async def seen(it, *args):
                loop = asyncio.get_running_loop()
                before = loop.jumper.steps
                try:
                    return await old(it, *args)
                except asyncio.CancelledError:
                    self.all.add(f"a wait is cancelled: {name}")
                    raise
                finally:
                    if loop.jumper.steps != before:
                        self.all.add(f"a task waits: {name}")

            return seen

        return make

    def cancel(self, old):
        async def seen(machine, task, name):
            it = machine.awaitable(name)
            if isinstance(it, asyncio.Task) and not it.done():
                if it is asyncio.current_task():
                    self.all.add("a task itself is cancelled by it")
                elif it.get_coro().cr_frame is not None and it.get_coro().cr_await is None:
                    self.all.add("cancelled before it began")
                elif it._fut_waiter is None or it._fut_waiter.done():
                    self.all.add("cancelled in the turn in which it wakes")
                if it.cancelling():
                    self.all.add("cancelled twice, or more")
            await old(machine, task, name)

        return seen

    def callback_error(self, old):
        def seen(loop, context):
            if isinstance(context.get("exception"), RecursionError):
                self.errors["RecursionError"] += 1
            old(loop, context)

        return seen

    def expire(self, old):
        def seen(timeout):
            self.all.add("a timeout expires")
            old(timeout)

        return seen

    def result(self, result):
        """All that happened, also by what the program says."""
        lines = [line for task in result["trace"].values() for line in task]
        says = {
            "time advances": any(at > 0 for at, _ in lines),
            "main fails": result["outcome"] != ["ok"],
            "a cancellation is swallowed": any(text == "cancelled" for _, text in lines),
            "gather returns an exception": any(text.startswith("gather [") and "!" in text for _, text in lines),
            "wait returns with some pending": any(text.startswith("done ") and not text.endswith("pending ") for _, text in lines),
            "a condition notifies": any(text.startswith("notified ") for _, text in lines),
        }
        errors = [text.removeprefix("caught ").split(",") for _, text in lines if text.startswith("caught ")] + [result["outcome"]]
        says["a group of errors"] = any(len(labels) > 1 for labels in errors)
        return {what for what in self.all if isinstance(what, str)} | {what for what, so in says.items() if so}


# ---- Keeping -----------------------------------------------------------------------------------------------------------


def stuck(*_):
    raise asyncio_oracle.Stuck


def once(program):
    """What asyncio does. Refuses what does not end."""
    signal.signal(signal.SIGVTALRM, stuck)
    signal.setitimer(signal.ITIMER_VIRTUAL, 3, 1)
    try:
        result = asyncio_oracle.expected(program)
    except asyncio_oracle.Stuck:
        result = None
    except RecursionError:
        # `Task.cancel` goes round a circle of waits.
        raise Refused("waits in a circle") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if result is None:
        raise Refused("does not end")
    return result


def in_any_order(program, seed):
    with AnyOrder(seed):
        return once(program)


def accept(program, seen=None, runs=RUNS):
    """What is expected of a program that is kept. Refuses others. `seen`, if any, becomes what happened in it."""
    with Seen() as watching:
        try:
            first = once(program)
        except Refused:
            if watching.errors:
                raise Refused(f"raises {min(watching.errors)}") from None
            raise
        except Exception:
            if not watching.errors:
                raise
            first = None
    if watching.errors:
        raise Refused(f"raises {min(watching.errors)}")
    if seen is not None:
        seen |= watching.result(first)
    if sum(map(len, first["trace"].values())) < 3:
        raise Refused("says nothing")
    if once(program) != first:
        raise Refused("depends on the order of sets")
    for seed in range(runs):
        try:
            again = in_any_order(program, seed)
        except Refused as why:
            raise Refused(f"{why}, in some order of ties") from None
        except KeyError:
            raise Refused("raises KeyError, in some order of ties") from None
        if again != first:
            raise Refused("depends on the order of ties")
    return first


def draw(job):
    """(name, program, expected or None, why not, what happened, an error of ours)."""
    seed, number = job
    generator = Generator(random.Random(f"{seed}/{number}"))
    name = f"{generator.theme}-{seed}-{number:06}"
    program = expected = why = error = None
    seen = set()
    try:
        program = generator.program()
        expected = accept(program, seen)
    except Refused as refused:
        why = str(refused)
    except BaseException as unexpected:
        why = f"{type(unexpected).__name__}: {unexpected}"
        error = f"{name}: {traceback.format_exc()}"
    return name, program, expected, why, seen, error


def logs(*bodies):
    """Tasks that begin at once, and a main that outlives them."""
    tasks = [{"create": {"name": f"t{i}", "body": body}} for i, body in enumerate(bodies)]
    return {"queues": {"q1": 0}, "body": [{"log": "x1"}, {"log": "x2"}, *tasks, {"sleep": 100}, {"log": "x3"}]}


STEADY = logs(
    [{"sleep": 2}, {"put": {"queue": "q1", "value": 1}}],
    [{"timeout": {"id": "o1", "after": 5, "body": [{"get": "q1"}, {"await": "f1"}]}}],
    [{"sleep": 1}, {"cancel": "t1"}],
)
BAD = {
    "depends on the order of ties": logs([{"sleep": 5}, {"put": {"queue": "q1", "value": 1}}], [{"sleep": 5}, {"get": "q1"}],
                                         [{"sleep": 5}, {"put": {"queue": "q1", "value": 2}}]),
    "does not end": {"body": [*[{"log": "x1"}] * 3, {"await": "f1"}]},
    "raises KeyError": logs([{"cancelling": "t7"}]),
    "raises Return out of a group": logs([{"group": {"id": "g1", "body": [{"return": 1}]}}]),
    "says nothing": {"body": [{"sleep": 1}]},
}  # fmt: skip


def test_filter():
    """A filter that keeps nothing, or everything, would be worth nothing."""
    accept(STEADY)
    for why, program in BAD.items():
        try:
            accept(program)
        except Refused as refused:
            if str(refused) == why:
                continue
            sys.exit(f"a program that {why} was refused since it {refused}")
        sys.exit(f"a program that {why} was kept")


def generate(args):
    test_filter()
    os.makedirs(args.out, exist_ok=True)
    themes, refused, errors, kept, ran = Counter(), Counter(), Counter(), Counter(), Counter()
    first_of = {}
    with multiprocessing.Pool(args.jobs, maxtasksperchild=200) as pool:
        for start in itertools.count(0, 256):
            for name, program, expected, why, seen, error in pool.imap(draw, [(args.seed, n) for n in range(start, start + 256)], chunksize=4):
                if themes.total() == args.count:
                    continue
                ran.update(seen)
                ran["ends"] += bool(seen)
                if error is not None:
                    errors[why] += 1
                    first_of.setdefault(why, error)
                elif expected is None:
                    refused[why] += 1
                else:
                    kept.update(seen)
                    kept["lines"] += sum(map(len, expected["trace"].values()))
                    themes[name.split("-")[0]] += 1
                    save(args.out, name, program, expected)
            if themes.total() == args.count or errors.total() > args.count:
                break
    sys.exit(report(args, themes, refused, errors, first_of, ran, kept))


def report(args, themes, refused, errors, first_of, ran, kept):
    """Says what was kept and what not; the exit status."""
    total = themes.total()
    print(f"seed {args.seed}: {total + refused.total() + errors.total()} programs drawn, {refused.total()} refused, {total} kept, {errors.total()} errors")
    for what, kinds in (("refused", refused), ("kept, by theme", themes), ("ERROR", errors)):
        for kind, count in kinds.most_common():
            print(f"  {what}: {count:6} {kind}")
    for error in first_of.values():
        print(f"the first of its kind: {error}")
    status = 1 if errors or total < args.count else 0
    print(f"{kept['lines'] / max(total, 1):.1f} lines a program; what happens in them: kept (of all that end)")
    for kind in EXPECTED:
        share, among = kept[kind] / max(total, 1), ran[kind] / max(ran["ends"], 1)
        few = share < RARE.get(kind, LEAST) and total >= 500
        status |= few
        print(f"  {share:7.1%} ({among:6.1%})  {kind}{'  TOO FEW' if few else ''}")
    if kept["time advances"] / max(total, 1) < 0.5 * ran["time advances"] / max(ran["ends"], 1):
        print("most programs in which time advances were refused: the filter is at fault")
        status = 1
    return status


# ---- Differences -------------------------------------------------------------------------------------------------------


def check(args):
    """Says of each case whether its trace depends on ties; with `--got`, whether some order of ties does what this library did. The
    exit status is 0 if the differences of all of them are explained so."""
    status = 0
    for path in args.check:
        with open(path) as file:
            program = json.load(file)["program"]
        name = os.path.basename(path)
        if args.got:
            with open(os.path.join(args.got, name)) as file:
                got = json.load(file)
            for seed in range(args.runs):
                with contextlib.suppress(Refused):
                    if same_record(in_any_order(program, seed), got):
                        print(f"{name}: so it goes on CPython, too: order {seed}")
                        break
            else:
                print(f"{name}: so it goes in none of {args.runs} orders of ties on CPython")
                status = 3
            continue
        try:
            accept(program, runs=args.runs)
        except Refused as why:
            print(f"{name}: {why}")
        else:
            print(f"{name}: the same in all orders of ties")
            status = 3
    sys.exit(status)


def shrink(args):
    with open(args.shrink) as file:
        program = json.load(file)["program"]
    with tempfile.TemporaryDirectory() as folder:
        again = True
        while again:
            again = False
            batch = {}
            for at, body in enumerate([*smaller(program["body"]), None]):
                if body is not None:
                    candidate = {**program, "body": body}
                    # A name that nothing has any more.
                    with contextlib.suppress(Refused, KeyError):
                        batch[f"c-{at:05}"] = (candidate, accept_short(candidate))
                if batch and (len(batch) == 8 or body is None):
                    bad = differing(args.runner, batch, folder)
                    if bad:
                        program, again = batch[min(bad)][0], True
                        break
                    batch = {}
    used = json.dumps(program["body"])
    for kind in ("queues", "semaphores", "barriers"):
        program[kind] = {k: v for k, v in program.get(kind, {}).items() if f'"{k}"' in used}
        if not program[kind]:
            del program[kind]
    json.dump({"name": os.path.basename(args.shrink)[:-5], "program": program, "expected": accept_short(program)}, sys.stdout, indent=1)
    print()


def accept_short(program):
    """As `accept`; a small program may say little."""
    try:
        return accept(program)
    except Refused as why:
        if str(why) != "says nothing":
            raise
        return accept({**program, "body": [*[{"log": "x"}] * 3, *program["body"]]}) and once(program)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--check", nargs="+", metavar="CASE")
    parser.add_argument("--shrink", metavar="CASE")
    parser.add_argument("--got", metavar="FOLDER")
    parser.add_argument("--runner")
    parser.add_argument("--runs", type=int, default=100)
    args = parser.parse_args()
    if args.check:
        check(args)
    elif args.shrink:
        shrink(args)
    else:
        generate(args)


if __name__ == "__main__":
    main()
