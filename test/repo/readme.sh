#!/usr/bin/env bash
# Runs the README's commands as written, from a folder where `Qwen3.5-0.8B` is the demo checkpoint.
#   readme.sh SOURCE_DIR BIN_DIR
set -euo pipefail
source_dir=$1 bin_dir=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$source_dir/test/demo/qwen3_5-demo" "$work/Qwen3.5-0.8B"
mkdir "$work/build"
ln -s "$bin_dir" "$work/build/bin"
cp "$source_dir/README.md" "$work/"
awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' "$work/README.md" >"$work/commands"
count=$(grep -c '' "$work/commands")
[ "$count" -ge 10 ] || { echo "only $count commands in README.md"; exit 1; }
cd "$work"
bash -euo pipefail -x commands
grep -q '</svg>' bench.svg
echo "figure: $count commands of the README ran as written"
