#!/usr/bin/env python3
"""Generate random conformance programs, and keep those whose trace does not depend on scheduling.

Usage:  generate.py --seed S --count N --out FOLDER [--jobs J]   N accepted cases, the same ones for the same S
        generate.py --check CASE.json [..] [--runs R]            is the trace really the same under R adversarial schedules?
        generate.py --shrink CASE.json --runner EXE              a smaller program that still differs on this library

Needs trio, as trio_oracle.py does; compare.sh installs it.

Program number i of seed S is drawn from Random(f"{S}/{i}"), once: so a case is named by theme, seed and number, and can be made again.
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
import subprocess
import sys
import tempfile
from collections import Counter, deque

import trio
import trio.testing

import trio_oracle
from trio._core import _run as trio_run

TOP = 10_000_019
EPSILON = 1e-6
PRIMES = [n for n in range(101, 2000) if all(n % d for d in range(2, 45))]

# ---- Programs ---------------------------------------------------------------------------------------------------------

LEAF = {
    "log": 3, "sleep": 8, "checkpoint": 3, "sleep_forever": 1, "raise": 2, "set": 3, "wait": 4, "send": 3, "recv": 3, "drain": 1,
    "send_nowait": 2, "recv_nowait": 2, "close_send": 1, "close_recv": 1, "cancel": 4, "cancel_nursery": 2, "set_deadline": 3,
    "set_shield": 2, "cancel_called": 2, "effective_deadline": 2, "notify": 3, "condition_wait": 4, "burst": 6,
}  # fmt: skip
BLOCK = {
    "nursery": 5, "scope": 8, "fail_after": 3, "try": 4, "finally": 3, "lock": 3, "semaphore": 3, "limiter": 2, "condition": 3,
    "spawn": 8, "start": 4, "guarded": 2, "victims": 3, "ladder": 2, "cleanup": 3, "starting": 3, "monitor": 3, "collide": 2,
}  # fmt: skip

THEMES = {
    "mixed": {},
    "cancel": {"scope": 3, "cancel": 3, "set_deadline": 2, "set_shield": 3, "ladder": 4, "burst": 2, "effective_deadline": 2,
               "send": 0.2, "recv": 0.2, "lock": 0.3, "semaphore": 0.3, "limiter": 0.3, "condition": 0.2, "monitor": 0.2},
    "shield": {"set_shield": 8, "scope": 4, "cleanup": 4, "cancel": 3, "burst": 3, "finally": 2, "send": 0.3, "recv": 0.3, "lock": 0.3},
    "start": {"start": 6, "starting": 8, "cancel": 2, "cancel_nursery": 2, "scope": 2, "burst": 2, "semaphore": 0.3, "limiter": 0.3},
    "channel": {"send": 5, "recv": 5, "drain": 4, "send_nowait": 4, "recv_nowait": 3, "close_send": 5, "close_recv": 3, "victims": 3,
                "lock": 0.3, "semaphore": 0.3, "limiter": 0.3, "condition": 0.2, "monitor": 0.2},
    "sync": {"lock": 5, "semaphore": 5, "limiter": 5, "victims": 4, "cancel": 2, "send": 0.2, "recv": 0.2},
    "condition": {"condition": 6, "monitor": 8, "notify": 3, "condition_wait": 3, "cancel": 2, "send": 0.2, "recv": 0.2},
    "error": {"raise": 4, "collide": 8, "nursery": 3, "spawn": 2, "finally": 4, "try": 3, "cleanup": 3},
}  # fmt: skip


class Context:
    """Where a statement stands: what is open around it, in its task."""

    def __init__(self, nurseries=(), scopes=(), held=(), monitors=(), starting=None, depth=0):
        self.nurseries, self.scopes, self.held, self.monitors = nurseries, scopes, held, monitors
        self.starting, self.depth = starting, depth

    def within(self, **changes):
        inner = Context(self.nurseries, self.scopes, self.held, self.monitors, self.starting, self.depth + 1)
        for name, value in changes.items():
            setattr(inner, name, value)
        return inner

    def task(self, starting=None):
        """For a child: it has what is open around it, and holds nothing."""
        return Context(self.nurseries, self.scopes, (), (), starting, self.depth + 1)


class Generator:
    def __init__(self, rng):
        self.rng = rng
        self.theme = rng.choice(list(THEMES))
        favour = THEMES[self.theme]
        jitter = lambda: rng.choice([0.3, 0.7, 1, 1, 1.5, 3])
        self.leaf = {k: v * favour.get(k, 1) * jitter() for k, v in LEAF.items()}
        self.block = {k: v * favour.get(k, 1) * jitter() for k, v in BLOCK.items()}
        self.blocks = rng.choice([0.3, 0.4, 0.5])
        self.left = rng.choice([12, 16, 24, 36, 60])
        self.deepest = rng.choice([4, 5, 7])
        self.logs = rng.choice([0.4, 0.7, 0.9])
        # Few different times make collisions, many make order.
        # In some programs each task counts in a unit of its own, so that only what happens within a task happens at one time.
        self.unit, self.units = 1, iter(PRIMES) if self.chance(0.6) else itertools.repeat(1)
        self.times = rng.choice([[1, 2], [1, 2, 3], [0, 1, 2, 3, 4, 5], [1, 3, 7, 12, 20], list(range(1, 60))])
        self.count = Counter()
        self.known_scopes, self.known_nurseries = [], []
        self.events = [f"e{i}" for i in range(1, rng.choice([2, 3, 4]))]
        self.locks = ["l1", "l2"][: rng.choice([1, 2])]
        self.conditions = ["k1", "k2"][: rng.choice([1, 1, 2])]
        self.channels = {f"c{i}": rng.choice([0, 0, 1, 1, 2, None]) for i in range(1, rng.choice([2, 3]))}
        self.semaphores = {f"m{i}": rng.choice([0, 1, 1, 2]) for i in range(1, 3)}
        self.limiters = {f"p{i}": rng.choice([0, 1, 1, 2]) for i in range(1, 3)}

    def program(self):
        body = []
        while self.left > 0:
            part = self.statement(Context(scopes=("top",)))
            # What gets stuck or fails ends early, so that the rest is not in vain.
            if self.chance(0.7):
                part = [self.new_scope(Context(), lambda _: part, after=self.rng.choice([5, 20, 60, 4999]), shield=False)]
            body += self.guard(part, None, 0.8)
        return {
            "channels": self.channels,
            "semaphores": self.semaphores,
            "limiters": self.limiters,
            "body": [{"scope": {"id": "top", "after": TOP, "body": body}}],
        }

    def fresh(self, letter):
        self.count[letter] += 1
        return f"{letter}{self.count[letter]}"

    def chance(self, p):
        return self.rng.random() < p

    def time(self):
        return self.rng.choice(self.times) * self.unit

    def child(self, c, make):
        """The body of a new task."""
        before, self.unit = self.unit, next(self.units)
        out = make(c.task())
        self.unit = before
        return out

    def pick(self, weights):
        kinds = list(weights)
        return self.rng.choices(kinds, [weights[k] for k in kinds])[0]

    def body(self, c, most=4):
        out = []
        for _ in range(self.rng.randint(1, most)):
            if self.left <= 0:
                break
            out += self.statement(c)
        return out or [self.log()]

    def log(self):
        return {"log": self.fresh("x")}

    def statement(self, c):
        self.left -= 1
        block = c.depth < self.deepest and self.chance(self.blocks)
        for _ in range(20):
            out = getattr(self, "do_" + self.pick(self.block if block else self.leaf))(c)
            if out is not None:
                break
        else:
            out = [self.log()]
        if c.starting and self.chance(0.35):
            out.append(self.started(c))
        if self.chance(self.logs):
            out.append(self.log())
        return out

    def started(self, c):
        if not self.chance(0.05):
            c.starting.pop()
        return {"started": self.fresh("v")}

    # Leaves. None where there is nothing to do it to.

    def do_log(self, c):
        return [self.log()]

    def do_sleep(self, c):
        return [{"sleep": self.time()}]

    def do_checkpoint(self, c):
        return [{"checkpoint": None}]

    def do_sleep_forever(self, c):
        return [{"sleep_forever": None}]

    def do_raise(self, c):
        return self.guard([{"raise": self.fresh("R")}], c, 0.3)

    def guard(self, statements, c, p=0.6):
        """Perhaps in a `try`, since what fails ends everything around it."""
        if not self.chance(p):
            return statements
        arg = {"body": statements, "except": [self.log()] if self.chance(0.5) else []}
        if self.chance(0.5):
            arg["cancelled"] = []
        return [{"try": arg}]

    def do_set(self, c):
        return [{"set": self.rng.choice(self.events)}]

    def do_wait(self, c):
        return [{"wait": self.rng.choice(self.events)}]

    def channel(self):
        return self.rng.choice(list(self.channels))

    def do_send(self, c):
        return self.guard([{"send": {"ch": self.channel(), "value": self.value()}}], c, 0.4)

    def value(self):
        self.count["value"] += 1
        return self.count["value"]

    def do_recv(self, c):
        return self.guard([{"recv": self.channel()}], c, 0.4)

    def do_drain(self, c):
        return self.guard([{"drain": self.channel()}], c, 0.4)

    def do_send_nowait(self, c):
        return self.guard([{"send_nowait": {"ch": self.channel(), "value": self.value()}}], c, 0.85)

    def do_recv_nowait(self, c):
        return self.guard([{"recv_nowait": self.channel()}], c, 0.85)

    def do_close_send(self, c):
        return [{"close_send": self.channel()}]

    def do_close_recv(self, c):
        return [{"close_recv": self.channel()}]

    def scope(self, c):
        """One around here, any, or the next that will be entered."""
        here = [s for s in c.scopes if s != "top"]
        which = self.rng.random()
        if here and which < 0.45:
            return self.rng.choice(here)
        if self.known_scopes and which < 0.9:
            return self.rng.choice(self.known_scopes)
        return f"s{self.count['s'] + 1}"

    def do_cancel(self, c):
        return [{"cancel": self.scope(c)}]

    def do_cancel_nursery(self, c):
        if not self.known_nurseries:
            return None
        return [{"cancel_nursery": self.rng.choice(self.known_nurseries)}]

    def do_set_deadline(self, c):
        after = self.rng.choice([self.time(), self.time(), self.time(), None, 0, -1])
        return [{"set_deadline": {"scope": self.scope(c), "after": after}}]

    def do_set_shield(self, c):
        return [{"set_shield": {"scope": self.scope(c), "shield": self.chance(0.6)}}]

    def do_cancel_called(self, c):
        return [{"cancel_called": self.scope(c)}]

    def do_effective_deadline(self, c):
        return [{"effective_deadline": None}]

    def do_notify(self, c):
        if not c.monitors:
            return None
        return [{"notify": {"id": self.rng.choice(c.monitors), "n": self.rng.choice([1, 1, 2, None])}}]

    def do_condition_wait(self, c):
        if not c.monitors:
            return None
        return [{"condition_wait": self.rng.choice(c.monitors)}]

    def do_burst(self, c):
        """Several things in one step, with nobody in between."""
        kinds = ["set", "cancel", "cancel", "cancel_nursery", "set_deadline", "set_shield", "send_nowait", "recv_nowait", "close_send",
                 "close_recv", "notify", "cancel_called"]  # fmt: skip
        weights = [self.leaf[k] for k in kinds]
        out = []
        for kind in self.rng.choices(kinds, weights, k=self.rng.randint(2, 4)):
            out += getattr(self, "do_" + kind)(c) or []
        return out

    # Blocks.

    def new_nursery(self, make):
        """A nursery, around what `make` returns for it. It is known to others once it is there."""
        id = self.fresh("n")
        self.known_nurseries.append(id)
        return {"nursery": {"id": id, "body": make(id)}}

    def do_nursery(self, c):
        def make(id):
            inner = c.within(nurseries=c.nurseries + (id,))
            return [s for _ in range(self.rng.randint(0, 3)) for s in self.do_spawn(inner)] + self.body(inner)

        return [self.new_nursery(make)]

    def new_scope(self, c, make, after=0, shield=None):
        id = self.fresh("s")
        self.known_scopes.append(id)
        arg = {"id": id, "body": make(c.within(scopes=c.scopes + (id,)))}
        if after == 0 and self.chance(0.5):
            after = self.time()
        if after:
            arg["after"] = after
        if shield if shield is not None else self.chance(0.2):
            arg["shield"] = True
        return {"scope": arg}

    def do_scope(self, c):
        return [self.new_scope(c, self.body)]

    def do_fail_after(self, c):
        return self.guard([{"fail_after": {"after": self.time(), "body": self.body(c.within())}}], c, 0.4)

    def do_try(self, c):
        arg = {"body": self.body(c.within())}
        if self.chance(0.8):
            arg["except"] = self.body(c.within(), 2) if self.chance(0.6) else []
        if self.chance(0.6):
            arg["cancelled"] = self.body(c.within(), 2) if self.chance(0.6) else []
        return [{"try": arg}]

    def do_finally(self, c):
        return [{"finally": {"body": self.body(c.within()), "finally": self.body(c.within(), 3)}}]

    def hold(self, c, verb, names):
        free = [n for n in names if n not in c.held]
        if not free:
            return None
        id = self.rng.choice(free)
        return [{verb: {"id": id, "body": self.body(c.within(held=c.held + (id,)), 3)}}]

    def do_lock(self, c):
        return self.hold(c, "lock", self.locks)

    def do_semaphore(self, c):
        return self.hold(c, "semaphore", self.semaphores)

    def do_limiter(self, c):
        return self.hold(c, "limiter", self.limiters)

    def do_condition(self, c):
        free = [k for k in self.conditions if k not in c.held]
        if not free:
            return None
        id = self.rng.choice(free)
        return [self.monitor(c, id, lambda inner: self.body(inner, 3))]

    def monitor(self, c, id, make):
        return {"condition": {"id": id, "body": make(c.within(held=c.held + (id,), monitors=c.monitors + (id,)))}}

    def do_spawn(self, c):
        if not c.nurseries:
            return None
        into = c.nurseries[-1] if self.chance(0.75) else self.rng.choice(c.nurseries)
        return [{"spawn": {"in": into, "name": self.fresh("t"), "body": self.child(c, self.body)}}]

    def start(self, c, into, make):
        return {"start": {"in": into, "name": self.fresh("t"), "body": self.child(c, make)}}

    def do_start(self, c):
        if not c.nurseries:
            return None

        def make(inner):
            inner.starting = [True]
            out = self.body(inner)
            if inner.starting and self.chance(0.8):
                out += [{"started": self.fresh("v")}] + self.body(inner, 2)
            return out

        return self.guard([self.start(c, self.rng.choice(c.nurseries), make)], c, 0.3)

    def do_guarded(self, c):
        return self.guard(self.body(c.within(), 2), c, 1)

    # Scenes: shapes in which something is bound to happen.

    def operation(self, c):
        """Something that waits."""
        kinds = ["wait", "send", "recv", "drain", "sleep", "lock", "semaphore", "limiter"]
        weights = [self.leaf.get(k) or self.block[k] for k in kinds]
        for _ in range(5):
            out = getattr(self, "do_" + self.rng.choices(kinds, weights)[0])(c)
            if out is not None:
                return out
        return [{"sleep_forever": None}]

    def victim(self, c):
        """A task that waits in a scope of its own, and says what became of it."""
        out = [self.new_scope(c, lambda inner: self.operation(inner) + [self.log()], after=self.rng.choice([0, None]))]
        if self.chance(0.3):
            out = [{"finally": {"body": out, "finally": self.body(c, 2)}}]
        return out + [self.log()]

    def do_victims(self, c):
        """Tasks that wait, and one that does several things to them in one step."""

        def make(id):
            inner = c.within(nurseries=c.nurseries + (id,))
            out = []
            for _ in range(self.rng.randint(1, 4)):
                # One after the other, so that they wait in order.
                out.append({"spawn": {"in": id, "name": self.fresh("t"), "body": self.child(inner, self.victim)}})
                if self.chance(0.7):
                    out.append({"sleep": self.unit})
            for _ in range(self.rng.randint(1, 3)):
                out += [{"sleep": self.unit}] + self.do_burst(inner)
            return out

        return [self.new_nursery(make)]

    def do_ladder(self, c):
        """Scopes in each other with equal deadlines, or cancelled in one step, and shields between them."""
        after = self.time()

        def rung(left):
            def make(inner):
                if left == 0:
                    return self.rng.choice([
                        [{"sleep": after}, self.log()], [{"sleep_forever": None}], self.body(inner), self.do_burst(inner) + self.operation(inner),
                    ])  # fmt: skip
                out = [self.new_scope(inner, rung(left - 1), after=self.rng.choice([after, after, None, self.time()]), shield=self.chance(0.25))]
                return out + ([self.log()] if self.chance(0.5) else self.body(inner, 1))

            return make

        return [self.new_scope(c, rung(self.rng.randint(1, 3)), after=after)]

    def do_cleanup(self, c):
        """Clean-up that waits, shielded or not, while what is around it is cancelled."""

        def make(inner):
            clean = self.body(inner, 2)
            if self.chance(0.6):
                clean = [self.new_scope(inner, lambda s: [{"sleep": self.time()}, self.log()] + self.body(s, 2), shield=True)]
            elif self.chance(0.5):
                clean = [{"sleep": self.time()}] + clean
            body = self.operation(inner) if self.chance(0.6) else self.body(inner)
            if self.chance(0.5):
                return [{"finally": {"body": body, "finally": clean}}]
            return [{"try": {"body": body, "except": clean, "cancelled": clean}}]

        return [self.new_scope(c, make, after=self.time())]

    def do_starting(self, c):
        """A start whose caller, child or nursery is cancelled about when the child is ready."""

        def make(id):
            inner = c.within(nurseries=c.nurseries + (id,))
            # Who cancels, beside the caller.
            out = []
            scope = f"s{self.count['s'] + 1}"
            if self.chance(0.6):
                act = lambda task: self.rng.choice([[{"cancel": scope}], [{"cancel_nursery": id}], self.do_burst(task)])
                body = self.child(inner, lambda task: [{"sleep": self.time()}] + act(task))
                out.append({"spawn": {"in": id, "name": self.fresh("t"), "body": body}})

            def child(task):
                task.starting = [True]
                before = self.rng.choice([[], [{"sleep": self.time()}], [{"checkpoint": None}], self.do_burst(task), self.body(task, 2)])
                after = self.rng.choice([[], [{"sleep": self.time()}], self.do_burst(task) + [{"checkpoint": None}], self.body(task)])
                ready = [{"started": self.fresh("v")}] if self.chance(0.9) else []
                if self.chance(0.4):
                    # Ready from within a scope or a nursery of its own: it moves with all that is below (R71).
                    block = [*before, *ready, *after, self.log()]
                    if self.chance(0.5):
                        return [self.new_scope(task, lambda _: block), self.log()]
                    return [self.new_nursery(lambda n: [{"spawn": {"in": n, "name": self.fresh("t"), "body": self.child(task, self.victim)}}] + block)]
                return [*before, *ready, *after, self.log()]

            def caller(inner):
                pre = self.rng.choice([[], [], [{"cancel": scope}], [{"cancel_nursery": id}], self.do_burst(inner)])
                return [*pre, self.start(inner, id, child), self.log()] + self.body(inner, 1)

            out.append(self.new_scope(inner, caller))
            return out + self.body(inner, 2)

        return self.guard([self.new_nursery(make)], c, 0.4)

    def do_monitor(self, c):
        """Tasks that wait for a condition, each cancellable, and one that notifies."""
        free = [k for k in self.conditions if k not in c.held]
        if not free:
            return None
        id = self.rng.choice(free)

        def make(nursery):
            inner = c.within(nurseries=c.nurseries + (nursery,))
            out = []
            for _ in range(self.rng.randint(1, 4)):
                wait = lambda m: [self.new_scope(m, lambda s: [{"condition_wait": id}], after=self.rng.choice([0, None, None])), self.log()]
                hold = lambda m: wait(m) + ([{"sleep": self.time()}] if self.chance(0.3) else [])
                body = lambda task: [self.monitor(task, id, hold), self.log()]
                out.append({"spawn": {"in": nursery, "name": self.fresh("t"), "body": self.child(inner, body)}})
                if self.chance(0.8):
                    out.append({"sleep": self.unit})
            for _ in range(self.rng.randint(1, 3)):
                act = lambda m: (self.do_burst(m) if self.chance(0.4) else self.do_notify(m)) + (self.body(m, 2) if self.chance(0.5) else [])
                out += [{"sleep": self.unit}, self.monitor(inner, id, act)]
            return out

        return [self.new_nursery(make)]

    def do_collide(self, c):
        """Nurseries in each other whose children fail at one time."""
        # One time for all of them, whatever their units.
        at = self.time()

        def failing(task):
            out = [{"sleep": self.rng.choice([at, at, at, self.time()])}, {"raise": self.fresh("R")}]
            if self.chance(0.4):
                out = [{"finally": {"body": out, "finally": self.body(task, 2)}}]
            elif self.chance(0.3):
                out = [{"try": {"body": [{"sleep_forever": None}], "cancelled": [{"raise": self.fresh("R")}]}}]
            return out

        def level(left):
            def make(id):
                inner = c.within(nurseries=c.nurseries + (id,), depth=c.depth + 3)
                out = [
                    {"spawn": {"in": id, "name": self.fresh("t"), "body": self.child(inner, failing)}} for _ in range(self.rng.randint(1, 2))
                ]
                if left:
                    out += self.guard([self.new_nursery(level(left - 1))], inner, 0.3)
                return out + self.rng.choice([[], [{"sleep": at}], [{"sleep": at}, {"raise": self.fresh("R")}], self.body(inner, 2)])

            return make

        return self.guard([self.new_nursery(level(self.rng.randint(0, 2)))], c, 0.7)


# ---- Schedules --------------------------------------------------------------------------------------------------------


class AnyPart(deque):
    """A run queue of which each pass sees any part, but not none of some."""

    rng = random.Random(0)
    part = 0.5

    def __iter__(self):
        everything = list(super().__iter__())
        self.taken = [t for t in everything if self.rng.random() < self.part]
        if everything and not self.taken:
            self.taken = [self.rng.choice(everything)]
        return iter(self.taken)

    def clear(self):
        for task in self.taken:
            self.remove(task)


class N11:
    """Trio with operations that do not yield where they need not wait, or are cancelled already, for the time of a run."""

    def __enter__(self):
        low, core = trio.lowlevel, trio._core
        shielded, wait, event_wait = low.cancel_shielded_checkpoint, core.wait_task_rescheduled, trio.Event.wait

        async def no_yield():
            pass

        async def unless_nursery():
            # The end of a nursery without children.
            if sys._getframe(1).f_code.co_name != "_nested_child_finished":
                await shielded()

        async def wait_unless_cancelled(abort):
            if low.current_task()._cancel_status.effectively_cancelled:

                def raise_cancel():
                    raise trio.Cancelled._create(source="unknown")

                if abort(raise_cancel) is low.Abort.SUCCEEDED:
                    raise_cancel()
            return await wait(abort)

        async def if_cancelled():
            if low.current_task()._cancel_status.effectively_cancelled:
                await wait_unless_cancelled(lambda _: low.Abort.SUCCEEDED)

        async def wait_event(event):
            await (if_cancelled() if event.is_set() else event_wait(event))

        self.patches = [
            (low, "cancel_shielded_checkpoint", no_yield),
            (low, "checkpoint_if_cancelled", if_cancelled),
            (low, "wait_task_rescheduled", wait_unless_cancelled),
            (core, "wait_task_rescheduled", wait_unless_cancelled),
            (trio_run, "cancel_shielded_checkpoint", unless_nursery),
            (trio.Event, "wait", wait_event),
        ]
        self.swap()

    def swap(self):
        for at, (owner, name, new) in enumerate(self.patches):
            self.patches[at] = (owner, name, getattr(owner, name))
            setattr(owner, name, new)

    def __exit__(self, *_):
        self.swap()


class Watch:
    """Sees what is bound to differ:

    - N1: a waiter of a condition is cancelled that has been notified, while others wait.
    - `recv` tells the end of the channel and a closed handle by the same `Ok(None)`; the runner cannot tell which it was where the
      handle is closed before the task runs that was told the end.
    - R37: a wait for a condition that begins in a cancelled scope does not give up the lock here; Trio lets those who wait for it in.
    """

    def __init__(self):
        self.any = None
        moved = set()
        park, repark = trio.lowlevel.ParkingLot.park, trio.lowlevel.ParkingLot.repark

        async def observed_park(lot):
            task = trio.lowlevel.current_task()
            moved.discard(task)
            try:
                await park(lot)
            except trio.Cancelled:
                if task in moved and len(lot) > 0:
                    self.any = "N1"
                raise

        def observed_repark(lot, new_lot, *, count=1):
            waiting = list(lot._parked)
            moved.update(waiting[: min(count, len(waiting))])
            repark(lot, new_lot, count=count)

        receive = trio.MemoryReceiveChannel.receive

        async def observed_receive(channel):
            try:
                return await receive(channel)
            except trio.EndOfChannel:
                if channel._closed:
                    self.any = "end or closed"
                raise

        wait = trio.Condition.wait

        async def observed_wait(condition):
            if trio.lowlevel.current_task()._cancel_status.effectively_cancelled and len(condition._lock._lot) > 0:
                self.any = "R37"
            await wait(condition)

        trio.lowlevel.ParkingLot.park, trio.lowlevel.ParkingLot.repark = observed_park, observed_repark
        trio.Condition.wait = observed_wait
        trio.MemoryReceiveChannel.receive = observed_receive

    def ask(self):
        """What has been seen since this was last asked."""
        was, self.any = self.any, None
        return was


def adversarial(program, seed):
    """One run under an adversary. What it draws depends on the seed alone."""
    rng = random.Random(seed)

    class Queue(AnyPart):
        part = rng.choice([0.1, 0.3, 0.5, 0.8, 1.0])

    Queue.rng = rng
    machine_class = trio_oracle.Machine
    block, set_deadline, cancel_called = machine_class.block, machine_class.do_set_deadline, machine_class.do_cancel_called
    late = seed % 4 > 1

    async def set_late(machine, task, arg, started):
        if arg["after"] is not None and arg["after"] <= 0:
            arg = {**arg, "after": EPSILON}
        await set_deadline(machine, task, arg, started)

    async def called_late(machine, task, name, started):
        scope = machine.scope(name)
        if scope.deadline <= trio.current_time() + EPSILON and not scope.cancelled_caught:
            scope.deadline = trio.current_time()
        await cancel_called(machine, task, name, started)

    async def first(machine, task, statements, started=None):
        runner = trio_run.GLOBAL_RUN_CONTEXT.runner
        if not isinstance(runner.runq, AnyPart):
            runner.runq = Queue(runner.runq)
        await block(machine, task, statements, started)

    machine_class.block = first
    if late:
        machine_class.do_set_deadline, machine_class.do_cancel_called = set_late, called_late
    try:
        with N11() if seed % 2 else contextlib.nullcontext():
            return trio_oracle.run_once(program, seed)
    finally:
        machine_class.block, machine_class.do_set_deadline, machine_class.do_cancel_called = block, set_deadline, cancel_called


class Stuck(Exception):
    """No task can run, and no deadline is left; or it never comes to an end."""


def stuck(*_):
    raise Stuck


jump = trio.testing.MockClock._autojump


def jump_or_give_up(clock):
    if trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf:
        raise Stuck
    jump(clock)


trio.testing.MockClock._autojump = jump_or_give_up
# What is left of a program that was given up says so when it is collected.
sys.unraisablehook = lambda _: None


def timed(run, seconds=1.0):
    """What `run` returns, or None if it does not end, or is not a program at all."""
    # In time of this process, since the machine may be busy.
    signal.signal(signal.SIGVTALRM, stuck)
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            return run()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except (Stuck, trio_oracle.Stuck, trio.TrioInternalError) as error:
        if isinstance(error, trio.TrioInternalError) and not isinstance(error.__cause__, (Stuck, trio_oracle.Stuck)):
            raise
    except KeyError:
        # A nursery that is not open, in a program that was made smaller.
        pass
    except AssertionError:
        # Trio's `checkpoint_if_cancelled` cannot bear a shield that is raised while it yields ("this should never happen").
        pass
    # Not in the next run: coroutines that are destroyed there run their clean-up in it.
    gc.collect()
    return None


WATCH = Watch()
# What is loaded stays: `timed` collects often.
gc.freeze()


def accept(program, runs=8):
    """(expected, None) for a program to be kept; (None, why) for one that is not."""
    WATCH.ask()
    first = timed(lambda: trio_oracle.run_once(program, 0))
    if first is None:
        return None, "does not end"
    if sum(map(len, first["trace"].values())) < 3:
        return None, "says nothing"
    for seed in range(runs):
        result = timed(lambda: adversarial(program, seed))
        if why := WATCH.ask():
            return None, why
        if result != first:
            return None, "depends on scheduling"
    if timed(lambda: trio_oracle.expected(program), 0) != first:
        return None, "depends on scheduling"
    return first, None


def draw(job):
    seed, number = job
    generator = Generator(random.Random(f"{seed}/{number}"))
    try:
        program = generator.program()
        expected, why = accept(program)
    except (Stuck, RecursionError):
        expected, why = None, "does not end"
    name = f"{generator.theme}-{seed}-{number:06}"
    return name, program, expected, why


def save(folder, name, program, expected):
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump({"name": name, "program": program, "expected": expected}, file)
        file.write("\n")


def generate(args):
    os.makedirs(args.out, exist_ok=True)
    kept, refused = Counter(), Counter()
    with multiprocessing.Pool(args.jobs) as pool:
        for start in itertools.count(0, 256):
            for name, program, expected, why in pool.imap(draw, [(args.seed, n) for n in range(start, start + 256)], chunksize=4):
                if expected is None:
                    refused[why] += 1
                elif sum(kept.values()) < args.count:
                    kept[name.split("-")[0]] += 1
                    save(args.out, name, program, expected)
            if sum(kept.values()) >= args.count:
                break
    total = sum(kept.values()) + sum(refused.values())
    print(f"seed {args.seed}: {sum(kept.values())} of {total} programs kept {dict(kept)}; refused {dict(refused)}", file=sys.stderr)


# ---- Differences ------------------------------------------------------------------------------------------------------


def check(args):
    """Says of each case whether its trace is the same under many more schedules."""
    status = 0
    for path in args.check:
        with open(path) as file:
            program = json.load(file)["program"]
        expected, why = accept(program, args.runs)
        print(f"{os.path.basename(path)}: {why or 'the same under all schedules'}")
        status |= expected is not None
    sys.exit(status)


def differing(runner, programs, folder):
    """The names of the programs, of a dict, that end otherwise on this library."""
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    for name, (program, expected) in programs.items():
        save(folder, name, program, expected)
    run = subprocess.run([runner], env={**os.environ, "TREFOIL_CASES": folder}, capture_output=True, text=True, timeout=60)
    return {line.split(":")[0] for line in run.stdout.splitlines() if ": " in line}


def smaller(value):
    """Programs that are a little smaller than this one."""
    if isinstance(value, list):
        n = len(value)
        for size in sorted({n, n // 2, n // 4, 1} - {0}, reverse=True):
            for at in range(0, n, size):
                yield value[:at] + value[at + size :]
        for at, statement in enumerate(value):
            ((verb, arg),) = statement.items()
            if isinstance(arg, dict):
                for key in ("body", "finally", "except", "cancelled"):
                    if key in arg and verb not in ("spawn", "start", "condition"):
                        yield value[:at] + arg[key] + value[at + 1 :]
            for less in smaller_statement(verb, arg):
                yield value[:at] + [{verb: less}] + value[at + 1 :]


def smaller_statement(verb, arg):
    if verb == "sleep" and arg > 1:
        yield 1
        yield arg - 1
    if not isinstance(arg, dict):
        return
    for key in ("after", "shield", "cancelled", "except"):
        if key in arg and verb not in ("set_deadline", "set_shield", "fail_after") and arg.get("id") != "top":
            yield {k: v for k, v in arg.items() if k != key}
    if isinstance(arg.get("after"), int) and 1 < arg["after"] < TOP:
        yield {**arg, "after": 1}
        yield {**arg, "after": arg["after"] - 1}
    for key in ("body", "finally", "except", "cancelled"):
        for less in smaller(arg[key]) if key in arg else ():
            yield {**arg, key: less}


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
                    expected, _ = accept(candidate, args.runs)
                    if expected is not None:
                        batch[f"c-{at:05}"] = (candidate, expected)
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
    expected, _ = accept(program, args.runs)
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
