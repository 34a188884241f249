#!/bin/sh
# Compare `trefoil::asyncio` with CPython 3.13's asyncio on random programs.
#
#   tests/conformance/compare_asyncio.sh [SEED [COUNT]]        1,000 programs of seed 1, if nothing is said
#
# Generates COUNT programs of the seed whose trace does not depend on ties (generate_asyncio.py says how that is known, and what happens
# in them), runs them here, and looks closer at those that differ: is there, among 2,000 more orders of ties on CPython, one that does
# exactly what this library did? Exit status 1 if a difference is left, if something unexpected happened, or if the programs are not
# worth much. `generate_asyncio.py --shrink` makes a program that differs small; mended, it becomes a case in cases/asyncio.
#
# PYTHON names the CPython to use; python3.13 of pyenv or of the path, if nothing is said.
set -eu
seed=${1:-1}
count=${2:-1000}
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
target=${CARGO_TARGET_DIR:-$root/target}
cases=$target/conformance/asyncio-$seed
mkdir -p "$target/conformance"

python=${PYTHON:-}
for each in "$HOME"/.pyenv/versions/3.13.*/bin/python3.13 "$(command -v python3.13 || true)"; do
    if [ -z "$python" ] && [ -x "$each" ]; then python=$each; fi
done
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))'; then
    echo "it needs CPython 3.13: PYTHON=.../python3.13" >&2
    exit 1
fi
runner=$(cd "$root" && CARGO_TARGET_DIR=$target cargo test --release -p trefoil-tests --test conformance_asyncio --no-run 2>&1 |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
case $runner in /*) ;; *) runner=$root/$runner ;; esac
if [ ! -f "$runner" ]; then
    echo "the runner does not build" >&2
    exit 1
fi

rm -rf "$cases"
nice -n 10 "$python" "$here/generate_asyncio.py" --seed "$seed" --count "$count" --out "$cases" --jobs "${JOBS:-1}"

differences=$target/conformance/differences-asyncio-$seed
export TREFOIL_TEST_DRIVERS=${TREFOIL_TEST_DRIVERS:-thread}
got=$target/conformance/got-asyncio-$seed
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
    if [ -e "$got/$name.json" ] && "$python" "$here/generate_asyncio.py" --check "$cases/$name.json" --got "$got" --runs 2000; then
        continue
    fi
    left=$((left + 1))
    grep "^$name: " "$differences"
    echo "    $python $here/generate_asyncio.py --shrink $cases/$name.json --runner $runner"
done
echo "seed $seed: $count programs, $left differences left"
[ "$left" = 0 ]
