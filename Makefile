# make demo    set up, build, train on iris and time the closure design beside it; writes demo.html, the last loss
# make test    set up, build, run all tests on both handles, or on the one that TAPEGRAD_HANDLE names;
#              OPTIONS=--full runs the long ones at full size
# make lint    ruff, mypy --strict, files derived from the core, pictures in docs/
# make ctest   the core alone under ASan and UBSan, and under valgrind and ThreadSanitizer where they are installed;
#              ctest-sanitized is the first of these
# make docs    the manual, in build/manual; its pages run their code
# make bench   measure beside micrograd and other libraries: benchmarks/RESULTS.md and its pictures, in half an hour
# PYTHON=pypy3 chooses the interpreter; each has a virtual environment of its own, or the one that VENV names.

PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(subst /,-,$(patsubst /%,%,$(PYTHON))))
CC ?= cc
VALGRIND ?= valgrind
BIN = $(VENV)/bin
# Of what is installed, in place, pip installs what an extra needs, and builds nothing again.
EXTRA = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint docs ctest ctest-sanitized bench clean

demo: $(VENV)/installed
	$(BIN)/python -m tapegrad demo --page demo.html

test: $(VENV)/installed
	$(BIN)/python tools/on_handles.py $(OPTIONS)

lint: $(VENV)/installed
	$(EXTRA) 'tapegrad[dev]'
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python tools/derive.py --check
	$(BIN)/python tools/pictures.py --check

docs: $(VENV)/installed
	$(EXTRA) 'tapegrad[docs]'
	$(BIN)/python -m sphinx -E -W --keep-going docs build/manual

bench: $(VENV)/installed
	$(EXTRA) 'tapegrad[bench]'
	$(BIN)/python benchmarks/run.py

# Installed again when a source of the extension has changed; the Python files are used where they are.
$(VENV)/installed: pyproject.toml setup.py build_ffi.py $(wildcard csrc/* csrc/*/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || \
	    { echo "tapegrad cannot be built: missing CPython 3.11, PyPy 3.9 or later ($(PYTHON) is none)" >&2; exit 1; }
	@$(PYTHON) build_ffi.py --check
	@$(PYTHON) -m venv $(VENV) || \
	    { echo "tapegrad cannot be built: missing the venv module: on Debian, apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

CORE = $(patsubst csrc/%.c,%,$(filter-out csrc/handle/%,$(wildcard csrc/*.c csrc/*/*.c)))
TESTS = core gradient program share batch loop look elementary sparse
CTEST = $(CC) -std=c11 -gdwarf-4 -g1 -Wall -Wextra -Wpedantic -Werror -ffp-contract=off -Icsrc -pthread
MADE = build/$(notdir $(CC))
plain = -O2
sanitized = -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
threads = -O1 -fsanitize=thread

.SECONDARY: # objects stay
ctest: $(TESTS:%=ctest-%)
	@echo 'int main(void) { return 0; }' >$(MADE)/probe.c
	if $(CC) $(threads) -o $(MADE)/probe $(MADE)/probe.c 2>/dev/null && $(MADE)/probe; then \
	    $(MAKE) CC=$(CC) threads-program threads-share threads-batch threads-loop; fi

ctest-sanitized: $(TESTS:%=sanitized-%)

ctest-%: sanitized-% plain-% ;

sanitized-%: tests/c/test_%.c $(CORE:%=$(MADE)/sanitized/%.o)
	$(CTEST) $(sanitized) -o $(MADE)/$*_sanitized $< $(CORE:%=$(MADE)/sanitized/%.o) -lm
	$(MADE)/$*_sanitized

plain-%: tests/c/test_%.c $(CORE:%=$(MADE)/plain/%.o)
	$(CTEST) $(plain) -o $(MADE)/$* $< $(CORE:%=$(MADE)/plain/%.o) -lm
	if command -v $(VALGRIND) >/dev/null; then \
	    $(VALGRIND) --quiet --error-exitcode=1 --leak-check=full $(MADE)/$* few; else $(MADE)/$*; fi

threads-%: tests/c/test_%.c $(CORE:%=$(MADE)/threads/%.o)
	$(CTEST) $(threads) -o $(MADE)/$*_threads $< $(CORE:%=$(MADE)/threads/%.o) -lm
	$(MADE)/$*_threads few

# The core is compiled once in each of the three ways, for its lanes take their time.
COMPILE = @mkdir -p $(@D) && $(CTEST) $($1) -c -o $@ $<
$(MADE)/plain/%.o: csrc/%.c $(wildcard csrc/*.h csrc/*/*.h csrc/*.def)
	$(call COMPILE,plain)
$(MADE)/sanitized/%.o: csrc/%.c $(wildcard csrc/*.h csrc/*/*.h csrc/*.def)
	$(call COMPILE,sanitized)
$(MADE)/threads/%.o: csrc/%.c $(wildcard csrc/*.h csrc/*/*.h csrc/*.def)
	$(call COMPILE,threads)

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info tapegrad/_core.c csrc/*.o csrc/*/*.o tapegrad/*.o tapegrad/*.so
