// A parsed template: nodes in one array, children by index. Never changes once parsed, so any thread may evaluate it.
#ifndef QWEN_RUNTIME_TEXT_JINJA_AST_H_
#define QWEN_RUNTIME_TEXT_JINJA_AST_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/text/jinja/value.h"

namespace qwen::text {

/// What a node's children are stands beside it; `index` is a name unless said otherwise.
enum class NodeKind : uint8_t {
  // Statements.
  kBody,    // statements
  kText,    // none; index: constant
  kOutput,  // expression
  kIf,      // condition, body, condition, body, ... and perhaps a last body
  kFor,     // target, iterable, body, condition or kAbsent, else body or kAbsent
  kSet,     // target, expression
  kMacro,   // body, kParameter ...
  // Parts of statements.
  kParameter,    // default, or none
  kTargetName,   // none
  kTargetAttr,   // none; index: the namespace's variable, detail: the attribute's name
  kTargetTuple,  // targets
  kAbsent,       // none
  // Expressions.
  kConst,       // none; index: constant
  kName,        // none
  kList,        // items
  kTuple,       // items
  kGetAttr,     // object
  kGetItem,     // object, key
  kSlice,       // object, start or kAbsent, stop or kAbsent, step or kAbsent
  kCall,        // callee, arguments and kKeyword ...
  kKeyword,     // expression
  kFilter,      // value, arguments and kKeyword ...; index: row of builtins
  kTest,        // value; index: row of tests, detail: 1 for `is not`
  kCondition,   // value, condition, other value or kAbsent
  kAnd,         // expressions
  kOr,          // expressions
  kNot,         // expression
  kNegate,      // expression
  kPlus,        // expression
  kCompare,     // expression, kOperand ...
  kArithmetic,  // expression, kOperand ...
  kConcat,      // expressions
  kOperand,     // expression; detail: Operator
};

enum class Operator : uint32_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Node {
  NodeKind kind = NodeKind::kAbsent;
  uint32_t line = 0;
  uint32_t depth = 1;  // of the tree from here on
  uint32_t index = 0, detail = 0;
  uint32_t first = 0, count = 0;  // in Program::children
};

struct Program {
  std::vector<Node> nodes;
  std::vector<uint32_t> children;
  std::vector<std::string> names;  // each once
  std::vector<Value> constants;
  uint32_t root = 0;

  std::span<const uint32_t> ChildrenOf(const Node& node) const { return {children.data() + node.first, node.count}; }
};

}  // namespace qwen::text

#endif  // QWEN_RUNTIME_TEXT_JINJA_AST_H_
