"""How a server does under load: people who follow a run, requests of every kind, one run that trains, a large upload.

    python3 benchmarks/service/load.py target/release/finetuner [--streams 500] [--rate 200] [--seconds 30] [--upload 2]

Starts the server itself, in a temporary folder. Needs nothing but Python.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import pathlib
import re
import selectors
import signal
import socket
import statistics
import subprocess
import tempfile
import time

EVENT = re.compile(rb"id: (\d+)\nevent: ")
SPEC = {"model": "mini", "kind": "labelled", "epochs": 100000, "batch_size": 16, "threads": 1, "val_split": 0.2, "canary": False}


class Server:
    """A server in a folder; `token` is that of its first start."""

    def __init__(self, binary, folder, token=None):
        environment = {"HOME": folder, "PATH": os.environ["PATH"], "FINETUNER_SERVER_REQUESTS_PER_MINUTE": "0", "RUST_LOG": "warn"}
        environment |= {name: value for name, value in os.environ.items() if name.startswith(("FINETUNER_SERVER_", "AWS_"))}
        began = time.perf_counter()
        arguments = [binary, "serve", "--data", f"{folder}/data", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        self.started = time.perf_counter() - began
        self.host, port = first.split("http://")[1].strip().split(":")
        self.port = int(port)
        self.token = token or self.process.stdout.readline().split(": ")[1].strip()

    def memory(self, peak=False):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) / 1000

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


async def head(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), fields


class Connection:
    def __init__(self, server):
        self.server, self.reader, self.writer = server, None, None

    async def ask(self, method, path, body=b"", **more):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.server.host, self.server.port)
        fields = {"host": "x", "authorization": f"Bearer {self.server.token}", "content-length": len(body)} | more
        text = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(text.encode() + b"\r\n" + body)
        status, fields = await head(self.reader)
        answer = await self.reader.readexactly(int(fields.get("content-length", 0)))
        return status, json.loads(answer) if answer else None


async def submit(server, rows):
    connection = Connection(server)
    data = "text,label\n" + "".join(f"word{row % 7} thing{row},{row % 8}\n" for row in range(rows))
    _, file = await connection.ask("POST", "/v1/files", json.dumps({"name": "train.csv", "bytes": len(data)}).encode())
    await connection.ask("PATCH", f"/v1/files/{file['id']}", data.encode(), **{"upload-offset": 0})
    spec = SPEC | {"train_data": file["id"]}
    _, run = await connection.ask("POST", "/v1/runs", json.dumps({"name": "load", "spec": spec}).encode())
    while (await connection.ask("GET", "/v1/runs/load"))[1]["phase"] != "training":
        await asyncio.sleep(0.1)
    return file["id"], run["id"]


def follow(server, run, after, streams, opened, enough, heard):
    """Follows a run `streams` times until it is enough. A process of its own: who asks should wait for the server, not for this."""
    fields = f"host: x\r\nauthorization: Bearer {server.token}\r\naccept: text/event-stream\r\nlast-event-id: {after}\r\n"
    selector, slowest, began = selectors.DefaultSelector(), 0, time.perf_counter()
    for _ in range(streams):
        asked = time.perf_counter()
        stream = socket.create_connection((server.host, server.port))
        stream.sendall(f"GET /v1/runs/{run}/events HTTP/1.1\r\n{fields}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += stream.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        slowest = max(slowest, time.perf_counter() - asked)
        stream.setblocking(False)
        selector.register(stream, selectors.EVENT_READ, [answer, after])
    opened.send((time.perf_counter() - began, slowest))
    while not enough.is_set():
        for key, _ in selector.select(0.1):
            text = key.data[0] + key.fileobj.recv(1 << 16)
            end = 0
            for event in EVENT.finditer(text):
                number, end = int(event[1]), event.end()
                assert number == key.data[1] + 1, f"event {number} after {key.data[1]}"
                key.data[1] = number
            key.data[0] = text[max(end, len(text) - 64) :]
    counts = [key.data[1] - after for key in selector.get_map().values()]
    heard.send((min(counts), max(counts)))


async def one(server, pool, method, path, body, took, failed):
    connection = pool.pop() if pool else Connection(server)
    began = time.perf_counter()
    status, _ = await connection.ask(method, path, body)
    took.append(time.perf_counter() - began)
    if status >= 400:
        failed.append((method, path, status))
    pool.append(connection)


async def load(server, streams, rate, seconds):
    file, run = await submit(server, 400)
    connection = Connection(server)
    _, page = await connection.ask("GET", f"/v1/runs/{run}/events?limit=100")
    after = page["data"][-1]["sequence"]
    took, failed, pool = [], [], []
    (opened, tell_opened), (heard, tell_heard), enough = multiprocessing.Pipe(False), multiprocessing.Pipe(False), multiprocessing.Event()
    followers = multiprocessing.Process(target=follow, args=(server, run, after, streams, tell_opened, enough, tell_heard))
    followers.start()
    tell_opened.close(), tell_heard.close()  # so that its end is heard, should it fail
    opening, slowest = await asyncio.to_thread(opened.recv)
    print(f"{streams} streams opened one after the other in {opening:.1f} s, the slowest in {1000 * slowest:.1f} ms")
    mix = [
        ("GET", f"/v1/runs/{run}", b""),
        ("GET", "/v1/runs?limit=20", b""),
        ("GET", f"/v1/runs/{run}/events?after={after}&limit=20", b""),
        ("GET", f"/v1/runs/{run}/metrics?limit=50", b""),
        ("GET", f"/v1/files/{file}", b""),
        ("POST", "/v1/files", json.dumps({"name": "x.csv", "bytes": 10}).encode()),
    ]
    requests, began = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0, began + number / rate - time.perf_counter()))
        requests.append(asyncio.create_task(one(server, pool, *mix[number % len(mix)], took, failed)))
    await asyncio.gather(*requests)
    took_all = time.perf_counter() - began
    enough.set()
    fewest, most = await asyncio.to_thread(heard.recv)
    followers.join()
    # The first connection has been silent for too long to be kept.
    await Connection(server).ask("POST", f"/v1/runs/{run}/cancel")
    took.sort()
    at = lambda share: 1000 * took[min(len(took) - 1, int(share * len(took)))]
    print(f"{len(took)} requests, {len(took) / took_all:.0f} a second, {len(failed)} failed {failed[:3]}")
    print(f"answered in: median {at(0.5):.1f} ms, 99 % within {at(0.99):.1f} ms, slowest {at(1):.1f} ms")
    print(f"{streams} streams heard {fewest} to {most} events each, no gap; memory {server.memory():.0f} MB")


async def upload(server, gigabytes):
    size, piece = int(gigabytes * 1e9), b"x" * (1 << 20)
    connection = Connection(server)
    _, file = await connection.ask("POST", "/v1/files", json.dumps({"name": "large.csv", "bytes": size}).encode())
    before, began = server.memory(), time.perf_counter()
    fields = f"host: x\r\nauthorization: Bearer {server.token}\r\nupload-offset: 0\r\ncontent-length: {size}\r\n"
    connection.writer.write(f"PATCH /v1/files/{file['id']} HTTP/1.1\r\n{fields}\r\n".encode())
    for start in range(0, size, len(piece)):
        connection.writer.write(piece[: size - start])
        await connection.writer.drain()
    status, _ = await head(connection.reader)
    took = time.perf_counter() - began
    print(f"{gigabytes} GB uploaded in {took:.0f} s (status {status}), memory {before:.0f} MB before, {server.memory(peak=True):.0f} MB at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--upload", type=float, default=2, help="gigabytes; 0: none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments.binary, folder)
        print(f"start to ready, first start: {1000 * server.started:.0f} ms")
        server.stop()
        times = []
        for _ in range(10):
            server = Server(arguments.binary, folder, server.token)
            times.append(1000 * server.started)
            if len(times) < 10:
                server.stop()
        print(f"start to ready, later: median {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})")
        time.sleep(2)
        print(f"memory at rest: {server.memory():.0f} MB")
        try:
            if arguments.upload:
                asyncio.run(upload(server, arguments.upload))
            asyncio.run(load(server, arguments.streams, arguments.rate, arguments.seconds))
        finally:
            server.stop()


main()
