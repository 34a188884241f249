#!/bin/sh
# Compare this library with real Trio on random programs.
#
#   tests/conformance/compare.sh [SEED [COUNT]]        1,000 programs of seed 1, if nothing is said
#
# Installs trio into a venv in the target folder if it is not there, generates COUNT programs of the seed that do not depend on
# scheduling (generate.py says how that is known, and what happens in them), runs them here, and looks closer at those that differ:
# is there, among 800 more schedules on Trio, one that does exactly what this library did? Exit status 1 if a difference is left, if
# something unexpected happened, or if the programs are not worth much. `generate.py --shrink` makes a program that differs small;
# mended, it becomes a case in cases/trio.
set -eu
seed=${1:-1}
count=${2:-1000}
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
target=${CARGO_TARGET_DIR:-$root/target}
python=$target/conformance/venv/bin/python
cases=$target/conformance/seed-$seed
mkdir -p "$target/conformance"

if [ ! -x "$python" ]; then
    python3 -m venv "$target/conformance/venv"
    "$python" -m pip install --quiet 'trio==0.35.*'
fi
runner=$(cd "$root" && CARGO_TARGET_DIR=$target cargo test --release -p trefoil-tests --test conformance --no-run 2>&1 |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
case $runner in /*) ;; *) runner=$root/$runner ;; esac
if [ ! -f "$runner" ]; then
    echo "the runner does not build" >&2
    exit 1
fi

rm -rf "$cases"
nice -n 10 "$python" "$here/generate.py" --seed "$seed" --count "$count" --out "$cases" --jobs "${JOBS:-1}"

differences=$target/conformance/differences-$seed
export TREFOIL_TEST_DRIVERS=${TREFOIL_TEST_DRIVERS:-thread}
got=$target/conformance/got-$seed
rm -rf "$got"
mkdir "$got"
TREFOIL_GOT=$got TREFOIL_CASES=$cases nice -n 10 "$runner" >"$differences" || true
last=$(tail -n 1 "$differences")
echo "seed $seed: $last"
if ! echo "$last" | awk -v count="$count" '!/^[0-9]+ passed, [0-9]+ failed$/ || $1 + $3 != count { exit 1 }'; then
    echo "the runner did not run all of them: $runner" >&2
    exit 1
fi
left=0
for name in $(sed -n 's/^\([a-z]*-[^ :]*\): .*/\1/p' "$differences"); do
    if "$python" "$here/generate.py" --check "$cases/$name.json" --got "$got" --runs 400; then
        continue
    fi
    left=$((left + 1))
    grep "^$name: " "$differences"
    echo "    $python $here/generate.py --shrink $cases/$name.json --runner $runner"
done
echo "seed $seed: $count programs, $left differences left"
[ "$left" = 0 ]
