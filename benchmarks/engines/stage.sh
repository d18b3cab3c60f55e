#!/bin/sh
# stage.sh MODEL SET OUTPUT NAME PARAMETER: what every engine runs for one variant, and what can go wrong with it.
# Each run is a line of $STAGE_CONTROL/log. Faults are files: NAME.FAULT, and hold-after with a count of runs.
set -eu
model=$1 set=$2 output=$3 name=$4 parameter=$5
fault=$STAGE_CONTROL/$name
echo "$name" >>"$STAGE_CONTROL/log"

held() {
    : >"$fault.reached"
    until [ -e "$fault.go" ]; do sleep 0.02; done
}

if [ -e "$STAGE_CONTROL/hold-after" ] && [ "$(wc -l <"$STAGE_CONTROL/log")" -gt "$(cat "$STAGE_CONTROL/hold-after")" ]; then
    fault=$STAGE_CONTROL/held
    : >"$fault.half"
fi
if [ -e "$fault.nothing" ]; then exit 0; fi
if [ -e "$fault.slow" ]; then sleep 0.3; fi
if [ -e "$fault.worker" ]; then kill -9 $PPID && sleep 60; fi
if [ -e "$fault.killed" ]; then kill -9 $$; fi
if [ -e "$fault.half" ]; then
    head -c 100 "$model" >"$output"
    held
fi
if [ -e "$fault.read" ]; then
    cp "$model" "$fault.model"
    cp "$set" "$fault.set"
    model=$fault.model set=$fault.set
    held
fi
{ cat "$model" "$set" && echo "$parameter"; } >"$output"
