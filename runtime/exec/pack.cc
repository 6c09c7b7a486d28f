#include "runtime/exec/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/exec/mapped_file.h"
#include "runtime/plan/digest.h"
#include "runtime/plan/safetensors.h"

namespace qwen::exec {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian, and so are we");

constexpr std::string_view kMagic = "QWENPACK";
constexpr char kPackAgain[] = "make it anew: qwenrt pack PLAN -o FILE --force";

constexpr uint32_t kNoMtp = 1, kNoDraft = 2, kAllFlags = 3;

struct Header {
  char magic[8];
  uint32_t version, flags;
  uint64_t file_bytes;
  uint64_t weights_digest;     // of the plan
  uint64_t checkpoint_digest;  // of the files' names and headers
  uint32_t blobs, packed;
  uint64_t xxh3;  // of the header with a 0 here, and the table
  uint64_t zero;
};
static_assert(sizeof(Header) == 64);

struct TableBlob {
  uint64_t offset, bytes, xxh3;
};
static_assert(sizeof(TableBlob) == 24);

/// Header, blobs, entries of plan.packed, up to the next multiple of 64.
constexpr uint64_t TableEnd(uint64_t blobs, uint64_t packed) {
  return (sizeof(Header) + blobs * sizeof(TableBlob) + packed * sizeof(int32_t) + 63) / 64 * 64;
}

uint64_t SumOf(Header header, std::span<const uint8_t> table) {
  header.xxh3 = 0;
  plan::Digest digest;
  digest.Bytes({reinterpret_cast<const uint8_t*>(&header), sizeof(header)});
  digest.Bytes(table);
  return digest.Finish();
}

/// Where everything lies in a file of these groups.
StatusOr<PackTable> LayOut(const plan::Plan& plan, const Groups& groups) {
  PackTable table;
  table.groups = groups;
  // How many blobs there are does not depend on where they begin.
  QWEN_ASSIGN_OR_RETURN(table.places, PlaceBlobs(plan, groups, 0));
  table.bytes = static_cast<int64_t>(TableEnd(table.places.blobs.size(), plan.packed.size()));
  QWEN_ASSIGN_OR_RETURN(table.places, PlaceBlobs(plan, groups, table.bytes));
  table.sums.resize(table.places.blobs.size());
  return table;
}

std::string_view View(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Packs into a file that is complete when it gets its name.
class FileSink : public BlobSink {
 public:
  FileSink(const plan::Plan& plan, const std::string& path, bool overwrite)
      : plan_(plan), path_(path), overwrite_(overwrite) {}

  StatusOr<BlobPlaces> Begin(const Groups& groups) override {
    QWEN_ASSIGN_OR_RETURN(table_, LayOut(plan_, groups));
    QWEN_ASSIGN_OR_RETURN(file_, AtomicFile::Create(path_, overwrite_));
    QWEN_RETURN_IF_ERROR(file_->Reserve(table_.places.end));
    int64_t largest = 1;
    for (const BlobPlaces::Blob& blob : table_.places.blobs) largest = std::max(largest, blob.bytes);
    room_.reset(static_cast<uint8_t*>(std::aligned_alloc(plan::kAlignment, (largest + 63) / 64 * 64)));
    if (!room_) return ResourceExhaustedError(fmt::format("{}: there are no {} bytes for a weight", path_, largest));
    return table_.places;
  }
  StatusOr<uint8_t*> Room(size_t) override { return room_.get(); }
  Status Done(size_t blob) override {
    const BlobPlaces::Blob& at = table_.places.blobs[blob];
    const std::span<const uint8_t> bytes(room_.get(), at.bytes);
    table_.sums[blob] = plan::Xxh3(bytes);
    QWEN_RETURN_IF_ERROR(file_->Seek(at.offset));
    return file_->Write(View(bytes));
  }

  Status Finish(uint64_t checkpoint_digest) {
    table_.checkpoint_digest = checkpoint_digest;
    QWEN_RETURN_IF_ERROR(file_->Seek(0));
    QWEN_RETURN_IF_ERROR(file_->Write(View(EncodePack(table_, plan_))));
    return file_->Commit();
  }

 private:
  struct Free {
    void operator()(uint8_t* at) const { std::free(at); }
  };
  const plan::Plan& plan_;
  const std::string path_;
  const bool overwrite_;
  PackTable table_;
  std::unique_ptr<AtomicFile> file_;
  std::unique_ptr<uint8_t, Free> room_;
};

/// Whether the folder has the files that make it a checkpoint; an empty name is none.
bool HoldsCheckpoint(const std::string& dir) {
  std::error_code error;
  for (const char* name : {"model.safetensors.index.json", "model.safetensors"})
    if (!dir.empty() && std::filesystem::exists(std::filesystem::path(dir) / name, error)) return true;
  return false;
}

}  // namespace

std::vector<uint8_t> EncodePack(const PackTable& table, const plan::Plan& plan) {
  std::vector<uint8_t> bytes(table.bytes);
  Header header{};
  std::memcpy(header.magic, kMagic.data(), kMagic.size());
  header.version = kPackVersion;
  header.flags = (table.groups.mtp ? 0u : kNoMtp) | (table.groups.draft ? 0u : kNoDraft);
  header.file_bytes = table.places.end;
  header.weights_digest = plan::WeightsDigest(plan);
  header.checkpoint_digest = table.checkpoint_digest;
  header.blobs = static_cast<uint32_t>(table.places.blobs.size());
  header.packed = static_cast<uint32_t>(table.places.blob_of.size());
  uint8_t* at = bytes.data() + sizeof(header);
  for (size_t b = 0; b < table.places.blobs.size(); ++b, at += sizeof(TableBlob)) {
    const BlobPlaces::Blob& blob = table.places.blobs[b];
    const TableBlob entry{static_cast<uint64_t>(blob.offset), static_cast<uint64_t>(blob.bytes), table.sums[b]};
    std::memcpy(at, &entry, sizeof(entry));
  }
  if (!table.places.blob_of.empty())
    std::memcpy(at, table.places.blob_of.data(), table.places.blob_of.size() * sizeof(int32_t));
  header.xxh3 = SumOf(header, std::span(bytes).subspan(sizeof(header)));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

StatusOr<PackTable> ParsePack(std::span<const uint8_t> prefix, int64_t file_bytes, const plan::Plan& plan,
                              const std::string& name, bool check_sum) {
  auto damaged = [&name](std::string why) { return DataLossError(name + ": " + std::move(why)); };
  if (!View(prefix).starts_with(kMagic))
    return damaged(fmt::format("is not a pack file: it does not begin with {}", kMagic));
  Header header;
  if (prefix.size() < sizeof(header))
    return damaged(fmt::format("section header: the file has {} bytes, a header {}", file_bytes, sizeof(header)));
  std::memcpy(&header, prefix.data(), sizeof(header));
  if (header.version != kPackVersion)
    return UnimplementedError(
        fmt::format("{}: is a pack of version {}, this build reads version {}", name, header.version, kPackVersion),
        kPackAgain);
  if (header.file_bytes != static_cast<uint64_t>(file_bytes))
    return damaged(fmt::format("section header: the file has {} bytes, want {}", file_bytes, header.file_bytes));
  const uint64_t table_end = TableEnd(header.blobs, header.packed);
  if (table_end > prefix.size())
    return damaged(fmt::format("section header: a table of {} blobs and {} weights ends at byte {}, the file has {}",
                               header.blobs, header.packed, table_end, file_bytes));
  const std::span<const uint8_t> rest = prefix.first(table_end).subspan(sizeof(header));
  if (const uint64_t sum = SumOf(header, rest); check_sum && sum != header.xxh3)
    return damaged(fmt::format("section table: its checksum is {:016x}, the header has {:016x}", sum, header.xxh3));
  if (header.flags & ~kAllFlags)
    return damaged(fmt::format("section header: flags are {:#x}, version 1 has {:#x}", header.flags, kAllFlags));
  if (header.zero != 0) return damaged("section header: its last 8 bytes are not 0");

  // From here on the file is what somebody meant to write.
  if (const uint64_t want = plan::WeightsDigest(plan); header.weights_digest != want)
    return UnimplementedError(fmt::format("{}: was packed for a plan with weights {:016x}, this one has {:016x}", name,
                                          header.weights_digest, want),
                              kPackAgain);
  // The plan and the groups decide where everything lies; the table only has to agree.
  const Groups groups{.mtp = !(header.flags & kNoMtp), .draft = !(header.flags & kNoDraft)};
  QWEN_ASSIGN_OR_RETURN(PackTable table, LayOut(plan, groups));
  const BlobPlaces& want = table.places;
  if (header.blobs != want.blobs.size() || header.packed != want.blob_of.size())
    return damaged(fmt::format("section table: has {} blobs of {} weights, want {} of {}", header.blobs, header.packed,
                               want.blobs.size(), want.blob_of.size()));
  const uint8_t* at = rest.data();
  for (size_t b = 0; b < want.blobs.size(); ++b, at += sizeof(TableBlob)) {
    TableBlob blob;
    std::memcpy(&blob, at, sizeof(blob));
    if (blob.offset != static_cast<uint64_t>(want.blobs[b].offset) ||
        blob.bytes != static_cast<uint64_t>(want.blobs[b].bytes))
      return damaged(fmt::format("section table: blob {} has {} bytes at {}, want {} at {}", b, blob.bytes, blob.offset,
                                 want.blobs[b].bytes, want.blobs[b].offset));
    table.sums[b] = blob.xxh3;
  }
  for (size_t i = 0; i < want.blob_of.size(); ++i, at += sizeof(int32_t)) {
    int32_t blob;
    std::memcpy(&blob, at, sizeof(blob));
    if (blob != want.blob_of[i])
      return damaged(fmt::format("section table: weight {} is blob {}, want {}", i, blob, want.blob_of[i]));
  }
  if (std::any_of(at, rest.data() + rest.size(), [](uint8_t byte) { return byte != 0; }))
    return damaged("section table: its padding is not 0");
  if (want.end != file_bytes)
    return damaged(fmt::format("section blobs: the last one ends at {}, the file has {} bytes", want.end, file_bytes));
  table.checkpoint_digest = header.checkpoint_digest;
  return table;
}

StatusOr<CheckpointFacts> WritePack(const plan::Plan& plan, const std::string& dir, const std::string& path,
                                    bool overwrite, const LoadOptions& options) {
  FileSink sink(plan, path, overwrite);
  QWEN_ASSIGN_OR_RETURN(CheckpointFacts facts, PackCheckpoint(plan, dir, options, &sink));
  QWEN_RETURN_IF_ERROR(sink.Finish(facts.digest));
  return facts;
}

StatusOr<Weights> MapPack(const plan::Plan& plan, const std::string& path, const MapOptions& options) {
  auto file = std::make_shared<MappedFile>();
  QWEN_RETURN_IF_ERROR(file->Open(path));
  QWEN_ASSIGN_OR_RETURN(const PackTable table, ParsePack(file->bytes(), file->size(), plan, path));
  if (HoldsCheckpoint(options.checkpoint_dir)) {
    QWEN_ASSIGN_OR_RETURN(const plan::Checkpoint checkpoint, plan::OpenCheckpoint(options.checkpoint_dir));
    if (checkpoint.digest != table.checkpoint_digest)
      return UnimplementedError(fmt::format("{}: was packed from a checkpoint with headers {:016x}, {} has {:016x}",
                                            path, table.checkpoint_digest, options.checkpoint_dir, checkpoint.digest),
                                kPackAgain);
  }
  if (options.preallocate) file->Populate();
  Weights weights;
  // Nothing writes to packed weights.
  weights.packed = AddressesOf(table.places, file, const_cast<uint8_t*>(file->bytes().data()));
  weights.has_mtp = table.groups.mtp;
  auto has = [&plan](plan::Group group) {
    return std::ranges::any_of(plan.weights, [group](const plan::Weight& weight) { return weight.group == group; });
  };
  if (!table.groups.mtp && has(plan::Group::kMtp))
    weights.warnings.push_back(path + ": has no MTP head; the plan's draft_mtp is off");
  if (!table.groups.draft && has(plan::Group::kDraft))
    weights.warnings.push_back(path + ": has no drafter; the plan's drafter is off");
  return weights;
}

Status VerifyPack(const plan::Plan& plan, const std::string& path, const LoadOptions& options) {
  MappedFile file;
  QWEN_RETURN_IF_ERROR(file.Open(path));
  QWEN_ASSIGN_OR_RETURN(const PackTable table, ParsePack(file.bytes(), file.size(), plan, path));
  int64_t end = table.bytes;
  if (options.progress) options.progress(0, file.size());
  for (size_t b = 0; b < table.places.blobs.size(); ++b) {
    const BlobPlaces::Blob& blob = table.places.blobs[b];
    const auto gap = file.bytes().subspan(end, blob.offset - end);
    if (std::ranges::any_of(gap, [](uint8_t byte) { return byte != 0; }))
      return DataLossError(fmt::format("{}: section blobs: the bytes from {} to {} are not 0", path, end, blob.offset));
    file.Want(blob.offset, blob.offset + blob.bytes);
    // A blob of all experts is large: piece by piece, so that the bar moves.
    plan::Digest digest;
    for (int64_t done = 0; done < blob.bytes;) {
      const int64_t piece = std::min(blob.bytes - done, int64_t{16} << 20);
      digest.Bytes(file.bytes().subspan(blob.offset + done, piece));
      done += piece;
      if (options.progress) options.progress(blob.offset + done, file.size());
    }
    file.Drop(end, blob.offset + blob.bytes);
    if (const uint64_t sum = digest.Finish(); sum != table.sums[b])
      return DataLossError(fmt::format("{}: section blobs: weight {}: its checksum is {:016x}, the table has {:016x}",
                                       path, plan.weights[plan.packed[blob.packed].weight].name, sum, table.sums[b]),
                           kPackAgain);
    end = blob.offset + blob.bytes;
  }
  return {};
}

}  // namespace qwen::exec
