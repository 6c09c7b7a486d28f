//===- ModelDialect.cpp - registration ------------------------------------===//

#include "dialects/model/ModelDialect.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

#include "dialects/model/ModelDialect.cpp.inc"

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
