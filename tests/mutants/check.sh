#!/usr/bin/env bash
# Every mutant still applies to the sources as they are. What they do is tests/mutants/run.sh's business.
exec python3 "$(dirname "$0")/mutate.py" check .
