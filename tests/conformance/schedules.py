"""Other schedules of a program on Trio than Trio's own, and an eye on what is bound to differ."""

import contextlib
import random
import sys
from collections import deque

import trio

import trio_oracle
from trio._core import _run as trio_run

EPSILON = 1e-6


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
    - N14: a cancellation comes out of a task while its nursery is not cancelled: a shield came up after the abort (R20). Here it goes on to
      the scope that was cancelled; in Trio it cancels the nursery, which then takes it for its own.
    - R37: a wait for a condition that begins in a cancelled scope does not give up the lock here; Trio lets those who wait for it in.

    And what Trio cannot bear: a shield that is raised while `checkpoint_if_cancelled` yields ("this should never happen").
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

        if_cancelled = trio.lowlevel.checkpoint_if_cancelled

        async def observed_if_cancelled():
            try:
                await if_cancelled()
            except AssertionError:
                self.any = "an assertion of Trio's fails"
                raise

        add = trio_run.Nursery._add_exc

        def observed_add(nursery, exc, reason):
            cancelled = trio_oracle.split_cancelled(exc)[1]
            if cancelled is not None and not nursery.cancel_scope._cancel_status.effectively_cancelled:
                self.any = "N14"
            add(nursery, exc, reason)

        trio_run.Nursery._add_exc = observed_add
        trio.lowlevel.ParkingLot.park, trio.lowlevel.ParkingLot.repark = observed_park, observed_repark
        trio.Condition.wait = observed_wait
        trio.lowlevel.checkpoint_if_cancelled = observed_if_cancelled
        trio.MemoryReceiveChannel.receive = observed_receive

    def ask(self):
        """What has been seen since this was last asked."""
        was, self.any = self.any, None
        return was


KINDS = ["passes", "passes, N11", "passes, late deadlines", "passes, N11, late deadlines"]


def adversarial(program, seed):
    """One run under an adversary, of the kind `KINDS[seed % 4]`. What it draws depends on the seed alone."""
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
