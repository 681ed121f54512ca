#!/usr/bin/env bash
# pip-audit 2.10.1: "No known vulnerabilities found", status 0, although not one package was looked at.
#
# A package of which the vulnerability service knows nothing is skipped, and what was skipped is told below
# the verdict. Where the service does not answer for any (an index of one's own, a mirror without the JSON
# interface), every package is skipped, and the verdict and the status are those of a sound environment:
# a pipeline that goes by the status passes. Expected: another verdict, or a status of its own, when all
# were skipped. `--strict` makes it an error; that has to be known. Shown here with a version that no
# index has, whichever is in use.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pip-audit==2.10.1
venv/bin/pip-audit --version
echo "idna==0.0.0" > requirements.txt  # a version that is not there
audit() {
    status=0
    venv/bin/pip-audit -r requirements.txt --no-deps --disable-pip --progress-spinner off "$@" \
        >told 2>&1 || status=$?
}
audit
cat told
plain=$status
grep -q "No known vulnerabilities found" told
grep -q "could not be audited" told
audit --strict
strict=$status
echo "status: $plain, with --strict: $strict"
[ "$plain" = 0 ] && [ "$strict" != 0 ]
echo "as described"
