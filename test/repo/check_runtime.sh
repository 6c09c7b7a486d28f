#!/usr/bin/env bash
# What qwenrt is made of: no oracle, no compiler, no driver. Usage: check_runtime.sh QWENRT
set -euo pipefail
qwenrt=$1
bad=0
libraries=$(ldd "$qwenrt")
for name in LLVM MLIR clang nvrtc libcuda python; do
  if grep -qi "$name" <<<"$libraries"; then
    echo "qwenrt links $name"
    bad=1
  fi
done
# A name that must be there, so that an empty listing cannot pass.
symbols=$(nm -C "$qwenrt" 2>/dev/null || true)
grep -q 'qwen::kernels::avx2' <<<"$symbols" || { echo "qwenrt has no symbols to look at"; bad=1; }
if grep -q 'qwen::reference' <<<"$symbols"; then
  echo "qwenrt has oracle code:"
  grep 'qwen::reference' <<<"$symbols" | head -3
  bad=1
fi
echo "linked: $(awk '{print $1}' <<<"$libraries" | tr '\n' ' ')"
exit $bad
