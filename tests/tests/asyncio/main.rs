//! asyncio, behaviour by behaviour: `tests/ASYNCIO.md` maps its rules to these. One binary: to link each file takes longer than to compile it.

mod asyncio_core_waits;
mod asyncio_deep;
mod asyncio_eager;
mod asyncio_gather;
mod asyncio_groups;
mod asyncio_hostile;
mod asyncio_locks;
mod asyncio_moved;
mod asyncio_queue;
mod asyncio_support;
mod asyncio_tasks;
mod asyncio_threads;
mod asyncio_timeouts;
mod asyncio_waits;
mod asyncio_wakers;
