# make run and make test are all the setting up that a fresh Debian 12 or later needs. See tests/README.md.
SHELL = /bin/sh
.DEFAULT_GOAL = help
.PHONY: help setup run test unit unit-a-g unit-h-z session others lint types e2e e2e-a-n e2e-o-z all all-debian12 bench dashboards pictures deb clean

PYTHON = build/venv/bin/python
PYTEST = $(PYTHON) -m pytest
INSTALL = sh tests/lab/install.sh

help:  ## show this
	@sed -n 's/^\([a-z0-9]*\):.*## /\1	/p' Makefile | expand -t 12

setup:  ## install what tests need
	@$(INSTALL) test

run:  ## a demonstration: a private Postfix with postmeter, and what it does to mail
	@$(INSTALL) run
	@PYTHONPATH=milter:. $(PYTHON) -m tests.lab.demo

# Most tests wait for a daemon, so four heaps of them go side by side; each shows what it has to say when it ends.
test: setup lint types  ## what must hold before a commit: lint, types, unit, session, architecture, end to end
	@$(MAKE) --no-print-directory --keep-going --jobs=4 --output-sync=target others session e2e-a-n e2e-o-z

unit: setup  ## pure code, under ten seconds
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target unit-a-g unit-h-z

# Their files are in memory, where programs may be run there: a stand-in for postconf(1) is one. What Python compiled is
# kept, whatever the environment says. pytest walks a folder once, where it would for each of its files that is named.
MEMORY = $(shell findmnt -no OPTIONS -T /dev/shm | grep -qv noexec && echo /dev/shm)
UNIT = TMPDIR=$(MEMORY) PYTHONDONTWRITEBYTECODE= $(PYTEST) -q -o tmp_path_retention_policy=failed tests/unit

unit-a-g: setup
	$(UNIT) --ignore-glob='*/test_[h-z]*.py'

unit-h-z: setup
	$(UNIT) --ignore-glob='*/test_[a-g]*.py'

lint: setup  ## ruff
	$(PYTHON) -m ruff check milter tests packaging

types: setup  ## mypy, strict
	$(PYTHON) -m mypy

e2e: setup  ## end to end on a private Postfix
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target e2e-a-n e2e-o-z

e2e-a-n: setup
	$(PYTEST) -q tests/e2e/test_[a-n]*.py

e2e-o-z: setup
	$(PYTEST) -q tests/e2e/test_[o-z]*.py

session: setup  ## processes of postmeter without Postfix
	$(PYTEST) -q tests/session

others: setup  ## pure code, and what keeps the house in order
	$(PYTEST) -q tests --ignore=tests/session --ignore=tests/e2e

all: lint types  ## everything, whole corpora, nothing skipped, in a browser too; with Debian 12's Python packages; the benchmark
	@$(INSTALL) all
	@$(MAKE) --no-print-directory build/dashboards/.installed
	@POSTMETER_ALL=1 $(MAKE) --no-print-directory --keep-going --jobs=4 --output-sync=target others session e2e-a-n e2e-o-z
	@$(MAKE) --no-print-directory all-debian12
	@$(MAKE) --no-print-directory bench

all-debian12:
	@$(INSTALL) debian12
	POSTMETER_ALL=1 build/venv12/bin/python -m pytest -q tests/unit
	POSTMETER_ALL=1 build/venv12/bin/python -m pytest -q tests/session

bench: setup  ## what it costs behind Postfix, beside OpenDKIM, rspamd and others, and whether that is as it should be; a charge, a signature, links and a redirect beside peers'; a line of the log; a report; a bounce
	@$(INSTALL) bench || echo "bench: without the peers"
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.ledger
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.signers
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.links
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.web
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.returns
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.log
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.fates
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.feedback
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.shipping
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.memory
	PYTHONPATH=milter:. $(PYTHON) -m tests.bench.growth

# Grafana's own types, for the oldest version that they describe; of no use but for this.
build/dashboards/.installed:
	/usr/bin/python3 -m venv build/dashboards
	build/dashboards/bin/python -m pip install --disable-pip-version-check 'grafana-foundation-sdk == 1769699998!10.1.0'
	touch $@

dashboards: build/dashboards/.installed  ## the dashboards for Grafana, from packaging/grafana/dashboards.py
	build/dashboards/bin/python packaging/grafana/dashboards.py packaging/grafana

# A quarter of an hour of mail, readers and mishaps, under Debian's Prometheus; matplotlib draws what the panels ask.
pictures: build/dashboards/.installed  ## pictures of the dashboards for the documents, in docs/pictures/
	@$(INSTALL) all
	build/dashboards/bin/python -m pip install --disable-pip-version-check -q 'matplotlib >= 3.6'
	PYTHONPATH=milter:. $(PYTHON) -m tests.lab.busy 16 build/pictures.json
	build/dashboards/bin/python packaging/grafana/pictures.py draw build/pictures.json docs/pictures

# An override is of a tag that another Debian's lintian has.
LINTIAN = lintian --pedantic --display-info --allow-root --suppress-tags alien-tag

deb:  ## the Debian package, in build/, judged by lintian; its tests run unless DEB_BUILD_OPTIONS=nocheck
	@$(INSTALL) deb
	sh packaging/build-deb.sh
	@judged=$$($(LINTIAN) build/postmeter_*.changes) && told=yes || told=no; \
		printf 'lintian: %s\n' "$${judged:-clean}"; [ "$$told$$judged" = yes ]

clean:  ## remove what was built; installed Debian packages stay
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
