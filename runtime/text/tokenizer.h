// Text to token ids and back, exactly as the `tokenizers` library does for a Qwen tokenizer.json.
//
// Encoding: added tokens are found in the raw text; what lies between them is brought to NFC, cut into pieces
// (pretokenizer.h) and each piece merged by rank (byte_pair.h). Decoding: the bytes of the tokens, one behind the
// other. A tokenizer is compiled once into a flat blob, which plans carry and which is searched as it lies.
#ifndef QWEN_RUNTIME_TEXT_TOKENIZER_H_
#define QWEN_RUNTIME_TEXT_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/text/added_tokens.h"
#include "runtime/text/pretokenizer.h"
#include "runtime/text/token_tables.h"

namespace qwen::text {

/// Ids lie below this.
inline constexpr uint32_t kMaxTokens = 1 << 22;

enum class TokenKind : uint8_t {
  kNone,     // no token has this id
  kVocab,    // made by merges
  kAdded,    // found in text as it stands, wherever it is
  kSpecial,  // the same, but only where EncodeOptions allow; left out of text on request
};

/// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin, end;
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

struct EncodeOptions {
  /// Special tokens are recognised everywhere. Where a text holds words of strangers, say false and name the ranges
  /// that are not theirs: a special token is then recognised only where all of it lies in them.
  bool parse_special = true;
  /// Sorted and disjoint; two that touch count as one. Looked at when parse_special is false.
  std::span<const ByteRange> template_ranges = {};
};

/// An encoded text with its pieces.
struct EncodedText {
  struct Piece {
    ByteRange bytes;             // of `normalized`
    size_t first_token, tokens;  // in `ids`
  };
  std::string normalized;  // what was cut: NFC, except for added tokens
  std::vector<int32_t> ids;
  std::vector<Piece> pieces;  // one behind the other, an added token is one; together all of `normalized` and `ids`
};

/// A tokenizer before it is compiled.
struct TokenizerParts {
  struct Token {
    TokenKind kind = TokenKind::kNone;
    std::string bytes;
  };
  struct Merge {
    std::string left, right;  // bytes of two tokens; together those of a third
  };
  std::vector<Token> tokens;  // by id; each of the 256 bytes is a token
  std::vector<Merge> merges;  // by rank
  Pattern pattern = Pattern::kWords;
  bool nfc = true;
};

/// Threads: immutable; any number may use it at once.
class Tokenizer {
 public:
  /// Compiles. kDataLoss for parts that contradict themselves, kUnimplemented where typed text could make a special
  /// token; `where` in front, which names the model in its file, as "tokenizer.json:/model" does.
  static StatusOr<Tokenizer> FromParts(const TokenizerParts& parts, const std::string& where);
  /// Reads what Serialize gave. The blob is copied, so that nothing can change below the checks, and everything in it
  /// is checked: kDataLoss, `where` in front, kUnimplemented for another version. Memory is a small multiple of the
  /// blob.
  static StatusOr<Tokenizer> FromBlob(std::span<const uint8_t> blob, const std::string& where);
  /// The compiled form; lives as long as the tokenizer. The same parts give the same bytes.
  std::span<const uint8_t> Serialize() const;

  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;

  /// Ids of `text`, less than 2 GiB. Any bytes are accepted: those that are not UTF-8 become tokens like others, and
  /// decode to themselves before Decode replaces them.
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options = {}) const;
  EncodedText EncodeWithPieces(std::string_view text, const EncodeOptions& options = {}) const;

  /// The text of `ids`; ill-formed UTF-8 becomes U+FFFD. Ids without a token add nothing. For tokens that come one at a
  /// time feed Bytes() to a Utf8Stream.
  std::string Decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// One more than the highest id. Models may have more rows than this: those have no token.
  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.ends.size()); }
  /// Of any integer; what is no token's id is kNone and has no bytes.
  TokenKind Kind(int32_t id) const { return HasId(id) ? static_cast<TokenKind>(kinds_[id]) : TokenKind::kNone; }
  std::string_view Bytes(int32_t id) const { return HasId(id) ? tokens_[id] : std::string_view(); }
  bool IsSpecial(int32_t id) const { return Kind(id) == TokenKind::kSpecial; }
  /// The token that stands for exactly `bytes`, of any kind.
  std::optional<int32_t> Find(std::string_view bytes) const;

  Pattern pattern() const { return pattern_; }

 private:
  class Encoder;
  Tokenizer() = default;
  static StatusOr<Tokenizer> Open(std::vector<uint32_t> blob, const std::string& where);
  bool HasId(int32_t id) const { return id >= 0 && id < vocab_size(); }

  std::vector<uint32_t> blob_;  // the views below look into it; moving a vector leaves its elements where they are
  TokenBytes tokens_;
  std::span<const uint8_t> kinds_;  // TokenKind by id
  std::span<const uint32_t> byte_tokens_;
  TokenIndex index_;
  MergeTable merges_;
  AddedTokens added_;
  Pattern pattern_ = Pattern::kWords;
  bool nfc_ = true;
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_TOKENIZER_H_
