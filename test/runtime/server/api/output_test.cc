#include "runtime/server/api/output.h"

#include <gtest/gtest.h>

#include "test/runtime/server/api/harness.h"
