# make study   set up .venv on first use, run the study named in config/config.yaml (or STUDY=NAME), print the path of the report
# make new-study DATA=my.csv MODEL=path-or-hub-id   a study file for data and a model of your own, and what it takes
# make pages   an index of all reports in reports/: title, answer, date, cost
# make app     use the tuned models on a local page; Ctrl-C ends it (ARGS="--run RUN" starts with another run)
# make verify  compare the files of a finished study with their digests: what has changed since it was written
# make space   a folder with the app that runs on a Hugging Face Space
# make vllm    set up vLLM in an environment of its own, for studies with scoring.engine: vllm
# make test    set up the test tools, run the test suite
# make test-long  run the tests that take minutes and repeat on a whole study what others test on parts of it
# make truth   show on made-up studies how often the verdicts are wrong, and how often they find what is there
# make bench   measure loragrid side by side with the tools that one would use instead

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: study new-study pages verify app space vllm test test-long certify truth bench base-models clean

study: $(VENV)/.study
	$(BIN)/python scripts/tools/run_snakemake.py --cores $(CORES) $(if $(STUDY),--config study=$(STUDY))

# Values reach the shell as its own variables, whatever characters they hold, and only those of this command line.
new-study: $(VENV)/.study
	@$(BIN)/python scripts/tools/new_study.py $(strip $(foreach name,DATA MODEL LR CARD HOURS NAME COLUMNS SPLIT,$(if $(filter command,$(origin $(name))),--$(shell echo $(name) | tr A-Z a-z)="$$$(name)")))

pages: $(VENV)/.study
	$(BIN)/python scripts/tools/index_reports.py $(ARGS)

verify: $(VENV)/.study
	$(BIN)/python scripts/tools/verify_results.py $(ARGS)

app: $(VENV)/.app
	$(BIN)/python scripts/app.py $(ARGS)

space: $(VENV)/.app
	$(BIN)/python scripts/tools/make_space.py $(ARGS)

vllm: $(VENV)/.vllm

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadfile --ignore tests/slurm
	$(BIN)/python -m pytest tests/slurm  # its jobs have time limits, so nothing runs beside them

test-long: $(VENV)/.test
	$(BIN)/python -m pytest -m long --numprocesses 2 --dist loadfile

certify: $(VENV)/.test
	$(BIN)/python scripts/tools/certify.py

truth: $(VENV)/.study
	$(BIN)/python -m benchmarks.truth

# Every benchmark that needs no GPU, one after another, about four hours on two quiet cores; the page is benchmarks/README.md.
bench: $(VENV)/.test
	for what in study training scoring generation scale report_reach checkpoint worker tune truth truth_next; do $(BIN)/python -m benchmarks.$$what || exit 1; done
	$(BIN)/python -m benchmarks.study --ways one cold --out benchmarks/results/warm.json
	$(BIN)/snakemake --cores 1
	$(BIN)/python -m benchmarks.app
	$(BIN)/python -m benchmarks.table

# Rebuilds the demo's base models and scoring items from their seeds, half an hour on one core.
base-models: $(VENV)/.study
	$(BIN)/python scripts/tools/make_base_models.py

# The conda environments take the same pins.
environment.yml: requirements.txt
environment-gpu.yml: requirements.txt requirements-gpu.txt
environment.yml environment-gpu.yml:
	sed -n '1,/- pip:/p' $@ > $@.new && sed -n 's/^\([A-Za-z].*\)/      - "\1"/p' $^ >> $@.new && mv $@.new $@

clean:
	rm -rf $(VENV)

$(VENV)/.study: requirements.txt pyproject.toml scripts/tools/install_torch.sh
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: loragrid needs Python 3.11 or newer: make study PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "loragrid: installing the packages of requirements.txt into $(VENV); this takes about five minutes and 2 GB"
	sh scripts/tools/install_torch.sh $(BIN) requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.app: $(VENV)/.study requirements-app.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	touch $@

$(VENV)/.test: $(VENV)/.study requirements-test.txt requirements-app.txt requirements-slurm.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

# The accessibility checker of the browser tests, for those who have npm; without it, those tests are skipped.
$(VENV)/.axe:
	npm install --prefix $(VENV)/axe --no-audit --no-fund --ignore-scripts --silent axe-core@4.14.1
	touch $@

# vLLM has pins of its own, which are not the study's: another interpreter, which the score stage starts.
$(VENV)/.vllm: $(VENV)/.study requirements-vllm.txt
	$(PYTHON) -m venv $(VENV)/vllm
	@echo "loragrid: installing vLLM into $(VENV)/vllm; this takes several minutes and 10 GB"
	$(VENV)/vllm/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	touch $@

# A second interpreter with the same packages and unsloth, which changes the libraries that it is imported with. Its form for
# CPUs is what the tests drive; for a GPU: pip install -r requirements-gpu.txt.
$(VENV)/.unsloth: $(VENV)/.test requirements-gpu.txt
	$(BIN)/python -m venv --without-pip $(VENV)/unsloth
	$(BIN)/python -c 'import pathlib, sysconfig; [folder.joinpath("study.pth").write_text(sysconfig.get_path("purelib") + "\n$(CURDIR)/scripts") for folder in pathlib.Path("$(VENV)/unsloth").glob("lib/*/site-packages")]'
	$(BIN)/python -m pip --python $(VENV)/unsloth/bin/python install --quiet --disable-pip-version-check --no-deps $$(grep '^unsloth' requirements-gpu.txt)
	touch $@
