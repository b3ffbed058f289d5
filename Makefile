# make train   the quickstart: install, then pre-train on generated images
# make test    install, then lint and run the quick tests; FILE=tests/moco runs some of them
# make test-slow   the long ones: kills, replicas, real data, long fits; FILE= as above
# make chaos   kills, damage and long runs, and a table of what was survived (23 to 36 minutes)
# make mutants changes one line of the package at a time: do the quick tests notice?
# make docs    builds docs/ as pages in build/docs, and runs the notebook of examples/; a warning is an error
# make tpu-compile   compiles the steps and predictions for a TPU v5e, without a TPU (about 30 minutes)
# make bench   measures the tables of docs/speed.md here: NAME=my_machine IMAGES=DIR CLASSES=DIR CIFAR10=DIR (half an hour, and 12 minutes with CIFAR10)
# make PYTHON=python3.12 ... chooses the Python that .venv is made with

PYTHON ?= python3
# Tests of faults that are quick enough for `make test`; `make chaos` lists them, too.
FAULTS = tests/training/test_checkpoint.py tests/training/test_nonfinite.py tests/training/test_skipped_steps.py \
	tests/training/test_workers.py \
	tests/data/test_bad_files.py tests/data/test_untrusted.py tests/pretraining/test_config_fuzz.py

.PHONY: train test test-slow chaos mutants docs tpu-compile bench lint clean

train:
	@$(PYTHON) tools/bootstrap.py
	@.venv/bin/python train.py --config=configs/quickstart.py --workdir=runs/quickstart

test: lint
	@.venv/bin/python -m pytest $(FILE)

test-slow: lint
	@.venv/bin/python -m pytest -m slow --ignore=tests/chaos $(FILE)

chaos: lint
	@.venv/bin/python -m pytest -m "slow or not slow" tests/chaos $(FAULTS)

mutants:
	@$(PYTHON) tools/bootstrap.py test
	@.venv/bin/python tests/mutants/run_mutants.py

docs:
	@$(PYTHON) tools/bootstrap.py docs
	@.venv/bin/python tools/concept_pictures.py
	@.venv/bin/python -m sphinx -W --keep-going -q docs build/docs
	@.venv/bin/python tools/notebook.py --execute build/pretrain_fit.ipynb
	@echo build/docs/index.html

tpu-compile:
	@$(PYTHON) tools/bootstrap.py
	@test -x .venv-tpu/bin/python || $(PYTHON) -m venv .venv-tpu
	@.venv-tpu/bin/python -m pip install --quiet "jax==0.10.2" "libtpu==0.0.52"
	@.venv/bin/python benchmarks/tpu_lower.py build/tpu
	@.venv-tpu/bin/python benchmarks/tpu_compile.py build/tpu --collectives

bench:
	@.venv/bin/python benchmarks/all.py --name=$(NAME) $(if $(IMAGES),--images=$(IMAGES)) $(if $(CLASSES),--classes=$(CLASSES)) $(if $(CIFAR10),--cifar10=$(CIFAR10))
	@.venv/bin/python tools/speed.py

lint:
	@$(PYTHON) tools/bootstrap.py test
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

clean:
	rm -rf .venv .venv-tpu build *.egg-info .pytest_cache .ruff_cache
