# make train   the quickstart: install, then pre-train on generated images
# make test    install, then lint and run the tests
# make test-slow   the long ones: more kills, more replicas
# make PYTHON=python3.12 ... chooses the Python that .venv is made with

PYTHON ?= python3
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: train test test-slow lint clean

train:
	@$(PYTHON) tools/bootstrap.py
	@.venv/bin/python train.py --config=configs/quickstart.py --workdir=runs/quickstart

test: lint
	@.venv/bin/python -m pytest

test-slow: lint
	@.venv/bin/python -m pytest -m slow

lint:
	@$(PYTHON) tools/bootstrap.py test
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
