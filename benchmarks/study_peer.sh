#!/bin/sh
# One process per subject of a study: study_peer.sh PYTHON --study STUDY --out FOLDER
set -eu
python=$1
shift
here=$(dirname "$0")
for subject in $("$python" "$here/study_peer.py" "$@" --list); do
    "$python" "$here/study_peer.py" "$@" --subject "$subject"
done
