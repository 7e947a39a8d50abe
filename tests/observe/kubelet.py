"""The two figures that a kubelet gives of every volume, of a folder of this machine.

Run as `python -m tests.observe.kubelet PORT NAMESPACE CLAIM FOLDER`.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


def exposition(namespace: str, claim: str, folder: str) -> str:
    """The text of /metrics."""
    disk = os.statvfs(folder)
    labels = f'{{namespace="{namespace}",persistentvolumeclaim="{claim}"}}'
    return (
        f"# TYPE kubelet_volume_stats_available_bytes gauge\n"
        f"kubelet_volume_stats_available_bytes{labels} {disk.f_bavail * disk.f_frsize}\n"
        f"# TYPE kubelet_volume_stats_capacity_bytes gauge\n"
        f"kubelet_volume_stats_capacity_bytes{labels} {disk.f_blocks * disk.f_frsize}\n"
    )


def main(port: int, namespace: str, claim: str, folder: str) -> None:
    """Serve until killed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(namespace, claim, folder).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing of each scrape."""

    ThreadingHTTPServer((HOST, port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
