# Everything from a fresh machine with Python 3.11 and make; `make help` lists what there is.
PYTHON ?= python3.11
# Compiled modules are kept, also where the environment says otherwise: each process of Ray's would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup setup-dev demo test nodes loop unit coverage lint sbom clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/    make \1 # \2/p' Makefile | awk -F ' # ' '{ printf "%-19s# %s\n", $$1, $$2 }'

setup: $(STAMP) ## .venv with what cellnet needs; then .venv/bin/cellnet
setup-dev: $(STAMP)-dev ## .venv with what the tests need too

# uv unpacks on all CPUs, in a fifth of pip's time; it is told of the indexes that pip is set up for. Which there are is
# the machine's choice: none is named here. constraints.txt has one version of every name, so no index answers for a name
# by a higher one, and of the indexes that have that version the first does. All are asked, as pip asks them: where the
# first has older files alone, nothing could be installed otherwise (UV_INDEX_STRATEGY=first-index refuses that).
told = $$($(BIN)/pip config list | sed -n "s/^[^=]*[.]$(1)='\(.*\)'$$/\1/p" | sed 's/\\n/ /g' | head -1)
uv = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$(call told,index-url)}" \
	UV_INDEX="$${UV_INDEX:-$(call told,extra-index-url)}" UV_FIND_LINKS="$${UV_FIND_LINKS:-$(call told,find-links)}" \
	UV_INDEX_STRATEGY="$${UV_INDEX_STRATEGY:-unsafe-best-match}" $(BIN)/uv
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "make: $(PYTHON) is no Python 3.11; install it, or say where it is: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(uv) pip install --quiet --python .venv --constraint constraints.txt --editable '$(1)'
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,.)
	touch $@

$(STAMP)-dev: pyproject.toml constraints.txt
	$(call install,.[dev])
	touch $(STAMP) $@

demo: setup ## set-up, then the main job on drawn images; serves at the end (DEMO_EXIT=1 stops)
	$(BIN)/python infra/demo.py

# In the order of the files, so that the minutes of those with Ray are not left to one process at the end.
test: setup-dev ## set-up, then every test that needs no GPU: about a quarter of an hour
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Clusters of several nodes, and all that takes long, one after the other.
nodes: setup-dev ## the tests that take long: clusters of several nodes, faults, large networks
	$(BIN)/python -m pytest -m "nodes or whole" -n 0

# In Chromium, with a bank in a bucket; pictures and figures in loop/.
loop: setup-dev ## people correct, cellnet learns: a plate is uploaded, corrected and learned from, in a browser
	$(BIN)/python -m tests.loop loop

# Those of seconds, to be run often.
unit: setup-dev ## the tests of seconds, without Ray
	$(BIN)/python -m pytest -m "not slow and not whole" -n 2 --dist loadfile tests/unit

# A table of the lines that no test runs; those of Ray's workers and of commands count too (half as long again).
coverage: setup-dev ## as make test, and a table of the lines that no test runs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

lint: setup-dev ## ruff, and mypy in strict mode
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# sbom.json: what .venv holds, as CycloneDX, by its own tool in an environment of its own (after make setup alone: what
# cellnet itself needs).
sbom: setup ## sbom.json: what .venv holds, as CycloneDX
	$(uv) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible -o sbom.json $(BIN)/python

clean: ## what demo, loop, sbom and the tests left; .venv stays
	rm -rf demo loop sbom.json .pytest_cache .mypy_cache .ruff_cache .coverage*
