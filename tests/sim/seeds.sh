#!/usr/bin/env bash
# A range of simulator seeds as one TAP program, for tests/run.
#
#   SEEDS=A..B   the range (default 1..2000)     BUILD=DIR   where the simulator is
exec "${BUILD:-build}/simulator" --seeds "${SEEDS:-1..2000}" --tap
