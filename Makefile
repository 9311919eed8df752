# make demo    train, evaluate (bound and exact likelihood) and sample DiffEnc on 8x8 digits: some minutes
# make test    the test suite
# make check   lint, types, tests
# make docs    the site, docs/_build/html: tutorials executed, warnings are errors
# make mutants wrong versions of the code, each of which the suite must catch
# make mutants-generated  the same of a sample of those that operators make (ROOMS="data cli" SAMPLE=100)
# make soak    a training process killed 50 times at random moments, a different 50 each time
# Every target makes .venv first when there is none.

PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
RUN ?= runs/demo
TESTS ?= tests
ROOMS ?= data calibration training cli
SAMPLE ?= 40

.PHONY: demo test check docs mutants mutants-generated soak clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/diffenc train --preset digits --steps 1000 --run $(RUN) --resume
	$(BIN)/diffenc evaluate $(RUN) --draws 4
	$(BIN)/diffenc evaluate $(RUN) --likelihood both --examples 60 --draws 4
	$(BIN)/diffenc sample $(RUN)

test: $(STAMP)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TESTS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

docs: $(STAMP)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -d docs/_build/doctrees \
		docs docs/_build/html

mutants: $(STAMP)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m tests.mutants

mutants-generated: $(STAMP)
	$(BIN)/python -m tests.mutants generated $(ROOMS) --sample $(SAMPLE) --at-least 90

soak: $(STAMP)
	HYPOTHESIS_PROFILE=soak DIFFENC_KILLS=50 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/python -m pytest -s tests/training/test_training_faults.py -k killed

clean:
	rm -rf .venv build dist *.egg-info
