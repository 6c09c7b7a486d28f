#include "runtime/plan/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>
#include <unordered_set>

#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/plan/digest.h"
#include "runtime/plan/layout.h"

namespace qwen::plan {
namespace {

constexpr int kLengthBytes = 8;
constexpr int64_t kDataAlignment = 64;  // of our own files; readers need none
constexpr size_t kMaxDims = 32;
constexpr char kIndexName[] = "model.safetensors.index.json", kSingleName[] = "model.safetensors";

struct ElementType {
  std::string_view name;
  int bits;
  std::optional<DType> type;
};
constexpr ElementType kTypes[] = {
    {"F32", 32, DType::kF32},  {"BF16", 16, DType::kBF16}, {"F16", 16, DType::kF16},       {"I32", 32, DType::kI32},
    {"I64", 64, DType::kI64},  {"U8", 8, DType::kU8},      {"F8_E4M3", 8, DType::kF8E4M3}, {"F64", 64, DType::kF64},
    {"BOOL", 8, std::nullopt}, {"I8", 8, std::nullopt},    {"F8_E5M2", 8, std::nullopt},   {"F8_E8M0", 8, std::nullopt},
    {"I16", 16, std::nullopt}, {"U16", 16, std::nullopt},  {"U32", 32, std::nullopt},      {"U64", 64, std::nullopt},
    {"C64", 64, std::nullopt}, {"F4", 4, std::nullopt},    {"F6_E2M3", 6, std::nullopt},   {"F6_E3M2", 6, std::nullopt},
};

const ElementType* FindType(std::string_view name) {
  for (const ElementType& type : kTypes)
    if (type.name == name) return &type;
  return nullptr;
}

uint64_t ReadLength(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 0; i < kLengthBytes; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

/// One entry of the header; `where` ends in the tensor's name.
StatusOr<TensorInfo> ParseTensor(const std::string& name, const Json& entry, int64_t data_begin, int64_t file_bytes,
                                 const std::string& where) {
  auto fail = [&](std::string why) { return DataLossError(where + ": " + std::move(why)); };
  if (!entry.IsObject()) return fail(fmt::format("is {}, want an object", entry.KindName()));
  const Json* dtype = entry.Find("dtype");
  const Json* shape = entry.Find("shape");
  const Json* offsets = entry.Find("data_offsets");
  if (!dtype || !dtype->IsString()) return fail("has no dtype");
  if (!shape || !shape->IsArray()) return fail("has no shape");
  if (!offsets || !offsets->IsArray() || offsets->items().size() != 2) return fail("has no pair of data_offsets");

  TensorInfo info{.name = name, .dtype = dtype->AsString()};
  if (shape->items().size() > kMaxDims)
    return fail(fmt::format("has {} dimensions, at most {}", shape->items().size(), kMaxDims));
  for (const Json& size : shape->items()) {
    if (!size.IsInteger() || size.AsInteger() < 0) return fail("has a dimension that is no integer from 0 on");
    info.shape.push_back(size.AsInteger());
  }
  for (const Json& offset : offsets->items())
    if (!offset.IsInteger() || offset.AsInteger() < 0) return fail("has an offset that is no integer from 0 on");
  const int64_t begin = offsets->items()[0].AsInteger(), end = offsets->items()[1].AsInteger();
  if (begin > end || end > file_bytes - data_begin)
    return fail(fmt::format("is at bytes [{}, {}), but the data have {}", begin, end, file_bytes - data_begin));
  info.begin = data_begin + begin;
  info.end = data_begin + end;

  std::vector<int64_t> factors = info.shape;
  const std::optional<int64_t> elements = CheckedProduct(factors);
  if (!elements) return fail(fmt::format("has the shape [{}], which is too large", fmt::join(info.shape, ", ")));
  if (const ElementType* type = FindType(info.dtype)) {
    // At most 2^48 elements of at most 64 bits.
    const int64_t bits = *elements * type->bits;
    if (bits % 8 != 0 || bits / 8 != end - begin)
      return fail(fmt::format("has {} bytes, but {} [{}] takes {}", end - begin, info.dtype,
                              fmt::join(info.shape, ", "), bits / 8));
  }
  return info;
}

/// A file that stays open; regular files only, and opening a fifo must not wait for a writer.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status SystemError(const std::string& path, const char* what) {
  return ResourceExhaustedError(fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
}

/// Appends bytes [to->size(), size) of the file.
Status ReadUpTo(int fd, const std::string& path, size_t size, std::vector<uint8_t>* to) {
  size_t have = to->size();
  to->resize(size);
  while (have < size) {
    const ssize_t n = pread(fd, to->data() + have, size - have, static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path, "cannot read");
    if (n == 0) return DataLossError(fmt::format("{}: ended at byte {}, want {}", path, have, size));
    have += static_cast<size_t>(n);
  }
  return Status();
}

/// A file name without a folder: nothing that leads out of the checkpoint.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace

int SafetensorsBits(std::string_view dtype) {
  const ElementType* type = FindType(dtype);
  return type ? type->bits : 0;
}

std::optional<DType> SafetensorsType(std::string_view dtype) {
  const ElementType* type = FindType(dtype);
  return type ? type->type : std::nullopt;
}

std::string_view SafetensorsName(DType type) {
  for (const ElementType& known : kTypes)
    if (known.type == type) return known.name;
  return "";
}

StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const uint8_t> prefix, int64_t file_bytes,
                                                   const std::string& name) {
  if (file_bytes < kLengthBytes || prefix.size() < kLengthBytes)
    return DataLossError(fmt::format("{}: has {} bytes, too few for a safetensors file", name, file_bytes));
  const uint64_t length = ReadLength(prefix.data());
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeader))
    return DataLossError(
        fmt::format("{}: its header has {} bytes, the limit is {}", name, length, kMaxSafetensorsHeader),
        "is this a safetensors file?");
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
  if (data_begin > file_bytes || static_cast<uint64_t>(data_begin) > prefix.size())
    return DataLossError(
        fmt::format("{}: its header ends at byte {}, but the file has {}", name, data_begin, file_bytes));
  const std::string_view text(reinterpret_cast<const char*>(prefix.data()) + kLengthBytes, length);
  if (text.empty() || text[0] != '{')
    return DataLossError(name + ": its header does not begin with {", "is this a safetensors file?");

  JsonLimits limits;
  limits.max_bytes = kMaxSafetensorsHeader;
  limits.max_values = text.size();  // a value takes a byte at least: the length is the limit
  limits.max_depth = 4;
  QWEN_ASSIGN_OR_RETURN(Json json, ParseJson(text, name + ": header", limits));

  SafetensorsHeader header;
  header.header_bytes = data_begin;
  header.file_bytes = file_bytes;
  header.digest = Xxh3(prefix.first(static_cast<size_t>(data_begin)));
  for (const Json::Member& member : json.members()) {
    const std::string where = fmt::format("{}: tensor {}", name, JsonQuote(member.first));
    if (member.first == "__metadata__") {
      if (!member.second.IsObject()) return DataLossError(name + ": its metadata are not an object");
      for (const Json::Member& entry : member.second.members()) {
        if (!entry.second.IsString())
          return DataLossError(fmt::format("{}: metadata {}: is {}, want a string", name, JsonQuote(entry.first),
                                           entry.second.KindName()));
        header.metadata.emplace_back(entry.first, entry.second.AsString());
      }
      continue;
    }
    if (member.first.empty()) return DataLossError(name + ": a tensor has no name");
    QWEN_ASSIGN_OR_RETURN(TensorInfo info, ParseTensor(member.first, member.second, data_begin, file_bytes, where));
    header.tensors.push_back(std::move(info));
  }

  // One behind the other from the header to the end of the file: nothing hidden, nothing shared.
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t end = data_begin;
  for (const TensorInfo& info : header.tensors) {
    if (info.begin != end)
      return DataLossError(fmt::format("{}: tensor {}: begins at byte {}, but the one before ends at {}", name,
                                       JsonQuote(info.name), info.begin, end));
    end = info.end;
  }
  if (end != file_bytes)
    return DataLossError(
        fmt::format("{}: the last tensor ends at byte {}, but the file has {}", name, end, file_bytes));
  return header;
}

StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const std::string& path) {
  const Descriptor fd(path);
  if (fd.get() < 0) return SystemError(path, "cannot open");
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return SystemError(path, "cannot stat");
  if (!S_ISREG(info.st_mode)) return ResourceExhaustedError(path + ": is not a regular file");
  std::vector<uint8_t> prefix;
  const size_t first = std::min<size_t>(info.st_size, kLengthBytes);
  QWEN_RETURN_IF_ERROR(ReadUpTo(fd.get(), path, first, &prefix));
  if (first == kLengthBytes) {
    const uint64_t length = ReadLength(prefix.data());
    // What is too long is left to the parser, which says so.
    if (length <= static_cast<uint64_t>(kMaxSafetensorsHeader) &&
        length <= static_cast<uint64_t>(info.st_size) - kLengthBytes)
      QWEN_RETURN_IF_ERROR(ReadUpTo(fd.get(), path, kLengthBytes + length, &prefix));
  }
  return ParseSafetensorsHeader(prefix, info.st_size, path);
}

StatusOr<Checkpoint> OpenCheckpoint(const std::string& dir) {
  Checkpoint checkpoint;
  checkpoint.dir = dir.empty() ? "." : dir;
  struct stat info;
  if (stat(checkpoint.dir.c_str(), &info) != 0) return SystemError(checkpoint.dir, "cannot open");
  if (!S_ISDIR(info.st_mode))
    return InvalidArgumentError(checkpoint.dir + ": is not a folder",
                                "name the folder that holds the checkpoint's safetensors files");

  const std::string index_path = checkpoint.dir + "/" + kIndexName;
  std::vector<std::pair<std::string, std::string>> index;  // tensor, file
  const bool has_index = stat(index_path.c_str(), &info) == 0;
  if (has_index) {
    QWEN_ASSIGN_OR_RETURN(std::string text, ReadFile(index_path, kMaxSafetensorsHeader));
    JsonLimits limits;
    limits.max_bytes = kMaxSafetensorsHeader;
    limits.max_values = text.size() + 1;
    QWEN_ASSIGN_OR_RETURN(Json json, ParseJson(text, index_path, limits));
    const Json* map = json.Find("weight_map");
    if (!map || !map->IsObject()) return DataLossError(index_path + ":/weight_map: want an object");
    for (const Json::Member& member : map->members()) {
      const std::string where = index_path + ":" + JsonPointer("/weight_map", member.first);
      if (!member.second.IsString())
        return DataLossError(fmt::format("{}: is {}, want a string", where, member.second.KindName()));
      if (!IsPlainName(member.second.AsString()))
        return DataLossError(
            fmt::format("{}: {} is not a plain file name", where, JsonQuote(member.second.AsString())));
      index.emplace_back(member.first, member.second.AsString());
      checkpoint.files.push_back(member.second.AsString());
    }
    std::sort(checkpoint.files.begin(), checkpoint.files.end());
    checkpoint.files.erase(std::unique(checkpoint.files.begin(), checkpoint.files.end()), checkpoint.files.end());
  } else {
    if (stat((checkpoint.dir + "/" + kSingleName).c_str(), &info) != 0)
      return ResourceExhaustedError(fmt::format("{}: has neither {} nor {}", checkpoint.dir, kIndexName, kSingleName),
                                    "point --weights at a folder of safetensors files");
    checkpoint.files.push_back(kSingleName);
  }

  Digest digest;
  for (int32_t file = 0; file < static_cast<int32_t>(checkpoint.files.size()); ++file) {
    QWEN_ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(checkpoint.Path(file)));
    digest.String(checkpoint.files[file]);
    digest.Int(static_cast<int64_t>(header.digest));
    for (TensorInfo& tensor : header.tensors) {
      const std::string name = tensor.name;
      auto [it, inserted] = checkpoint.tensors.try_emplace(name, Checkpoint::Entry{file, std::move(tensor)});
      if (!inserted)
        return DataLossError(fmt::format("{}: tensor {}: is in {} as well", checkpoint.Path(file), JsonQuote(name),
                                         checkpoint.files[it->second.file]));
    }
  }
  checkpoint.digest = digest.Finish();
  for (const auto& [tensor, file] : index) {
    const Checkpoint::Entry* entry = checkpoint.Find(tensor);
    if (!entry || checkpoint.files[entry->file] != file)
      return DataLossError(
          fmt::format("{}:{}: {} has no such tensor", index_path, JsonPointer("/weight_map", tensor), file));
  }
  return checkpoint;
}

Status WriteSafetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata, bool overwrite) {
  std::string header = "{";
  auto separate = [&] {
    if (header.size() > 1) header += ",";
  };
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    bool first = true;
    for (const auto& [key, value] : metadata) {
      header += fmt::format("{}{}:{}", first ? "" : ",", JsonQuote(key), JsonQuote(value));
      first = false;
    }
    header += "}";
  }
  std::unordered_set<std::string_view> names;
  int64_t end = 0;
  for (const TensorToWrite& tensor : tensors) {
    std::vector<int64_t> factors = tensor.shape;
    factors.push_back(DTypeBytes(tensor.dtype));
    const std::optional<int64_t> bytes = CheckedProduct(factors);
    if (!bytes || *bytes != static_cast<int64_t>(tensor.bytes.size()))
      return InternalError(fmt::format("{}: tensor {}: has {} bytes, but {} [{}]", path, tensor.name,
                                       tensor.bytes.size(), DTypeName(tensor.dtype), fmt::join(tensor.shape, ", ")));
    if (tensor.name.empty() || tensor.name == "__metadata__" || !names.insert(tensor.name).second)
      return InternalError(fmt::format("{}: tensor {}: the name is taken", path, JsonQuote(tensor.name)));
    separate();
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", JsonQuote(tensor.name),
                          SafetensorsName(tensor.dtype), fmt::join(tensor.shape, ","), end, end + *bytes);
    end += *bytes;
  }
  header += "}";
  const int64_t unpadded = kLengthBytes + static_cast<int64_t>(header.size());
  header.append((kDataAlignment - unpadded % kDataAlignment) % kDataAlignment, ' ');
  if (static_cast<int64_t>(header.size()) > kMaxSafetensorsHeader)
    return InternalError(
        fmt::format("{}: its header would have {} bytes, the limit is {}", path, header.size(), kMaxSafetensorsHeader));

  std::string length(kLengthBytes, '\0');
  for (int i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(uint64_t{header.size()} >> (8 * i));
  std::vector<std::string_view> parts = {length, header};
  for (const TensorToWrite& tensor : tensors)
    parts.emplace_back(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  return WriteFileAtomic(path, parts, overwrite);
}

}  // namespace qwen::plan
