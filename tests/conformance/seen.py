"""What happens in a program while it runs on Trio: from this `generate.py` says what the programs that it keeps are good for."""

import sys

import trio
from trio._core import _run as trio_run

import trio_oracle
from programs import BLOCK, LEAF, SCENES, TOP

LABELS = {"TooSlow", "Closed", "Broken", "EndOfChannel", "WouldBlock", "Misuse"}

# All of these have to be in what is kept: the statements that are drawn, and what they are for.
EXPECTED = sorted({*LEAF, *BLOCK, "started"} - SCENES) + [
    "time advances",
    "a task waits: sleep",
    "a task waits: Event",
    "a task waits: send",
    "a task waits: receive",
    "a task waits: Lock",
    "a task waits: Semaphore",
    "a task waits: CapacityLimiter",
    "a task waits: Condition",
    "a deadline expires",
    "a wait is cancelled",
    "a scope catches",
    "a clean-up on cancellation",
    "a shield holds off a cancellation",
    "a start succeeds",
    "a group of errors",
    "nested nurseries",
    "main fails",
    *(f"error {label}" for label in sorted(LABELS)),
]


class Seen:
    """Collects, in `with`, what happens. Slow: for one run of a program."""

    def __enter__(self):
        self.all = set()
        self.patches = []
        for name in dir(trio_oracle.Machine):
            if name.startswith("do_"):
                self.patch(trio_oracle.Machine, name, self.statement(name.removeprefix("do_")))
        self.patch(trio.lowlevel, "wait_task_rescheduled", self.wait)
        self.patch(trio.lowlevel.ParkingLot, "park", self.park)
        self.patch(trio.Event, "wait", self.event)
        self.patch(trio_run.Task, "_attempt_abort", self.abort)
        self.patch(trio_run.Task, "_attempt_delivery_of_any_pending_cancel", self.delivery)
        self.patch(trio_run.CancelStatus, "recalculate", self.recalculate)
        self.patch(trio_run.Deadlines, "expire", self.expire)
        return self

    def __exit__(self, *_):
        for owner, name, old in self.patches:
            setattr(owner, name, old)

    def patch(self, owner, name, make):
        old = getattr(owner, name)
        self.patches.append((owner, name, old))
        setattr(owner, name, make(old))

    def early(self):
        """Whether this is not the end of what is stuck."""
        return trio.current_time() < TOP

    def statement(self, verb):
        def make(old):
            def seen(machine, *args):
                self.all.add(verb)
                if verb == "nursery" and machine.nurseries:
                    self.all.add("nested nurseries")
                return old(machine, *args)

            return seen

        return make

    def wait(self, old):
        def seen(abort):
            name = sys._getframe(1).f_code.co_name
            if name in ("send", "receive", "sleep_forever"):
                self.all.add(f"a task waits: {name.removesuffix('_forever')}")
            return old(abort)

        return seen

    def park(self, old):
        def seen(lot):
            self.all.add(f"a task waits: {type(sys._getframe(1).f_locals['self']).__name__}")
            return old(lot)

        return seen

    def event(self, old):
        def seen(event):
            if not event.is_set():
                self.all.add("a task waits: Event")
            return old(event)

        return seen

    def abort(self, old):
        def seen(task, raise_cancel):
            if self.early():
                self.all.add("a wait is cancelled")
            return old(task, raise_cancel)

        return seen

    def delivery(self, old):
        def seen(task):
            status = task._cancel_status
            while status is not None and not status.effectively_cancelled:
                self.shield(status)
                status = status._parent
            return old(task)

        return seen

    def recalculate(self, old):
        def seen(status):
            old(status)
            below = [status]
            while below:
                status = below.pop()
                self.shield(status)
                below.extend(status._children)

        return seen

    def shield(self, status):
        above = status._parent
        if status._scope.shield and not status.effectively_cancelled and above is not None and above.effectively_cancelled:
            self.all.add("a shield holds off a cancellation")

    def expire(self, old):
        def seen(deadlines, now):
            any = old(deadlines, now)
            if any and now < TOP:
                self.all.add("a deadline expires")
            return any

        return seen

    def result(self, result):
        """All that happened, also by what the program says."""
        lines = [line for task in result["trace"].values() for line in task]
        says = {
            "time advances": any(0 < at < TOP for at, _ in lines),
            "a scope catches": any(at < TOP and text.endswith(" caught=true") for at, text in lines),
            "a clean-up on cancellation": any(at < TOP and text == "cancelled" for at, text in lines),
            "a start succeeds": any(text.startswith("started ") for _, text in lines),
            "main fails": result["outcome"] != ["ok"],
        }
        errors = [text.removeprefix("caught ").split(",") for _, text in lines if text.startswith("caught ")] + [result["outcome"]]
        says["a group of errors"] = any(len(labels) > 1 for labels in errors)
        for label in LABELS:
            says[f"error {label}"] = any(label in labels for labels in errors)
        return self.all | {what for what, so in says.items() if so}
