// Text that remembers, for every byte, where it came from.
//
// A chat prompt mixes the template's own words with words of strangers. `<|im_end|>` ends a turn when the template says
// it and is ordinary text when a user typed it, and only the renderer can tell the two apart. So every string of a
// rendering carries its origins, and every operation on strings is made of the two Append below: concatenation, slices,
// split, strip, replace and the case methods keep the marks because they have no other way to make a string.
#ifndef QWEN_RUNTIME_TEXT_JINJA_MARKED_TEXT_H_
#define QWEN_RUNTIME_TEXT_JINJA_MARKED_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qwen::text {

enum class Origin : uint8_t {
  kValue,     // a value of the request, or made from one: numbers, JSON, repr
  kTemplate,  // literal text of the template
  kCut,       // put in by ChatTemplate to find where the final message ends
};

/// Bytes with origins. Below 4 GiB.
class MarkedText {
 public:
  struct Run {
    uint32_t begin, end;  // bytes
    Origin origin;        // never kValue
    bool operator==(const Run&) const = default;
  };

  MarkedText() = default;
  MarkedText(std::string bytes, Origin origin) : bytes_(std::move(bytes)) { Mark(0, origin); }

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  /// In order, without overlap, neighbours of one origin merged. What lies between is kValue.
  const std::vector<Run>& runs() const { return runs_; }

  void Append(std::string_view bytes, Origin origin) {
    const size_t begin = bytes_.size();
    bytes_ += bytes;
    Mark(begin, origin);
  }
  /// Bytes [begin, end) of `other`, which is not this.
  void Append(const MarkedText& other, size_t begin, size_t end);
  void Append(const MarkedText& other) { Append(other, 0, other.size()); }
  void Reserve(size_t bytes) { bytes_.reserve(bytes); }
  /// Drops everything from byte `size` on.
  void Truncate(size_t size);
  std::string TakeBytes() && { return std::move(bytes_); }

 private:
  void Mark(size_t begin, Origin origin) {
    if (origin != Origin::kValue) Mark(begin, bytes_.size(), origin);
  }
  void Mark(size_t begin, size_t end, Origin origin);

  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_MARKED_TEXT_H_
