// Any bytes as a plan file, checksums aside: refused, or a plan that everything else accepts.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "runtime/plan/dump.h"
#include "runtime/plan/reader.h"
#include "runtime/plan/writer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::plan;
  const std::span<const uint8_t> file(data, size);
  (void)ParsePlan(file, "fuzz").ok();
  qwen::StatusOr<Plan> plan = ParsePlan(file, "fuzz", {.check_sums = false});
  if (!plan.ok()) return 0;
  // What was read can be written, and is the same when read again.
  qwen::StatusOr<std::vector<uint8_t>> bytes = SerializePlan(*plan);
  if (!bytes.ok()) abort();
  qwen::StatusOr<Plan> again = ParsePlan(*bytes, "fuzz");
  if (!again.ok() || Diff(*plan, *again) != "no difference\n") abort();
  if (DumpSummary(*plan).empty() || DumpJson(*plan).empty() || DumpMemory(*plan).empty()) abort();
  (void)DumpSteps(*plan, {.rank = -1});
  (void)DumpKernels(*plan);
  return 0;
}
