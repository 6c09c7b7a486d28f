// The driver's objects: devices, contexts, streams, events, modules, graphs. The entry points are in driver_*.cc.
//
// Every stream has a thread that runs its tasks in order, so a launch that waits for another stream, another device or
// the host waits without holding up anyone. A task may wait for the completions of others: that is an event, and the
// order that the legacy default stream keeps with blocking streams. A fault sticks to its context, as on real hardware.
#ifndef QWEN_TEST_CUDA_EMULATOR_DRIVER_H_
#define QWEN_TEST_CUDA_EMULATOR_DRIVER_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "test/cuda_emulator/launch.h"

#define QWEN_EMU_EXPORT extern "C" __attribute__((visibility("default")))

namespace qwen::emu {

/// Turns true once.
class Completion {
 public:
  void Set();
  bool done() const;
  void Wait() const;
  std::chrono::steady_clock::time_point time() const { return time_; }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool done_ = false;
  std::chrono::steady_clock::time_point time_;
};
using CompletionPtr = std::shared_ptr<Completion>;

using Work = std::function<abi::Result()>;

struct DeviceState {
  int ordinal = 0;
  std::unique_ptr<DeviceMemory> memory;
  abi::Context* primary = nullptr;
  int primary_references = 0;
  unsigned primary_flags = 0;
  std::atomic<uint32_t> launches = 0;
};

}  // namespace qwen::emu

namespace qwen::emu::abi {

struct Event {
  CompletionPtr completion;  // null before the first record
  Graph* capture = nullptr;  // when it was recorded in a stream that captures
  bool timing = true;
};

struct GraphNode {
  GraphNodeType type;
  Work work;
  const emu::Function* kernel = nullptr;  // of a kernel node, for updates
};

struct Graph {
  std::vector<std::unique_ptr<GraphNode>> nodes;
};
struct GraphExec {
  std::vector<GraphNode> nodes;
};

struct Stream {
  Context* context = nullptr;
  bool is_default = false, blocking = true;
  Graph* capture = nullptr;
  bool capture_origin = false;
  CompletionPtr last;  // of the newest task

  void Start();
  void Stop();
  /// Any thread. Runs `work` after all before it and after `waits`; an error of its context skips it.
  CompletionPtr Add(Work work, std::vector<CompletionPtr> waits = {});

 private:
  struct Task {
    Work work;
    std::vector<CompletionPtr> waits;
    CompletionPtr completion;
  };
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

struct Function {
  const emu::Function* function = nullptr;
  Module* module = nullptr;
  uint32_t max_dynamic_shared = 0;
  int carveout = -1;
};

struct Module {
  Context* context = nullptr;
  std::shared_ptr<Program> program;
  std::vector<std::unique_ptr<Function>> functions;
  std::vector<DevicePtr> allocations;
};

struct Context {
  emu::DeviceState* device = nullptr;
  bool is_primary = false;
  std::atomic<int> error = kSuccess;
  std::unique_ptr<Stream> default_stream;
  std::set<Stream*> streams;
  std::set<Module*> modules;
};

}  // namespace qwen::emu::abi

namespace qwen::emu {

/// The process's driver. Never destroyed: streams may run until the process ends.
class Driver {
 public:
  static Driver& Get();

  /// Reads the options and makes the devices, once.
  abi::Result Init();
  bool initialized() const { return initialized_; }

  std::recursive_mutex mutex;  // guards everything below but what locks itself
  Options options;
  std::vector<std::unique_ptr<DeviceState>> devices;
  HostRanges host;
  Report report;
  std::unordered_set<const void*> live;  // every handle that a caller may hold

  void SetFault(const std::string& text);
  const char* LastFault();

  /// The device whose memory holds `address`, or null.
  DeviceState* DeviceOf(uint64_t address);

 private:
  Driver() = default;
  bool initialized_ = false;
  std::mutex fault_mutex_;
  std::string fault_;
};

/// The calling thread's stack of contexts.
std::vector<abi::Context*>& ContextStack();
/// The current context, without an error; otherwise why not.
abi::Result Current(abi::Context** context);
bool IsLive(const void* handle);

abi::Result CreateContext(DeviceState* device, bool primary, abi::Context** context);
void DestroyContext(abi::Context* context);

/// The stream that `handle` stands for in the current context; null, 1 and 2 are default streams.
abi::Result Resolve(abi::Stream* handle, abi::Stream** stream);
/// Puts work on a stream, or in the graph it captures. `wait`: returns when it is done, with its result.
abi::Result Submit(abi::Stream* handle, abi::GraphNodeType type, Work work, bool wait,
                   const emu::Function* kernel = nullptr);

template <class F>
abi::Result Guard(F f) {
  if (!Driver::Get().initialized()) return abi::kNotInitialized;
  abi::Context* context = nullptr;
  if (abi::Result r = Current(&context); r != abi::kSuccess) return r;
  return f(context);
}

}  // namespace qwen::emu

#endif  // QWEN_TEST_CUDA_EMULATOR_DRIVER_H_
