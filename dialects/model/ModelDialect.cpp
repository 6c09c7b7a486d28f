//===- ModelDialect.cpp - registration ------------------------------------===//

#include "dialects/model/ModelDialect.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

#include "dialects/model/ModelDialect.cpp.inc"

using namespace mlir;

// `2x256`: heads by channels. The lexer would take `x256` for a word.
static ParseResult parseHeadShape(AsmParser &parser, int64_t &heads, int64_t &headDim) {
  SmallVector<int64_t> shape;
  if (parser.parseDimensionList(shape, /*allowDynamic=*/false, /*withTrailingX=*/false))
    return failure();
  if (shape.size() != 2)
    return parser.emitError(parser.getCurrentLocation(), "expected heads x channels");
  heads = shape[0];
  headDim = shape[1];
  return success();
}

static void printHeadShape(AsmPrinter &printer, int64_t heads, int64_t headDim) { printer << heads << 'x' << headDim; }

#define GET_ATTRDEF_CLASSES
#include "dialects/model/ModelAttrs.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/model/ModelTypes.cpp.inc"

namespace qwen::ir::model {

void ModelDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/model/ModelAttrs.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialects/model/ModelTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialects/model/ModelOps.cpp.inc"
      >();
}

} // namespace qwen::ir::model
