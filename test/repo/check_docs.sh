#!/usr/bin/env bash
# The pages in the tree are what their sources say now: a program's manual and reference page, and with qwenc among the
# programs the dialects' and passes' pages. Usage: check_docs.sh SOURCE_DIR PROGRAM...
set -euo pipefail
cd "$1"
shift
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
same() { diff -u "$1" "$2" || { echo "run tools/dev docs"; exit 1; }; }
for program in "$@"; do
  name=$(basename "$program")
  "$program" --man >"$fresh/page" && same "tools/$name/$name.1" "$fresh/page"
  "$program" --reference >"$fresh/page" && same "tools/$name/REFERENCE.md" "$fresh/page"
  [ "$name" = qwenc ] || continue
  include=(-I . -I /usr/lib/llvm-22/include)
  for dialect in model kernel plan; do
    /usr/lib/llvm-22/bin/mlir-tblgen -gen-dialect-doc -dialect="$dialect" "${include[@]}" \
      "dialects/$dialect/${dialect^}Ops.td" -o "$fresh/page"
    same "dialects/$dialect/REFERENCE.md" "$fresh/page"
  done
  /usr/lib/llvm-22/bin/mlir-tblgen -gen-pass-doc "${include[@]}" passes/Passes.td -o "$fresh/page"
  same passes/REFERENCE.md "$fresh/page"
done
