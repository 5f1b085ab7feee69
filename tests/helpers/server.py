"""A server of files on this machine, in the place of the sets' own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    """`asked` are the paths of all requests; of those in `cut` half is sent."""

    asked: list[str]
    cut: set[str]

    def server_activate(self) -> None:
        self.asked, self.cut = [], set()
        super().server_activate()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        assert isinstance(self.server, Server)
        if self.path not in self.server.cut:
            super().copyfile(source, outputfile)
            return
        content = source.read()
        outputfile.write(content[: len(content) // 2])
        self.close_connection = True


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """What lies in `folder`, from a port of its own."""
    with Server(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
