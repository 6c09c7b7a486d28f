// What the families' tables share: typed arrays with guards, batches, runs of a body on every number of threads.
//
// A body is run with exactly the scratch that the catalogue states, on outputs full of NaN. What it returns on one
// thread is compared with the oracle in f64; on every other number of threads it must return the same bits.
#ifndef QWEN_TEST_CONFORMANCE_HARNESS_H_
#define QWEN_TEST_CONFORMANCE_HARNESS_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/kernels/catalog.h"
#include "runtime/kernels/formats/pack.h"
#include "runtime/kernels/spec_fields.h"

namespace qwen::kernels::conformance {

using Values = std::vector<double>;

/// Seeded numbers; the same on every machine, which std's distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double Uniform(double low, double high) { return low + (high - low) * (engine_() >> 11) * 0x1p-53; }
  int Int(int low, int high) { return low + static_cast<int>(engine_() % (high - low + 1)); }  // both ends included
  Values Fill(int64_t count, double scale = 1);                                                // within +-scale

 private:
  std::mt19937_64 engine_;
};

/// Memory of arrays is known by its address: a device that has memory of its own must find out what is behind a pointer.
void TrackBlock(const void* at, size_t bytes);
void ForgetBlock(const void* at);
template <class T>
struct TrackedAllocator {
  using value_type = T;
  TrackedAllocator() = default;
  template <class U>
  TrackedAllocator(const TrackedAllocator<U>&) {}
  T* allocate(size_t count) {
    T* at = static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64)));
    TrackBlock(at, count * sizeof(T));
    return at;
  }
  void deallocate(T* at, size_t) {
    ForgetBlock(at);
    ::operator delete(at, std::align_val_t(64));
  }
  bool operator==(const TrackedAllocator&) const = default;
};

/// An array of f32, bf16 or i32 with 64 guard bytes behind it, which must survive.
class Array {
 public:
  Array() = default;
  /// Full of NaN (of -1 for i32).
  Array(DType type, int64_t count);
  /// Rounded to the type.
  Array(DType type, const Values& values);
  ~Array();
  Array(const Array&) = default;
  Array(Array&&) = default;
  Array& operator=(const Array&) = default;
  Array& operator=(Array&&) = default;

  void* data() { return bytes_.empty() ? nullptr : bytes_.data(); }
  DType type() const { return type_; }
  int64_t count() const { return count_; }
  double At(int64_t i) const;
  Values Get() const { return Get(0, count_); }
  Values Get(int64_t first, int64_t count) const;
  /// Same type, same bits.
  bool operator==(const Array& other) const { return type_ == other.type_ && bytes_ == other.bytes_; }

 private:
  DType type_ = DType::kF32;
  int64_t count_ = 0;
  std::vector<uint8_t, TrackedAllocator<uint8_t>> bytes_;
};

/// A matrix in tile16, `values` being its rows; a cube is `experts` of them.
Array Tile16(DType type, int64_t rows, int64_t cols, const Values& values, int64_t experts = 1);

/// A batch and the page table behind it.
struct Batch {
  std::vector<int> cu_tokens{0}, token_ids, position, state_slot, table_row, ring_fill, fold, logit_rows, page_table;
  std::vector<SampleParams> sample;
  int num_short = 0, max_pages = 0;

  /// Adds a sequence; short ones first.
  void Add(int rows, int position = 0, int slot = 0, int table_row = 0, int ring_fill = 0, bool fold = false);
  BatchView View() const;
  /// `tokens` rows, each a sequence of its own.
  static Batch OfRows(int tokens);
};

/// What the executor hands to a body.
struct BodyCall {
  std::string_view entry = {};
  std::vector<void*> args = {};
  const BatchView* batch = nullptr;
  StateView state = {};
  std::vector<const void*> peers = {};
  int rank = 0;
};
/// Runs every thread's share in turn, `backwards` from the last. Checks scratch's end and that `shared` is zero again.
template <class Spec>
void RunBody(Isa isa, const BodyCall& run, const Spec& spec, int threads, bool backwards = false);
void RunDecoded(Isa isa, const BodyCall& run, const plan::Fields& fields, int threads, bool backwards);
template <class Spec>
void RunBody(Isa isa, const BodyCall& run, const Spec& spec, int threads, bool backwards) {
  RunDecoded(isa, run, ToFields(spec), threads, backwards);
}
/// The same on a device: `threads` and the order are its own.
void RunOnCuda(const BodyCall& run, const KernelInfo& info, const plan::Fields& fields, const void* spec);
std::string WhyNoCuda();

/// ||y - want|| / ||want||; infinite where one of them has a NaN that the other has not.
double RelativeL2(const Values& y, const Values& want);
/// Of a result of `type` that sums `terms` products: 2^-8 for bf16, sqrt(terms) 2^-22 for f32 (contracts, section 8).
double Tolerance(DType type, double terms);
/// EXPECTs the above, with `what` in the message.
void ExpectNear(const Values& y, const Values& want, double tolerance, const std::string& what);

/// The AMX bodies with tiles in plain C++, on any machine: not an ISA that the runtime knows.
inline constexpr Isa kAmxEmulated = static_cast<Isa>(100);
/// The CUDA bodies, through NVRTC, on what QWENRT_CUDA_DRIVER names: the emulator, or a card.
inline constexpr Isa kCuda = static_cast<Isa>(101);
/// Empty when `isa` can run here.
std::string WhyNot(Isa isa);
inline std::string NameOf(Isa isa) {
  return isa == kAmxEmulated ? "amx_emulated" : isa == kCuda ? "cuda" : std::string(IsaName(isa));
}
/// The numbers of threads a body is run on. How a device divides a kernel is not the table's to choose.
inline std::vector<int> ThreadsOf(Isa isa) { return isa == kCuda ? std::vector{1} : std::vector{1, 2, 3, 7}; }

CpuBody BodyOf(const KernelInfo& info, Isa isa);

/// A suite that runs once an ISA, skipped where the machine has not got it.
class IsaTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (std::string why = WhyNot(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};
#define QWEN_FOR_EVERY_ISA(Suite)                                                                          \
  INSTANTIATE_TEST_SUITE_P(Isa, Suite,                                                                     \
                           testing::Values(Isa::kBase, Isa::kAvx2, Isa::kAvx512, Isa::kAmx, kAmxEmulated), \
                           [](const auto& info) { return NameOf(info.param); })
/// Whether the `index`-th Spec of a large table is tried: all on the CPU, one in seven on CUDA, where each is a compilation
/// of most of a second. Seven shares no factor with the tables' dimensions, so every value of each occurs.
inline bool Tries(Isa isa, int index) { return isa != kCuda || index % 7 == 0; }
/// The suites whose kernels all have a CUDA body.
#define QWEN_FOR_EVERY_ISA_AND_CUDA(Suite) \
  QWEN_FOR_EVERY_ISA(Suite);               \
  INSTANTIATE_TEST_SUITE_P(Cuda, Suite, testing::Values(kCuda), [](const auto& info) { return NameOf(info.param); })

}  // namespace qwen::kernels::conformance

#endif  // QWEN_TEST_CONFORMANCE_HARNESS_H_
