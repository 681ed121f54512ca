#!/usr/bin/env bash
# OpenSSL 3.0 (Debian 12; libengine-gost-openssl 3.0.1-2): without the engine for ГОСТ the issuer is "not found".
#
# Expected, where the algorithm of a certificate's key is not known: an error that says so. Seen: "unable to
# get local issuer certificate" (error 20), although the issuer is in the file of authorities. Who reads
# the verdict looks for a missing certificate of the authority; what is missing is the engine. The reason
# ("unable to get certs public key") is in the queue of errors behind it. With the engine it is valid.
set -euo pipefail
command -v openssl >/dev/null || { echo "needs the package openssl: apt-get install openssl" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"; chmod 755 "$work"
# The engine is unpacked here and not installed. Debian 13 has none that fits its OpenSSL.
{ apt-get download -q=2 libengine-gost-openssl=3.0.1-2\* && dpkg -x libengine-gost-openssl_*.deb engine; } \
    >/dev/null 2>&1 || { echo "needs Debian 12: there is no libengine-gost-openssl 3.0.1 here"; exit 77; }
OPENSSL_ENGINES=$(dirname "$(find "$PWD/engine" -name gost.so)")
export OPENSSL_ENGINES
quiet() { "$@" >/dev/null 2>told || { cat told; exit 1; }; }
for name in authority signer; do
    quiet openssl genpkey -engine gost -algorithm gost2012_256 -pkeyopt paramset:A -out $name.key
done
quiet openssl req -engine gost -x509 -new -key authority.key -subj /CN=authority -days 2 -out authority.pem
quiet openssl req -engine gost -new -key signer.key -subj /CN=signer -out signer.csr
quiet openssl x509 -engine gost -req -in signer.csr -CA authority.pem -CAkey authority.key \
    -CAcreateserial -days 2 -out signer.pem
verify() { openssl verify "$@" -CAfile authority.pem signer.pem 2>&1 || true; }
openssl version
with=$(verify -engine gost | tail -1)
without=$(verify)
reason=$(grep -o "unable to get local issuer certificate" <<<"$without" | head -1)
behind=$(grep -o "unable to get certs public key" <<<"$without" | head -1)
echo "with the engine: $with; without it: $reason; behind it: $behind"
[ "$with" = "signer.pem: OK" ] && [ -n "$reason" ] && [ -n "$behind" ]
echo "as described"
