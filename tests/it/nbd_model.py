"""Random NBD requests of every kind against a model in memory: content and base:allocation.

    nbd_model.py URI [SEED]

Once with structured replies and once without. The volume must be empty where it matters: it is zeroed first.
"""
import os
import random
import sys

import nbd

BLOCK = 4096
SIZE = 64 << 20
PAYLOAD_MAX = 32 << 20


class Model:
    def __init__(self):
        self.data = bytearray(SIZE)
        self.mapped = bytearray(SIZE // BLOCK)

    def write(self, off, data):
        self.data[off:off + len(data)] = data
        self._map(off, len(data))

    def unmap(self, off, count):
        """Whole blocks become holes, blocks touched in part are written."""
        self.data[off:off + count] = bytes(count)
        for block in range(-(-off // BLOCK), (off + count) // BLOCK):
            self.mapped[block] = 0
        for edge in (off, off + count):
            if edge % BLOCK:
                self.mapped[edge // BLOCK] = 1

    def _map(self, off, count):
        for block in range(off // BLOCK, -(-(off + count) // BLOCK)):
            self.mapped[block] = 1


def some_range():
    unit = random.choice([512, BLOCK, BLOCK, 65536])
    count = min(unit * random.randint(1, random.choice([8, 64, 8192])), PAYLOAD_MAX)
    align = 512 if unit == 512 else BLOCK
    return random.randint(0, (SIZE - count) // align) * align, count


def change(h, model):
    off, count = some_range()
    fua = random.choice([0, 0, nbd.CMD_FLAG_FUA])
    kind = random.choice(["write", "write", "write", "zero", "zero", "provision", "trim"])
    if kind == "write":
        data = (os.urandom(min(count, 65536)) * (count // 65536 + 1))[:count]
        h.pwrite(data, off, fua)
        model.write(off, data)
    elif kind == "provision":
        h.zero(count, off, fua | nbd.CMD_FLAG_NO_HOLE)
        model.write(off, bytes(count))
    elif kind == "zero":
        h.zero(count, off, fua | random.choice([0, nbd.CMD_FLAG_FAST_ZERO]))
        model.unmap(off, count)
    else:
        h.trim(count, off, fua)
        model.unmap(off, count)


def check_read(h, model):
    off, count = some_range()
    whole = nbd.CMD_FLAG_DF if h.get_structured_replies_negotiated() else 0
    assert h.pread(count, off, random.choice([0, whole])) == model.data[off:off + count], (off, count)


def extents(h, count, off, flags):
    found = []
    h.block_status(count, off, lambda ctx, at, entries, err: found.append((at, entries)), flags)
    (at, entries), = found
    assert at == off
    return list(zip(entries[::2], entries[1::2]))


def check_status(h, model):
    count = 512 * random.randint(1, SIZE // 512)
    off = 512 * random.randint(0, (SIZE - count) // 512)
    flags = random.choice([0, 0, nbd.CMD_FLAG_REQ_ONE])
    end = off + count
    while off < end:
        found = extents(h, end - off, off, flags)
        assert not flags or len(found) == 1
        assert all(a[1] != b[1] for a, b in zip(found, found[1:]))
        for length, state in found:
            assert length > 0 and state in (0, nbd.STATE_HOLE | nbd.STATE_ZERO)
            for block in range(off // BLOCK, -(-(off + length) // BLOCK)):
                assert model.mapped[block] == (state == 0), (off, length, state, block)
            off += length
        assert off <= end


def check_all(h, model):
    for off in range(0, SIZE, 1 << 20):
        assert h.pread(1 << 20, off) == model.data[off:off + (1 << 20)]
    assert h.pread(PAYLOAD_MAX, 512) == model.data[512:512 + PAYLOAD_MAX]
    if h.get_structured_replies_negotiated():
        assert h.pread(PAYLOAD_MAX, 512, nbd.CMD_FLAG_DF) == model.data[512:512 + PAYLOAD_MAX]


def check_refusal(call, name):
    try:
        call()
    except nbd.Error as error:
        assert error.errno == name, error
        return
    raise AssertionError("not refused")


def check_refusals(h):
    both = nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO
    check_refusal(lambda: h.pread(512, 1 << 50), "EINVAL")
    check_refusal(lambda: h.pread(512, 1), "EINVAL")
    check_refusal(lambda: h.pread(511, 0), "EINVAL")
    check_refusal(lambda: h.pwrite(bytes(512), 1 << 50), "ENOSPC")
    check_refusal(lambda: h.zero(512, 1 << 50), "ENOSPC")
    check_refusal(lambda: h.trim(512, 1 << 50), "EINVAL")
    check_refusal(lambda: h.zero(512, 0, both), "ENOTSUP")
    check_refusal(lambda: h.pwrite(bytes(512), 0, nbd.CMD_FLAG_DF), "EINVAL")
    assert h.pread(0, 0) == b""


def run(uri, structured, rounds):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    if structured:
        h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    assert h.get_structured_replies_negotiated() == structured
    model = Model()
    h.zero(SIZE, 0)
    for i in range(rounds):
        change(h, model)
        check_read(h, model)
        if i % 8 == 0:
            h.flush()
            h.cache(*reversed(some_range()))
        if structured and i % 4 == 0:
            check_status(h, model)
    check_all(h, model)
    check_refusals(h)
    h.shutdown()


if __name__ == "__main__":
    random.seed(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    run(sys.argv[1], True, 150)
    run(sys.argv[1], False, 100)
