#!/usr/bin/env python3
"""Applies mutants: small known-bad changes, one file each in tests/mutants/list.

    mutate.py check [ROOT]        TAP: every mutant still applies to the sources
    mutate.py apply NAME ROOT     changes the file below ROOT
    mutate.py show NAME FIELD     prints breaks, file or tests

A mutant's file:

    breaks: what goes wrong, in a line
    file: volumes/log.c
    tests: test_volume simulator   (those that should catch it, quickest first)
    --- old
    text that stands exactly once in the file
    --- new
    text in its place
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIST = HERE / "list"
FIELDS = ("breaks", "file", "tests")


def load(name):
    text = (LIST / name).read_text()
    head, _, rest = text.partition("--- old\n")
    old, mark, new = rest.partition("\n--- new\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    if not mark or not old or tuple(fields) != FIELDS:
        sys.exit(f"mutant '{name}' is malformed")
    return fields, old, new.removesuffix("\n")


def mutated(name, root):
    """The file's path and its new text, or the reason why there is none."""
    fields, old, new = load(name)
    path = pathlib.Path(root) / fields["file"]
    if not path.exists():
        return path, None, f"there is no {fields['file']}"
    text = path.read_text()
    if text.count(old) != 1:
        return path, None, f"its old text stands {text.count(old)} times in {fields['file']}, not once"
    return path, text.replace(old, new), None


def check(root):
    names = sorted(path.name for path in LIST.iterdir())
    print(f"1..{len(names)}")
    bad = 0
    for number, name in enumerate(names, 1):
        _, _, why = mutated(name, root)
        print(f"{'not ok' if why else 'ok'} {number} - {name} still applies")
        if why:
            print(f"# {why}: change tests/mutants/list/{name} with the code")
            bad += 1
    return 1 if bad else 0


def apply(name, root):
    path, text, why = mutated(name, root)
    if why:
        sys.exit(f"mutant '{name}' does not apply: {why}")
    path.write_text(text)


def main(argv):
    if len(argv) in (2, 3) and argv[1] == "check":
        return check(argv[2] if len(argv) == 3 else ".")
    if len(argv) == 4 and argv[1] == "apply":
        return apply(argv[2], argv[3])
    if len(argv) == 4 and argv[1] == "show" and argv[3] in FIELDS:
        return print(load(argv[2])[0][argv[3]])
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
