//===- DeviceHeaders.cpp - the device headers, built in as text -----------===//

#include "compiler/codegen/SpecEmitter.h"

namespace qwen::compiler {

const std::vector<DeviceHeader> &deviceHeaders() {
  static const std::vector<DeviceHeader> headers = {
#include "compiler/codegen/device_headers.inc"
  };
  return headers;
}

} // namespace qwen::compiler
