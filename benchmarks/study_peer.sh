#!/bin/sh
# One process per subject of a study: study_peer.sh PYTHON --study STUDY --out FOLDER
set -eu
python=$1
shift
for subject in $("$python" -m benchmarks.study_peer "$@" --list); do
    "$python" -m benchmarks.study_peer "$@" --subject "$subject"
done
