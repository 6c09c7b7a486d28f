#!/usr/bin/env python3
"""What serving costs, and how it behaves under load: the figures of `tools/dev accept 5`.

    load.py overhead PLAN WEIGHTS     decode at one sequence over HTTP beside `qwenrt bench`, in pairs
    load.py cpu PLAN WEIGHTS          processor time a token beside `qwenrt bench` on the same plan
    load.py ready PLAN WEIGHTS        start of the process to the first answer
    load.py batch PLAN WEIGHTS        16 streams beside one
    load.py turn PLAN WEIGHTS         first token of a chat's second turn, with the prefix cache and without
    load.py crowd PLAN WEIGHTS [S]    1,000 streams open for S seconds (600): rate, errors, memory

Prints lines that begin with "figure:"; exits 1 when a goal is missed. Needs nothing but Python.
"""
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time

from serving import BIN, Server

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process):
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(process):
    return int(open(f"/proc/{process.pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def head(body):
    data = json.dumps(body).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(data) + data)


def stream(server, body):
    """Times of the events of one streamed answer."""
    times, rest = [], b""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head({**body, "stream": True}))
        while b"data: [DONE]" not in rest:
            piece = connection.recv(1 << 16)
            assert piece, rest
            rest = rest[-16:] + piece
            times.extend([time.monotonic()] * piece.count(b"data: {"))
    assert b'{"error"' not in rest
    return times


def bench(plan, weights, *flags):
    out = subprocess.run([BIN / "qwenrt", "bench", plan, "--weights", weights, "--json", "--progress", "none", *flags],
                         check=True, capture_output=True)
    return json.loads(out.stdout)


def overhead(plan, weights):
    server = Server(plan, "--no-enable-prefix-caching", weights=weights)
    shares, steps = [], 48
    for _ in range(5):
        row = bench(plan, weights, "--prefill", "8", "--repeat", "1", "--decode", "1", "--context", "16", "--steps",
                    str(steps), "--ceiling-bytes", "64MiB")["rows"][-1]
        alone = 1 / row["tokens_per_s"]
        times = stream(server, {"prompt": list(range(1000, 1015)), "max_tokens": steps, "temperature": 0,
                                "ignore_eos": True})
        served = statistics.median(b - a for a, b in zip(times[1:], times[2:]))
        shares.append(served / alone - 1)
        print(f"figure: a token alone {1e3 * alone:.2f} ms, served {1e3 * served:.2f} ms: {100 * shares[-1]:+.1f} %")
    server.stop()
    share = statistics.median(shares)
    print(f"figure: overhead of serving at one sequence, median of 5 pairs: {100 * share:+.1f} % (2 asked)")
    return share <= 0.02


def cpu(plan, weights):
    """The engine's work is the model's; what the server adds is the difference, with one thread so that none spins."""
    tokens, results = 3000, []
    server = Server(plan, "--threads", "1", "--no-enable-prefix-caching", weights=weights)
    stream(server, {"prompt": "warm", "max_tokens": 50, "ignore_eos": True, "temperature": 0})
    for _ in range(3):
        row = bench(plan, weights, "--threads", "1", "--prefill", "8", "--repeat", "1", "--decode", "1", "--context", "1",
                    "--steps", str(tokens), "--ceiling-bytes", "64MiB")["rows"][-1]
        before, begin = cpu_seconds(server.process), time.monotonic()
        stream(server, {"prompt": "a", "max_tokens": tokens, "ignore_eos": True, "temperature": 0})
        used, wall = cpu_seconds(server.process) - before, time.monotonic() - begin
        model = 1 / row["tokens_per_s"]
        results.append(used / tokens - model)
        print(f"figure: {1e6 * used / tokens:.0f} us of processor time a token served ({1e6 * wall / tokens:.0f} us of "
              f"time), {1e6 * model:.0f} us in bench: {1e6 * results[-1]:.0f} us are the server's")
    server.stop()
    cost = statistics.median(results)
    print(f"figure: the server's own processor time a token, median of 3: {1e6 * cost:.0f} us (60 asked)")
    return cost <= 60e-6


def ready(plan, weights):
    times = []
    for _ in range(5):
        begin = time.monotonic()
        server = Server(plan, weights=weights)
        assert server.request("GET", "/readyz")[0] == 200
        times.append(time.monotonic() - begin)
        server.stop()
    print(f"figure: start of the process to ready, median of 5: {1e3 * statistics.median(times):.0f} ms (500 asked)")
    return statistics.median(times) < 0.5


def many(server, bodies, seconds=None, concurrent=None, on_tick=None):
    """Streams all `bodies` with `concurrent` open at once; (tokens, answers, errors, seconds). With `seconds` the list
    starts over until then."""
    concurrent = concurrent or len(bodies)
    selector, begin = selectors.DefaultSelector(), time.monotonic()
    tokens = answers = errors = started = open_ = 0
    tick = begin

    def more():
        return started < len(bodies) if seconds is None else time.monotonic() - begin < seconds

    def start():
        nonlocal started, open_
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", server.port))
        selector.register(connection, selectors.EVENT_WRITE, {"out": head({**bodies[started % len(bodies)], "stream": True}),
                                                             "end": b""})
        started += 1
        open_ += 1

    while open_ or more():
        while open_ < concurrent and more():
            start()
        for key, events in selector.select(1):
            connection, state = key.fileobj, key.data
            try:
                if state["out"]:
                    sent = connection.send(state["out"])
                    state["out"] = state["out"][sent:]
                    if not state["out"]:
                        selector.modify(connection, selectors.EVENT_READ, state)
                    continue
                piece = connection.recv(1 << 16)
            except OSError:
                piece = b""
            tokens += piece.count(b'"text":"')
            state["end"] = state["end"][-200:] + piece
            if b"data: [DONE]" in state["end"]:
                answers += 1
                errors += b'{"error"' in state["end"]
            elif piece:
                continue
            else:
                errors += 1
            selector.unregister(connection)
            connection.close()
            open_ -= 1
        if on_tick and time.monotonic() - tick > 5:
            tick = time.monotonic()
            on_tick(tick - begin, answers, open_)
    return tokens, answers, errors, time.monotonic() - begin


def batch(plan, weights):
    server = Server(plan, weights=weights)
    body = {"prompt": "The first thing to know", "max_tokens": 400, "ignore_eos": True, "temperature": 0.8}
    many(server, [body])
    ratios = []
    for _ in range(3):
        one_tokens, _, _, one_seconds = many(server, [{**body, "seed": 1}])
        before = server.metrics()
        all_tokens, _, errors, all_seconds = many(server, [{**body, "seed": i} for i in range(16)])
        after = server.metrics()
        rows = {name: after[name] - before[name] for name in ("qwenrt_decode_rows_total", "qwenrt_decode_steps_total")}
        mean = rows["qwenrt_decode_rows_total"] / rows["qwenrt_decode_steps_total"]
        ratios.append((400 * 16 / all_seconds) / (400 / one_seconds))
        print(f"figure: one stream {400 / one_seconds:.0f} tokens/s, 16 streams {400 * 16 / all_seconds:.0f} tokens/s: "
              f"{ratios[-1]:.1f} times; {mean:.1f} rows a decode step")
        assert not errors
    server.stop()
    print(f"figure: 16 streams beside one, median of 3: {statistics.median(ratios):.1f} times (4 asked)")
    return statistics.median(ratios) >= 4 and mean >= 12


def turn(plan, weights):
    medians = {}
    for flag in ("--enable-prefix-caching", "--no-enable-prefix-caching"):
        server = Server(plan, flag, weights=weights)
        times = []
        for chat in range(5):
            first = [1000 + (chat * 7919 + i * 31) % 6000 for i in range(2000)]
            stream(server, {"prompt": first, "max_tokens": 2, "temperature": 0, "ignore_eos": True})
            begin = time.monotonic()
            second = stream(server, {"prompt": first + list(range(500, 530)), "max_tokens": 2, "temperature": 0,
                                     "ignore_eos": True})
            times.append(second[0] - begin)
        medians[flag] = statistics.median(times)
        server.stop()
    with_cache, without = medians.values()
    print(f"figure: first token of a second turn behind 2,000 tokens: {1e3 * with_cache:.1f} ms with the cache, "
          f"{1e3 * without:.0f} ms without: {without / with_cache:.0f} times (10 asked)")
    return without >= 10 * with_cache


def crowd(plan, weights, seconds=600.0):
    server = Server(plan, "--max-queue", "2000", "--max-connections", "2000", "--log-level", "warning",
                    "--sse-ping-interval", "1s", weights=weights)
    bodies = [{"prompt": f"request {i}", "max_tokens": 8, "ignore_eos": True, "temperature": 0.7, "seed": i}
              for i in range(5000)]
    many(server, bodies[:1000], concurrent=1000)  # warm: every connection's buffers were there once
    sizes, most = [], []

    def look(elapsed, answers, open_):
        sizes.append(resident_bytes(server.process))
        most.append(open_)
        print(f"{elapsed:.0f} s: {answers} answers, {open_} open, {sizes[-1] / 1e6:.1f} MB", flush=True)

    descriptors = server.open_descriptors()
    tokens, answers, errors, took = many(server, bodies, seconds=seconds, concurrent=1000, on_tick=look)
    third = max(1, len(sizes) // 3)
    early, late = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
    figures = server.idle()
    rows = figures["qwenrt_decode_rows_total"] / figures["qwenrt_decode_steps_total"]
    print(f"figure: 1,000 streams open for {took:.0f} s: {answers / took:.0f} new requests a second of 8 tokens (200 "
          f"asked), {errors} errors, {rows:.1f} rows a decode step")
    print(f"figure: resident memory {early / 1e6:.1f} MB in the first third, {late / 1e6:.1f} MB in the last; "
          f"descriptors {descriptors} before, {server.open_descriptors()} after")
    good = errors == 0 and answers / took >= 200 and late <= early * 1.02 + 4e6
    return server.stop() == 0 and good


if __name__ == "__main__":
    goals = {f.__name__: f for f in (overhead, cpu, ready, batch, turn, crowd)}
    if len(sys.argv) < 4 or sys.argv[1] not in goals:
        sys.exit(__doc__)
    sys.exit(0 if goals[sys.argv[1]](*sys.argv[2:4], *map(float, sys.argv[4:])) else 1)
