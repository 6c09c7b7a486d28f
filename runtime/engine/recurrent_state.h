// Hands out slots: one a running sequence, holding the recurrent and conv state of every delta-rule layer.
//
// A slot has one size whatever the sequence's length, so there is nothing to grow. Slots are never cleared: a sequence
// that starts at position 0 reads nothing of what the last owner left (contracts, section 5). Rows of the page table
// are handed out the same way. Threads: owned by the engine's thread; not locked.
#ifndef QWEN_RUNTIME_ENGINE_RECURRENT_STATE_H_
#define QWEN_RUNTIME_ENGINE_RECURRENT_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace qwen::engine {

class Slots {
 public:
  /// `what` names the slots in messages: "state slots".
  Slots(std::string what, int count);

  /// kResourceExhausted when none is free.
  StatusOr<int32_t> Take();
  void Release(int32_t slot);

  int count() const { return static_cast<int>(taken_.size()); }
  int free() const { return static_cast<int>(free_.size()); }

 private:
  std::string what_;
  std::vector<bool> taken_;
  std::vector<int32_t> free_;
};

}  // namespace qwen::engine

#endif  // QWEN_RUNTIME_ENGINE_RECURRENT_STATE_H_
