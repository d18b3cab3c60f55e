"""A real nginx with its dav module on loopback: the shared cache of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  log_format plain '$request_method $uri $status $http_authorization';
  access_log {folder}/access.log plain;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/store;
    location / {{ dav_methods PUT; create_full_put_path on; {rule} }}
  }}
}}
"""


class Nginx:
    """One server; `store` is what it holds. `rule` is put into its only location."""

    def __init__(self, folder: Path, rule: str = "") -> None:
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir(parents=True)
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._configuration = folder / "nginx.conf"
        # As root nginx drops to a user that could not write into a test's own folder.
        user = "user root;" if os.getuid() == 0 else ""
        self._configuration.write_text(CONFIGURATION.format(folder=folder, port=self.port, rule=rule, user=user))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self._process = subprocess.Popen([program, "-c", str(self._configuration), "-p", str(self.folder)])
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("nginx did not start: " + (self.folder / "error.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None

    def requests(self) -> list[str]:
        """Each request as METHOD PATH STATUS AUTHORIZATION."""
        log = self.folder / "access.log"
        return log.read_text().splitlines() if log.exists() else []

    def forget_requests(self) -> None:
        (self.folder / "access.log").write_text("")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
