"""Draws random conformance programs."""

import itertools
import random
from collections import Counter

TOP = 10_000_019
PRIMES = [n for n in range(101, 2000) if all(n % d for d in range(2, 45))]

LEAF = {
    "log": 3, "sleep": 8, "checkpoint": 3, "sleep_forever": 1, "raise": 2, "set": 3, "wait": 4, "send": 3, "recv": 3, "drain": 1,
    "send_nowait": 2, "recv_nowait": 2, "close_send": 1, "close_recv": 1, "cancel": 4, "cancel_nursery": 2, "set_deadline": 3,
    "set_shield": 2, "cancel_called": 2, "effective_deadline": 2, "notify": 3, "condition_wait": 4, "burst": 6,
}  # fmt: skip
BLOCK = {
    "nursery": 5, "scope": 8, "fail_after": 3, "try": 4, "finally": 3, "lock": 3, "semaphore": 3, "limiter": 3, "condition": 3,
    "spawn": 8, "start": 4, "guarded": 2, "victims": 3, "ladder": 2, "cleanup": 3, "starting": 3, "monitor": 3, "collide": 3, "due": 2,
}  # fmt: skip
# These are made of other statements.
SCENES = {"burst", "guarded", "victims", "ladder", "cleanup", "starting", "monitor", "collide", "due"}

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

    def child(self, c, make, into=None):
        """The body of a new task. It may outlive the nurseries further in than its own, and so knows none of them."""
        before, self.unit = self.unit, next(self.units)
        inner = c.task()
        if into is not None:
            inner.nurseries = c.nurseries[: c.nurseries.index(into) + 1]
        out = make(inner)
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

    def new_scope(self, c, make, after="any", shield=None):
        id = self.fresh("s")
        self.known_scopes.append(id)
        arg = {"id": id, "body": make(c.within(scopes=c.scopes + (id,)))}
        if after == "any":
            after = self.time() if self.chance(0.5) else self.rng.choice([None] * 9 + [0])
        if after is not None:
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
        return [{"spawn": {"in": into, "name": self.fresh("t"), "body": self.child(c, self.body, into)}}]

    def start(self, c, into, make):
        return {"start": {"in": into, "name": self.fresh("t"), "body": self.child(c, make, into)}}

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
        out = [self.new_scope(c, lambda inner: self.operation(inner) + [self.log()], after=self.rng.choice(["any", None]))]
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

    def do_due(self, c):
        """A sleep, and a deadline that is set meanwhile and falls due about when it ends (R46)."""
        scope, length = f"s{self.count['s'] + 1}", self.rng.randint(2, 6) * self.unit

        def make(id):
            inner = c.within(nurseries=c.nurseries + (id,))
            sleeper = lambda task: [self.new_scope(task, lambda _: [{"sleep": length}, self.log()], after=None, shield=False), self.log()]
            out = [{"spawn": {"in": id, "name": self.fresh("t"), "body": self.child(inner, sleeper)}}, {"sleep": self.unit}]
            after = length - self.unit + self.rng.choice([0, 0, 0, -1, 1]) * self.unit
            return out + [{"set_deadline": {"scope": scope, "after": after}}] + self.body(inner, 2)

        return [self.new_nursery(make)]

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
                ready = [{"started": self.fresh("v")}] * self.rng.choices([0, 1, 2], [3, 14, 1])[0]
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
                wait = lambda m: [self.new_scope(m, lambda s: [{"condition_wait": id}], after=self.rng.choice(["any", None, None])), self.log()]
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
            elif self.chance(0.5):
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
