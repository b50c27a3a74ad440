# Everything a person does with this checkout. Needs make and Python 3.11 or later; the rest is installed into .venv.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-live-aws test-live-gcp test-live-azure test-airflow test-packages check format bench docs clean

BIN := .venv/bin

# Tests and the demo start hundreds of Python processes: what they import is compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '%-12s %s\n' "$$name" "$$text"; done

demo: .venv/.with-demo ## Run the flights example through a real Airflow and leave it up; ONCE=1: stop after the run
	@$(BIN)/python -m tools.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: test-packages .venv/.with-test ## Run all tests, a file to a process; ARGS="…" goes to pytest
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-live-aws: .venv/.with-test ## Run jobs on your AWS account: see docs/sagemaker.md
	$(BIN)/python -m pytest -v tests/live/aws_smoke.py $(ARGS)

test-live-gcp: .venv/.with-test ## Run jobs on your Google Cloud project: see docs/vertex-ai.md
	$(BIN)/python -m pytest -v tests/live/gcp_smoke.py $(ARGS)

test-live-azure: .venv/.with-test ## Run jobs in your Azure ML workspace: see docs/azure-ml.md
	$(BIN)/python -m pytest -v tests/live/azure_smoke.py $(ARGS)

test-airflow: .venv/.with-test ## Run the tests of what meets Airflow with another one: VERSION=3.1
	@tools/test_airflow.sh "$(VERSION)" $(ARGS)

test-packages:
	@tools/debian_packages.sh podman runc skopeo docker-registry mmdebstrap
	@tools/azurite.sh

check: .venv/.with-check ## Check format, lint, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.with-check ## Format the code, and fix what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: test-packages .venv/.with-test ## Run one benchmark: NAME=image; its last line is one JSON object
	@test -f "benchmarks/$(NAME).py" || { echo "NAME= one of: $(basename $(notdir $(wildcard benchmarks/[a-z]*.py)))" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.$(NAME)

docs: .venv/.with-docs ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## Remove what the commands made: .venv, .demo, caches, builds
	rm -rf .venv .venv-airflow-* .demo dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.with-%: pyproject.toml tools/setup_venv.sh
	@tools/setup_venv.sh $*
