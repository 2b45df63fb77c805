# Two commands set everything up: `make demo` and `make test`. README.md explains both.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Real components that tests need (OpenFOAM, MPI, compilers, libzmq); installed by `make test` when root on Debian.
DEBIAN_PACKAGES := openfoam openfoam-examples openmpi-bin libopenmpi-dev libzmq3-dev pkg-config g++ gcc gfortran make cmake valgrind \
  prometheus chromium fonts-dejavu-core dpkg-dev iproute2 slurm-wlm munge python3-numpy python3-zmq python3-mpi4py

DOCKER_PACKAGES := docker.io docker-compose debootstrap

# The many processes of studies need not compile the modules each time.
unexport PYTHONDONTWRITEBYTECODE

# One process of pytest more than there are cores: tests compute as much as they wait, and more of them only slow each other.
# Tests of one group share what is expensive to start: tests/arrangement.py.
PROCESSES ?= $(shell expr $$(nproc) + 1)
SIDE_BY_SIDE := -n $(PROCESSES) --dist loadscope --no-loadscope-reorder

.PHONY: env demo test docker-test quick coverage lint docs bench sizing results chaos fuzz tutorials system clean

env: $(VENV)/.installed  ## create .venv with everything pinned

$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py server/penstock_server/native/kernel.c
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: env  ## train a surrogate of the heat equation while it is being solved; ends with a report and a picture
	rm -rf runs/demo
	$(BIN)/penstock run examples/heat/study.toml --out runs/demo
	$(BIN)/penstock plot runs/demo

system:  ## install the real components, when root on Debian
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  dpkg -s $(DEBIAN_PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(DEBIAN_PACKAGES) >/dev/null; }; \
	else echo "not root on Debian: tests of components that are not installed are skipped"; fi

test: env system lint  ## lint, types, import directions, and all tests
	command -v icoFoam >/dev/null && $(BIN)/penstock openfoam build || echo "no OpenFOAM: its tests are skipped"
	$(BIN)/pytest $(SIDE_BY_SIDE)

docker-test: env  ## docker/ on a real engine, which it installs and starts when root on Debian: some minutes, images in build/docker
	@docker info >/dev/null 2>&1 || dpkg -s $(DOCKER_PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(DOCKER_PACKAGES) >/dev/null; }
	$(BIN)/pytest tests/docker

quick: env lint  ## lint, types, import directions, and the tests that need no whole study, OpenFOAM or Slurm
	$(BIN)/pytest $(SIDE_BY_SIDE) -m 'not slow and not openfoam and not slurm'

coverage: env  ## lines of the Python packages that tests without whole studies do not reach: htmlcov/index.html
	$(BIN)/pytest $(SIDE_BY_SIDE) -m 'not slow' --cov --cov-report=html --cov-report=term:skip-covered

# Without its cache: ruff keeps a file's verdict when a module that the file imports has moved, which changes the order of its imports.
lint: env
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: env  ## the documentation as a site in build/site, built without a network; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: env  ## docs/performance.md: Penstock beside what people use instead, about 50 minutes; BENCH='--rounds 1' takes 18, BENCH=--quick 6 and keeps the page
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@command -v redis-server >/dev/null || ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && \
	  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server >/dev/null; }
	$(BIN)/python benchmarks/performance $(BENCH)

sizing: env  ## the figures of docs/sizing.md
	$(BIN)/python benchmarks/buffer.py
	$(BIN)/python benchmarks/scale.py

fuzz: env system  ## a million mutated messages at every parser of server and client, and a million at those of libpenstock: docs/fuzzing.md
	$(BIN)/python tests/fuzz/run.py --messages 1000000
	$(BIN)/python tests/fuzz/c_parsers.py --inputs 1000000

results: env  ## the tables and figures of docs/results.md: about three hours on 2 cores
	$(BIN)/python benchmarks/laptop_protocol
	$(BIN)/python benchmarks/streaming_bias.py
	$(BIN)/python benchmarks/online_vs_offline.py
	$(BIN)/python benchmarks/trainer_ranks.py
	$(BIN)/python benchmarks/literature.py
	$(BIN)/python benchmarks/results_page.py

tutorials: env system  ## twelve tutorials of OpenFOAM as studies, and one entry set in each dictionary of all tutorials: some minutes
	$(BIN)/python tests/solver_adapters/openfoam/tutorials.py
	$(BIN)/python tests/solver_adapters/openfoam/carry_over.py

chaos: env system  ## the table of docs/reliability.md, then a thousand faults done to one study: about an hour
	$(BIN)/python tests/chaos/rows.py
	$(BIN)/python tests/chaos/soak.py --faults 1000 --seconds 1800 --results
	$(BIN)/python tests/chaos/reliability_page.py

clean:
	rm -rf $(VENV) htmlcov .coverage runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
