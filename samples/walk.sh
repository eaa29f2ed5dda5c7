#!/usr/bin/env bash
# The whole loop on a local sandbox, in half a minute: plan, run with failures, read the report,
# fix what failed, run again, verify, undo. Nothing real is touched.
#
# Use: PATH="$PWD/.venv/bin:$PATH" samples/walk.sh [FOLDER]     the folder is kept, to look at
set -euo pipefail
fail() { printf 'walk.sh: %s\n' "$@" >&2; exit 1; }
if ! command -v bulkbind > /dev/null; then
  root=$(cd "$(dirname "$0")/.." && pwd)
  quoted=$(printf %q "$root")
  how=("PATH=$quoted/.venv/bin:\$PATH $quoted/samples/walk.sh")
  [ -x "$root/.venv/bin/bulkbind" ] ||
    how=("python3 -m venv $quoted/.venv && $quoted/.venv/bin/pip install $quoted" "${how[@]}")
  fail "bulkbind is not on the path; type:" "${how[@]/#/  }"
fi
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
cd "$folder"
folder=$PWD
export XDG_STATE_HOME="$folder/state" BULKBIND_TOKEN=any

step() { printf '\n== %s\n' "$*"; }

# The command behind *wanted* has to end with that exit code.
ends_with() {
  local wanted=$1 code=0
  shift
  echo "+ $*"
  "$@" || code=$?
  [ "$code" = "$wanted" ] || { echo "it ended with $code instead of $wanted" >&2; exit 1; }
}

step "a gateway that lets 200/s through, answers some with 500 and refuses five devices"
bulkbind sandbox --port 0 --limit 200/s --seed 8 --fault business=1,count=5 \
  --fault 500=0.05 > sandbox.txt &
sandbox=$!
trap 'kill $sandbox 2> /dev/null || true' EXIT
until grep -q ready sandbox.txt; do
  kill -0 $sandbox 2> /dev/null || fail "bulkbind sandbox ended before it was ready: see above"
  sleep 0.1
done
export BULKBIND_ENDPOINT
BULKBIND_ENDPOINT=$(cut -d ' ' -f 2 sandbox.txt)

step "a manifest of 120 devices, one of them misspelt"
{
  echo "Serial,user_id,device_name,device_os,site"
  for n in $(seq 1 119); do echo "WALK$n,user_$((n % 7)),Van $n,Android 15,Dock $((n % 3))"; done
  echo "WALK-120,user_1,Van 120,Android 15,Dock 0"
} > fleet.csv
export BULKBIND_MAP="machine_code=Serial"

step "what would happen: 119 to bind, one that breaks a rule"
ends_with 1 bulkbind plan fleet.csv --save plan.json

step "do exactly that"
ends_with 1 bulkbind run fleet.csv --plan plan.json --on-invalid skip --yes --quiet --out first
grep -q '"bound": 114' first/summary.json

step "read the report: what failed, for a ticket"
ends_with 0 bulkbind report --out first --format md --format jsonl --filter 'status=failed|invalid'
cat first/report-filtered.md

step "fix the misspelt one in failed.csv, and run exactly those rows"
sed -i.bak 's/WALK-120/WALK120/' first/failed.csv
[ "$(grep -c '' first/failed.csv)" = 7 ]
ends_with 0 bulkbind run first/failed.csv --yes --quiet --out second
grep -q '"bound": 6' second/summary.json

step "the whole manifest again, fixed as well: the ledger knows it all, nothing is sent"
sed -i.bak 's/WALK-120/WALK120/' fleet.csv
ends_with 0 bulkbind run fleet.csv --yes --quiet --out third
grep -q '"skipped": 120' third/summary.json

run_of() { sed -n 's/^  "run_id": "\(.*\)",$/\1/p' "$1/summary.json"; }
step "is it so on the server?"
ends_with 0 bulkbind verify "$(run_of third)"
ends_with 0 bulkbind status "$(run_of first)"

step "take the first run back: 114 devices, and no other"
ends_with 2 bulkbind undo "$(run_of first)" --yes-unbind 113
ends_with 0 bulkbind undo "$(run_of first)" --yes-unbind 114 --quiet --out first
ends_with 0 bulkbind export $(seq -f user_%g 0 6) --to left.csv
[ "$(grep -c '' left.csv)" = 7 ]
ends_with 0 bulkbind verify "$(run_of second)"
ends_with 0 bulkbind runs

step "done; look at $folder/first/report.html"
