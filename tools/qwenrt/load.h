// From a plan and the user's flags to an engine that is ready to run; and Ctrl-C on the way.
#ifndef QWEN_TOOLS_QWENRT_LOAD_H_
#define QWEN_TOOLS_QWENRT_LOAD_H_

#include <atomic>
#include <memory>

#include "runtime/base/flags.h"
#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "runtime/plan/plan.h"

namespace qwen::qwenrt {

/// Loads the weights that --weights names and makes an engine with these pools. `plan` outlives it.
StatusOr<std::unique_ptr<engine::Engine>> LoadEngine(const plan::Plan& plan, const Flags& flags, int num_pages,
                                                     int num_slots);

/// Ctrl-C while one of these lives is a request, set here; the second one ends the process at once, as does the first
/// at any other time (exit 130).
class GracefulStop {
 public:
  GracefulStop();
  ~GracefulStop();
  GracefulStop(const GracefulStop&) = delete;
  GracefulStop& operator=(const GracefulStop&) = delete;
  const std::atomic<bool>* flag() const;
  bool requested() const { return flag()->load(); }
};

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_LOAD_H_
