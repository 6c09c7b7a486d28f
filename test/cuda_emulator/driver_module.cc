// Entry points: modules, functions, launches.
#include <fmt/format.h>

#include "test/cuda_emulator/decode.h"
#include "test/cuda_emulator/driver.h"

using namespace qwen::emu;
using abi::Result;

namespace {

/// The globals of a module in device memory, initialised.
Result PlaceGlobals(abi::Context* context, const ParsedModule& parsed, abi::Module* module,
                    std::map<std::string, Global, std::less<>>* globals) {
  DeviceMemory& memory = *context->device->memory;
  for (const Symbol* symbol : parsed.globals) {
    if (symbol->space == Space::kShared || (symbol->is_extern && symbol->bytes == 0)) continue;
    qwen::StatusOr<uint64_t> address = memory.Allocate(std::max<uint64_t>(symbol->bytes, 1));
    if (!address.ok()) return abi::kOutOfMemory;
    module->allocations.push_back(*address);
    uint8_t* bytes = reinterpret_cast<uint8_t*>(*address);
    std::memset(bytes, 0, symbol->bytes);
    std::memcpy(bytes, symbol->initial.data(), symbol->initial.size());
    memory.MarkWritten(*address, symbol->bytes);
    (*globals)[std::string(symbol->name)] = {*address, symbol->bytes, symbol->space == Space::kConst};
  }
  for (const Symbol* symbol : parsed.globals)
    for (const Symbol::AddressInitial& initial : symbol->initial_addresses) {
      auto target = globals->find(initial.target->name);
      if (target == globals->end()) continue;
      uint64_t value = target->second.address + static_cast<uint64_t>(initial.addend);
      std::memcpy(reinterpret_cast<uint8_t*>((*globals)[std::string(symbol->name)].address) + initial.offset, &value,
                  8);
    }
  return abi::kSuccess;
}

Result LoadModule(abi::Context* context, abi::Module** out, const void* image, std::string* log) {
  const char* text = static_cast<const char*>(image);
  if (!out || !text) return abi::kInvalidValue;
  // ELF and fatbin images hold machine code.
  static constexpr unsigned char kFatbin[4] = {0x50, 0xed, 0x55, 0xba};
  if (!std::memcmp(text, "\177ELF", 4) || !std::memcmp(text, kFatbin, 4)) {
    *log = "only PTX text can be emulated, the image is a cubin or fatbin";
    return abi::kInvalidImage;
  }
  qwen::StatusOr<ParsedModule> parsed = ParsePtx(text);
  if (!parsed.ok()) {
    *log = parsed.status().message();
    return abi::kInvalidPtx;
  }
  auto module = std::make_unique<abi::Module>();
  module->context = context;
  std::map<std::string, Global, std::less<>> globals;
  auto give_back = [&] {
    for (abi::DevicePtr address : module->allocations) (void)context->device->memory->Free(address);
  };
  if (Result r = PlaceGlobals(context, *parsed, module.get(), &globals); r != abi::kSuccess) return give_back(), r;
  AddressOfGlobal address_of = [&](std::string_view name) {
    auto it = globals.find(name);
    return it == globals.end() ? 0 : it->second.address;
  };
  qwen::StatusOr<std::unique_ptr<Program>> program = DecodeProgram(*std::move(parsed), address_of);
  if (!program.ok()) {
    *log = program.status().message();
    give_back();
    return abi::kInvalidPtx;
  }
  module->program = *std::move(program);
  module->program->globals = std::move(globals);
  Driver& driver = Driver::Get();
  std::lock_guard lock(driver.mutex);
  context->modules.insert(module.get());
  driver.live.insert(module.get());
  *out = module.release();
  return abi::kSuccess;
}

void WriteLog(const std::string& log, void* buffer, size_t size) {
  if (!buffer || size == 0) return;
  size_t n = std::min(log.size(), size - 1);
  std::memcpy(buffer, log.data(), n);
  static_cast<char*>(buffer)[n] = 0;
}

bool IsFunction(const abi::Function* function) { return function && IsLive(function); }

Result LaunchOn(abi::Function* handle, Dim3 grid, Dim3 block, unsigned shared, abi::Stream* stream, void** params,
                void** extra, bool cooperative) {
  return Guard([&](abi::Context* context) -> Result {
    if (!IsFunction(handle)) return abi::kInvalidHandle;
    const Function& kernel = *handle->function;
    if (grid.count() == 0 || block.count() == 0 || grid.y > 65535 || grid.z > 65535 || grid.count() > (1u << 24))
      return abi::kInvalidValue;
    if (block.count() > 1024 || block.z > 64 ||
        (kernel.max_threads && block.count() > static_cast<uint64_t>(kernel.max_threads)))
      return abi::kInvalidValue;
    uint64_t limit = std::max<uint64_t>(kSharedPerBlock, kernel.shared_bytes + uint64_t{handle->max_dynamic_shared});
    uint64_t total = uint64_t{kernel.shared_bytes} + shared;
    if (total > limit) return abi::kInvalidValue;
    int resident = ResidentBlocks(block.count(), total);
    if (resident < 1) return abi::kLaunchOutOfResources;
    if (cooperative && grid.count() > static_cast<uint64_t>(resident) * kMultiprocessors)
      return static_cast<Result>(720);  // CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE

    std::vector<uint8_t> parameters(kernel.parameter_bytes);
    if (params) {
      for (size_t i = 0; i < kernel.parameters.size(); ++i) {
        if (!params[i]) return abi::kInvalidValue;
        std::memcpy(parameters.data() + kernel.parameters[i].offset, params[i], kernel.parameters[i].bytes);
      }
    } else if (extra) {
      // Pairs of a key and a value: 1 the buffer, 2 its size.
      const void* buffer = nullptr;
      size_t size = 0;
      for (; extra[0]; extra += 2) {
        if (extra[0] == reinterpret_cast<void*>(1)) buffer = extra[1];
        if (extra[0] == reinterpret_cast<void*>(2)) size = *static_cast<size_t*>(extra[1]);
      }
      if (!buffer || size < parameters.size()) return abi::kInvalidValue;
      std::memcpy(parameters.data(), buffer, parameters.size());
    } else if (!parameters.empty()) {
      return abi::kInvalidValue;
    }
    std::shared_ptr<Program> program = handle->module->program;
    DeviceState* device = context->device;
    const Function* function = handle->function;
    auto work = [=]() -> Result {
      Driver& driver = Driver::Get();
      Launch launch;
      launch.program = program.get();
      launch.kernel = function;
      launch.options = &driver.options;
      launch.memory = device->memory.get();
      launch.host = &driver.host;
      launch.grid = grid;
      launch.block = block;
      launch.shared_bytes = static_cast<uint32_t>(total);
      launch.parameters = parameters;
      launch.id = ++device->launches;
      launch.device = device->ordinal;
      Counters counters(*program);
      Fault fault = RunLaunch(&launch, &counters);
      driver.report.AddLaunch(*program, *function, device->ordinal, counters);
      if (fault.kind != FaultKind::kNone) driver.SetFault(fault.text);
      return FaultResult(fault.kind);
    };
    return Submit(stream, abi::kNodeKernel, work, false, function);
  });
}

}  // namespace

QWEN_EMU_EXPORT Result cuModuleLoadDataEx(abi::Module** module, const void* image, unsigned num_options, int* options,
                                          void** values) {
  return Guard([&](abi::Context* context) {
    std::string log;
    Result result = LoadModule(context, module, image, &log);
    void* buffers[2] = {};  // info, error
    size_t sizes[2] = {};
    for (unsigned i = 0; i < num_options; ++i) {
      switch (options[i]) {
        case abi::kJitInfoLogBuffer:
          buffers[0] = values[i];
          break;
        case abi::kJitInfoLogBufferSizeBytes:
          sizes[0] = reinterpret_cast<uintptr_t>(values[i]) & 0xffffffff;
          break;
        case abi::kJitErrorLogBuffer:
          buffers[1] = values[i];
          break;
        case abi::kJitErrorLogBufferSizeBytes:
          sizes[1] = reinterpret_cast<uintptr_t>(values[i]) & 0xffffffff;
          break;
        default:
          break;
      }
    }
    WriteLog("", buffers[0], sizes[0]);
    WriteLog(log, buffers[1], sizes[1]);
    if (result != abi::kSuccess && !log.empty()) Driver::Get().SetFault(log);
    return result;
  });
}
QWEN_EMU_EXPORT Result cuModuleLoadData(abi::Module** module, const void* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
QWEN_EMU_EXPORT Result cuModuleUnload(abi::Module* module) {
  return Guard([&](abi::Context* context) -> Result {
    Driver& driver = Driver::Get();
    std::lock_guard lock(driver.mutex);
    if (!driver.live.count(module)) return abi::kInvalidHandle;
    for (abi::DevicePtr address : module->allocations) (void)module->context->device->memory->Free(address);
    for (const auto& function : module->functions) driver.live.erase(function.get());
    driver.live.erase(module);
    module->context->modules.erase(module);
    delete module;
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuModuleGetFunction(abi::Function** function, abi::Module* module, const char* name) {
  return Guard([&](abi::Context*) -> Result {
    if (!function || !name) return abi::kInvalidValue;
    Driver& driver = Driver::Get();
    std::lock_guard lock(driver.mutex);
    if (!driver.live.count(module)) return abi::kInvalidHandle;
    for (const auto& known : module->functions)
      if (known->function->name == name) return *function = known.get(), abi::kSuccess;
    for (const auto& found : module->program->functions) {
      if (found->name != name || !found->is_entry) continue;
      auto& made = module->functions.emplace_back(std::make_unique<abi::Function>());
      made->function = found.get();
      made->module = module;
      driver.live.insert(made.get());
      *function = made.get();
      return abi::kSuccess;
    }
    return abi::kNotFound;
  });
}
QWEN_EMU_EXPORT Result cuModuleGetGlobal_v2(abi::DevicePtr* address, size_t* bytes, abi::Module* module,
                                            const char* name) {
  return Guard([&](abi::Context*) -> Result {
    if (!name) return abi::kInvalidValue;
    if (!IsLive(module)) return abi::kInvalidHandle;
    auto it = module->program->globals.find(std::string_view(name));
    if (it == module->program->globals.end()) return abi::kNotFound;
    if (address) *address = it->second.address;
    if (bytes) *bytes = it->second.bytes;
    return abi::kSuccess;
  });
}

QWEN_EMU_EXPORT Result cuFuncGetAttribute(int* value, int attribute, abi::Function* function) {
  return Guard([&](abi::Context*) -> Result {
    if (!IsFunction(function)) return abi::kInvalidHandle;
    if (!value) return abi::kInvalidValue;
    const Function& f = *function->function;
    switch (attribute) {
      case abi::kFuncMaxThreadsPerBlock:
        *value = f.max_threads ? f.max_threads : 1024;
        break;
      case abi::kFuncSharedSizeBytes:
        *value = static_cast<int>(f.shared_bytes);
        break;
      case abi::kFuncConstSizeBytes:
        *value = 0;
        break;
      case abi::kFuncLocalSizeBytes:
        *value = static_cast<int>(f.local_bytes);
        break;
      // PTX registers are virtual, so this is the number without any reuse, at most what a thread can have.
      case abi::kFuncNumRegs:
        *value = std::min(f.registers_32, 255);
        break;
      case abi::kFuncPtxVersion:
      case abi::kFuncBinaryVersion:
        *value = 89;
        break;
      case abi::kFuncMaxDynamicSharedSizeBytes:
        *value = static_cast<int>(function->max_dynamic_shared
                                      ? function->max_dynamic_shared
                                      : kSharedPerBlock - std::min(f.shared_bytes, kSharedPerBlock));
        break;
      case abi::kFuncPreferredSharedMemoryCarveout:
        *value = function->carveout;
        break;
      default:
        return abi::kInvalidValue;
    }
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuFuncSetAttribute(abi::Function* function, int attribute, int value) {
  return Guard([&](abi::Context*) -> Result {
    if (!IsFunction(function)) return abi::kInvalidHandle;
    switch (attribute) {
      case abi::kFuncMaxDynamicSharedSizeBytes:
        if (value < 0 || static_cast<uint64_t>(value) + function->function->shared_bytes > kSharedPerBlockOptin)
          return abi::kInvalidValue;
        function->max_dynamic_shared = static_cast<uint32_t>(value);
        return abi::kSuccess;
      case abi::kFuncPreferredSharedMemoryCarveout:
        if (value < -1 || value > 100) return abi::kInvalidValue;
        function->carveout = value;
        return abi::kSuccess;
      default:
        return abi::kInvalidValue;
    }
  });
}
QWEN_EMU_EXPORT Result cuFuncSetCacheConfig(abi::Function* function, int) {
  return IsFunction(function) ? abi::kSuccess : abi::kInvalidHandle;
}
QWEN_EMU_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, abi::Function* function, int block_size,
                                                                   size_t shared_bytes) {
  return Guard([&](abi::Context*) -> Result {
    if (!IsFunction(function)) return abi::kInvalidHandle;
    if (!blocks || block_size <= 0) return abi::kInvalidValue;
    *blocks = ResidentBlocks(static_cast<uint64_t>(block_size), shared_bytes + function->function->shared_bytes);
    return abi::kSuccess;
  });
}

QWEN_EMU_EXPORT Result cuLaunchKernel(abi::Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                      abi::Stream* stream, void** params, void** extra) {
  return LaunchOn(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, params, extra,
                  false);
}
QWEN_EMU_EXPORT Result cuLaunchCooperativeKernel(abi::Function* function, unsigned grid_x, unsigned grid_y,
                                                 unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                                                 unsigned shared_bytes, abi::Stream* stream, void** params) {
  return LaunchOn(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, params,
                  nullptr, true);
}
QWEN_EMU_EXPORT Result cuLaunchKernelEx(const abi::LaunchConfig* config, abi::Function* function, void** params,
                                        void** extra) {
  if (!config) return abi::kInvalidValue;
  bool cooperative = false;
  for (unsigned i = 0; i < config->num_attributes; ++i) {
    const abi::LaunchAttribute& attribute = config->attributes[i];
    if (attribute.id == abi::kLaunchAttributeIgnore) continue;
    if (attribute.id != abi::kLaunchAttributeCooperative) return abi::kNotSupported;
    int value = 0;
    std::memcpy(&value, attribute.value, sizeof value);
    cooperative = value != 0;
  }
  return LaunchOn(function, {config->grid_x, config->grid_y, config->grid_z},
                  {config->block_x, config->block_y, config->block_z}, config->shared_bytes, config->stream, params,
                  extra, cooperative);
}
