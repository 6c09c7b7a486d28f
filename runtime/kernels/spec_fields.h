// Specs to and from the plan's fields. A Spec lists its members once, in Visit; both directions come from it.
#ifndef QWEN_RUNTIME_KERNELS_SPEC_FIELDS_H_
#define QWEN_RUNTIME_KERNELS_SPEC_FIELDS_H_

#include <fmt/format.h>

#include <limits>
#include <string>
#include <type_traits>

#include "runtime/base/status.h"
#include "runtime/plan/plan.h"

namespace qwen::kernels {

/// Writes every member of a Spec as a field, in the order of Visit.
class FieldWriter {
 public:
  template <class T>
  void operator()(const char* name, T& value) {
    plan::Field field{.name = name};
    if constexpr (std::is_floating_point_v<T>) {
      field.kind = plan::Field::Kind::kReal;
      field.reals = {value};
    } else {
      field.ints = {static_cast<int64_t>(value)};
    }
    fields.push_back(std::move(field));
  }
  template <class T, int N>
  void operator()(const char* name, T (&values)[N], int count) {
    plan::Field field{.name = name};
    field.kind = std::is_floating_point_v<T> ? plan::Field::Kind::kReals : plan::Field::Kind::kInts;
    for (int i = 0; i < count; ++i) {
      if constexpr (std::is_floating_point_v<T>) field.reals.push_back(values[i]);
      else field.ints.push_back(static_cast<int64_t>(values[i]));
    }
    fields.push_back(std::move(field));
  }
  plan::Fields fields;
};

/// Reads them back by name: every member must be there, of the right kind and in range, and nothing else.
class FieldReader {
 public:
  explicit FieldReader(const plan::Fields& fields) : fields_(fields) {}

  template <class T>
  void operator()(const char* name, T& value) {
    if (const plan::Field* field = Next(name)) Take(*field, name, &value, 1, /*list=*/false);
  }
  template <class T, int N>
  void operator()(const char* name, T (&values)[N], int count) {
    if (const plan::Field* field = Next(name)) {
      if (count < 0 || count > N) Fail(fmt::format("field {} has {} entries, at most {}", name, count, N));
      else Take(*field, name, values, count, /*list=*/true);
    }
  }
  Status Finish() const {
    if (status_.ok() && taken_ != fields_.size())
      return DataLossError(fmt::format("spec has {} fields, the kernel takes {}", fields_.size(), taken_));
    return status_;
  }

 private:
  const plan::Field* Next(const char* name) {
    if (!status_.ok()) return nullptr;
    for (const plan::Field& field : fields_)
      if (field.name == name) return ++taken_, &field;
    Fail(fmt::format("field {} is missing", name));
    return nullptr;
  }
  template <class T>
  void Take(const plan::Field& field, const char* name, T* values, int count, bool list) {
    using Kind = plan::Field::Kind;
    constexpr bool kReal = std::is_floating_point_v<T>;
    Kind want = list ? (kReal ? Kind::kReals : Kind::kInts) : (kReal ? Kind::kReal : Kind::kInt);
    size_t have = kReal ? field.reals.size() : field.ints.size();
    if (field.kind != want || have != static_cast<size_t>(count))
      return Fail(fmt::format("field {} has {} entries of kind {}, want {} of kind {}", name, have,
                              static_cast<int>(field.kind), count, static_cast<int>(want)));
    for (int i = 0; i < count; ++i) {
      if constexpr (kReal) {
        values[i] = static_cast<T>(field.reals[i]);
      } else {
        int64_t high = std::is_same_v<T, DType> ? kNumDTypes - 1 : std::numeric_limits<int>::max();
        if (field.ints[i] < 0 || field.ints[i] > high)
          return Fail(fmt::format("field {} is {}, want 0 to {}", name, field.ints[i], high));
        values[i] = static_cast<T>(field.ints[i]);
      }
    }
  }
  void Fail(std::string message) {
    if (status_.ok()) status_ = DataLossError(std::move(message));
  }

  const plan::Fields& fields_;
  size_t taken_ = 0;
  Status status_;
};

template <class Spec>
plan::Fields ToFields(Spec spec) {
  FieldWriter writer;
  spec.Visit(writer);
  return std::move(writer.fields);
}

template <class Spec>
Status FromFields(const plan::Fields& fields, Spec* spec) {
  *spec = {};
  FieldReader reader(fields);
  spec->Visit(reader);
  return reader.Finish();
}

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_SPEC_FIELDS_H_
