// Any bytes as a compiled tokenizer: refused, or one that encodes and decodes, whatever it makes of the text.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "runtime/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qwen::text;
  const qwen::StatusOr<Tokenizer> tokenizer = Tokenizer::FromBlob({data, size}, "fuzz");
  if (!tokenizer.ok()) return 0;
  constexpr std::string_view kText = "abcabc <s>ab<st> t> don't e\xCC\x81 \xFF\n";
  const ByteRange ranges[] = {{0, 10}};
  const EncodedText encoded = tokenizer->EncodeWithPieces(kText, {.parse_special = false, .template_ranges = ranges});
  if (encoded.ids.size() > kText.size()) abort();
  for (int32_t id : encoded.ids)
    if (id < 0 || id >= tokenizer->vocab_size()) abort();
  (void)tokenizer->Decode(encoded.ids, true);
  for (int32_t id = -1; id <= tokenizer->vocab_size(); ++id) (void)tokenizer->Find(tokenizer->Bytes(id));
  return 0;
}
