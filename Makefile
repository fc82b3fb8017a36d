# The two commands of the README, and those of CONTRIBUTING.md. A virtual environment is made in
# .venv, and made anew only when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
LOWEST_TESTS := low_rank_local_connectivity tests/test_contract.py \
	tests/layers/local/test_identities.py tests/test_weights.py tests/test_networks.py \
	tests/test_training.py tests/test_data.py tests/test_export_signatures.py tests/test_plots.py \
	tests/test_tf_keras.py
LOWEST_TESTS_ON_JAX := tests/layers/local/test_identities.py tests/test_weights.py

# A suite starts hundreds of processes and rewrites a hundred modules: what one has compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: experiment test test-all test-tensorflow test-jax test-torch test-slow test-lowest \
	test-lowest-tensorflow test-lowest-jax tpu-check coverage lint format docs docs-check

experiment: .venv/experiments.installed
	$(BIN)/python run_experiment.py

# What a new user runs: the suite on TensorFlow.
test: test-tensorflow

# Every suite in turn, and one table of their results.
test-all: .venv/dev.installed
	$(BIN)/python tests/suites.py test test-jax test-torch test-lowest-tensorflow \
		test-lowest-jax test-slow

test-tensorflow: .venv/dev.installed
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -n 2 $(PYTEST)

test-jax: .venv/dev.installed
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 -m "not slow and not once" $(PYTEST)

test-torch: .venv/torch.installed
	KERAS_BACKEND=torch $(BIN)/python -m pytest -n 2 -m "not slow and not once" $(PYTEST)

# What needs minutes: repeats the README's commands, compiles every layer.
test-slow: .venv/dev-slow.installed
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -m slow $(PYTEST)

# What every dependency is for, on the lowest releases that pyproject.toml declares. What is new
# enough elsewhere finds much in them deprecated, so warnings are no errors here.
test-lowest: test-lowest-tensorflow test-lowest-jax

test-lowest-tensorflow: .venv-lowest/installed
	KERAS_BACKEND=tensorflow $(LOWEST)/python -m pytest -n 2 -W default --disable-warnings \
		$(or $(PYTEST),$(LOWEST_TESTS))

test-lowest-jax: .venv-lowest/installed
	KERAS_BACKEND=jax $(LOWEST)/python -m pytest -n 2 -W default --disable-warnings \
		-m "not slow and not once" $(or $(PYTEST),$(LOWEST_TESTS_ON_JAX))

# What the TPU's compiler says of the main rows of benchmarks/measured/tpu*.csv; needs no TPU.
tpu-check: .venv/tpu-check.installed
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m slow tests/test_tpu.py $(PYTEST)

# How much of the code the TensorFlow suite runs; fails below the share that pyproject.toml asks for.
coverage: .venv/dev.installed
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered $(PYTEST)

lint: .venv/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The pages, in build/docs/html. Examples of the gallery run, but not again until they change.
docs: .venv/docs.installed
	rm -rf build/docs/html/_modules  # whose links are not renewed when other pages are
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -d build/docs/trees docs build/docs/html

# Every page in a browser (Debian's chromium, or what CHROMIUM names), as wide as a screen and as a telephone.
docs-check: docs
	$(BIN)/python docs/check.py build/docs/html

format: .venv/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/experiments.installed: pyproject.toml setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments]"
	@touch $@

.venv/dev.installed: pyproject.toml setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments,dev]"
	@touch $@ .venv/experiments.installed

.venv/docs.installed: pyproject.toml setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments,docs]"
	@touch $@ .venv/experiments.installed

.venv/dev-slow.installed: pyproject.toml setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments,dev-slow]"
	@touch $@ .venv/dev.installed .venv/experiments.installed

.venv/tpu-check.installed: pyproject.toml setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[experiments,dev,tpu-check]"
	@touch $@ .venv/dev.installed .venv/experiments.installed

# The lowest PyTorch that pyproject.toml declares, in the build for CPUs that its own index has,
# unless some PyTorch is there already; and what interprets kernels for GPUs, where it exists.
.venv/torch.installed: | .venv/dev.installed
	$(BIN)/python -c "import torch" 2> /dev/null || $(BIN)/python -m pip install --quiet --retries 0 \
		--extra-index-url https://download.pytorch.org/whl/cpu $$($(BIN)/python tests/lowest.py torch)
	$(BIN)/python -m pip install --quiet --editable ".[experiments,dev,gpu-check]" || true
	@touch $@

.venv-lowest/installed: pyproject.toml setup.py tests/lowest.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/constraints.txt
	$(LOWEST)/python -m pip install --quiet --editable ".[experiments,dev]" \
		--constraint .venv-lowest/constraints.txt
	@touch $@
