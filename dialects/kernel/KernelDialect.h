//===- KernelDialect.h - the kernel dialect ------------------------------===//
//
// Dispatches to kernel families; see KernelOps.td and contracts section 7.
//
//===----------------------------------------------------------------------===//

#ifndef QWEN_DIALECTS_KERNEL_KERNELDIALECT_H
#define QWEN_DIALECTS_KERNEL_KERNELDIALECT_H

#include "dialects/model/ModelDialect.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"

#include "dialects/kernel/KernelDialect.h.inc"
#define GET_OP_CLASSES
#include "dialects/kernel/KernelOps.h.inc"

namespace qwen::ir::kernel {

/// The catalogue's families, in the order of contracts section 7.
llvm::ArrayRef<llvm::StringRef> families();
bool isFamily(llvm::StringRef name);

} // namespace qwen::ir::kernel

#endif
