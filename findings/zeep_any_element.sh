#!/usr/bin/env bash
# zeep 4.3.3: whatever element stands in a SOAP Body is read as the operation's answer.
#
# Expected: an error, when the Body holds another element than the one that the WSDL names for the answer.
# Seen: an element of another name and namespace is read by the type of the right one; an empty one gives
# an answer of nothing, which a program takes for "nothing found". A value that cannot be read (30
# February) becomes None as well, and a traceback is logged that shows it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check zeep==4.3.3 lxml==6.1.3 requests==2.34.2
cat > service.wsdl <<'END'
<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:s="http://schemas.xmlsoap.org/wsdl/soap/"
    xmlns:x="http://www.w3.org/2001/XMLSchema" xmlns:t="urn:t" targetNamespace="urn:t">
  <types><x:schema targetNamespace="urn:t" elementFormDefault="qualified">
    <x:element name="Find" type="x:string"/>
    <x:element name="Found"><x:complexType><x:sequence>
      <x:element name="day" type="x:date" minOccurs="0"/>
      <x:element name="note" type="x:string" minOccurs="0"/>
    </x:sequence></x:complexType></x:element>
  </x:schema></types>
  <message name="in"><part name="p" element="t:Find"/></message>
  <message name="out"><part name="p" element="t:Found"/></message>
  <portType name="port"><operation name="Find">
    <input message="t:in"/><output message="t:out"/></operation></portType>
  <binding name="soap" type="t:port">
    <s:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="Find"><s:operation soapAction="find"/>
      <input><s:body use="literal"/></input><output><s:body use="literal"/></output></operation>
  </binding>
  <service name="service"><port name="port" binding="t:soap">
    <s:address location="http://127.0.0.1/"/></port></service>
</definitions>
END
venv/bin/python - <<'END'
import io, logging, sys
from importlib.metadata import version
import requests, zeep
from zeep.transports import Transport

ENVELOPE = '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>{}</e:Body></e:Envelope>'


class Canned(Transport):
    def post(self, address, message, headers):
        response = requests.Response()
        response.status_code, response._content = 200, ENVELOPE.format(self.body).encode()
        response.headers["Content-Type"] = "text/xml"
        return response


logged = io.StringIO()
logging.getLogger().addHandler(logging.StreamHandler(logged))
transport = Canned()
find = zeep.Client("service.wsdl", transport=transport).service.Find


def answer(body):
    transport.body = body
    try:
        found = find("x")
        return None if found is None else (str(found.day), found.note)
    except Exception as error:
        return type(error).__name__


right = answer('<t:Found xmlns:t="urn:t"><t:day>2026-11-30</t:day><t:note>n</t:note></t:Found>')
other = answer('<o:Status xmlns:o="urn:o" xmlns:t="urn:t"><t:note>m</t:note></o:Status>')
empty = answer('<o:Status xmlns:o="urn:o"/>')
before = logged.getvalue()
unreadable = answer('<t:Found xmlns:t="urn:t"><t:day>2026-02-30</t:day><t:note>n</t:note></t:Found>')
traceback = "Traceback" in logged.getvalue() and "Traceback" not in before
print(f"zeep {version('zeep')}: the right answer: {right}; another element: {other}, empty: {empty};")
print(f"an unreadable date: {unreadable}, a traceback is logged: {traceback}")
seen = (right, other, empty, unreadable, traceback)
sys.exit(seen != (("2026-11-30", "n"), (str(None), "m"), (str(None), None), (str(None), "n"), True))
END
echo "as described"
