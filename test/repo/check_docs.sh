#!/usr/bin/env bash
# The reference pages are what the descriptions say now. Usage: check_docs.sh SOURCE_DIR
set -euo pipefail
cd "$1"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh"/{model,kernel,plan,passes}
include=(-I . -I /usr/lib/llvm-22/include)
for dialect in model kernel plan; do
  /usr/lib/llvm-22/bin/mlir-tblgen -gen-dialect-doc -dialect="$dialect" "${include[@]}" \
    "dialects/$dialect/${dialect^}Ops.td" -o "$fresh/$dialect/REFERENCE.md"
  diff -u "dialects/$dialect/REFERENCE.md" "$fresh/$dialect/REFERENCE.md" || { echo "run tools/dev docs"; exit 1; }
done
/usr/lib/llvm-22/bin/mlir-tblgen -gen-pass-doc "${include[@]}" passes/Passes.td -o "$fresh/passes/REFERENCE.md"
diff -u passes/REFERENCE.md "$fresh/passes/REFERENCE.md" || { echo "run tools/dev docs"; exit 1; }
