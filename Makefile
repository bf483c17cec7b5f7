# Everything runs from a virtual environment in .venv, made on first use. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORLDS := AstraDrive-v0 AstraManipulation-v0 AstraDrone-v0 AstraCamera-v0
SCENARIOS ?= drive manipulation drone camera
# What `make train` collects: about 62,000 blocks of 4 frames of each scenario; from 9,000 a world learns much by heart.
COLLECT_drive := --env AstraSim/Drive-v0 --policy mixed-driver --blocks 130
COLLECT_manipulation := --env AstraSim/Manipulation-v0 --policy mixed-pusher --blocks 50
COLLECT_drone := --env AstraSim/Drone-v0 --policy mixed-racer --blocks 125
COLLECT_camera := --env AstraSim/Camera-v0 --policy mixed-pilot --blocks 100
EPISODES_drive := 500
EPISODES_manipulation := 1240
EPISODES_drone := 560
EPISODES_camera := 620
DRAW := from astra_gym.simulators.mujoco_view import MujocoView, mujoco; \
	MujocoView(mujoco.MjModel.from_xml_string("<mujoco/>"))

export SDL_VIDEODRIVER ?= dummy

.DEFAULT_GOAL := help
.PHONY: help demo test train lint clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-6s %s\n' "$$name" "$$text"; done

# A torch that is already there stays; a machine without an NVIDIA GPU gets the pinned one, in its small build where that
# can be reached, before anything else asks for torch.
# MuJoCo draws with OpenGL, which a bare machine lacks; only the simulators of Manipulation, Drone and Camera need it.
$(INSTALLED): setup.cfg pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "make: $(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }
	@command -v nvidia-smi >/dev/null || $(BIN)/python -c "import torch" 2>/dev/null || \
		$(BIN)/pip install --quiet --retries 0 --timeout 10 --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 2>/dev/null || \
		$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable ".[dev]"
	@draws() { $(BIN)/python -c '$(DRAW)' 2>/dev/null; }; draws || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes libegl1 libgl1 >/dev/null && draws; } || \
		echo "make: MuJoCo cannot draw, so its simulators cannot run (Debian: apt install libegl1 libgl1)" >&2
	@touch $@

demo: $(INSTALLED) ## films in videos/: agents in every world, and in the true simulators those that learned in a world
	@for world in $(WORLDS); do case $$world in AstraDrive-v0) blocks=100;; *) blocks=40;; esac; \
		for agent in scripted learned random; do \
		$(BIN)/astra-gym record $$world --agent $$agent --blocks $$blocks --side-by-side --output videos || exit 1; \
		done; done
	@for world in Drive Manipulation Drone Camera; do \
		$(BIN)/astra-gym record AstraSim/$$world-v0 --agent learned --episodes 2 --blocks 75 --output videos || exit 1; done

# Two workers of one thread each: with more, threads of the one wait for those of the other.
test: $(INSTALLED) ## run all tests (ARGS="-k drive" for some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

train: $(INSTALLED) $(foreach name,$(SCENARIOS),data/$(name)/train/metadata.json data/$(name)/val/metadata.json) ## collect data where it is missing, then train (SCENARIOS=drive)
	$(BIN)/python scripts/train_world.py --scenarios $(SCENARIOS) $(ARGS)

data/%/train/metadata.json: | $(INSTALLED)
	$(BIN)/python scripts/collect.py --output $(@D) $(COLLECT_$*) --episodes $(EPISODES_$*)

# Scenes follow from seeds; those of validation lie far from those of training.
data/%/val/metadata.json: | $(INSTALLED)
	$(BIN)/python scripts/collect.py --output $(@D) $(COLLECT_$*) --episodes 32 --first-seed 1000000

# mypy needs the installed layout, where envs/ and agents/ are part of astra_gym.
lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/check && mkdir -p build/check
	@cp -r astra_gym build/check && cp -r envs agents build/check/astra_gym
	cd build/check && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache \
		astra_gym $(CURDIR)/scripts

clean: ## remove build products and caches; data/, runs/, videos/ and .venv/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find astra_gym envs agents scripts tests -name __pycache__ -prune -exec rm -rf {} +
