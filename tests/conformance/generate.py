#!/usr/bin/env python3
"""Generate random conformance programs, and keep those whose trace does not depend on scheduling.

Usage:  generate.py --seed S --count N --out FOLDER [--jobs J]   N programs that are kept, with what is expected of them
        generate.py --check CASE.json [..] [--runs R]            is the trace really the same under R adversarial schedules?
        generate.py --check CASE.json [..] --got FOLDER          does one of them do what this library did?
        generate.py --shrink CASE.json --runner EXE              a smaller program that still differs on this library

Needs trio, as trio_oracle.py does; compare.sh installs it.

Program number i of seed S is drawn from Random(f"{S}/{i}"), once: so a case is named by theme, seed and number, and can be made again.
(Whether it is kept may change from run to run, for a few: Trio goes through sets of tasks, whose order is that of addresses.)
A program is kept if these all agree:
- 16 shuffled schedules of trio_oracle.py, which also record `expected`;
- an adversary that runs, in each pass, any non-empty part of what could run, in any order. Programs whose trace depends on how many
  passes an operation takes are refused by it (R65, R84, R99: not promised by Trio, and not by this library);
- the same with N11: operations that need not wait do not yield;
- the same with deadlines that are set to a time that is not ahead being noticed as late as possible instead of in the next pass (R45):
  how many passes of the loop there are between two steps is another thing that the two do not agree on.
Programs in which the two differ on purpose are refused, too: see `Watch`.
"""

import argparse
import contextlib
import gc
import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter

import trio
import trio.testing

import trio_oracle
from programs import TOP, Generator
from schedules import KINDS, Watch, adversarial
from seen import EXPECTED, Seen
from shrinking import differing, same_record, save, smaller

# ---- Keeping ----------------------------------------------------------------------------------------------------------

jump = trio.testing.MockClock._autojump


def jump_or_give_up(clock):
    if trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf:
        raise trio_oracle.Stuck
    jump(clock)


trio.testing.MockClock._autojump = jump_or_give_up
# What a destroyed coroutine says. Of a program that was given up it is nothing new; of another one it is not expected.
DESTROYED = []
sys.unraisablehook = lambda what: DESTROYED.append(what.exc_value)
WATCH = Watch()
# What is loaded stays: `ends` collects often.
gc.freeze()


class Refused(Exception):
    """Why a program is not kept."""


def ends(run, seconds=1.0):
    """What `run` returns. Refuses what does not end, and what Trio fails at. All other exceptions are faults of ours, and leave."""
    # In time of this process, since the machine may be busy; more than once, since a clean-up may replace the first.
    signal.signal(signal.SIGVTALRM, trio_oracle.stuck)
    why = None
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds)
            result = run()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except BaseException as error:
        why = "does not end" if trio_oracle.is_stuck(error) else WATCH.ask() if isinstance(error, AssertionError) else None
        if why is None:
            raise
    if why is None:
        if DESTROYED:
            raise DESTROYED.pop()
        return result
    # Not in the next run: coroutines that are destroyed there run their clean-up in it.
    gc.collect()
    DESTROYED.clear()
    raise Refused(why)


def accept(program, runs=8, seen=None):
    """What is expected of a program that is kept. Refuses others. `seen`, if any, becomes what happened in it."""
    WATCH.ask()
    if seen is None:
        first = ends(lambda: trio_oracle.run_once(program, 0))
    else:
        with Seen() as watching:
            first = ends(lambda: trio_oracle.run_once(program, 0))
        seen |= watching.result(first)
    if sum(map(len, first["trace"].values())) < 3:
        raise Refused("says nothing")

    def same(run, under):
        try:
            result = ends(run)
        except Refused as why:
            raise Refused(f"{why}, under {under}") from None
        if why := WATCH.ask():
            raise Refused(why)
        if result != first:
            raise Refused(f"depends on {under}")

    for seed in trio_oracle.SEEDS:
        same(lambda: trio_oracle.run_once(program, seed), "order")
    for seed in range(runs):
        same(lambda: adversarial(program, seed), KINDS[seed % 4])
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
        expected = accept(program, seen=seen)
    except Refused as refused:
        why = str(refused)
    except BaseException as unexpected:
        why = f"{type(unexpected).__name__}: {unexpected}"
        error = f"{name}: {traceback.format_exc()}"
    return name, program, expected, why, seen, error


# Two clocks, a deadline, a cancellation, a channel: nothing of it depends on scheduling.
STEADY = {
    "channels": {"c1": 0},
    "body": [{"nursery": {"id": "n1", "body": [
        {"spawn": {"in": "n1", "name": "t1", "body": [
            {"sleep": 2}, {"send": {"ch": "c1", "value": 1}}, {"scope": {"id": "s1", "after": 3, "body": [{"sleep_forever": None}]}},
        ]}},
        {"spawn": {"in": "n1", "name": "t2", "body": [{"scope": {"id": "s2", "body": [{"sleep_forever": None}]}}]}},
        {"recv": "c1"}, {"sleep": 1}, {"cancel": "s2"}, {"log": "x1"},
    ]}}],
}  # fmt: skip


def racing(*bodies):
    """Tasks that begin at once."""
    children = [{"spawn": {"in": "n1", "name": f"t{i}", "body": body}} for i, body in enumerate(bodies)]
    return {"channels": {"c1": 2}, "body": [{"log": "x1"}, {"sleep": 1}, {"nursery": {"id": "n1", "body": children}}, {"log": "x2"}]}


RACES = {
    "depends on order": racing([{"send": {"ch": "c1", "value": 1}}], [{"send": {"ch": "c1", "value": 2}}], [{"sleep": 1}, {"recv": "c1"}]),
    "depends on passes": racing(
        [{"scope": {"id": "s1", "body": [{"checkpoint": None}, {"log": "x3"}]}}], [*[{"checkpoint": None}] * 3, {"cancel": "s1"}]
    ),
    "depends on passes, N11": racing([{"scope": {"id": "s1", "body": [
        {"scope": {"id": "s2", "body": [{"cancel": "s2"}, {"set_deadline": {"scope": "s1", "after": 0}}, {"sleep": 1}]}}
    ]}}]),
}  # fmt: skip


def test_adversary():
    """A filter that keeps nothing, or everything, would be worth nothing."""
    accept(STEADY, 100)
    for why, program in RACES.items():
        try:
            accept(program, 100)
        except Refused as refused:
            if str(refused) == why:
                continue
            sys.exit(f"a program that {why} was refused since it {refused}")
        sys.exit(f"a program that {why} was kept")


# The share of programs in which each kind of thing has to happen, at least.
LEAST = 0.03


def generate(args):
    test_adversary()
    os.makedirs(args.out, exist_ok=True)
    themes, refused, errors = Counter(), Counter(), Counter()
    ran, kept = Counter(), Counter()
    first_of = {}
    with multiprocessing.Pool(args.jobs) as pool:
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
    print("what happens in them: kept (of all that end)")
    for kind in EXPECTED:
        share, among = kept[kind] / max(total, 1), ran[kind] / max(ran["ends"], 1)
        few = share < LEAST and total >= 500
        status |= few
        print(f"  {share:7.1%} ({among:6.1%})  {kind}{'  TOO FEW' if few else ''}")
    if kept["time advances"] / max(total, 1) < 0.5 * ran["time advances"] / max(ran["ends"], 1):
        print("most programs in which time advances were refused: the filter is at fault")
        status = 1
    return status


# ---- Differences ------------------------------------------------------------------------------------------------------


def check(args):
    """Says of each case whether its trace is the same under many more schedules; with `--got`, whether one of them does what this
    library did. The exit status is 0 if the differences of all of them are explained so."""
    status = 0
    for path in args.check:
        with open(path) as file:
            program = json.load(file)["program"]
        name = os.path.basename(path)
        if args.got:
            with open(os.path.join(args.got, name)) as file:
                got = json.load(file)
            runs = (*((trio_oracle.run_once, seed) for seed in range(args.runs)), *((adversarial, seed) for seed in range(args.runs)))
            for run, seed in runs:
                with contextlib.suppress(Refused):
                    if same_record(ends(lambda: run(program, seed)), got):
                        print(f"{name}: so it goes on Trio, too: {run.__name__}, schedule {seed}")
                        break
            else:
                print(f"{name}: so it goes under none of {len(runs)} schedules of Trio")
                status = 3
            continue
        try:
            accept(program, args.runs)
        except Refused as why:
            print(f"{name}: {why}")
        else:
            print(f"{name}: the same under all schedules")
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
            candidates = list(smaller(program["body"])) + [None]
            for at, body in enumerate(candidates):
                if body is not None:
                    candidate = {**program, "body": body}
                    # A nursery that is not open any more, an answer to nobody.
                    with contextlib.suppress(Refused, KeyError, AttributeError):
                        batch[f"c-{at:05}"] = (candidate, accept(candidate, args.runs))
                if batch and (len(batch) == 8 or body is None):
                    bad = differing(args.runner, batch, folder)
                    if bad:
                        program, again = batch[min(bad)][0], True
                        break
                    batch = {}
    used = json.dumps(program["body"])
    for kind in ("channels", "semaphores", "limiters"):
        program[kind] = {k: v for k, v in program.get(kind, {}).items() if f'"{k}"' in used}
        if not program[kind]:
            del program[kind]
    expected = accept(program, args.runs)
    json.dump({"name": os.path.basename(args.shrink)[:-5], "program": program, "expected": expected}, sys.stdout, indent=1)
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--check", nargs="+", metavar="CASE")
    parser.add_argument("--shrink", metavar="CASE")
    parser.add_argument("--got", metavar="FOLDER")
    parser.add_argument("--runner")
    parser.add_argument("--runs", type=int, default=60)
    args = parser.parse_args()
    if args.check:
        check(args)
    elif args.shrink:
        shrink(args)
    else:
        generate(args)


if __name__ == "__main__":
    main()
