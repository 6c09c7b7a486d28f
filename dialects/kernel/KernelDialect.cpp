//===- KernelDialect.cpp - registration, dispatch syntax, verifiers -------===//

#include "dialects/kernel/KernelDialect.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;

#include "dialects/kernel/KernelDialect.cpp.inc"
#define GET_OP_CLASSES
#include "dialects/kernel/KernelOps.cpp.inc"

namespace qwen::ir::kernel {

void KernelDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "dialects/kernel/KernelOps.cpp.inc"
      >();
}

ArrayRef<StringRef> families() {
  static const StringRef list[] = {"embed",   "rms_norm", "linear",     "gdn",        "attention", "router",
                                   "experts", "lm_head",  "all_reduce", "elementwise"};
  return list;
}

bool isFamily(StringRef name) { return llvm::is_contained(families(), name); }

YieldOp DispatchOp::yield() { return cast<YieldOp>(block().getTerminator()); }

// kernel.dispatch @family(%a = %x : type, ...) -> (types) attributes {...} { region }
ParseResult DispatchOp::parse(OpAsmParser &parser, OperationState &result) {
  FlatSymbolRefAttr family;
  SmallVector<OpAsmParser::Argument> arguments;
  SmallVector<OpAsmParser::UnresolvedOperand> operands;
  SmallVector<Type> operandTypes, resultTypes;
  if (parser.parseAttribute(family, "family", result.attributes))
    return failure();
  auto parseInput = [&]() -> ParseResult {
    OpAsmParser::Argument argument;
    OpAsmParser::UnresolvedOperand operand;
    if (parser.parseArgument(argument) || parser.parseEqual() || parser.parseOperand(operand) ||
        parser.parseColonType(argument.type))
      return failure();
    arguments.push_back(argument);
    operands.push_back(operand);
    operandTypes.push_back(argument.type);
    return success();
  };
  auto parseResult = [&]() -> ParseResult { return parser.parseType(resultTypes.emplace_back()); };
  if (parser.parseCommaSeparatedList(OpAsmParser::Delimiter::Paren, parseInput))
    return failure();
  if (succeeded(parser.parseOptionalArrow()) &&
      parser.parseCommaSeparatedList(OpAsmParser::Delimiter::Paren, parseResult))
    return failure();
  if (parser.parseOptionalAttrDictWithKeyword(result.attributes) ||
      parser.resolveOperands(operands, operandTypes, parser.getCurrentLocation(), result.operands) ||
      parser.parseRegion(*result.addRegion(), arguments))
    return failure();
  result.addTypes(resultTypes);
  return success();
}

void DispatchOp::print(OpAsmPrinter &printer) {
  printer << ' ' << getFamilyAttr() << '(';
  llvm::interleaveComma(llvm::zip(block().getArguments(), getInputs()), printer, [&](auto pair) {
    auto [argument, operand] = pair;
    printer << argument << " = " << operand << " : " << operand.getType();
  });
  printer << ')';
  if (getNumResults()) {
    printer << " -> (";
    llvm::interleaveComma(getResultTypes(), printer);
    printer << ')';
  }
  printer.printOptionalAttrDictWithKeyword((*this)->getAttrs(), {"family"});
  printer << ' ';
  printer.printRegion(getBody(), /*printEntryBlockArgs=*/false);
}

LogicalResult DispatchOp::verify() {
  if (!isFamily(getFamily())) // dispatch_c5
    return emitOpError("family @") << getFamily() << " is not in the catalogue";
  if (bool(getArgs()) != bool(getKernels()) || (getArgs() && getArgs()->size() != getKernels()->size())) // dispatch_c4
    return emitOpError("args and kernels do not pair up");
  if (auto lists = getArgs())
    for (Attribute list : *lists) {
      auto args = dyn_cast<DenseI32ArrayAttr>(list);
      if (!args) // dispatch_c4
        return emitOpError("args holds ") << list << ", which is no array of i32";
      for (int32_t arg : args.asArrayRef())
        if (arg < -1 || arg > int32_t(getNumOperands() + getNumResults())) // dispatch_c4
          return emitOpError("args names value ") << arg << " of " << getNumOperands() + getNumResults() + 1;
    }
  return success();
}

LogicalResult DispatchOp::verifyRegions() {
  Block &body = block();
  if (body.getArgumentTypes() != getInputs().getTypes()) // dispatch_c1
    return emitOpError("block arguments do not have the types of the inputs");
  auto end = body.empty() ? YieldOp() : dyn_cast<YieldOp>(body.back());
  if (!end || end.getValues().getTypes() != getResultTypes()) // dispatch_c2
    return emitOpError("region does not end in a kernel.yield of the results' types");
  if (body.getOperations().size() < 2) // dispatch_c3
    return emitOpError("region holds no model op");
  for (Operation &op : body.without_terminator())
    if (!isa<model::ModelDialect>(op.getDialect())) // dispatch_c3
      return emitOpError("region holds ") << op.getName() << ", which is no model op";
  return success();
}

LogicalResult KernelOp::verify() {
  if (!isFamily(getFamily())) // kernel_c1
    return emitOpError("family \"") << getFamily() << "\" is not in the catalogue";
  return success();
}

} // namespace qwen::ir::kernel
