#!/usr/bin/env bash
# spyne 2.14.0: an offset west of Greenwich that has minutes is read as another one, an hour away.
#
# Expected: 10:00:00-03:30 (Newfoundland) is 13:30 UTC. Seen: the minutes are added to the hours without
# their sign, -03:30 becomes -02:30, and the moment is 12:30 UTC. East of Greenwich and in whole hours all
# is well, which is why nobody notices. The service gets a wrong time, with and without validation.
set -euo pipefail
python3 -c 'import sys; sys.exit(sys.version_info >= (3, 12))' \
    || { echo "needs a Python on which this spyne can be imported, up to 3.11"; exit 77; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check spyne==2.14.0 lxml==6.1.3
venv/bin/python -W ignore - <<'END'
import io, sys
from datetime import UTC
from spyne import Application, DateTime, ServiceBase, Unicode, __version__, rpc
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication

heard = []


class Calls(ServiceBase):
    @rpc(DateTime, _returns=Unicode)
    def At(ctx, when):
        heard.append(f"{when.astimezone(UTC):%H:%M}")
        return "taken"


def call(validator, when):
    app = WsgiApplication(
        Application([Calls], "urn:t", in_protocol=Soap11(validator=validator), out_protocol=Soap11())
    )
    body = (
        '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>'
        f'<At xmlns="urn:t"><when>{when}</when></At></e:Body></e:Envelope>'
    ).encode()
    request = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/", "QUERY_STRING": "", "SERVER_NAME": "t",
        "SERVER_PORT": "80", "wsgi.url_scheme": "http", "CONTENT_TYPE": "text/xml; charset=utf-8",
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
    }
    b"".join(app(request, lambda status, headers: None))
    return heard.pop()


seen = {
    offset: {call(validator, f"2026-11-30T10:00:00{offset}") for validator in (None, "soft", "lxml")}
    for offset in ("-03:30", "-03:00", "+03:30")
}
print(f"spyne {__version__}: 10:00 at these offsets, in UTC: {seen}")
sys.exit(seen != {"-03:30": {"12:30"}, "-03:00": {"13:00"}, "+03:30": {"06:30"}})
END
echo "as described"
