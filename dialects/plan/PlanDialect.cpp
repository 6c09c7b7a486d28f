//===- PlanDialect.cpp - registration and verifiers -----------------------===//

#include "dialects/plan/PlanDialect.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

#include "dialects/plan/PlanDialect.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/plan/PlanTypes.cpp.inc"
#define GET_OP_CLASSES
#include "dialects/plan/PlanOps.cpp.inc"

namespace qwen::ir::plan {

void PlanDialect::initialize() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialects/plan/PlanTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialects/plan/PlanOps.cpp.inc"
      >();
}

static LogicalResult verifyArgs(Operation *op, ArrayRef<int32_t> args, size_t buffers) {
  for (int32_t arg : args)
    if (arg < -1 || arg >= int32_t(buffers)) // launch_c1, collective_c1
      return op->emitOpError("args names buffer ") << arg << " of " << buffers;
  return success();
}

LogicalResult ProgramOp::verifyRegions() {
  for (auto buffer : getBody().front().getOps<BufferOp>()) {
    if (buffer.getKind() != "arena")
      continue;
    if (buffer.getOffset() % 64) // program_c2
      return buffer.emitOpError("lies at ") << buffer.getOffset() << ", not a multiple of 64";
    if (buffer.getOffset() + buffer.getBytes() > getArenaBytes()) // program_c1
      return buffer.emitOpError("ends at ") << buffer.getOffset() + buffer.getBytes() << ", the arena has "
                                            << getArenaBytes() << " bytes";
  }
  return success();
}

LogicalResult PackedOp::verify() {
  if (!llvm::is_contained({"rows", "vector", "tile16"}, getLayout())) // packed_c1
    return emitOpError("layout \"") << getLayout() << "\" is none of rows, vector, tile16";
  if (getNetBytes() > getBytes()) // packed_c2
    return emitOpError("net_bytes ") << getNetBytes() << " exceed bytes " << getBytes();
  return success();
}

LogicalResult BufferOp::verify() {
  if (!llvm::is_contained({"arena", "cache", "weight", "input", "output", "batch"}, getKind())) // buffer_c1
    return emitOpError("kind \"") << getKind() << "\" is unknown";
  if (int64_t(getOffset()) < 0 || int64_t(getBytes()) < 0) // buffer_c2
    return emitOpError("has a negative offset or size");
  return success();
}

LogicalResult LaunchOp::verify() {
  if (!llvm::is_contained({"all", "short", "long", "logit_rows"}, getPart())) // launch_c2
    return emitOpError("part \"") << getPart() << "\" is none of all, short, long, logit_rows";
  return verifyArgs(*this, getArgs(), getBuffers().size());
}

LogicalResult CollectiveOp::verify() { return verifyArgs(*this, getArgs(), getBuffers().size()); }

} // namespace qwen::ir::plan
