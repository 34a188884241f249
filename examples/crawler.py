"""A crawler: workers that take pages from a queue, read them from a server of its own, and put the links they find back.

The same program in Rust is crawler.rs; both print the same. The book goes through them side by side.
"""

import asyncio

# The site: each page has links to others. /slow takes too long, /gone is not there.
SITE = {
    "/": ["/a", "/b", "/slow"],
    "/a": ["/b", "/c"],
    "/b": ["/", "/gone"],
    "/c": ["/a"],
    "/slow": ["/c"],
}
WORKERS = 3
TIMEOUT = 0.5


async def serve(reader, writer):
    path = (await reader.readline()).decode().strip()
    if path == "/slow":
        await asyncio.sleep(3600)
    links = SITE.get(path)
    answer = "404" if links is None else "200 " + " ".join(links)
    writer.write(f"{answer}\n".encode())
    await writer.drain()
    writer.close()


async def fetch(address, path):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"{path}\n".encode())
        status, *links = (await reader.readline()).decode().split()
        return status, links
    finally:
        writer.close()


async def worker(address, queue, seen, results):
    while True:
        path = await queue.get()
        try:
            status, links = await asyncio.wait_for(fetch(address, path), TIMEOUT)
        except TimeoutError:
            status, links = "timed out", []
        results[path] = status
        for link in links:
            if link not in seen:
                seen.add(link)
                queue.put_nowait(link)
        queue.task_done()


async def crawl(address, start):
    queue, seen, results = asyncio.Queue(), {start}, {}
    queue.put_nowait(start)
    workers = [asyncio.create_task(worker(address, queue, seen, results)) for _ in range(WORKERS)]
    await queue.join()
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return results


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    results = await crawl(address, "/")
    server.close()
    for path in sorted(results):
        print(f"{path}: {results[path]}")


asyncio.run(main())
