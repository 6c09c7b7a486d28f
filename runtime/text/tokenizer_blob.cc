// Both directions between a tokenizer and its blob (tokenizer_blob.h).
#include "runtime/text/tokenizer_blob.h"

#include <fmt/format.h>

#include <cstring>

#include "runtime/base/json.h"
#include "runtime/text/byte_pair.h"
#include "runtime/text/tokenizer.h"

namespace qwen::text {
namespace {

/// A compiled tokenizer in the making: the sections, each over the ones before it.
class Builder {
 public:
  Builder(const TokenizerParts& parts, const std::string& where) : parts_(parts), where_(where) {}

  StatusOr<std::vector<uint32_t>> Build() {
    std::memcpy(header_.magic, kBlobMagic, sizeof(header_.magic));
    header_.version = kBlobVersion;
    header_.flags = parts_.nfc ? kBlobNfc : 0;
    header_.pattern = static_cast<uint32_t>(parts_.pattern);
    QWEN_RETURN_IF_ERROR(LayOutBytes());
    QWEN_RETURN_IF_ERROR(BuildIndex());
    QWEN_RETURN_IF_ERROR(FindByteTokens());
    QWEN_RETURN_IF_ERROR(BuildMerges());
    MarkWhole();
    return Assemble();
  }

 private:
  TokenBytes tokens() const { return {ends_, bytes_.data()}; }
  TokenIndex index() const { return {index_starts_, entries_}; }
  MergeTable merges() const { return {merge_starts_, merges_}; }

  Status LayOutBytes() {
    if (parts_.tokens.size() > kMaxTokens)
      return DataLossError(
          fmt::format("{}/vocab: has {} ids, the limit is {}", where_, parts_.tokens.size(), kMaxTokens));
    for (const TokenizerParts::Token& token : parts_.tokens) {
      if (token.bytes.size() > UINT32_MAX - bytes_.size())
        return DataLossError(fmt::format("{}/vocab: has more than {} bytes", where_, UINT32_MAX));
      bytes_ += token.bytes;
      ends_.push_back(static_cast<uint32_t>(bytes_.size()));
    }
    return Status();
  }

  Status BuildIndex() {
    std::vector<uint32_t> ids;
    std::vector<uint64_t> hashes;
    for (uint32_t id = 0; id < parts_.tokens.size(); ++id) {
      if (parts_.tokens[id].kind == TokenKind::kNone) continue;
      ids.push_back(id);
      hashes.push_back(HashBytes(parts_.tokens[id].bytes));
    }
    Buckets buckets = SortIntoBuckets(hashes);
    // Also what keeps the search for repeats below short.
    if (!BucketsAreSound(buckets.starts, hashes.size()))
      return DataLossError(where_ + "/vocab: too many of its tokens fall together when they are hashed");
    for (uint32_t at : buckets.order) entries_.push_back({ids[at]});
    index_starts_ = std::move(buckets.starts);
    for (const TokenIndex::Entry entry : entries_)
      if (const uint32_t first = index().Find(tokens()[entry.id()], tokens())->id(); first != entry.id())
        return DataLossError(
            fmt::format("{}/vocab: ids {} and {} are both {}", where_, first, entry.id(), JsonQuote(tokens()[first])));
    return Status();
  }

  Status FindByteTokens() {
    for (int byte = 0; byte < 256; ++byte) {
      const char text = static_cast<char>(byte);
      const TokenIndex::Entry* token = index().Find({&text, 1}, tokens());
      if (!token)
        return DataLossError(fmt::format("{}/vocab: no token is the single byte {:#04x}", where_, byte),
                             "a byte-level vocabulary has all 256");
      if (parts_.tokens[token->id()].kind == TokenKind::kSpecial)
        return UnimplementedError(
            fmt::format("{}/vocab: the token of the single byte {:#04x} is special", where_, byte));
      header_.byte_tokens[byte] = token->id();
    }
    return Status();
  }

  Status BuildMerges() {
    std::vector<Merge> by_rank;
    std::vector<uint64_t> hashes;
    for (const auto& [left, right] : parts_.merges) {
      const auto rank = static_cast<uint32_t>(by_rank.size());
      uint32_t ids[3];
      const std::string texts[3] = {left, right, left + right};
      for (int i = 0; i < 3; ++i) {
        const TokenIndex::Entry* token = index().Find(texts[i], tokens());
        if (!token)
          return DataLossError(fmt::format("{}/merges/{}: {} {}, which is not a token", where_, rank,
                                           i < 2 ? "merges" : "makes", JsonQuote(texts[i])));
        ids[i] = token->id();
      }
      // Whoever types the text of a special token must not get it.
      if (parts_.tokens[ids[2]].kind == TokenKind::kSpecial)
        return UnimplementedError(
            fmt::format("{}/merges/{}: makes {}, which is special", where_, rank, JsonQuote(texts[2])));
      by_rank.push_back({ids[0], ids[1], ids[2], rank});
      hashes.push_back(HashPair(ids[0], ids[1]));
    }
    Buckets buckets = SortIntoBuckets(hashes);
    if (!BucketsAreSound(buckets.starts, hashes.size()))
      return DataLossError(where_ + "/merges: too many of them fall together when they are hashed");
    for (uint32_t rank : buckets.order) merges_.push_back(by_rank[rank]);
    merge_starts_ = std::move(buckets.starts);
    for (const Merge& merge : merges_)
      if (const uint32_t first = merges().Find(merge.left, merge.right)->rank; first != merge.rank)
        return DataLossError(fmt::format("{}/merges/{}: repeats merge {}", where_, merge.rank, first));
    return Status();
  }

  void MarkWhole() {
    BytePairEncoder encoder(header_.byte_tokens, merges());
    std::vector<int32_t> ids;
    for (TokenIndex::Entry& entry : entries_) {
      ids.clear();
      encoder.Encode(tokens()[entry.id()], &ids);
      if (ids.size() == 1 && ids[0] == static_cast<int32_t>(entry.id())) entry.word |= TokenIndex::Entry::kWhole;
    }
  }

  std::vector<uint32_t> Assemble() {
    header_.tokens = static_cast<uint32_t>(ends_.size());
    header_.entries = static_cast<uint32_t>(entries_.size());
    header_.merges = static_cast<uint32_t>(merges_.size());
    header_.bytes = static_cast<uint32_t>(bytes_.size());
    const BlobLayout layout(header_);
    std::vector<uint32_t> blob(layout.size);
    const auto put = [&](uint64_t at, const auto& section) {
      if (!section.empty()) std::memcpy(blob.data() + at, section.data(), section.size() * sizeof(section[0]));
    };
    std::memcpy(blob.data(), &header_, sizeof(header_));
    put(layout.ends, ends_);
    put(layout.index_starts, index_starts_);
    put(layout.index_entries, entries_);
    put(layout.merge_starts, merge_starts_);
    put(layout.merges, merges_);
    put(layout.bytes, bytes_);
    auto* kinds = reinterpret_cast<uint8_t*>(blob.data() + layout.kinds);
    for (const TokenizerParts::Token& token : parts_.tokens) *kinds++ = static_cast<uint8_t>(token.kind);
    return blob;
  }

  const TokenizerParts& parts_;
  const std::string& where_;
  BlobHeader header_{};
  std::string bytes_;
  std::vector<uint32_t> ends_, index_starts_, merge_starts_;
  std::vector<TokenIndex::Entry> entries_;
  std::vector<Merge> merges_;
};

}  // namespace

StatusOr<Tokenizer> Tokenizer::FromParts(const TokenizerParts& parts, const std::string& where) {
  QWEN_ASSIGN_OR_RETURN(std::vector<uint32_t> blob, Builder(parts, where).Build());
  return Open(std::move(blob), where);
}

StatusOr<Tokenizer> Tokenizer::FromBlob(std::span<const uint8_t> blob, const std::string& where) {
  if (blob.size() % 4 != 0)
    return DataLossError(fmt::format("{}: is {} bytes, not a multiple of 4", where, blob.size()));
  std::vector<uint32_t> words(blob.size() / 4);
  if (!words.empty()) std::memcpy(words.data(), blob.data(), blob.size());
  return Open(std::move(words), where);
}

StatusOr<Tokenizer> Tokenizer::Open(std::vector<uint32_t> blob, const std::string& where) {
  const auto fail = [&](std::string why) { return DataLossError(where + ": " + std::move(why)); };
  BlobHeader h;
  if (blob.size() * 4 < sizeof(h))
    return fail(fmt::format("is {} bytes, too few for a header of {}", blob.size() * 4, sizeof(h)));
  std::memcpy(&h, blob.data(), sizeof(h));
  if (std::memcmp(h.magic, kBlobMagic, sizeof(h.magic)) != 0) return fail("does not begin as a compiled tokenizer");
  if (h.version != kBlobVersion)
    return UnimplementedError(
        fmt::format("{}: is a tokenizer of version {}, this build reads {}", where, h.version, kBlobVersion),
        "compile the model again");
  if ((h.flags & ~kBlobNfc) != 0) return fail(fmt::format("has flags {:#x}, known are {:#x}", h.flags, kBlobNfc));
  if (h.pattern >= PatternRegexes().size())
    return fail(fmt::format("names pattern {}, there are {}", h.pattern, PatternRegexes().size()));
  if (h.tokens > kMaxTokens) return fail(fmt::format("has {} token ids, the limit is {}", h.tokens, kMaxTokens));
  const BlobLayout layout(h);
  if (layout.size != blob.size())
    return fail(fmt::format("is {} bytes, but its sections take {}", blob.size() * 4, layout.size * 4));

  Tokenizer t;
  t.blob_ = std::move(blob);
  t.nfc_ = (h.flags & kBlobNfc) != 0;
  t.pattern_ = static_cast<Pattern>(h.pattern);
  const uint32_t* words = t.blob_.data();
  t.byte_tokens_ = {words + offsetof(BlobHeader, byte_tokens) / 4, 256};
  t.tokens_ = {{words + layout.ends, h.tokens}, reinterpret_cast<const char*>(words + layout.bytes)};
  t.index_.starts = {words + layout.index_starts, layout.index_entries - layout.index_starts};
  t.index_.entries = {reinterpret_cast<const TokenIndex::Entry*>(words + layout.index_entries), h.entries};
  t.merges_.starts = {words + layout.merge_starts, layout.merges - layout.merge_starts};
  t.merges_.merges = {reinterpret_cast<const Merge*>(words + layout.merges), h.merges};
  t.kinds_ = {reinterpret_cast<const uint8_t*>(words + layout.kinds), h.tokens};

  uint32_t end = 0;
  for (uint32_t id = 0; id < h.tokens; ++id) {
    if (t.tokens_.ends[id] < end || t.tokens_.ends[id] > h.bytes)
      return fail(fmt::format("token {} is at bytes [{}, {}) of {}", id, end, t.tokens_.ends[id], h.bytes));
    end = t.tokens_.ends[id];
  }
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t id = h.byte_tokens[byte];
    if (id >= h.tokens) return fail(fmt::format("byte {:#04x} is token {}, but there are {}", byte, id, h.tokens));
    if (t.tokens_[id] != std::string_view(std::string(1, static_cast<char>(byte))))
      return fail(fmt::format("token {} is {}, not the byte {:#04x}", id, JsonQuote(t.tokens_[id]), byte));
  }
  if (!BucketsAreSound(t.index_.starts, h.entries)) return fail("its index of tokens is damaged");
  if (!BucketsAreSound(t.merges_.starts, h.merges)) return fail("its index of merges is damaged");
  for (const TokenIndex::Entry& entry : t.index_.entries)
    if (entry.id() >= h.tokens)
      return fail(fmt::format("its index names token {}, but there are {}", entry.id(), h.tokens));
  for (const Merge& merge : t.merges_.merges) {
    for (uint32_t id : {merge.left, merge.right, merge.result})
      if (id >= h.tokens)
        return fail(fmt::format("merge {} names token {}, but there are {}", merge.rank, id, h.tokens));
    if (merge.rank >= h.merges) return fail(fmt::format("a merge has rank {} of {}", merge.rank, h.merges));
  }
  for (uint32_t id = 0; id < h.tokens; ++id) {
    const uint8_t kind = t.kinds_[id];
    if (kind > static_cast<uint8_t>(TokenKind::kSpecial)) return fail(fmt::format("token {} is of kind {}", id, kind));
    if (kind < static_cast<uint8_t>(TokenKind::kAdded)) continue;
    if (!t.added_.Add(t.tokens_[id], static_cast<int32_t>(id)))
      return fail(fmt::format("added token {} is empty or repeats another: {}", id, JsonQuote(t.tokens_[id])));
  }
  t.added_.Finish();
  return t;
}

}  // namespace qwen::text
