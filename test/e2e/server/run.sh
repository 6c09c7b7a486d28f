#!/usr/bin/env bash
# run.sh BUILD FILE...: pytest on these files, with the programs of BUILD. Exit 77, "skipped", without pytest and the
# client library: `tools/dev test` installs them.
set -euo pipefail
build=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")"
python=${QWEN_TEST_PYTHON:-$PWD/../../../build/python/bin/python}
if ! "$python" -c 'import pytest, openai' 2>/dev/null; then
  echo "skipped: $python has no pytest and openai; tools/dev test installs them"
  exit 77
fi
QWENC_TARGET=cpu QWEN_BIN=$build/bin exec "$python" -B -m pytest -s "$@"
