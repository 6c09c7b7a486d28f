#include "test/cuda_emulator/driver.h"

#include <cstdio>
#include <cstdlib>

namespace qwen::emu {

void Completion::Set() {
  std::lock_guard lock(mutex_);
  done_ = true;
  time_ = std::chrono::steady_clock::now();
  changed_.notify_all();
}
bool Completion::done() const {
  std::lock_guard lock(mutex_);
  return done_;
}
void Completion::Wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_; });
}

Driver& Driver::Get() {
  static Driver* driver = new Driver;
  return *driver;
}

abi::Result Driver::Init() {
  std::lock_guard lock(mutex);
  if (initialized_) return devices.empty() ? abi::kNoDevice : abi::kSuccess;
  StatusOr<Options> read = Options::FromEnvironment();
  if (!read.ok()) {
    SetFault(read.status().message());
    return abi::kInvalidValue;
  }
  options = *read;
  if (options.init != 0) return static_cast<abi::Result>(options.init);
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
    SetFault("the emulator needs a processor with AVX2, FMA and F16C");
    return abi::kNoDevice;
  }
  for (int ordinal = 0; ordinal < options.devices; ++ordinal) {
    auto device = std::make_unique<DeviceState>();
    device->ordinal = ordinal;
    StatusOr<std::unique_ptr<DeviceMemory>> memory = DeviceMemory::Create(options.memory_bytes);
    if (!memory.ok()) {
      SetFault(memory.status().message());
      return abi::kOutOfMemory;
    }
    device->memory = *std::move(memory);
    devices.push_back(std::move(device));
  }
  initialized_ = true;
  if (!options.report.empty()) {
    std::atexit([] {
      Driver& driver = Get();
      if (std::FILE* file = std::fopen(driver.options.report.c_str(), "w")) {
        std::string json = driver.report.Json();
        std::fwrite(json.data(), 1, json.size(), file);
        std::fclose(file);
      }
    });
  }
  return devices.empty() ? abi::kNoDevice : abi::kSuccess;
}

void Driver::SetFault(const std::string& text) {
  std::lock_guard lock(fault_mutex_);
  fault_ = text;
}
const char* Driver::LastFault() {
  // Stays valid until the calling thread asks again.
  static thread_local std::string copy;
  std::lock_guard lock(fault_mutex_);
  copy = fault_;
  return copy.c_str();
}
DeviceState* Driver::DeviceOf(uint64_t address) {
  for (const auto& device : devices)
    if (device->memory->Contains(address)) return device.get();
  return nullptr;
}

std::vector<abi::Context*>& ContextStack() {
  static thread_local std::vector<abi::Context*> stack;
  return stack;
}

bool IsLive(const void* handle) {
  Driver& driver = Driver::Get();
  std::lock_guard lock(driver.mutex);
  return driver.live.count(handle) != 0;
}

abi::Result Current(abi::Context** context) {
  std::vector<abi::Context*>& stack = ContextStack();
  if (stack.empty() || !stack.back()) return abi::kInvalidContext;
  if (!IsLive(stack.back())) return abi::kContextIsDestroyed;
  *context = stack.back();
  return static_cast<abi::Result>((*context)->error.load());
}

abi::Result CreateContext(DeviceState* device, bool primary, abi::Context** context) {
  Driver& driver = Driver::Get();
  std::lock_guard lock(driver.mutex);
  auto* made = new abi::Context;
  made->device = device;
  made->is_primary = primary;
  made->default_stream = std::make_unique<abi::Stream>();
  made->default_stream->context = made;
  made->default_stream->is_default = true;
  made->default_stream->Start();
  driver.live.insert(made);
  *context = made;
  return abi::kSuccess;
}

void DestroyContext(abi::Context* context) {
  Driver& driver = Driver::Get();
  std::vector<abi::Stream*> streams;
  {
    std::lock_guard lock(driver.mutex);
    driver.live.erase(context);
    streams.assign(context->streams.begin(), context->streams.end());
    for (abi::Stream* stream : streams) driver.live.erase(stream);
  }
  for (abi::Stream* stream : streams) {
    stream->Stop();
    delete stream;
  }
  context->default_stream->Stop();
  std::lock_guard lock(driver.mutex);
  for (abi::Module* module : context->modules) {
    for (abi::DevicePtr address : module->allocations) (void)context->device->memory->Free(address);
    for (const auto& function : module->functions) driver.live.erase(function.get());
    driver.live.erase(module);
    delete module;
  }
  delete context;
}

namespace abi {

void Stream::Start() {
  thread_ = std::thread([this] { Loop(); });
}
void Stream::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

CompletionPtr Stream::Add(Work work, std::vector<CompletionPtr> waits) {
  auto completion = std::make_shared<Completion>();
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back({std::move(work), std::move(waits), completion});
    last = completion;
  }
  changed_.notify_all();
  return completion;
}

void Stream::Loop() {
  while (true) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    for (const CompletionPtr& wait : task.waits) wait->Wait();
    if (context->error == kSuccess) {
      int expected = kSuccess;
      if (Result result = task.work(); result != kSuccess) context->error.compare_exchange_strong(expected, result);
    }
    task.completion->Set();
  }
}

}  // namespace abi

abi::Result Resolve(abi::Stream* handle, abi::Stream** stream) {
  abi::Context* context = nullptr;
  if (abi::Result r = Current(&context); r != abi::kSuccess) return r;
  uintptr_t value = reinterpret_cast<uintptr_t>(handle);
  if (value <= 2) {
    *stream = context->default_stream.get();
    return abi::kSuccess;
  }
  if (!IsLive(handle)) return abi::kInvalidHandle;
  *stream = handle;
  return abi::kSuccess;
}

abi::Result Submit(abi::Stream* handle, abi::GraphNodeType type, Work work, bool wait, const emu::Function* kernel) {
  Driver& driver = Driver::Get();
  abi::Stream* stream = nullptr;
  if (abi::Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  CompletionPtr completion;
  {
    std::lock_guard lock(driver.mutex);
    abi::Context* context = stream->context;
    if (stream->capture) {
      if (wait) return abi::kStreamCaptureUnsupported;
      stream->capture->nodes.push_back(std::make_unique<abi::GraphNode>(abi::GraphNode{type, std::move(work), kernel}));
      return abi::kSuccess;
    }
    if (kernel) driver.report.CountDirectLaunch();
    std::vector<CompletionPtr> waits;
    if (stream->is_default) {
      for (abi::Stream* other : context->streams) {
        if (!other->blocking) continue;
        if (other->capture) return abi::kStreamCaptureImplicit;
        if (other->last) waits.push_back(other->last);
      }
    } else if (stream->blocking && context->default_stream->last) {
      waits.push_back(context->default_stream->last);
    }
    completion = stream->Add(std::move(work), std::move(waits));
  }
  if (!wait) return abi::kSuccess;
  completion->Wait();
  return static_cast<abi::Result>(stream->context->error.load());
}

}  // namespace qwen::emu
