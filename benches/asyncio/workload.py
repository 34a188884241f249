"""One workload of asyncio or uvloop, once: prints the nanoseconds of CPU time that one operation took.

    python3.13 workload.py asyncio|uvloop gather-ready|gather-yield|create-await|echo
"""

import asyncio
import sys
import time

N = 100_000
CLIENTS, TRIPS, SIZE = 64, 300, 64


async def ready():
    return 1


async def yields():
    await asyncio.sleep(0)
    return 1


async def gather(of):
    assert sum(await asyncio.gather(*[of() for _ in range(N)])) == N


async def create_await():
    for _ in range(N):
        await asyncio.create_task(ready())


async def serve(reader, writer):
    try:
        while True:
            writer.write(await reader.readexactly(SIZE))
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def client(address):
    reader, writer = await asyncio.open_connection(*address)
    message = b"x" * SIZE
    for _ in range(TRIPS):
        writer.write(message)
        await writer.drain()
        await reader.readexactly(SIZE)
    writer.close()
    await writer.wait_closed()


async def echo():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await asyncio.gather(*[client(address) for _ in range(CLIENTS)])
    server.close()


WORKLOADS = {
    "gather-ready": (lambda: gather(ready), N),
    "gather-yield": (lambda: gather(yields), N),
    "create-await": (create_await, N),
    "echo": (echo, CLIENTS * TRIPS),
}


async def measured(workload):
    begin = time.process_time_ns()
    await workload()
    return time.process_time_ns() - begin


def main():
    _, loop, name = sys.argv
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    workload, operations = WORKLOADS[name]
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(measured(workload))  # To warm up.
        print(runner.run(measured(workload)) / operations)


main()
