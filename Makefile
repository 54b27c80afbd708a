# poold: build, check and install. `make help` lists the targets.
#
# Everything is built in build/VARIANT (release, debug, asan, tsan: `make VARIANT=asan`), objects in build/VARIANT/obj
# under the path of their source. The programs of the release variant are also linked to build/NAME.
#
# Sources are found by folder, and each folder of the tower (see ARCHITECTURE.md) makes one archive. A program names the
# archives that it may use, so a wrong dependency does not link. Sources that make system calls and therefore must not
# reach the simulator have archives of their own: the reactor and the disk drivers.

VARIANT ?= release
O       := build/$(VARIANT)

.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all
# `make V=1` shows whole commands.
say = $(if $(V),,@printf '  %-6s %s\n' $(1) $@;)

# ---- flags ----

ifeq ($(origin CC),default)
CC := gcc
endif
PKG_CONFIG ?= pkg-config
PKGS       := liburing libisal jansson gnutls libnbd libiscsi

OPT_release := -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
OPT_debug   := -Og -g3
OPT_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# TSan does not see atomic_thread_fence, and gcc says so at each one. Ours order atomics only, or memory shared with other
# processes, where TSan cannot look.
OPT_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -Wno-tsan
# clang only: what it warns of beyond gcc is not our business here, and it does not define what gcc does with ASan.
OPT_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-sanitize=pointer-overflow -D__SANITIZE_ADDRESS__ -Wno-error -Wno-everything
ifeq ($(OPT_$(VARIANT)),)
$(error unknown variant '$(VARIANT)': use release, debug, asan, tsan or fuzz)
endif

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wpointer-arith -Wundef -Wvla -Wformat=2 -Wno-unused-parameter -Wno-dangling-pointer

# CFLAGS and LDFLAGS are left to whoever builds.
BASE_CFLAGS := -std=gnu11 -march=x86-64-v2 -D_GNU_SOURCE -I. $(WARNINGS) -fstack-protector-strong -fPIE \
	-fno-strict-aliasing $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
BUILD_CFLAGS = $(BASE_CFLAGS) $(OPT_$(VARIANT)) -MMD -MP $(CFLAGS)
BUILD_LDFLAGS = $(filter -O% -g% -fsanitize=%,$(OPT_$(VARIANT))) -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)

# Boost.Context's C entry points only: no C++ run time. Libraries that a program does not use are not linked (--as-needed).
ENGINE_LIBS := -lisal -l:libboost_context.a
LIBS        := $(ENGINE_LIBS) $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null) -lpthread

# ---- sources ----

REACTOR_SRCS := $(wildcard pool/runtime/reactor*.c pool/runtime/offload.c)
DRIVERS_SRCS := $(foreach driver,file open discover ram remote iscsi nbd,$(wildcard pool/disks/disk_$(driver)*.c))
REAL_SRCS    := $(REACTOR_SRCS) $(DRIVERS_SRCS)
BASE_SRCS    := $(wildcard pool/base/*.c)
RUNTIME_SRCS := $(filter-out $(REACTOR_SRCS),$(wildcard pool/runtime/*.c))
DISKS_SRCS   := $(filter-out $(DRIVERS_SRCS),$(wildcard pool/disks/*.c))
POOL_SRCS    := $(wildcard pool/*.c)
VOLUMES_SRCS := $(wildcard volumes/*.c)
SNAPSHOTS_SRCS := $(wildcard snapshots/*.c)
CHECK_SRCS   := $(wildcard tools/check/*.c)
TARGETS_SRCS := $(wildcard targets/*.c)

POOLCTL_SRCS := $(wildcard tools/poolctl*.c tools/rpc.c)
TOOL_MAINS   := tools/poolctl.c tools/poolcheck.c
POOLVM_SRCS  := $(wildcard tools/poolvm*.c) $(addprefix tools/,json_text.c jsonrpc.c params.c)
POOLD_SRCS   := $(filter-out $(TOOL_MAINS) tools/poolctl% tools/poolvm%,$(wildcard tools/*.c))
VMM_SRCS     := $(wildcard vmm-glue/*.c)
SIM_SRCS     := $(wildcard tests/sim/*.c)

CLIENT_MAINS := $(wildcard tests/client/vhost_bench.c tests/client/vhost_hostile.c tests/client/vhost_semantics.c \
	tests/client/nbd_hostile.c)
CLIENT_SRCS  := $(filter-out $(CLIENT_MAINS),$(wildcard tests/client/*.c))
UNIT_MAINS   := $(wildcard tests/unit/test_*.c)
UNIT_SRCS    := $(filter-out $(UNIT_MAINS),$(wildcard tests/unit/*.c))

FUZZ_MAINS   := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_SRCS    := $(filter-out $(FUZZ_MAINS),$(wildcard tests/fuzz/*.c))
# Parsers of tools/ that are fuzzed.
FUZZ_TOOLS_SRCS := $(addprefix tools/,json_text.c jsonrpc.c names.c params.c state.c state_json.c)

objs = $(patsubst %.c,$(O)/obj/%.o,$(1))

# ---- programs: each one exists when its main file does ----

programs_of = $(if $(wildcard $(1)),$(2))
PROGRAMS := $(call programs_of,tools/poold.c,poold) $(call programs_of,tools/poolctl.c,poolctl) \
	$(call programs_of,tools/poolvm.c,poolvm) \
	$(call programs_of,tests/sim/*.c,simulator) \
	$(foreach main,$(CLIENT_MAINS),$(subst _,-,$(notdir $(main:.c=))))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(O)/unit/%,$(UNIT_MAINS))
INSTALLED  := $(filter poold poolctl poolvm,$(PROGRAMS))

.PHONY: all
all: $(addprefix $(O)/,$(PROGRAMS)) $(if $(filter release,$(VARIANT)),$(addprefix build/,$(PROGRAMS))) ## build the programs

archives = $(patsubst %,$(O)/lib%.a,$(1))

# What a program of each height may use.
USE_base    := $(call archives,base)
USE_runtime := $(call archives,reactor runtime) $(USE_base)
USE_disks   := $(call archives,drivers disks) $(USE_runtime)
USE_pool    := $(call archives,pool) $(USE_disks)
USE_volumes := $(call archives,snapshots volumes) $(USE_pool)
USE_targets := $(call archives,targets) $(USE_volumes)
USE_vmm     := $(call archives,vmm) $(O)/obj/targets/vhost_proto.o $(USE_base)
USE_tools   := $(call archives,tools) $(USE_targets)
USE_sim     := $(call archives,check snapshots volumes pool disks runtime base)

$(O)/libbase.a:      $(call objs,$(BASE_SRCS))
$(O)/libruntime.a:   $(call objs,$(RUNTIME_SRCS))
$(O)/libreactor.a:   $(call objs,$(REACTOR_SRCS))
$(O)/libdisks.a:     $(call objs,$(DISKS_SRCS))
$(O)/libdrivers.a:   $(call objs,$(DRIVERS_SRCS))
$(O)/libpool.a:      $(call objs,$(POOL_SRCS))
$(O)/libvolumes.a:   $(call objs,$(VOLUMES_SRCS))
$(O)/libsnapshots.a: $(call objs,$(SNAPSHOTS_SRCS))
$(O)/libcheck.a:     $(call objs,$(CHECK_SRCS))
$(O)/libtargets.a:   $(call objs,$(TARGETS_SRCS))
$(O)/libvmm.a:       $(call objs,$(VMM_SRCS))
$(O)/libclient.a:    $(call objs,$(CLIENT_SRCS))
$(O)/libunit.a:      $(call objs,$(UNIT_SRCS))

$(O)/libtools.a:     $(call objs,$(filter-out tools/poold.c,$(POOLD_SRCS)))

$(O)/poold:     $(call objs,tools/poold.c) $(USE_tools)
$(O)/poolctl:   $(call objs,$(POOLCTL_SRCS)) $(call archives,check snapshots) $(USE_base)
$(O)/poolctl:   LIBS := -ljansson -lisal -lnbd
$(O)/poolvm:    $(call objs,$(POOLVM_SRCS)) $(USE_vmm)
$(O)/poolvm:    LIBS := -ljansson -lisal -lpthread
$(O)/simulator: $(call objs,$(SIM_SRCS)) $(USE_sim)
$(O)/simulator: LIBS := $(ENGINE_LIBS)
$(O)/vhost-%:   $(O)/obj/tests/client/vhost_%.o $(O)/libclient.a $(USE_base)
	$(link)
$(O)/nbd-%:     $(O)/obj/tests/client/nbd_%.o $(O)/libclient.a $(USE_base)
	$(link)

# A unit test or micro benchmark may use what it includes and everything below, so that one of a low floor builds whatever
# happens above it.
BENCH_MAINS := $(shell grep -lw '^int main' tests/bench/*.c 2>/dev/null)
HEIGHTS := $(shell awk 'FNR == 1 { best[FILENAME] = 1 } \
	match($$0, /^\#include "(tools|vmm-glue|targets|volumes|snapshots|pool\/disks|pool\/runtime|pool)\//) { \
		h = $$0 ~ /"vmm-glue/ ? 8 : $$0 ~ /"tools/ ? 7 : $$0 ~ /"targets/ ? 6 : $$0 ~ /"(vol|snap)/ ? 5 : $$0 ~ /pool\/disks/ ? 3 : \
			$$0 ~ /pool\/runtime/ ? 2 : $$0 ~ /pool\/base/ ? 1 : 4; \
		if (h > best[FILENAME]) best[FILENAME] = h } \
	END { split("base runtime disks pool volumes targets tools vmm", name, " "); \
		for (f in best) { t = f; sub(/^tests\//, "", t); sub(/\.c$$/, "", t); print t ":" name[best[f]] } }' \
	$(UNIT_MAINS) $(BENCH_MAINS) /dev/null)
height_rule = $(O)/$(1): $(USE_$(2))
$(foreach pair,$(HEIGHTS),$(eval $(call height_rule,$(firstword $(subst :, ,$(pair))),$(lastword $(subst :, ,$(pair))))))

$(O)/unit/%:    $(O)/obj/tests/unit/%.o $(O)/libunit.a
	$(link)
$(O)/unit/%:    LIBS += -lcmocka

# Fuzzers: `make VARIANT=fuzz CC=clang fuzz-programs`, which `make fuzz` does. libFuzzer brings its main.
FUZZERS := $(patsubst tests/fuzz/%.c,$(O)/%,$(FUZZ_MAINS))
$(O)/libfuzz.a: $(call objs,$(FUZZ_SRCS) $(FUZZ_TOOLS_SRCS))
$(O)/fuzz_%:    $(O)/obj/tests/fuzz/fuzz_%.o $(O)/libfuzz.a $(O)/libunit.a $(USE_targets)
	$(link)
$(O)/fuzz_%:    LIBS += -lcmocka -latomic -fsanitize=fuzzer,address,undefined

.PHONY: fuzz-programs fuzz-build
fuzz-programs: $(FUZZERS)
fuzz-build:
	@$(if $(shell command -v clang),$(MAKE) --no-print-directory VARIANT=fuzz CC=clang fuzz-programs)

BENCHES := $(patsubst tests/%.c,$(O)/%,$(BENCH_MAINS))
$(O)/bench/%:   $(O)/obj/tests/bench/%.o $(O)/libunit.a
	$(link)

# poold without checksums, to measure what they cost.
$(O)/bench/poold-nosum: $(O)/obj/tests/bench/crc32c_none.o $(call objs,$(POOLD_SRCS)) $(USE_targets)
	$(link)

# fio's vhost-user-blk engine, against the source of the installed fio. The script leaves .fetched alone if it is that.
FIO_SOURCE     := build/fio-source
FIO_ENGINE_SRCS := tests/bench/fio_vhost_blk.c $(foreach part,client memory ring wire,tests/client/vhost_$(part).c)
$(FIO_SOURCE)/.fetched: FORCE
	@tests/bench/fio-source.sh $(FIO_SOURCE)
build/fio-vhost-blk.so: $(FIO_SOURCE)/.fetched $(FIO_ENGINE_SRCS) $(wildcard tests/client/vhost_*.h) Makefile
	$(call say,LINK)$(CC) -std=gnu11 -O2 -g -flto -march=x86-64-v2 -Wall -Wextra -Werror -Wno-unused-parameter -D_GNU_SOURCE \
		-shared -fPIC -I. -isystem $(FIO_SOURCE) -include $(FIO_SOURCE)/config-host.h -o $@ $(FIO_ENGINE_SRCS)
.PHONY: FORCE
FORCE:

# Archives may refer to each other: a disk's name is looked up in disks, its driver is in drivers.
define link
@mkdir -p $(@D)
$(call say,LINK)$(CC) $(BUILD_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)
endef

$(O)/poold $(O)/poolctl $(O)/poolvm $(O)/simulator:
	$(link)

$(O)/%.a:
	@mkdir -p $(@D)
	@rm -f $@.new
	$(call say,AR)$(AR) rcsD $@.new $^ && mv $@.new $@

$(O)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(BUILD_CFLAGS) -c -o $@ $<

build/%: build/release/%
	@ln -sfn release/$* $@

.SECONDARY:
-include $(shell test -d $(O)/obj && find $(O)/obj -name '*.d')

.PHONY: unit
unit: $(UNIT_TESTS) ## build the unit tests

# ---- tests ----

# What the variant's tests run on. tests/run prints "N passed, N failed, N skipped" last.
TEST_BUILD := $(if $(filter release,$(VARIANT)),build,$(O))
TEST_RUN    = BUILD=$(TEST_BUILD) ARCHIVES=$(O) CC="$(CC)" tests/run --log-dir $(O)/test-logs --timeout $(TEST_TIMEOUT_S)
TEST_TIMEOUT_S ?= 900
CHECK_SEEDS    ?= 1..2000

LINTS    := $(filter-out %/functions.sh,$(wildcard tests/lint/*.sh))
IT_TESTS := $(filter-out %/functions.sh %/guest.sh %/servers.sh %/vmm.sh %/network-soak.sh %/runner.sh,$(wildcard tests/it/*.sh))
# They have sanitizers of their own, so one variant is enough.
FUZZ_TEST    := $(if $(filter release,$(VARIANT)),$(wildcard tests/fuzz/check.sh))
MUTANTS_TEST := $(wildcard tests/mutants/check.sh)
SIM_TEST := $(if $(SIM_SRCS),$(wildcard tests/sim/seeds.sh tests/sim/regressions.sh))

# Sanitizers stop at the first report, and the fibers' stacks stay what they are.
export ASAN_OPTIONS  ?= detect_stack_use_after_return=0:abort_on_error=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS  ?= halt_on_error=1:second_deadlock_stack=1

.PHONY: check check-unit check-asan check-tsan check-valgrind
check: all unit $(if $(FUZZ_TEST),fuzz-build) ## lints, unit tests, simulator seeds, tests with real clients and guests
	@SEEDS=$(CHECK_SEEDS) $(TEST_RUN) $(LINTS) $(MUTANTS_TEST) $(UNIT_TESTS) $(FUZZ_TEST) $(SIM_TEST) $(IT_TESTS)

check-unit: unit ## the unit tests only
	@$(TEST_RUN) $(UNIT_TESTS)

check-asan: ## the same as check under AddressSanitizer and UBSan
	$(MAKE) VARIANT=asan check

check-tsan: ## the unit tests under ThreadSanitizer
	$(MAKE) VARIANT=tsan check-unit

VALGRIND := valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
	--errors-for-leak-kinds=definite,indirect --suppressions=tests/unit/valgrind.supp

check-valgrind: unit ## the unit tests under Valgrind
	@mkdir -p $(O)/valgrind
	@for test in $(notdir $(UNIT_TESTS)); do \
		printf '#!/bin/sh\nexec $(VALGRIND) $(O)/unit/%s\n' $$test >$(O)/valgrind/$$test && \
		chmod +x $(O)/valgrind/$$test || exit 1; done
	@$(TEST_RUN) $(patsubst $(O)/unit/%,$(O)/valgrind/%,$(UNIT_TESTS))

.PHONY: fuzz mutants
fuzz: fuzz-build ## fuzz the parsers, TIME=seconds each (10), FUZZ=name for one of them
	@tests/fuzz/run.sh $(or $(TIME),10) $(FUZZ)

mutants: ## show that the tests catch known-bad changes (MUTANTS="name ..." for some)
	@tests/mutants/run.sh $(MUTANTS)

.PHONY: sim
sim: $(O)/simulator ## simulate: SEED=n replays one seed, SEEDS=a..b runs a range
	$(O)/simulator $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1..1000)) $(SIM_FLAGS)

BENCH_RUN = $(if $(wildcard tools/poold.c),BUILD=$(TEST_BUILD) PROGRAMS=$(O) tests/bench/run.sh)
BENCH_NEEDS = $(if $(wildcard tools/poold.c),build/fio-vhost-blk.so $(O)/bench/poold-nosum)

.PHONY: bench bench-scale bench-network bench-small
bench: all $(BENCH_NEEDS) ## measure beside QEMU and nbdkit with fio: tables, build/bench/results.*; QUICK=1: 3 minutes
	@QUICK=$(QUICK) $(BENCH_RUN) compare

bench-scale: all $(BENCH_NEEDS) ## how cost grows with volumes, queues, reactors, volume size and map
	@QUICK=$(QUICK) $(BENCH_RUN) scale

bench-network: all $(O)/bench/disk ## a pool on one network disk beside load straight on its server
	@BUILD=$(TEST_BUILD) PROGRAMS=$(O) tests/bench/network.sh

bench-small: $(BENCHES) ## measure parts of the engine by themselves
	@for bench in $(BENCHES); do $$bench || exit 1; done

.PHONY: demo
demo: ## install what is missing, build, show a guest on a volume surviving kill -9
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all
	@tools/demo.sh

.PHONY: demo-network soak-network
demo-network: ## the same for an erasure-coded volume across iSCSI targets and an NBD server, one of which is killed
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all
	@tools/demo-network.sh

soak-network: all ## kill and restart targets at random under verified load: ROUNDS=n (200), SEED=n
	@tests/it/network-soak.sh

# ---- what it takes ----

DEPS_BUILD := gcc make pkg-config libc6-dev liburing-dev libisal-dev libboost-context-dev libjansson-dev \
	libgnutls28-dev libnbd-dev libiscsi-dev libcmocka-dev
DEPS_TEST  := valgrind clang libclang-rt-14-dev clang-format clang-tidy shellcheck jq fio gnuplot-nox lz4 nbdkit tgt libiscsi-bin libnbd-bin python3-libnbd gnutls-bin dpkg-dev strace \
	qemu-system-x86 qemu-utils busybox-static cpio \
	e2fsprogs xfsprogs python3 man-db

.PHONY: deps
deps: ## install missing Debian packages
	@missing=$$(for package in $(DEPS_BUILD) $(DEPS_TEST); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || echo $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "installing:" $$missing; \
	sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
	$$sudo apt-get -q update >/dev/null && \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qy install --no-install-recommends $$missing

# ---- care of the sources ----

SOURCES := $(shell find pool volumes snapshots check targets vmm-glue tools tests -name '*.[ch]' 2>/dev/null)

.PHONY: tidy format
tidy: ## clang-tidy over all sources
	clang-tidy --quiet $(filter %.c,$(SOURCES)) -- $(filter-out -W%,$(BASE_CFLAGS))

format: ## clang-format all sources in place (FILES=... for some)
	clang-format -i $(or $(FILES),$(SOURCES))

# ---- install ----

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share/bash-completion/completions

.PHONY: install
install: all ## install programs, man pages and bash completion (PREFIX, DESTDIR)
	install -d $(DESTDIR)$(BINDIR)
	install $(addprefix $(O)/,$(INSTALLED)) $(DESTDIR)$(BINDIR)
	for page in $(wildcard tools/man/*.[1-8]); do \
		install -Dm644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit 1; done
	for file in $(wildcard tools/completion/*); do \
		install -Dm644 $$file $(DESTDIR)$(COMPDIR)/$$(basename $$file .bash) || exit 1; done

.PHONY: clean distclean help
clean: ## remove what was built (not the test guest's kernel)
	rm -rf $(addprefix build/,release debug asan tsan fuzz mutants $(PROGRAMS))

distclean: ## remove build/ whole
	rm -rf build

print-%: # a variable, for scripts
	@echo $($*)

help: ## this list
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { split($$1, t, ":"); printf "  make %-15s %s\n", t[1], $$2 }' Makefile
