# make train   the quickstart: install, then pre-train on generated images
# make test    install, then lint and run the tests
# make test-slow   the long ones: more kills, more replicas
# make chaos   kills, damage and long runs, and a table of what was survived (23 to 36 minutes)
# make tpu-compile   compiles the steps and predictions for a TPU v5e, without a TPU (about 30 minutes)
# make PYTHON=python3.12 ... chooses the Python that .venv is made with

PYTHON ?= python3
# Tests of faults that are quick enough for `make test`; `make chaos` lists them, too.
FAULTS = tests/training/test_checkpoint.py tests/training/test_nonfinite.py tests/training/test_skipped_steps.py \
	tests/training/test_workers.py \
	tests/data/test_bad_files.py tests/data/test_untrusted.py tests/pretraining/test_config_fuzz.py
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: train test test-slow chaos tpu-compile lint clean

train:
	@$(PYTHON) tools/bootstrap.py
	@.venv/bin/python train.py --config=configs/quickstart.py --workdir=runs/quickstart

test: lint
	@.venv/bin/python -m pytest

test-slow: lint
	@.venv/bin/python -m pytest -m slow --ignore=tests/chaos

chaos: lint
	@.venv/bin/python -m pytest -m "slow or not slow" tests/chaos $(FAULTS)

tpu-compile:
	@$(PYTHON) tools/bootstrap.py
	@test -x .venv-tpu/bin/python || $(PYTHON) -m venv .venv-tpu
	@.venv-tpu/bin/python -m pip install --quiet "jax==0.10.2" "libtpu==0.0.52"
	@.venv/bin/python benchmarks/tpu_lower.py build/tpu
	@.venv-tpu/bin/python benchmarks/tpu_compile.py build/tpu --collectives

lint:
	@$(PYTHON) tools/bootstrap.py test
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

clean:
	rm -rf .venv .venv-tpu build *.egg-info .pytest_cache .ruff_cache
