// Safetensors: what is where in a checkpoint, and files of our own.
//
// A file is u64 header length, a JSON header, then the tensors' bytes without gaps. Only headers are read here; the
// bytes stay in the file for whoever maps it. Headers come from strangers: everything is checked before it is believed.
#ifndef QWEN_RUNTIME_PLAN_SAFETENSORS_H_
#define QWEN_RUNTIME_PLAN_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/base/status.h"

namespace qwen::plan {

inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;  // bytes; the limit of the reference implementation

struct TensorInfo {
  std::string name;
  std::string dtype;  // as in the file: "BF16"
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes of the file
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes; empty ones by name
  std::vector<std::pair<std::string, std::string>> metadata;
  int64_t header_bytes = 0;  // with the length in front: where the first tensor begins
  int64_t file_bytes = 0;
  uint64_t digest = 0;  // XXH3 of those header bytes
};

/// Bits of one element; 0 when the name is unknown.
int SafetensorsBits(std::string_view dtype);
/// The runtime's type of that name, where it has one.
std::optional<DType> SafetensorsType(std::string_view dtype);
std::string_view SafetensorsName(DType type);

/// `prefix` holds at least the header of a file of `file_bytes`. kDataLoss with `name` in front. A tensor of unknown
/// type passes, since nobody may name it; its length is then not checked against its shape.
StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const uint8_t> prefix, int64_t file_bytes,
                                                   const std::string& name);
/// kResourceExhausted when the file cannot be read.
StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const std::string& path);

/// The tensors of a checkpoint folder, one or many files.
struct Checkpoint {
  struct Entry {
    int32_t file = 0;
    TensorInfo info;
  };
  std::string dir;
  std::vector<std::string> files;                  // plain names in `dir`, in alphabetical order
  std::unordered_map<std::string, Entry> tensors;  // by name
  uint64_t digest = 0;                             // of the files' names and headers

  std::string Path(int32_t file) const { return dir + "/" + files[file]; }
  const Entry* Find(const std::string& name) const {
    auto it = tensors.find(name);
    return it == tensors.end() ? nullptr : &it->second;
  }
};

/// Reads model.safetensors.index.json and the headers of the files it names, or model.safetensors where there is no
/// index. A file's name must be plain ("../x" is refused), every tensor of the index must be in the file the index
/// says.
StatusOr<Checkpoint> OpenCheckpoint(const std::string& dir);

/// A tensor to write. `bytes` is as long as type and shape say.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;
};

/// Writes all or nothing; the same tensors give the same bytes. Data begins at a multiple of 64.
Status WriteSafetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata = {}, bool overwrite = true);

}  // namespace qwen::plan

#endif  // QWEN_RUNTIME_PLAN_SAFETENSORS_H_
