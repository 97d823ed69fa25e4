#!/usr/bin/env python3
"""What it costs a cook to be looked at: tests/operators/overhead.py [PROGRAM [PAIRS]]

Cooks the example pool with two workers, in pairs: once as it is, once with everything on that an operator has (admin ports of all three
processes, which are scraped every second, and traces and logs to a collector). Prints the seconds that each spent on judging and altogether, and
the median ratio of pairs. Needs Python alone; the collector here takes what comes and throws it away.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
POOL = ROOT / "tests/pools/vit-fashion/cook.yaml"
PLACES = ["--allow-read", "everywhere", "--allow-write", "everywhere"]


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what is sent, and counts it."""

    requests = 0
    size = 0

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        Collector.requests += 1
        Collector.size += length
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def port() -> int:
    """One at which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cook(program: str, collector: str | None) -> tuple[float, float]:
    """Seconds of judging, and of the whole cook; looked at where there is a collector."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SOUP_"))}
    listen, admins = port(), [port() for _ in range(3)]
    admin = [["--admin", f"127.0.0.1:{p}"] if collector else [] for p in admins]
    if collector:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        soup = pathlib.Path(folder) / "soup"
        begun = time.monotonic()
        of_cook = ["--listen", f"127.0.0.1:{listen}", "--min-workers", "2", "--output", str(soup), "--quiet", *admin[0]]
        cooking = subprocess.Popen([program, "cook", "-f", str(POOL), *of_cook], **quiet)
        of_worker = ["--coordinator", f"127.0.0.1:{listen}", "--threads", "1", "--memory", "256MiB", *PLACES]
        workers = [subprocess.Popen([program, "worker", *of_worker, *more], **quiet) for more in admin[1:]]
        while cooking.poll() is None:
            time.sleep(0.02)
            if collector and int(time.monotonic() * 50) % 50 == 0:
                for p in admins:
                    with contextlib.suppress(OSError):
                        urllib.request.urlopen(f"http://127.0.0.1:{p}/metrics", timeout=1).read()
        took = time.monotonic() - begun
        if cooking.returncode or any(worker.wait() for worker in workers):
            sys.exit(f"the cook ended with {cooking.returncode}")
        seconds = json.loads((soup / "soup.json").read_text())["report"]["seconds"]
        return seconds["cook"] + seconds["test"], took


def main() -> None:
    program = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/release/soupctl")
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = f"http://127.0.0.1:{server.server_port}"
    cook(program, None)
    off, on = [], []
    for pair in range(pairs):
        for looked_at in [False, True] if pair % 2 else [True, False]:
            (on if looked_at else off).append(cook(program, collector if looked_at else None))
    for index, what in enumerate(["judging", "altogether"]):
        ratios = [b[index] / a[index] for a, b in zip(off, on)]
        plain, looked = ([f"{of[index]:.2f}" for of in all] for all in (off, on))
        print(f"{what}: alone {' '.join(plain)} s, looked at {' '.join(looked)} s: {statistics.median(ratios):.3f} of it")
    print(f"the collector was sent {Collector.requests} requests, {Collector.size} bytes")


if __name__ == "__main__":
    main()
