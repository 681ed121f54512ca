"""Partners' addresses where anybody on the way can read and change what is said: plain ones that
lead to another machine. A plain address on this machine never leaves it.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from .wording import text

PLAIN: Final = {"http": "https://", "tcp": "tls://"}
# Beside an address of ZeroMQ: what is said there is encrypted (CURVE).
ENCRYPTED: Final = "server_key"
SECRETS: Final = ("credentials_file", "secret_file", "login_file", "token_file")


def is_here(host: str) -> bool:
    """Whether what is said to a host never leaves this machine: a socket, or the loopback."""
    if host == "localhost" or host[:1] in ("", "/", "@"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_clear(table: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield a sentence for each plain address of another machine in a table of settings, which is
    called `key`. No secret is in it."""
    for name, value in table.items():
        at = f"{key}.{name}"
        if isinstance(value, Mapping):
            yield from in_clear(value, at)
        elif isinstance(value, list):
            for index, one in enumerate(value):
                if isinstance(one, Mapping):
                    yield from in_clear(one, f"{at}[{index}]")
        elif isinstance(value, str) and (name == "url" or name.endswith("_url")):
            if ENCRYPTED in table:
                continue
            scheme, host = _place(value)
            if scheme in PLAIN and not is_here(host):
                known = any(one in table for one in SECRETS)
                told = "config.in_clear_secret" if known else "config.in_clear"
                yield text(told, key=at, host=host, plain=f"{scheme}://", better=PLAIN[scheme])


def _place(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return parts.scheme.lower(), parts.hostname or ""
    except ValueError:
        return "", ""
