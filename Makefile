# make run [ARGS=--once]   the whole bus at work on this machine, until Ctrl-C
# make drill NAME=smp [DOWN=1m] [ARGS=...]   take a simulated partner of a running `make run` away
# make test                lint, types and every test
# make lint                ruff and mypy only
# make quick [ARGS=...]    lint and the tests that start no process, in half a minute
# make coverage [ARGS=...] every test once more, and which lines of the product none of them runs
# make release             is this commit fit for a release: checks, packages, the commands to tag it
# make test-contracts DATA=folder   the partners' contracts on real data, one folder per partner
# make bench [ARGS=...]    measure throughput on this machine
# make bench-against DIR=folder   this checkout and another one in turns, and their ratios
# make bench-backlog       the same with two million messages waiting
# make bench-outage        latency beside a dead partner with 50,000 messages waiting
# make bench-sql           rows a second through the ambulance system's tables, both ways
# make bench-ami           10,000 events a second of the telephone exchange for 10 s
# make bench-door          what it costs at a door to ask who calls
# make bench-register      a register of 200,000 cases: time and memory, under 300 MB
# make load [ARGS=--short] a region's load for 13 minutes, with everything real, and a verdict
# make crash [IMAGES=100000]   power loss and disk errors at every call of the store
# make simulate [SEEDS=2000]   the core in a seeded world with crashes, seed by seed
# make canaries            bugs planted into the core, and the seed that finds each
# make chaos [KILLS=200]   kill -9 of router, connectors and clients under load
# make siege [ARGS=--short] attacks of every kind for 10 minutes, a good peer beside them, a verdict
# make fuzz [INPUTS=10000000]   mutated inputs for all that reads what others wrote
# make restore [ARGS=--seeds=50]   an old copy of the bus's files put back, judged by its partners
# make bench-history [ARGS=--minutes=30]   a history of minutes: does the journal level off
# make calls [CALLS=300]   calls through the whole bus while six partners have faults
# make faults              every connector and every way its partner can fail, as a table
# make test-roots [ARGS=trixie]   README's two commands in clean roots of Debian 12, 13, Ubuntu 24.04
# make locks [ARGS=--upgrade]   the four lock files anew, by what pyproject.toml asks for
# make sbom                dist/smpbus.cdx.json: every component of a server, in CycloneDX
# make audit               known vulnerabilities of every locked package, asked of the registry
# make findings            what outside libraries do against expectation, shown without the product
# make wheel               dist/: the wheel of the bus and that of its client library, the same bytes each time
# make clean               remove what the others made
#
# Needs Debian or Ubuntu with make and python3 >= 3.11, or uv. Missing packages are installed when
# this runs as root, and named otherwise.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help run drill test quick coverage release test-contracts lint bench bench-against bench-backlog bench-outage bench-sql bench-ami bench-door bench-register bench-history load crash simulate canaries chaos siege fuzz restore calls faults test-roots locks sbom audit findings wheel clean packages

# Hundreds of processes start here, each of some four hundred modules: their bytecode is kept, beside
# them and out of the repository, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
STAMP := $(VENV)/.installed-from-lock
BIN := $(VENV)/bin
# Tools that look at the locks: what they need themselves is no part of the product or its tests.
AUDIT_VENV := .venv-audit
AUDIT_STAMP := $(AUDIT_VENV)/.installed-from-lock
NODE := proto/clients/node
NODE_STAMP := $(NODE)/node_modules/.package-lock.json
AUDIT_BIN := $(AUDIT_VENV)/bin
# No program of a package runs before its hash was checked and it was installed.
PIP_INSTALL := -m pip --disable-pip-version-check --no-input install --require-hashes --only-binary :all:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: $(STAMP)
	@exec $(BIN)/smpbus demo $(ARGS)

NAME ?= smp
DOWN ?= 1m
drill: $(STAMP)
	@exec $(BIN)/smpbus drill $(NAME) --down $(DOWN) --config demo-data/config $(ARGS)

bench: $(STAMP)
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-against: $(STAMP)
	@exec $(BIN)/python -m tests.bench.against $(DIR) $(ARGS)

bench-backlog: $(STAMP)
	@exec $(BIN)/python -m tests.bench.backlog $(ARGS)

bench-outage: $(STAMP)
	@exec $(BIN)/python -m tests.bench.outage $(ARGS)

bench-sql: packages $(STAMP)
	@exec $(BIN)/python -m tests.bench.smpsql $(ARGS)

bench-ami: $(STAMP)
	@exec $(BIN)/python -m tests.bench.ami $(ARGS)

bench-door: $(STAMP)
	@exec $(BIN)/python -m tests.bench.door $(ARGS)

bench-register: $(STAMP)
	@exec $(BIN)/python -m tests.bench.register $(ARGS)

load: packages $(STAMP)
	@exec $(BIN)/python -m tests.bench.load $(ARGS)

IMAGES ?= 100000
crash: $(STAMP)
	@exec $(BIN)/python -m tests.crash --images $(IMAGES) --jobs "$$(nproc)" $(ARGS)

SEEDS ?= 2000
simulate: $(STAMP)
	@exec $(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs "$$(nproc)" $(ARGS)

canaries: $(STAMP)
	@exec $(BIN)/python -m tests.simulation.canaries --jobs "$$(nproc)" $(ARGS)

KILLS ?= 200
chaos: $(STAMP)
	@exec $(BIN)/python -m tests.chaos --kills $(KILLS) $(ARGS)

siege: $(STAMP)
	@exec $(BIN)/python -m tests.siege $(ARGS)

INPUTS ?= 10000000
fuzz: $(STAMP)
	@exec $(BIN)/python -m tests.fuzz --inputs $(INPUTS) --jobs "$$(nproc)" $(ARGS)

restore: $(STAMP)
	@exec $(BIN)/python -m tests.restore $(ARGS)

bench-history: $(STAMP)
	@exec $(BIN)/python -m tests.bench.history $(ARGS)

CALLS ?= 300
calls: $(STAMP)
	@CALLS=$(CALLS) $(BIN)/python -m pytest tests/integration/test_calls_with_faults.py $(ARGS)
	echo "make calls: OK, $(CALLS) calls"

faults: $(STAMP)
	@$(BIN)/python -m pytest tests/contract/test_fault_matrix.py -s $(ARGS)

test-roots: $(STAMP)
	@want=""
	command -v debootstrap >/dev/null || want="$$want debootstrap"
	$(install_packages)
	$(BIN)/python -m tests.roots $(ARGS)

# What is pinned stays pinned unless ARGS=--upgrade says otherwise.
LOCK := $(AUDIT_BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make locks" --quiet
locks: $(AUDIT_STAMP)
	@$(LOCK) $(ARGS) --extra build --extra dev -o requirements-dev.lock pyproject.toml
	$(LOCK) --extra build -c requirements-dev.lock -o requirements.lock pyproject.toml
	$(LOCK) $(ARGS) --group audit -o requirements-audit.lock
	$(LOCK) $(ARGS) --group neighbour -o tests/integration/neighbour.lock
	echo "make locks: OK"

# Of an environment that holds what a server gets and nothing else, so that licences are told, too.
sbom: $(AUDIT_STAMP)
	@made="$$(mktemp -d)"
	trap 'rm -rf "$$made"' EXIT
	echo "== packages of requirements.lock"
	python="$$(readlink -f $(AUDIT_BIN)/python)"
	"$$python" -m venv "$$made/server"
	"$$made/server/bin/python" $(PIP_INSTALL) -q -r requirements.lock
	"$$made/server/bin/python" -m pip --disable-pip-version-check uninstall -q -y pip setuptools
	$(AUDIT_BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
		--gather-license-texts --output-reproducible --sv 1.6 --of JSON --validate \
		-o "$$made/smpbus.cdx.json" "$$made/server/bin/python"
	mkdir -p dist
	mv "$$made/smpbus.cdx.json" dist/
	echo "make sbom: OK, dist/smpbus.cdx.json"

# A package of which the registry tells nothing is a failure here: not looked at is not sound.
audit: $(AUDIT_STAMP)
	@failed=""
	for lock in requirements{,-dev,-audit}.lock tests/integration/neighbour.lock; do
		echo "== $$lock"
		$(AUDIT_BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
			-r $$lock || failed="$$failed $$lock"
	done
	if [ -n "$$failed" ]; then
		echo "make audit: FAILED at:$$failed. Either a package has a known vulnerability, named above," \
			"or the registry in use does not tell of vulnerabilities (a mirror may not): ask where it does." >&2
		exit 1
	fi
	echo "make audit: OK"

# The same bytes from the same commit, whenever and wherever: files are dated by it.
DIST ?= dist
wheel: $(STAMP)
	@export SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}"
	dist="$$(realpath -m $(DIST))"
	python="$$(realpath -s $(BIN)/python)"
	for project in . proto/clients/python; do
		(cd "$$project" && "$$python" -m hatchling build -t wheel -d "$$dist")
	done

findings:
	@want=""
	command -v strace >/dev/null || want="$$want strace"
	command -v openssl >/dev/null || want="$$want openssl"
	command -v python3 >/dev/null || want="$$want python3"
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || want="$$want postgresql"
	command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || want="$$want pgbouncer"
	command -v npm >/dev/null || want="$$want nodejs npm"
	$(install_packages)
	for script in findings/*.sh; do
		echo "== $$script"
		status=0; timeout 300 bash "$$script" || status=$$?
		# 77: not on this system, as the script has said.
		case $$status in 0|77) ;; *) echo "make findings: FAILED at: $$script"; exit 1 ;; esac
	done
	echo "make findings: OK"

lint: $(STAMP)
	@step=start
	trap 'if [ "$$step" = done ]; then echo "make lint: OK"; \
	      else echo "make lint: FAILED at: $$step"; fi' EXIT
	step="ruff check"; echo "== $$step"; $(BIN)/ruff check .
	step="ruff format"; echo "== $$step"; $(BIN)/ruff format --check .
	# Types of the standard library differ from version to version.
	step="mypy"; running=""
	for version in 3.11 3.12 3.13; do
		echo "== mypy for Python $$version"
		$(BIN)/mypy --python-version $$version || { echo "not for Python $$version"; exit 1; } &
		running="$$running $$!"
	done
	for one in $$running; do wait "$$one"; done
	step=done

# Types for one Python only, and beside the tests; what fails here fails in `make test`, too.
PURE := tests/unit tests/test_tidy.py tests/test_fault_index.py
quick: $(STAMP)
	@step=start; begun=$$SECONDS
	trap 'if [ "$$step" = done ]; then echo "make quick: OK in $$((SECONDS - begun)) s"; \
	      else echo "make quick: FAILED at: $$step"; fi' EXIT
	step="ruff check"; $(BIN)/ruff check .
	step="ruff format"; $(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!
	step="pytest"; $(BIN)/python -m pytest -n 2 --dist worksteal $(PURE) $(ARGS)
	step="mypy"; wait "$$types"
	step=done

# Of every process that a test starts, but for those that it kills.
coverage: packages $(STAMP) $(NODE_STAMP)
	@trap 'rm -rf .coverage' EXIT
	rm -rf .coverage; mkdir .coverage
	failed=""
	$(BIN)/coverage run --parallel-mode -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS) \
		|| failed=1
	$(BIN)/coverage combine -q
	$(BIN)/coverage report
	if [ -n "$$failed" ]; then echo "make coverage: FAILED at: pytest" >&2; exit 1; fi
	echo "make coverage: OK"

# Nothing is tagged or sent away here: the last step is a person's.
release: $(STAMP)
	@.ci/release $(BIN)/python

test: packages $(STAMP) $(NODE_STAMP)
	@step=start; begun=$$SECONDS
	trap 'if [ "$$step" = done ]; then echo "make test: OK in $$((SECONDS - begun)) s"; \
	      else echo "make test: FAILED at: $$step"; fi' EXIT
	step="lint"; $(MAKE) --no-print-directory lint
	step="pytest"; echo "== $$step"; $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)
	step=done

test-contracts:
	@if [ -z "$(DATA)" ] || [ ! -d "$(DATA)" ]; then
		echo "make test-contracts: name the folder with the partners' data:" \
			"make test-contracts DATA=folder (given: '$(DATA)')" >&2
		exit 1
	fi
	$(MAKE) -s --no-print-directory $(STAMP)
	export SMPBUS_CONTRACT_DATA="$$(cd "$(DATA)" && pwd)"
	$(BIN)/python -m pytest tests/federal $(ARGS) && echo "make test-contracts: OK"

clean:
	@rm -rf $(VENV) $(AUDIT_VENV) $(NODE)/node_modules demo-data dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	echo "make clean: OK"

# Install the Debian packages in $$want, or name them and stop.
define install_packages
	if [ -n "$$want" ]; then
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			echo "== Debian packages:$$want"
			export DEBIAN_FRONTEND=noninteractive
			apt-get -qq update
			apt-get -qq install -y --no-install-recommends $$want >/dev/null
		else
			echo "make: these Debian packages are missing, install them as root:$$want" >&2
			exit 1
		fi
	fi
endef

# What the tests run besides Python: clients in PHP and Node, servers and proxies that are not ours, systemd
# and a machine for it to run on, a cache, a database and its pooler.
packages:
	@want=""
	command -v php >/dev/null || want="$$want php-cli"
	command -v curl >/dev/null || want="$$want curl"
	php -r "exit((int) !extension_loaded('zmq'));" 2>/dev/null || want="$$want php-zmq"
	command -v node >/dev/null || want="$$want nodejs"
	command -v npm >/dev/null || want="$$want npm"
	command -v systemd-analyze >/dev/null || want="$$want systemd"
	command -v systemd-nspawn >/dev/null || want="$$want systemd-container"
	command -v openssl >/dev/null || want="$$want openssl"
	command -v ip >/dev/null || want="$$want iproute2"
	command -v memcached >/dev/null || want="$$want memcached"
	php -r "exit((int) !extension_loaded('soap'));" 2>/dev/null || want="$$want php-soap"
	php -r "exit((int) !extension_loaded('dom'));" 2>/dev/null || want="$$want php-xml"
	command -v apache2 >/dev/null || [ -x /usr/sbin/apache2 ] || want="$$want apache2-bin"
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || want="$$want nginx"
	command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || want="$$want haproxy"
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || want="$$want postgresql"
	command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || want="$$want pgbouncer"
	$(install_packages)

# Make a virtual environment in $(1), unless a good one is there.
define make_venv
	want=""
	enough='import sys; sys.exit(sys.version_info < (3, 11))'
	if ! command -v uv >/dev/null; then
		command -v python3 >/dev/null || want="$$want python3"
		{ command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null; } \
			|| want="$$want python3-venv"
		$(install_packages)
		if ! python3 -c "$$enough"; then
			echo "make: smpbus needs Python 3.11 or newer (Debian 12, Ubuntu 24.04); this is" \
				"$$(python3 --version). Upgrade it, or install uv." >&2
			exit 1
		fi
	fi
	if ! $(1)/bin/python -c "$$enough" 2>/dev/null; then
		echo "== virtual environment: $(1)"
		rm -rf $(1)
		if command -v uv >/dev/null; then uv venv -q --seed --python '>=3.11' $(1); \
		else python3 -m venv $(1); fi
	fi
endef

$(STAMP): requirements-dev.lock tests/integration/neighbour.lock pyproject.toml
	@$(call make_venv,$(VENV))
	echo "== packages of requirements-dev.lock"
	$(BIN)/python $(PIP_INSTALL) -r requirements-dev.lock \
		| awk '/^Collecting/ { print "   " $$2; fflush() } \
		       /^Installing/ { print "   installing"; fflush() }'
	echo "== smpbus itself"
	$(BIN)/python -m pip --disable-pip-version-check --no-input install -q \
		--no-deps --no-build-isolation -e .
	# A package of the name of one of ours, for a test of those who have it: never in this environment.
	$(BIN)/python $(PIP_INSTALL) -q --no-deps --upgrade --target $(VENV)/neighbour \
		-r tests/integration/neighbour.lock
	touch $@

# The library comes with its binaries; no program of a package runs here, either.
$(NODE_STAMP): $(NODE)/package.json $(NODE)/package-lock.json
	@echo "== packages of $(NODE)/package-lock.json"
	npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(AUDIT_STAMP): requirements-audit.lock
	@$(call make_venv,$(AUDIT_VENV))
	echo "== packages of requirements-audit.lock"
	$(AUDIT_BIN)/python $(PIP_INSTALL) -q -r requirements-audit.lock
	touch $@
