#!/usr/bin/env bash
# OpenSSL 3.0 to 3.5: a name attribute that it does not know is left out of a certificate, with status 0.
#
# A qualified certificate of a Russian organisation has the tax number in the attribute INNLE,
# 1.2.643.100.4. OpenSSL knows SNILS, INN and OGRN, but not this one. Expected: an error, or the attribute.
# Seen: `openssl req` makes the request or the certificate without it and ends with 0; the line "Skipping
# unknown subject name attribute" stands among others on stderr. The number itself (an OID) in place of the
# name is skipped as well. With oid_section of a configuration file it gets in.
set -euo pipefail
command -v openssl >/dev/null || { echo "needs the package openssl: apt-get install openssl" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
make() {
    status=0
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 "$@" 2>told || status=$?
    subject=$(openssl x509 -in cert.pem -noout -subject -nameopt oid,sep_comma_plus)
    echo "status $status; $subject"
}
openssl version
echo "by name, by number, with oid_section:"
make -subj "/CN=Clinic/OGRN=1027700132195/INNLE=7707083893"; named="$status $subject"
make -subj "/CN=Clinic/OGRN=1027700132195/1.2.643.100.4=7707083893"; numbered="$status $subject"
cat > own.cnf <<END
oid_section = more
[more]
INNLE = 1.2.643.100.4
[req]
distinguished_name = none
[none]
END
make -config own.cnf -subj "/CN=Clinic/OGRN=1027700132195/INNLE=7707083893"; configured="$status $subject"
[[ $named == 0* && $named == *1.2.643.100.1=* && $named != *7707083893* ]]
[[ $numbered == 0* && $numbered != *7707083893* ]]
[[ $configured == 0* && $configured == *7707083893* ]]
echo "as described"
