#include "runtime/text/tokenizer.h"

#include <algorithm>
#include <cassert>

#include "runtime/text/byte_pair.h"
#include "runtime/text/unicode/nfc.h"
#include "runtime/text/utf8_stream.h"

namespace qwen::text {
namespace {

/// Whether all of [begin, end) lies in `ranges`, which are sorted and disjoint.
bool Covers(std::span<const ByteRange> ranges, size_t begin, size_t end) {
  auto range =
      std::upper_bound(ranges.begin(), ranges.end(), begin, [](size_t at, const ByteRange& r) { return at < r.end; });
  for (; range != ranges.end() && range->begin <= begin; ++range) {
    if (range->end >= end) return true;
    begin = range->end;
  }
  return false;
}

}  // namespace

/// One call's output and memory.
class Tokenizer::Encoder {
 public:
  /// `pieces` is null when only ids are wanted.
  Encoder(const Tokenizer& tokenizer, std::vector<int32_t>* ids, EncodedText* pieces)
      : tokenizer_(tokenizer),
        ids_(ids),
        pieces_(pieces),
        merger_(tokenizer.byte_tokens_.first<256>(), tokenizer.merges_) {}

  void Run(std::string_view text, const EncodeOptions& options) {
    assert(text.size() < size_t{1} << 31);
    const auto allowed = [&](const AddedTokens::Match& match) {
      return options.parse_special || tokenizer_.Kind(match.id) != TokenKind::kSpecial ||
             Covers(options.template_ranges, match.begin, match.end);
    };
    size_t at = 0;
    while (const auto match = tokenizer_.added_.Next(text, at, allowed)) {
      Segment(text.substr(at, match->begin - at));
      Begin(text.substr(match->begin, match->end - match->begin));
      ids_->push_back(match->id);
      End();
      at = match->end;
    }
    Segment(text.substr(at));
  }

 private:
  /// Text between added tokens. The cut sees nothing of what is around it.
  void Segment(std::string_view raw) {
    const std::string_view text = tokenizer_.nfc_ ? ToNfc(raw, &nfc_) : raw;
    for (size_t at = 0; at < text.size();) {
      const size_t end = PieceEnd(text, at, tokenizer_.pattern_);
      const std::string_view piece = text.substr(at, end - at);
      Begin(piece);
      // Most pieces are a token as they stand. Being in the vocabulary is not enough: the merges must get there.
      const TokenIndex::Entry* token = tokenizer_.index_.Find(piece, tokenizer_.tokens_);
      if (token && token->whole()) {
        ids_->push_back(static_cast<int32_t>(token->id()));
      } else {
        merger_.Encode(piece, ids_);
      }
      End();
      at = end;
    }
  }

  void Begin(std::string_view piece) {
    if (!pieces_) return;
    const size_t begin = pieces_->normalized.size();
    pieces_->normalized += piece;
    pieces_->pieces.push_back({{begin, pieces_->normalized.size()}, ids_->size(), 0});
  }
  void End() {
    if (pieces_) pieces_->pieces.back().tokens = ids_->size() - pieces_->pieces.back().first_token;
  }

  const Tokenizer& tokenizer_;
  std::vector<int32_t>* ids_;
  EncodedText* pieces_;
  BytePairEncoder merger_;
  std::string nfc_;
};

std::span<const uint8_t> Tokenizer::Serialize() const {
  return {reinterpret_cast<const uint8_t*>(blob_.data()), blob_.size() * 4};
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  Encoder(*this, &ids, nullptr).Run(text, options);
  return ids;
}

EncodedText Tokenizer::EncodeWithPieces(std::string_view text, const EncodeOptions& options) const {
  EncodedText encoded;
  Encoder(*this, &encoded.ids, &encoded).Run(text, options);
  return encoded;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (int32_t id : ids)
    if (!skip_special || !IsSpecial(id)) bytes += Bytes(id);
  return ReplaceIllFormed(bytes);
}

std::optional<int32_t> Tokenizer::Find(std::string_view bytes) const {
  const TokenIndex::Entry* entry = index_.Find(bytes, tokens_);
  return entry ? std::optional(static_cast<int32_t>(entry->id())) : std::nullopt;
}

}  // namespace qwen::text
