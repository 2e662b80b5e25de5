"""A web server for a folder, and Node with the libraries of the web page."""

import base64
import json
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from support.program import REPOSITORY

SCRIPTS = REPOSITORY / "tests" / "outside" / "web"
# A reader that gives up without a word never ends; the slowest of ours takes seconds.
PATIENCE = 120


class _Files(SimpleHTTPRequestHandler):
    """Files, ranges of files, and 404: no listings, which would be a 200 with HTML."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted:
            first, last = (int(number) for number in wanted.groups())
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@dataclass(frozen=True)
class Certificate:
    """A certificate for `localhost`, its key, and the authority that signed it."""

    authority: Path
    chain: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificate":
        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

        new = ("req", "-newkey", "rsa:2048", "-nodes")
        extension = ("-addext", "basicConstraints=critical,CA:TRUE")
        openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", *extension)
        openssl(*new, "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=localhost")
        (folder / "names").write_text("subjectAltName=DNS:localhost\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", "own.csr", "-out", "own.pem", "-days", "9", *signed)
        return cls(folder / "ca.pem", folder / "own.pem", folder / "own.key")


@contextmanager
def serve(folder: Path, certificate: Certificate | None = None) -> Iterator[str]:
    """The URL of a folder while it is served: http, or https with a certificate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=folder)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.chain, certificate.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield url
        finally:
            server.shutdown()
            thread.join()


class Node:
    """The scripts of tests/outside/web with what package-lock.json names."""

    def __init__(self) -> None:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                raise FileNotFoundError(f"no {program}: run scripts/prerequisites.sh outside")
        lock = SCRIPTS / "package-lock.json"
        installed = SCRIPTS / "node_modules" / "installed.json"
        if not installed.exists() or installed.read_bytes() != lock.read_bytes():
            subprocess.run(["npm", "ci", "--loglevel=error"], cwd=SCRIPTS, check=True)
            shutil.copy(lock, installed)

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess:
        words = [
            json.dumps(argument) if isinstance(argument, dict | list) else str(argument)
            for argument in arguments
        ]
        return subprocess.run(
            ["node", SCRIPTS / script, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def __call__(self, script: str, *arguments: object):
        """What the script printed."""
        done = self.run(script, *arguments)
        assert done.returncode == 0, f"{script}: exit {done.returncode}\n{done.stderr}"
        return json.loads(done.stdout)


def decoded(encoded: dict) -> np.ndarray:
    """The f4 values that a script printed."""
    bits = base64.b64decode(encoded["bytes"])
    return np.frombuffer(bits, "<f4").reshape(encoded["shape"])
