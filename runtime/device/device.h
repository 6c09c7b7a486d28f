// One rank's device: its memory, its kernels, and the steps of a program in order.
//
// The executor binds a plan to addresses once and hands over one batch after the other; how a step is launched and
// what a barrier is belongs to the device.
#ifndef QWEN_RUNTIME_DEVICE_DEVICE_H_
#define QWEN_RUNTIME_DEVICE_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/comm/comm.h"
#include "runtime/kernels/catalog.h"
#include "runtime/kernels/kernel.h"
#include "runtime/plan/plan.h"

namespace qwen::device {

/// Zeroed memory of a device, 64-byte aligned, given back with the last copy of the pointer.
using Memory = std::shared_ptr<uint8_t>;

/// A kernel record of the plan, found in the catalogue, its Spec decoded and checked.
struct Kernel {
  virtual ~Kernel() = default;
  const kernels::KernelInfo* info = nullptr;
  kernels::SpecPtr spec;
  int num_args = 0;
  int64_t scratch_bytes = 0, shared_bytes = 0;  // as Device::Reserve takes them
};

/// A step whose kernel and addresses are known; only the batch is missing.
struct Step {
  const Kernel* kernel = nullptr;
  std::vector<void*> args;         // nullptr: absent
  std::vector<const void*> peers;  // CUDA: a collective's argument 0 of every rank, as this device reaches it
  plan::Part part = plan::Part::kAll;
  bool waits = false;
};

struct Program {
  std::vector<Step> steps;
  kernels::StateView state{};
};

/// Threads: one caller at a time, the rank's.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view target() const = 0;
  /// Whether the process reads and writes its memory like any other.
  virtual bool is_host() const = 0;
  /// Of the whole device.
  virtual int64_t memory_bytes() const = 0;

  /// kResourceExhausted with both numbers. Pages that nobody touches cost nothing on the CPU.
  virtual StatusOr<Memory> Allocate(int64_t bytes) = 0;
  /// `from` is the caller's again at once. An upload under way comes before whatever is asked for next; its error may
  /// be that call's.
  virtual Status CopyIn(void* to, const uint8_t* from, int64_t bytes) = 0;
  virtual Status CopyOut(uint8_t* to, const void* from, int64_t bytes) = 0;

  /// `ptx` is the plan's text of the kernel; empty for one that is built in.
  virtual StatusOr<std::unique_ptr<const Kernel>> Load(const plan::Kernel& kernel, std::string_view ptx) = 0;
  /// What the steps of any Run may use: scratch of a thread, and bytes of the rank that are zero between steps. Returns
  /// the bytes taken for both.
  virtual StatusOr<int64_t> Reserve(int64_t scratch_bytes, int64_t shared_bytes) = 0;

  /// Runs the steps in order and returns when all is done. A step without rows is left out. Collectives meet the other
  /// ranks in `comm`, so every rank's Run must be under way.
  /// A status that is not OK is the device's own: nothing is known of what the program wrote. A program's steps stay
  /// where they are and keep their addresses from the first Run on.
  virtual Status Run(const Program& program, const kernels::BatchView& batch, comm::Comm& comm) = 0;
};

struct CpuOptions {
  plan::Capacity capacity;
  int rank = 0;
  int threads = 1;
  int spins = 0;          // SpinsFor(all threads of all ranks)
  bool populate = false;  // memory is there once it is allocated: no step ever waits for a page
  kernels::Isa isa = kernels::Isa::kBase;
};
/// What this process may use: the machine's memory, or less where a control group says so.
int64_t CpuMemoryBytes();

/// A rank's group of threads; the caller of Run is its thread 0. kResourceExhausted when there are no more threads.
StatusOr<std::unique_ptr<Device>> MakeCpuDevice(const CpuOptions& options);

struct CudaOptions {
  int ordinal = 0;          // of the driver
  plan::Capacity capacity;  // the largest batch
};
/// kUnimplemented without a driver or a card (cuda_driver.h).
StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options);

}  // namespace qwen::device

#endif  // QWEN_RUNTIME_DEVICE_DEVICE_H_
