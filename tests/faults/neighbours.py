"""Servers that are not ours, each on a free port and in a folder of its own: Apache, nginx, PHP."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.contract.authority import Pair
from tests.ports import free_port
from tests.until import wait_for

PATIENCE_S = 20.0
APACHE = """
ServerRoot {folder}
PidFile {folder}/apache.pid
ServerName 127.0.0.1
Listen 127.0.0.1:{port} https
ErrorLog {folder}/error.log
LogLevel warn
User {user}
Group {group}
DefaultRuntimeDir {folder}
Mutex file:{folder} default
{modules}
KeepAliveTimeout 5
<VirtualHost 127.0.0.1:{port}>
  SSLEngine on
  SSLProtocol {protocol}
  SSLCertificateFile {certificate}
  SSLCertificateKeyFile {key}
  SSLCACertificateFile {authority}
  <Location /private>
    SSLVerifyClient require
    SSLVerifyDepth 3
  </Location>
  ProxyPass / http://127.0.0.1:{behind}/
</VirtualHost>
"""
MODULES = ("mpm_event", "authz_core", "ssl", "socache_shmcb", "proxy", "proxy_http")
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_timeout {keep_alive_s};
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {authority};
    ssl_verify_client on;
    location / {{ proxy_pass http://127.0.0.1:{behind}; }}
  }}
}}
"""


@contextlib.contextmanager
def apache(pair: Pair, authority: Path, behind: int, protocol: str = "TLSv1.3") -> Iterator[int]:
    """Run Apache before the server at port `behind`; whoever wants a path under /private shows a
    certificate of `authority`. Yields its port."""
    with _folder() as folder:
        user = pwd.getpwnam("nobody")
        modules = "\n".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in MODULES
        )
        port = free_port()
        config = folder / "apache.conf"
        config.write_text(
            APACHE.format(
                folder=folder, port=port, behind=behind, modules=modules, protocol=protocol,
                certificate=pair.certificate, key=pair.key, authority=authority,
                user=user.pw_name, group="nogroup",
            )
        )  # fmt: skip
        command = ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", str(config)]
        with _running(command, port, folder):
            yield port


@contextlib.contextmanager
def nginx(pair: Pair, authority: Path, behind: int, keep_alive_s: int = 75) -> Iterator[int]:
    """Run nginx before the server at port `behind`, for those only who show a certificate of
    `authority`. Yields its port."""
    with _folder() as folder:
        port = free_port()
        config = folder / "nginx.conf"
        config.write_text(
            NGINX.format(
                folder=folder, port=port, behind=behind, keep_alive_s=keep_alive_s,
                certificate=pair.certificate, key=pair.key, authority=authority,
            )
        )  # fmt: skip
        with _running(["/usr/sbin/nginx", "-c", str(config), "-p", str(folder)], port, folder):
            yield port


@contextlib.contextmanager
def php(script: Path, **environment: str) -> Iterator[int]:
    """Run PHP's own server with `script` for every path. Yields its port."""
    with _folder() as folder:
        port = free_port()
        with _running(["php", "-S", f"127.0.0.1:{port}", str(script)], port, folder, environment):
            yield port


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(
    command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str] = {}
) -> Iterator[None]:
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=os.environ | environment
        )
    try:
        wait_for(lambda: _listens(port) or process.poll() is not None, command[0])
        if process.poll() is not None:
            errors = folder / "error.log"
            said = errors.read_text() if errors.exists() else ""
            raise AssertionError(f"{command[0]} does not run: {log.read_text()}{said}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
