#!/bin/sh
# bench.sh ARTIFACT OUTPUT: what every engine runs for a benchmark; notes when two of them use the device at once.
set -eu
mkdir "$STAGE_CONTROL/device" 2>/dev/null || : >"$STAGE_CONTROL/device.shared"
sleep 0.3
rmdir "$STAGE_CONTROL/device" 2>/dev/null || :
cksum <"$1" >"$2"
