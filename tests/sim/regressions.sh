#!/usr/bin/env bash
# Seeds that once found a bug, each with what it was. They must pass for ever.
#
#   BUILD=DIR   where the simulator is
set -u
sim=${BUILD:-build}/simulator
count=0

seed() {
    count=$((count + 1))
    if "$sim" --seed "$1" >/dev/null 2>&1; then
        echo "ok $count - seed $1: $2"
    else
        echo "not ok $count - seed $1: $2"
        echo "# replay: $sim --seed $1 --verbose"
    fi
}

seed 35 "a volume is usable once its creation is durable, even if memory runs out"
seed 322 "a failed lineage answers writes although its overlay is full"
seed 1056 "a write waits for memory and goes on when there is some again"
seed 1060 "discards do not ask for the reserve in a circle"
seed 1079 "lineages do not clean in turn for ever with nothing to gain"
seed 1088 "the end of a log is read twice before it is believed"
seed 1119 "closing a lineage waits without spinning"
seed 1150 "a map node that cannot be read once does not stop the lineage"
seed 3285 "a request that fails for lack of memory is in the log wholly"
seed 8959 "a log header that cannot be read is not the end of the log"
seed 12710 "the cleaner packs segments tighter than it finds them"
seed 189935 "the end of a log is believed only after several reads"
seed 148 "a segment that the checkpoint has written tables to is not cleaned by it"
seed 104031 "two crashes in a row during import do not make a disk look stale"
seed 145440 "a read that goes the slow way takes a disk run at a time"
seed 1689 "flushes that fail on two disks excuse that space does not come back"
seed 1447 "writes of a deleted image are replayed, as clones may have been made from them"
seed 1127 "the same: otherwise they lack the writes of the volume they come from"
seed 13870 "a snapshot not yet in a checkpoint keeps its content when its volume is rolled back"
seed 11089 "a clone not yet in a checkpoint is replayed although its origin was rolled back"
seed 1005 "two rollbacks and a clone between two checkpoints fit together"
seed 57173 "a map node of an image that goes is read as often as others before the lineage fails"
seed 8057 "a write of partial blocks that waits for space is told as parked"
seed 410778 "a disk is not stale because an earlier crash left a transaction on another one alone"
seed 450294 "the same with two disks: a snapshot would be lost"
seed 460487 "a checkpoint of an import that was not completed does not count when its disk comes back"
seed 480096 "a disk that lacks the newest checkpoint gets it before its older one is overwritten"
seed 414216 "a disk whose addition was cut short does not get half of a catalog"
seed 451104 "a checkpoint that only an absent disk has is not of the same generation as those made without it"
seed 6181 "with a disk out a stream does not leave its segment again and again"
seed 9669 "a rollback that fails takes nothing from under a checkpoint"
seed 1067323 "a resize that is durable is not reported as failed when memory runs out"
echo "1..$count"
