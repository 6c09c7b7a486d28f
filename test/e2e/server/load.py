#!/usr/bin/env python3
"""What serving costs, and how it behaves under load: the figures of `tools/dev accept 5`.

    load.py overhead PLAN WEIGHTS     decode at one sequence over HTTP beside `qwenrt bench`, in pairs
    load.py cpu PLAN WEIGHTS          processor time a token beside that of the model's steps
    load.py ready PLAN WEIGHTS        start of the process to the first answer
    load.py batch PLAN WEIGHTS        16 streams beside one
    load.py turn PLAN WEIGHTS         first token of a chat's second turn, with the prefix cache and without
    load.py crowd PLAN WEIGHTS [S]    1,000 streams open for S seconds (600): rate, errors, memory

Prints lines that begin with "figure:"; exits 1 when a goal is missed. Needs wrk, which is C and leaves the two cores to
the server: 3 us a token.
"""
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

from serving import BIN, Server


def cpu_seconds(process):
    """On a processor so far, all threads; the kernel's own clock, to the nanosecond."""
    tasks = f"/proc/{process.pid}/task"
    return sum(int(open(f"{tasks}/{task}/schedstat").read().split()[0]) for task in os.listdir(tasks)) / 1e9


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
    """What is not spent inside the engine's steps, with one thread so that none spins there. On one core with its client:
    waking a thread on another core is an interrupt, and on a virtual machine whoever sends it pays for the hypervisor,
    31 us each on a Xeon under Firecracker. The same spread over the cores is printed beside it."""
    tokens, cores = 3000, os.sched_getaffinity(0)
    medians = {}
    for place, mask in (("on one core", {min(cores)}), ("on any core", cores)):
        os.sched_setaffinity(0, mask)
        server, results = Server(plan, "--threads", "1", "--no-enable-prefix-caching", weights=weights), []
        stream(server, {"prompt": "warm", "max_tokens": 50, "ignore_eos": True, "temperature": 0})

        def look():
            return server.idle()["qwenrt_generation_seconds_total"], cpu_seconds(server.process)

        for _ in range(3):
            before_steps, before = look()
            stream(server, {"prompt": "a", "max_tokens": tokens, "ignore_eos": True, "temperature": 0})
            after = cpu_seconds(server.process)
            used, steps = (after - before) / tokens, (look()[0] - before_steps) / tokens
            results.append(used - steps)
            print(f"figure: {place}: {1e6 * used:.0f} us of processor time a token served, {1e6 * steps:.0f} us of them the "
                  f"model's step: {1e6 * results[-1]:.0f} us are the server's")
        server.stop()
        medians[place] = statistics.median(results)
    own, spread = (1e6 * median for median in medians.values())
    print(f"figure: the server's own processor time a token, median of 3: {own:.0f} us (60 asked); {spread:.0f} us with the "
          "wake-ups of other cores")
    return own <= 60


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


class Load:
    """wrk with `connections` streams open at any time for `seconds`."""

    def __init__(self, server, connections, tokens, seconds):
        script = pathlib.Path(__file__).with_name("load.lua")
        self.process = subprocess.Popen(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", script, server.url],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "LOAD_TOKENS": str(tokens)})

    def over(self):
        return self.process.poll() is not None

    def report(self):
        out, _ = self.process.communicate()
        assert self.process.returncode == 0, out
        return json.loads(out.splitlines()[-1])


def batch(plan, weights):
    server = Server(plan, weights=weights)
    counts = ("qwenrt_generation_tokens_total", "qwenrt_decode_rows_total", "qwenrt_decode_steps_total")

    def rates(streams):
        """Tokens a second and rows a step of 4 seconds in the middle of 6."""
        load = Load(server, streams, 400, 6)
        time.sleep(1)
        begin, before = time.monotonic(), server.metrics()
        time.sleep(4)
        seconds, after = time.monotonic() - begin, server.metrics()
        tokens, rows, steps = (after[name] - before[name] for name in counts)
        figures = load.report()
        assert figures["broken"] == figures["lost"] == 0, figures
        return tokens / seconds, rows / steps

    rates(1)
    ratios, means = [], []
    for _ in range(3):
        one, _ = rates(1)
        all_, mean = rates(16)
        ratios.append(all_ / one)
        means.append(mean)
        print(f"figure: one stream {one:.0f} tokens/s, 16 streams {all_:.0f} tokens/s: {ratios[-1]:.1f} times; {mean:.1f} "
              "rows a decode step")
    server.stop()
    print(f"figure: 16 streams beside one, median of 3: {statistics.median(ratios):.1f} times (4 asked), "
          f"{min(means):.1f} rows a decode step at least (12 asked)")
    return statistics.median(ratios) >= 4 and min(means) >= 12


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


def crowd(plan, weights, seconds=600):
    server = Server(plan, "--max-queue", "2000", "--max-connections", "2000", "--log-level", "warning",
                    "--sse-ping-interval", "1s", weights=weights)
    Load(server, 1000, 8, 5).report()  # warm: every connection's buffers were there once
    before, descriptors = server.idle(), server.open_descriptors()
    load, begin, looks = Load(server, 1000, 8, int(seconds)), time.monotonic(), []
    time.sleep(2)
    while not load.over() and time.monotonic() - begin < seconds - 2:
        figures = server.metrics()
        running, waiting = (int(figures[f"qwenrt_num_requests_{state}"]) for state in ("running", "waiting"))
        looks.append((running, waiting, resident_bytes(server.process)))
        print(f"{time.monotonic() - begin:.0f} s: {running} running, {waiting} waiting, {looks[-1][2] / 1e6:.1f} MB", flush=True)
        time.sleep(min(5, seconds / 20))
    figures = load.report()
    after = server.idle()
    rows, steps = (after[name] - before[name] for name in ("qwenrt_decode_rows_total", "qwenrt_decode_steps_total"))
    rate = figures["answers"] / figures["seconds"]
    third = max(1, len(looks) // 3)
    early, late = (statistics.median(size for _, _, size in part) for part in (looks[:third], looks[-third:]))
    most, open_ = max(look[0] for look in looks), statistics.median(look[0] + look[1] for look in looks)
    print(f"figure: 1,000 streams for {figures['seconds']:.0f} s: {rate:.0f} new requests a second of 8 tokens (200 asked), "
          f"{figures['broken']} broken answers, {figures['lost']} lost connections, {rows / steps:.1f} rows a decode step")
    print(f"figure: {open_:.0f} requests running or waiting, {most} running at most (of 16), {figures['pinged']} of "
          f"{figures['answers']} answers with a ping while they waited")
    print(f"figure: resident memory {early / 1e6:.1f} MB in the first third, {late / 1e6:.1f} MB in the last; descriptors "
          f"{descriptors} before, {server.open_descriptors()} after")
    good = figures["broken"] == figures["lost"] == 0 and rate >= 200 and most <= 16 and figures["pinged"] > 0
    return server.stop() == 0 and good and late <= early * 1.02 + 4e6


if __name__ == "__main__":
    goals = {f.__name__: f for f in (overhead, cpu, ready, batch, turn, crowd)}
    if len(sys.argv) < 4 or sys.argv[1] not in goals:
        sys.exit(__doc__)
    sys.exit(0 if goals[sys.argv[1]](*sys.argv[2:4], *map(int, sys.argv[4:])) else 1)
