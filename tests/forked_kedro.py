"""A ``kedro`` for programs that start it, such as DVC; its runs are forked after the imports, as in processes.py."""

import json
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.processes import Process

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    lines = connection.makefile("rw")
    print(json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:]]), file=lines, flush=True)
    for line in lines:
        if line[0] == "\\0":
            sys.exit(int(line[1:]))
        print(line, end="", flush=True)
sys.exit("the tests have ended")
"""
"""Send the command, and print the output of its run; the last line has the exit status."""


class ForkedKedro(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Runs the commands of all clients.

    Attributes:
        running: the runs that have not ended.
    """

    def __init__(self, address: Path) -> None:
        self.running: list[Process] = []
        super().__init__(str(address), _Run)

    def wait(self) -> None:
        """Wait for the end of all runs, also of those whose client was killed."""
        while self.running:
            time.sleep(0.01)


class _Run(socketserver.StreamRequestHandler):
    server: ForkedKedro

    def handle(self) -> None:
        folder, environment, words = json.loads(self.rfile.readline())
        process = Process(Path(folder), "kedro.__main__", *words, environment=environment)
        self.server.running.append(process)
        threading.Thread(target=self.kill_with_client, args=[process]).start()
        with suppress(BrokenPipeError):
            for line in process.stdout:
                self.wfile.write(line.encode())
            self.wfile.write(f"\0{process.wait()}\n".encode())
        process.wait()
        self.server.running.remove(process)

    def kill_with_client(self, process: Process) -> None:
        with suppress(OSError, ValueError):
            self.rfile.read()  # returns when the client has ended
        process.kill()


@contextmanager
def forked_kedro(folder: Path) -> Iterator[ForkedKedro]:
    """Write the program ``kedro`` to a folder, and run its commands inside a block."""
    address, program = folder / "socket", folder / "kedro"
    program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    with ForkedKedro(address) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.wait()
        server.shutdown()
