"""A real server on this machine that scores responses as the test tells it to."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


class Server:
    """Answers as the test tells it to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = good_scores
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.now = self.most = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.asked.append(content)
                    server.headers.append(dict(self.headers))
                    server.now += 1
                    server.most = max(server.most, server.now)
                status, body = server.answer(content)
                with server._lock:
                    server.now -= 1
                with contextlib.suppress(ConnectionError):  # whoever asked has given up
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    if server.retry_after is not None:
                        self.send_header("Retry-After", server.retry_after)
                    self.end_headers()
                    if server.seconds_per_byte is None:
                        self.wfile.write(body)
                        return
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(server.seconds_per_byte)

            def log_message(self, *args: Any) -> None:
                """Nothing on the terminal."""

        self.seconds_per_byte: float | None = 0.0
        """None writes an answer at once."""
        self.retry_after: str | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/score"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def good_scores(content: dict[str, Any]) -> tuple[int, bytes]:
    return 200, json.dumps({"scores": [float(len(response)) for response in content["responses"]]}).encode()
