"""Draws random conformance programs in asyncio's statements."""

from collections import Counter

LEAF = {
    "log": 3, "sleep": 10, "turn": 3, "raise": 2, "return": 1.5, "cancel": 6, "uncancel": 1.5, "cancelling": 2, "uncancel_self": 1.5,
    "state": 4, "await": 7, "set_result": 4, "set_exception": 2, "gather": 6, "wait": 5, "wait_for": 5, "as_completed": 4, "shield": 5,
    "reschedule": 3, "set": 4, "clear": 2, "wait_event": 4, "condition_wait": 3, "notify": 3, "barrier": 4, "barrier_abort": 1,
    "put": 4, "put_nowait": 3, "get": 4, "get_nowait": 2, "task_done": 2, "join": 3, "shutdown": 1.5, "burst": 7,
}  # fmt: skip
BLOCK = {
    "create": 12, "timeout": 6, "group": 6, "spawn": 8, "try": 6, "finally": 4, "lock": 4, "semaphore": 4, "condition": 4, "guarded": 2,
    "victims": 4, "chain": 2, "gathering": 3, "grouping": 3, "monitor": 3, "meeting": 3, "workers": 3, "expiring": 3, "cleanup": 3,
    "contention": 3, "interrupted": 3, "colliding": 3,
}  # fmt: skip
# These are made of other statements.
SCENES = {"turn", "burst", "guarded", "victims", "chain", "gathering", "grouping", "monitor", "meeting", "workers", "expiring", "cleanup",
          "contention", "interrupted", "colliding"}  # fmt: skip

THEMES = {
    "mixed": {},
    "cancel": {"cancel": 3, "uncancel": 3, "uncancel_self": 3, "cancelling": 2, "burst": 2, "victims": 3, "chain": 3, "interrupted": 3},
    "combine": {"gather": 3, "wait": 3, "wait_for": 3, "as_completed": 3, "shield": 3, "gathering": 3, "await": 2, "state": 2},
    "group": {"group": 4, "spawn": 3, "grouping": 5, "colliding": 5, "raise": 2},
    "timeout": {"timeout": 4, "reschedule": 4, "expiring": 5, "wait_for": 3},
    "future": {"set_result": 4, "set_exception": 3, "await": 3, "burst": 3, "shield": 2, "cancel": 2, "state": 2},
    "queue": {"put": 4, "get": 4, "put_nowait": 3, "get_nowait": 3, "task_done": 4, "join": 4, "shutdown": 4, "workers": 8},
    "lock": {"lock": 4, "semaphore": 4, "contention": 8, "interrupted": 2, "set": 3, "clear": 3, "wait_event": 3},
    "condition": {"condition": 3, "monitor": 8, "notify": 2, "cancel": 2},
    "barrier": {"barrier": 3, "barrier_abort": 3, "meeting": 8, "cancel": 2},
}  # fmt: skip


class Context:
    """Where a statement stands: the tasks that are there for sure, and what is open around it."""

    def __init__(self, task="main", tasks=("main",), groups=(), timeouts=(), held=(), monitors=(), depth=0, returns=True):
        self.task, self.tasks, self.groups, self.timeouts = task, list(tasks), groups, timeouts
        self.held, self.monitors, self.depth, self.returns = held, monitors, depth, returns

    def within(self, **changes):
        """A block: what it creates is there for sure in it alone."""
        inner = Context(self.task, self.tasks, self.groups, self.timeouts, self.held, self.monitors, self.depth + 1, self.returns)
        for name, value in changes.items():
            setattr(inner, name, value)
        return inner

    def child(self, name):
        return Context(name, [*self.tasks, name], self.groups, self.timeouts, (), (), self.depth + 1, True)


class Generator:
    def __init__(self, rng):
        self.rng = rng
        self.theme = rng.choice(list(THEMES))
        favour = THEMES[self.theme]
        jitter = lambda: rng.choice([0.3, 0.7, 1, 1, 1.5, 3])
        self.leaf = {k: v * favour.get(k, 1) * jitter() for k, v in LEAF.items()}
        self.block = {k: v * favour.get(k, 1) * jitter() for k, v in BLOCK.items()}
        self.blocks = rng.choice([0.3, 0.4, 0.5])
        self.left = rng.choice([8, 12, 16, 24, 40])
        self.deepest = rng.choice([4, 5, 6])
        self.logs = rng.choice([0.2, 0.5, 0.8])
        # Timers that are due at one time run in no order that is promised, so few share one; but what happens in one turn is ordered,
        # and `burst`, `turn` and a deadline of 0 make much happen in one.
        self.longest = rng.choice([200, 3000, 60000])
        self.few = [rng.randint(1, self.longest) for _ in range(3)] if self.chance(0.2) else None
        self.count = Counter()
        # All that are named anywhere so far: a task among them may not be there yet, and is a future then.
        self.all_tasks = ["main"]
        self.futures = [f"f{i}" for i in range(1, rng.choice([2, 3, 4]))]
        self.events = [f"e{i}" for i in range(1, rng.choice([2, 3]))]
        self.locks = ["l1", "l2"][: rng.choice([1, 2])]
        self.conditions = ["c1", "c2"][: rng.choice([1, 1, 2])]
        self.queues = {f"q{i}": rng.choice([0, 1, 1, 1, 2]) for i in range(1, rng.choice([2, 3]))}
        self.semaphores = {f"m{i}": rng.choice([0, 1, 1, 2]) for i in range(1, rng.choice([2, 3]))}
        self.barriers = {f"b{i}": rng.choice([1, 2, 2, 2, 3]) for i in range(1, rng.choice([2, 3]))}

    def program(self):
        main = Context()
        body = []
        while self.left > 0:
            part = self.statement(main)
            # What gets stuck or fails ends early, so that the rest is not in vain.
            if self.chance(0.6) and not any("create" in s for s in part):
                part = [{"timeout": {"id": self.fresh("o"), "after": self.rng.choice([self.time(), 100_000 + self.time()]), "body": part}}]
            body += self.guard(part, 0.9)
        return {"queues": self.queues, "semaphores": self.semaphores, "barriers": self.barriers, "body": body}

    def fresh(self, letter):
        self.count[letter] += 1
        return f"{letter}{self.count[letter]}"

    def chance(self, p):
        return self.rng.random() < p

    def time(self):
        return self.rng.choice(self.few) if self.few else self.rng.randint(1, self.longest)

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
        if self.chance(self.logs):
            out.append(self.log())
        return out

    def guard(self, statements, p=0.6):
        """Perhaps in a `try`, since what fails ends everything around it."""
        if not self.chance(p):
            return statements
        arg = {"body": statements, "except": [self.log()] if self.chance(0.5) else []}
        if self.chance(0.4):
            arg["cancelled"] = []
            if self.chance(0.4):
                arg["swallow"] = True
        return [{"try": arg}]

    # Names.

    def task(self, c, but_own=True):
        """A task that is there; now and then the task itself."""
        others = [t for t in c.tasks if t != c.task and (t != "main" or self.chance(0.2))]
        if others and (but_own or self.chance(0.9)):
            # Late ones are more often still running.
            return others[-1] if self.chance(0.4) else self.rng.choice(others)
        return None if but_own else c.task

    def awaitable(self, c):
        which = self.rng.random()
        if which < 0.68 and (name := self.task(c)):
            return name
        if which < 0.75:
            return self.rng.choice(self.all_tasks)
        return self.rng.choice(self.futures)

    def several(self, c, least=1):
        if least == 0 and self.chance(0.02):
            return []
        of = [self.awaitable(c) for _ in range(self.rng.choice([1, 2, 2, 3, 3, 4]))]
        return of if self.chance(0.1) else list(dict.fromkeys(of))

    def queue(self):
        return self.rng.choice(list(self.queues))

    def value(self):
        self.count["value"] += 1
        return self.count["value"]

    # Leaves. None where there is nothing to do it to.

    def do_log(self, c):
        return [self.log()]

    def do_sleep(self, c):
        return [{"sleep": self.time()}]

    def do_turn(self, c):
        return [{"sleep": 0}] * self.rng.choice([1, 1, 2, 3])

    def do_raise(self, c):
        return self.guard([{"raise": self.fresh("R")}], 0.3)

    def do_return(self, c):
        # Out of a group it would be an error of the group.
        return [{"return": self.value()}] if c.returns and c.task != "main" else None

    def do_cancel(self, c):
        return [{"cancel": self.task(c, False) if self.chance(0.85) else self.awaitable(c)}]

    def do_uncancel(self, c):
        return [{"uncancel": self.task(c, False)}]

    def do_cancelling(self, c):
        return [{"cancelling": self.task(c, False)}]

    def do_uncancel_self(self, c):
        return [{"uncancel_self": None}]

    def do_state(self, c):
        return [{"state": self.awaitable(c)}]

    def do_await(self, c):
        return self.guard([{"await": self.awaitable(c)}], 0.5)

    def do_set_result(self, c):
        return self.guard([{"set_result": {"future": self.rng.choice(self.futures), "value": self.value()}}], 0.6)

    def do_set_exception(self, c):
        return self.guard([{"set_exception": {"future": self.rng.choice(self.futures), "label": self.fresh("F")}}], 0.6)

    def do_gather(self, c):
        return self.guard([{"gather": {"of": self.several(c, 0), "return_exceptions": self.chance(0.5)}}], 0.5)

    def do_wait(self, c):
        arg = {"of": self.several(c, 0), "when": self.rng.choice(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])}
        if self.chance(0.4):
            arg["timeout"] = self.rng.choice([self.time(), self.time(), 0])
        return self.guard([{"wait": arg}], 0.4)

    def do_wait_for(self, c):
        timeout = self.rng.choice([self.time(), self.time(), self.time(), 0, -1, None])
        return self.guard([{"wait_for": {"of": self.awaitable(c), "timeout": timeout}}], 0.6)

    def do_as_completed(self, c):
        arg = {"of": self.several(c, 0)}
        if self.chance(0.4):
            arg["timeout"] = self.rng.choice([self.time(), self.time(), self.time(), 0])
        return self.guard([{"as_completed": arg}], 0.5)

    def do_shield(self, c):
        return self.guard([{"shield": self.awaitable(c)}], 0.5)

    def do_reschedule(self, c):
        if not c.timeouts:
            return None
        after = self.rng.choice([self.time(), self.time(), self.time(), 0, -1, None])
        return self.guard([{"reschedule": {"id": self.rng.choice(c.timeouts), "after": after}}], 0.3)

    def do_set(self, c):
        return [{"set": self.rng.choice(self.events)}]

    def do_clear(self, c):
        return [{"clear": self.rng.choice(self.events)}]

    def do_wait_event(self, c):
        return [{"wait_event": self.rng.choice(self.events)}]

    def do_condition_wait(self, c):
        return self.guard([{"condition_wait": self.rng.choice(c.monitors)}], 0.3) if c.monitors else None

    def do_notify(self, c):
        if c.monitors:
            return [{"notify": {"id": self.rng.choice(c.monitors), "n": self.rng.choice([1, 1, 2, None])}}]
        # Without the lock, which may be an error.
        return self.guard([{"notify": {"id": self.rng.choice(self.conditions), "n": 1}}], 0.9) if self.chance(0.1) else None

    def do_barrier(self, c):
        return self.guard([{"barrier": self.rng.choice(list(self.barriers))}], 0.5)

    def do_barrier_abort(self, c):
        return [{"barrier_abort": self.rng.choice(list(self.barriers))}]

    def do_put(self, c):
        return self.guard([{"put": {"queue": self.queue(), "value": self.value()}}], 0.4)

    def do_put_nowait(self, c):
        return self.guard([{"put_nowait": {"queue": self.queue(), "value": self.value()}}], 0.85)

    def do_get(self, c):
        return self.guard([{"get": self.queue()}], 0.4)

    def do_get_nowait(self, c):
        return self.guard([{"get_nowait": self.queue()}], 0.85)

    def do_task_done(self, c):
        return self.guard([{"task_done": self.queue()}], 0.85)

    def do_join(self, c):
        return self.guard([{"join": self.queue()}], 0.2)

    def do_shutdown(self, c):
        return [{"shutdown": {"queue": self.queue(), "immediate": self.chance(0.5)}}]

    def do_burst(self, c):
        """Several things in one step, with nobody in between."""
        kinds = ["set", "clear", "cancel", "cancel", "uncancel", "cancelling", "state", "set_result", "set_exception", "put_nowait",
                 "get_nowait", "task_done", "notify", "reschedule", "shutdown", "barrier_abort", "spawn", "create"]  # fmt: skip
        weights = [self.leaf.get(k, 3) for k in kinds]
        out = []
        for kind in self.rng.choices(kinds, weights, k=self.rng.randint(2, 4)):
            out += getattr(self, "do_" + kind)(c) or []
        return out

    # Blocks.

    def new_task(self, c, make):
        name = self.fresh("t")
        self.all_tasks.append(name)
        arg = {"name": name, "body": make(c.child(name))}
        c.tasks.append(name)
        return arg

    def create(self, c, make):
        return {"create": self.new_task(c, make)}

    def spawn(self, c, group, make):
        return {"spawn": {"in": group, **self.new_task(c, make)}}

    def do_create(self, c):
        return [self.create(c, self.body)]

    def do_spawn(self, c):
        if not c.groups:
            return None
        group = c.groups[-1] if self.chance(0.75) else self.rng.choice(c.groups)
        return self.guard([self.spawn(c, group, self.body)], 0.15)

    def new_group(self, c, make):
        id = self.fresh("g")
        return {"group": {"id": id, "body": make(c.within(groups=c.groups + (id,), returns=False), id)}}

    def do_group(self, c):
        def make(inner, id):
            return [s for _ in range(self.rng.randint(0, 3)) for s in self.do_spawn(inner)] + self.body(inner)

        return self.guard([self.new_group(c, make)], 0.5)

    def new_timeout(self, c, make, after="any"):
        id = self.fresh("o")
        if after == "any":
            after = self.rng.choice([self.time(), self.time(), self.time(), self.time(), 0, None])
        return {"timeout": {"id": id, "after": after, "body": make(c.within(timeouts=c.timeouts + (id,)))}}

    def do_timeout(self, c):
        return self.guard([self.new_timeout(c, self.body)], 0.5)

    def do_try(self, c):
        arg = {"body": self.body(c.within())}
        if self.chance(0.7):
            arg["except"] = self.body(c.within(), 2) if self.chance(0.6) else []
        if self.chance(0.6):
            arg["cancelled"] = self.body(c.within(), 2) if self.chance(0.6) else []
        if self.chance(0.3):
            arg["swallow"] = True
        return [{"try": arg}]

    def do_finally(self, c):
        return [{"finally": {"body": self.body(c.within()), "finally": self.body(c.within(), 3)}}]

    def hold(self, c, verb, names, most=3):
        # Rarely one that the task itself holds: it is never had then.
        free = [n for n in names if n not in c.held or self.chance(0.05)]
        if not free:
            return None
        id = self.rng.choice(free)
        return [{verb: {"id": id, "body": self.body(c.within(held=c.held + (id,)), most)}}]

    def do_lock(self, c):
        return self.hold(c, "lock", self.locks)

    def do_semaphore(self, c):
        return self.hold(c, "semaphore", list(self.semaphores))

    def do_condition(self, c):
        free = [k for k in self.conditions if k not in c.held]
        if not free:
            return None
        return [self.holding(c, self.rng.choice(free), lambda inner: self.body(inner, 3))]

    def holding(self, c, id, make):
        return {"condition": {"id": id, "body": make(c.within(held=c.held + (id,), monitors=c.monitors + (id,)))}}

    def do_guarded(self, c):
        return self.guard(self.body(c.within(), 2), 1)

    # Scenes: shapes in which something is bound to happen.

    def operation(self, c):
        """Something that waits."""
        kinds = ["wait_event", "put", "get", "join", "barrier", "lock", "semaphore", "await", "gather", "wait", "wait_for", "as_completed",
                 "shield", "sleep"]  # fmt: skip
        weights = [self.leaf.get(k) or self.block[k] for k in kinds]
        for _ in range(5):
            out = getattr(self, "do_" + self.rng.choices(kinds, weights)[0])(c)
            if out is not None:
                return out
        return [{"await": self.rng.choice(self.futures)}]

    def victim(self, c):
        """A task that waits, and says what became of it."""
        out = self.operation(c) + [self.log()]
        kind = self.rng.random()
        if kind < 0.3:
            return [{"finally": {"body": out, "finally": self.body(c, 2)}}]
        if kind < 0.6:
            arg = {"body": out, "cancelled": self.body(c, 2) if self.chance(0.5) else []}
            if self.chance(0.4):
                arg["swallow"] = True
            return [{"try": arg}, self.log()]
        return out

    def crowd(self, c, make=None):
        """Tasks, one after the other, so that they wait in order."""
        out = []
        for _ in range(self.rng.randint(1, 4)):
            out.append(self.create(c, make or self.victim))
            if self.chance(0.5):
                out.append({"sleep": self.rng.choice([0, self.time()])})
        return out

    def do_victims(self, c):
        """Tasks that wait, and one that does several things to them in one step."""
        out = self.crowd(c)
        for _ in range(self.rng.randint(1, 3)):
            out += [{"sleep": self.rng.choice([0, self.time()])}] + self.do_burst(c)
        return out

    def do_chain(self, c):
        """Tasks that wait for each other, cancelled somewhere."""
        out = [self.create(c, self.victim)]
        for _ in range(self.rng.randint(1, 4)):
            below = c.tasks[-1]

            def link(inner):
                wait = self.rng.choice([
                    [{"await": below}], [{"await": below}], [{"shield": below}], [{"wait_for": {"of": below, "timeout": self.time()}}],
                    [{"gather": {"of": [below, self.awaitable(inner)], "return_exceptions": self.chance(0.5)}}],
                    [{"wait": {"of": [below], "when": "ALL_COMPLETED"}}],
                ])  # fmt: skip
                if self.chance(0.5):
                    arg = {"body": wait, "cancelled": self.body(inner, 1) if self.chance(0.5) else []}
                    if self.chance(0.5):
                        arg["swallow"] = True
                    if self.chance(0.3):
                        arg["except"] = []
                    wait = [{"try": arg}]
                return wait + self.body(inner, 2)

            out.append(self.create(c, link))
        for _ in range(self.rng.randint(1, 2)):
            out += [{"sleep": self.rng.choice([0, 0, self.time()])}] + [{"cancel": self.task(c)}] * self.rng.choice([1, 1, 2])
        return out

    def ending(self, c):
        """A task that ends before long, one way or the other."""
        body = [{"sleep": self.rng.choice([0, self.time(), self.time(), self.time()])}]
        body += self.rng.choice([[{"return": self.value()}], [{"raise": self.fresh("R")}], [self.log()], self.body(c, 1)])
        if self.chance(0.25):
            arg = {"body": body, "cancelled": [{"sleep": self.time()}] + self.rng.choice([[], [{"raise": self.fresh("R")}]])}
            if self.chance(0.3):
                arg["swallow"] = True
            body = [{"try": arg}]
        return body

    def do_gathering(self, c):
        """Tasks that end one way or the other, and several that wait for some of them."""
        out, children = [], []
        for _ in range(self.rng.randint(2, 4)):
            out.append(self.create(c, self.ending))
            children.append(c.tasks[-1])
        if self.chance(0.5):
            children.append(self.rng.choice(self.futures))

        def some():
            return self.rng.sample(children, self.rng.randint(1, len(children)))

        def wait(_):
            late = {"timeout": self.time()} if self.chance(0.4) else {}
            when = self.rng.choice(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
            return self.rng.choice([
                self.guard([{"gather": {"of": some(), "return_exceptions": self.chance(0.4)}}], 0.5),
                self.guard([{"wait": {"of": some(), "when": when, **late}}], 0.3),
                self.guard([{"as_completed": {"of": some(), **late}}], 0.5),
                self.guard([{"wait_for": {"of": self.rng.choice(children), "timeout": self.time()}}], 0.5),
            ]) + [self.log()]  # fmt: skip

        for _ in range(self.rng.randint(0, 2)):
            out.append(self.create(c, wait))
        out += self.rng.choice([[], [{"sleep": 0}] + self.do_burst(c), [{"sleep": self.time()}] + self.do_burst(c)])
        return out + wait(c)

    def do_grouping(self, c):
        """Groups in each other whose children fail, and are cancelled from outside."""

        def level(left):
            def make(inner, id):
                out = []
                for _ in range(self.rng.randint(1, 3)):
                    out.append(self.spawn(inner, id, self.rng.choice([self.ending, self.ending, self.victim])))
                if left:
                    out += self.guard([self.new_group(inner, level(left - 1))], 0.3)
                return out + self.rng.choice([[], [{"sleep": self.time()}], [{"sleep": self.time()}, {"raise": self.fresh("R")}], self.body(inner, 2)])

            return make

        group = self.guard([self.new_group(c, level(self.rng.randint(0, 2)))], 0.6)
        if self.chance(0.4):
            return group
        if self.chance(0.5):
            return self.guard([self.new_timeout(c, lambda _: group, self.time())], 0.5) + [self.log()]
        out = [self.create(c, lambda inner: group + [{"cancelling": inner.task}, {"sleep": 0}, self.log()])]
        for _ in range(self.rng.randint(1, 2)):
            out += [{"sleep": self.rng.choice([0, self.time()])}, {"cancel": c.tasks[-1]}]
        return out

    def do_colliding(self, c):
        """Tasks that fail in one turn, or when they are cancelled, in a group or seen by `gather`."""
        event = self.rng.choice(self.events)

        def failing(inner):
            fail = [{"raise": self.fresh("R")}]
            return self.rng.choice([
                [{"wait_event": event}] + fail, [{"wait_event": event}, {"sleep": 0}] + fail, [{"sleep": 0}] * self.rng.randint(0, 2) + fail,
                [{"try": {"body": [{"wait_event": event}, {"sleep": self.time()}], "cancelled": fail}}],
                [{"try": {"body": [{"sleep": self.time()}], "cancelled": [{"sleep": self.time()}] + fail}}],
                [{"finally": {"body": [{"sleep": self.time()}], "finally": fail}}], self.ending(inner),
            ])  # fmt: skip

        number = self.rng.randint(2, 4)
        act = [{"sleep": self.rng.choice([0, self.time()])}, {"set": event}]
        if self.chance(0.5):

            def make(inner, id):
                out = [self.spawn(inner, id, failing) for _ in range(number)]
                return out + act + self.rng.choice([[], [{"sleep": 0}], [{"raise": self.fresh("R")}], self.body(inner, 1)])

            return self.guard([self.new_group(c, make)], 0.9) + [{"clear": event}, {"cancelling": c.task}]
        out = [self.create(c, failing) for _ in range(number)]
        of = c.tasks[-number:]
        gather = self.guard([{"gather": {"of": of, "return_exceptions": self.chance(0.3)}}], 0.9)
        if self.chance(0.3):
            gather = self.guard([{"as_completed": {"of": of}}], 0.9) + gather
        return out + act + gather + [{"state": self.rng.choice(of)}]

    def do_monitor(self, c):
        """Tasks that wait for a condition, and one that notifies and cancels."""
        free = [k for k in self.conditions if k not in c.held]
        if not free:
            return None
        id = self.rng.choice(free)

        def waiter(inner):
            def hold(m):
                wait = [{"condition_wait": id}]
                if self.chance(0.4):
                    arg = {"body": wait, "cancelled": self.body(m, 1) if self.chance(0.4) else []}
                    if self.chance(0.4):
                        arg["swallow"] = True
                    wait = [{"try": arg}]
                return wait + self.rng.choice([[], [self.log()], [{"sleep": self.time()}], [{"sleep": 0}]])

            out = [self.holding(inner, id, hold), self.log()]
            return [self.new_timeout(inner, lambda _: out, self.time())] if self.chance(0.3) else out

        out = []
        for _ in range(self.rng.randint(1, 4)):
            out.append(self.create(c, waiter))
            if self.chance(0.5):
                out.append({"sleep": self.rng.choice([0, self.time()])})
        waiting = c.tasks[-3:]
        for _ in range(self.rng.randint(1, 3)):

            def act(m):
                some = []
                for _ in range(self.rng.randint(1, 3)):
                    some += self.rng.choice([
                        [{"notify": {"id": id, "n": self.rng.choice([1, 1, 2, None])}}], [{"notify": {"id": id, "n": 1}}],
                        [{"cancel": self.rng.choice(waiting)}], [{"sleep": self.rng.choice([0, self.time()])}],
                    ])  # fmt: skip
                return some

            out += [{"sleep": self.rng.choice([0, self.time()])}, self.holding(c, id, act)]
            if self.chance(0.4):
                out += [{"cancel": self.rng.choice(waiting)}]
        return out

    def do_meeting(self, c):
        """Tasks that meet at a barrier, some of which are cancelled, and abort."""
        name = self.rng.choice(list(self.barriers))

        def member(inner):
            out = []
            for _ in range(self.rng.choice([1, 1, 2])):
                out += self.rng.choice([[], [{"sleep": self.time()}], [{"sleep": 0}]])
                out += self.guard([{"barrier": name}], 0.5) + self.rng.choice([[], [{"sleep": 0}], [self.log()]])
            return [self.new_timeout(inner, lambda _: out, self.time())] if self.chance(0.3) else out

        out = []
        for _ in range(self.barriers[name] + self.rng.choice([-1, 0, 1, 1, 2])):
            out.append(self.create(c, member))
        for _ in range(self.rng.randint(0, 2)):
            act = self.rng.choice([[{"cancel": self.task(c) or "main"}], [{"barrier_abort": name}], self.do_burst(c)])
            out += [{"sleep": self.rng.choice([0, 0, self.time()])}] + act
        return out + self.guard([{"barrier": name}], 0.8)

    def do_workers(self, c):
        """Those who put and those who get, with tasks that are counted, and one who waits for the end."""
        queue = self.queue()

        def producer(inner):
            out = []
            for _ in range(self.rng.randint(1, 4)):
                out += self.rng.choice([[], [], [{"sleep": self.time()}]])
                kind = "put" if self.chance(0.7) else "put_nowait"
                out += self.guard([{kind: {"queue": queue, "value": self.value()}}], 0.3 if kind == "put" else 0.8)
            return out

        def consumer(inner):
            out = []
            for _ in range(self.rng.randint(1, 4)):
                kind = "get" if self.chance(0.8) else "get_nowait"
                out += self.guard([{kind: queue}], 0.3 if kind == "get" else 0.8)
                out += self.rng.choice([[], [{"sleep": self.time()}], [{"sleep": 0}]])
                if self.chance(0.8):
                    out += self.guard([{"task_done": queue}], 0.3)
            return [self.new_timeout(inner, lambda _: out, self.time())] if self.chance(0.3) else out

        workers = self.rng.choice([[producer, consumer, consumer], [producer, producer, consumer]])
        out = []
        for _ in range(self.rng.randint(2, 5)):
            out.append(self.create(c, self.rng.choice(workers)))
        if self.chance(0.5):
            out.append(self.create(c, lambda _: [{"join": queue}, self.log()]))
        for _ in range(self.rng.randint(0, 3)):
            act = self.rng.choice([
                [{"cancel": self.task(c)}], [{"shutdown": {"queue": queue, "immediate": self.chance(0.5)}}], self.do_burst(c),
                self.guard([{"put_nowait": {"queue": queue, "value": self.value()}}], 1) + [{"cancel": self.task(c)}],
                self.guard([{"get_nowait": queue}], 1) + [{"cancel": self.task(c)}],
            ])  # fmt: skip
            out += [{"sleep": self.rng.choice([0, 0, self.time()])}] + act
        return out + ([{"join": queue}] if self.chance(0.3) else [])

    def do_contention(self, c):
        """Many who want one lock or semaphore, some of whom are cancelled when it is their turn."""
        verb = self.rng.choice(["lock", "semaphore"])
        id = self.rng.choice(self.locks if verb == "lock" else list(self.semaphores))
        if id in c.held:
            return None

        def one(inner):
            hold = self.rng.choice([[{"sleep": self.time()}], [{"sleep": 0}], [{"sleep": 0}] * 2, [], [{"raise": self.fresh("R")}]])
            out = [{verb: {"id": id, "body": hold}}]
            if self.chance(0.3):
                out *= 2
            return [self.new_timeout(inner, lambda _: out, self.time())] if self.chance(0.2) else out

        out = [self.create(c, one) for _ in range(self.rng.randint(2, 5))]
        names = c.tasks[-len(out) :]
        for _ in range(self.rng.randint(1, 3)):
            out.append({"sleep": self.rng.choice([0, 0, self.time()])})
            out += self.rng.choice([[{"cancel": self.rng.choice(names)}], self.do_burst(c), [{"cancel": n} for n in self.rng.sample(names, 2)]])
        return out + one(c)

    def do_interrupted(self, c):
        """A wait that is over and cancelled in one step, in either order."""
        kind = self.rng.choice(["future", "event", "queue", "task", "room", "room"])
        future, event, queue = self.rng.choice(self.futures), self.rng.choice(self.events), self.queue()
        wait, end = {
            "future": ({"await": future}, {"set_result": {"future": future, "value": self.value()}}),
            "event": ({"wait_event": event}, {"set": event}),
            "queue": ({"get": queue}, {"put_nowait": {"queue": queue, "value": self.value()}}),
            "room": ({"put": {"queue": queue, "value": self.value()}}, {"get_nowait": queue}),
            "task": ({"await": c.tasks[-1]}, {"cancel": c.tasks[-1]}),
        }[kind]
        out, names = [], []
        if kind == "room":
            # Full, if it can be.
            for _ in range(self.queues[queue]):
                out += self.guard([{"put_nowait": {"queue": queue, "value": self.value()}}], 1)
        for _ in range(self.rng.randint(1, 3)):
            body = self.rng.choice([[wait], [{"shield": wait["await"]}] if "await" in wait else [wait]])
            out.append(self.create(c, lambda inner: self.guard(body, 0.5) + self.body(inner, 1)))
            names.append(c.tasks[-1])
        acts = self.guard([end], 1) + [{"cancel": self.rng.choice(names)}]
        self.rng.shuffle(acts)
        return out + [{"sleep": 0}] * self.rng.choice([1, 1, 2]) + acts + [{"sleep": 0}] + self.body(c, 1)

    def do_expiring(self, c):
        """Timeouts in each other, that are moved and swallowed."""
        after = self.time()

        def rung(left):
            def make(inner):
                if left == 0:
                    return self.rng.choice([
                        [{"sleep": after}, self.log()], self.operation(inner), self.body(inner, 2),
                        [{"reschedule": {"id": self.rng.choice(inner.timeouts), "after": self.rng.choice([0, -1, self.time()])}}, {"sleep": 0}, {"sleep": 0}],
                        [{"try": {"body": [{"sleep": 2 * after}], "cancelled": self.body(inner, 1), "swallow": self.chance(0.5)}}],
                        [{"finally": {"body": [{"sleep": 2 * after}], "finally": [{"sleep": self.time()}]}}],
                    ])  # fmt: skip
                out = self.guard([self.new_timeout(inner, rung(left - 1), self.rng.choice([after, None, 0, self.time(), self.time()]))], 0.5)
                return out + ([self.log()] if self.chance(0.5) else self.body(inner, 1))

            return make

        out = self.guard([self.new_timeout(c, rung(self.rng.randint(0, 2)), after)], 0.6)
        return out + [{"uncancel_self": None}] if self.chance(0.2) else out

    def do_cleanup(self, c):
        """Clean-up that waits, while it is cancelled again."""

        def make(inner):
            clean = [{"sleep": self.time()}] + self.body(inner, 2)
            body = self.operation(inner) if self.chance(0.6) else self.body(inner)
            if self.chance(0.5):
                return [{"finally": {"body": body, "finally": clean}}]
            return [{"try": {"body": body, "except": clean, "cancelled": clean, "swallow": self.chance(0.3)}}]

        out = [self.create(c, make)]
        name = c.tasks[-1]
        for _ in range(self.rng.randint(1, 3)):
            out += [{"sleep": self.rng.choice([0, self.time()])}, {"cancel": name}]
        return out + [{self.rng.choice(["await", "state", "cancelling"]): name}] if self.chance(0.5) else out
