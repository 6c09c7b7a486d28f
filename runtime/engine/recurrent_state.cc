#include "runtime/engine/recurrent_state.h"

#include <cassert>

#include "fmt/format.h"

namespace qwen::engine {

Slots::Slots(std::string what, int count) : what_(std::move(what)), taken_(static_cast<size_t>(count)) {
  for (int32_t slot = count - 1; slot >= 0; --slot) free_.push_back(slot);
}

StatusOr<int32_t> Slots::Take() {
  if (free_.empty()) return ResourceExhaustedError(fmt::format("{}: all {} are taken", what_, count()));
  int32_t slot = free_.back();
  free_.pop_back();
  taken_[static_cast<size_t>(slot)] = true;
  return slot;
}

void Slots::Release(int32_t slot) {
  assert(taken_[static_cast<size_t>(slot)]);
  taken_[static_cast<size_t>(slot)] = false;
  free_.push_back(slot);
}

}  // namespace qwen::engine
