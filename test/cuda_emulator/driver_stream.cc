// Entry points: streams, events, capture, graphs.
//
// A graph keeps its nodes in the order they were captured in, which is a topological order, and runs them one after
// another.
#include "test/cuda_emulator/driver.h"

using namespace qwen::emu;
using abi::Result;

namespace {

template <class T>
T* Live(T* handle) {
  Driver::Get().live.insert(handle);
  return handle;
}

}  // namespace

QWEN_EMU_EXPORT Result cuStreamCreateWithPriority(abi::Stream** stream, unsigned flags, int) {
  return Guard([&](abi::Context* context) -> Result {
    if (!stream || flags > abi::kStreamNonBlocking) return abi::kInvalidValue;
    std::lock_guard lock(Driver::Get().mutex);
    *stream = Live(new abi::Stream);
    (*stream)->context = context;
    (*stream)->blocking = !(flags & abi::kStreamNonBlocking);
    (*stream)->Start();
    context->streams.insert(*stream);
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuStreamCreate(abi::Stream** stream, unsigned flags) {
  return cuStreamCreateWithPriority(stream, flags, 0);
}
QWEN_EMU_EXPORT Result cuStreamDestroy_v2(abi::Stream* stream) {
  return Guard([&](abi::Context*) -> Result {
    {
      std::lock_guard lock(Driver::Get().mutex);
      if (!Driver::Get().live.erase(stream)) return abi::kInvalidHandle;
      stream->context->streams.erase(stream);
    }
    // Work that is queued still runs.
    stream->Stop();
    delete stream;
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuStreamSynchronize(abi::Stream* handle) {
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  CompletionPtr last;
  {
    std::lock_guard lock(Driver::Get().mutex);
    if (stream->capture) return abi::kStreamCaptureUnsupported;
    last = stream->last;
  }
  // The default stream's turn comes after that of every blocking stream.
  if (stream->is_default) return Submit(handle, abi::kNodeEmpty, [] { return abi::kSuccess; }, true);
  if (last) last->Wait();
  return static_cast<Result>(stream->context->error.load());
}
QWEN_EMU_EXPORT Result cuStreamQuery(abi::Stream* handle) {
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  std::lock_guard lock(Driver::Get().mutex);
  if (stream->capture) return abi::kStreamCaptureUnsupported;
  return !stream->last || stream->last->done() ? abi::kSuccess : abi::kNotReady;
}
QWEN_EMU_EXPORT Result cuLaunchHostFunc(abi::Stream* stream, void (*function)(void*), void* data) {
  if (!function) return abi::kInvalidValue;
  return Submit(stream, abi::kNodeEmpty, [=] { return function(data), abi::kSuccess; }, false);
}

QWEN_EMU_EXPORT Result cuEventCreate(abi::Event** event, unsigned flags) {
  return Guard([&](abi::Context*) -> Result {
    if (!event) return abi::kInvalidValue;
    std::lock_guard lock(Driver::Get().mutex);
    *event = Live(new abi::Event);
    (*event)->timing = !(flags & abi::kEventDisableTiming);
    return abi::kSuccess;
  });
}
QWEN_EMU_EXPORT Result cuEventDestroy_v2(abi::Event* event) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!Driver::Get().live.erase(event)) return abi::kInvalidHandle;
  delete event;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuEventRecord(abi::Event* event, abi::Stream* handle) {
  if (!IsLive(event)) return abi::kInvalidHandle;
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  std::lock_guard lock(Driver::Get().mutex);
  event->capture = stream->capture;
  if (stream->capture) return abi::kSuccess;
  Result r = Submit(handle, abi::kNodeEmpty, [] { return abi::kSuccess; }, false);
  event->completion = stream->last;
  return r;
}
QWEN_EMU_EXPORT Result cuEventQuery(abi::Event* event) {
  if (!IsLive(event)) return abi::kInvalidHandle;
  std::lock_guard lock(Driver::Get().mutex);
  return !event->completion || event->completion->done() ? abi::kSuccess : abi::kNotReady;
}
QWEN_EMU_EXPORT Result cuEventSynchronize(abi::Event* event) {
  return Guard([&](abi::Context* context) -> Result {
    if (!IsLive(event)) return abi::kInvalidHandle;
    CompletionPtr completion = event->completion;
    if (completion) completion->Wait();
    return static_cast<Result>(context->error.load());
  });
}
QWEN_EMU_EXPORT Result cuEventElapsedTime_v2(float* ms, abi::Event* start, abi::Event* end) {
  if (!IsLive(start) || !IsLive(end)) return abi::kInvalidHandle;
  if (!ms || !start->timing || !end->timing || !start->completion || !end->completion) return abi::kInvalidValue;
  if (!start->completion->done() || !end->completion->done()) return abi::kNotReady;
  *ms = std::chrono::duration<float, std::milli>(end->completion->time() - start->completion->time()).count();
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuEventElapsedTime(float* ms, abi::Event* start, abi::Event* end) {
  return cuEventElapsedTime_v2(ms, start, end);
}
QWEN_EMU_EXPORT Result cuStreamWaitEvent(abi::Stream* handle, abi::Event* event, unsigned) {
  if (!IsLive(event)) return abi::kInvalidHandle;
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  std::lock_guard lock(Driver::Get().mutex);
  if (event->capture) {
    // The stream joins the capture that the event belongs to.
    if (stream->is_default) return abi::kStreamCaptureImplicit;
    stream->capture = event->capture;
    return abi::kSuccess;
  }
  CompletionPtr completion = event->completion;
  if (!completion) return abi::kSuccess;
  if (stream->capture) return abi::kStreamCaptureUnsupported;
  return Submit(handle, abi::kNodeEmpty, [completion] { return completion->Wait(), abi::kSuccess; }, false);
}

// ---- capture and graphs

QWEN_EMU_EXPORT Result cuStreamBeginCapture_v2(abi::Stream* handle, int mode) {
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  if (mode < 0 || mode > 2) return abi::kInvalidValue;
  std::lock_guard lock(Driver::Get().mutex);
  if (stream->is_default) return abi::kStreamCaptureUnsupported;
  if (stream->capture) return abi::kStreamCaptureUnsupported;
  stream->capture = new abi::Graph;
  stream->capture_origin = true;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuStreamEndCapture(abi::Stream* handle, abi::Graph** graph) {
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  if (!graph) return abi::kInvalidValue;
  std::lock_guard lock(Driver::Get().mutex);
  *graph = nullptr;
  if (!stream->capture || !stream->capture_origin) return abi::kStreamCaptureInvalidated;
  for (abi::Stream* other : stream->context->streams)
    if (other != stream && other->capture == stream->capture) other->capture = nullptr;
  *graph = Live(stream->capture);
  stream->capture = nullptr;
  stream->capture_origin = false;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuStreamIsCapturing(abi::Stream* handle, int* status) {
  abi::Stream* stream = nullptr;
  if (Result r = Resolve(handle, &stream); r != abi::kSuccess) return r;
  if (!status) return abi::kInvalidValue;
  std::lock_guard lock(Driver::Get().mutex);
  *status = stream->capture ? abi::kCaptureActive : abi::kCaptureNone;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuThreadExchangeStreamCaptureMode(int* mode) {
  static thread_local int current = 0;
  if (!mode || *mode < 0 || *mode > 2) return abi::kInvalidValue;
  std::swap(*mode, current);
  return abi::kSuccess;
}

QWEN_EMU_EXPORT Result cuGraphCreate(abi::Graph** graph, unsigned flags) {
  if (!graph || flags) return abi::kInvalidValue;
  std::lock_guard lock(Driver::Get().mutex);
  *graph = Live(new abi::Graph);
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuGraphInstantiateWithFlags(abi::GraphExec** exec, abi::Graph* graph, uint64_t) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!exec) return abi::kInvalidValue;
  if (!Driver::Get().live.count(graph)) return abi::kInvalidHandle;
  *exec = Live(new abi::GraphExec);
  for (const auto& node : graph->nodes) (*exec)->nodes.push_back(*node);
  Driver::Get().report.CountGraphInstantiation();
  return abi::kSuccess;
}
/// The same kinds of nodes in the same order; a kernel node keeps its kernel. Parameters and shapes may change.
QWEN_EMU_EXPORT Result cuGraphExecUpdate_v2(abi::GraphExec* exec, abi::Graph* graph,
                                            abi::GraphExecUpdateResult* result) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!Driver::Get().live.count(exec) || !Driver::Get().live.count(graph)) return abi::kInvalidHandle;
  if (result) *result = {};
  bool same = exec->nodes.size() == graph->nodes.size();
  if (!same && result) result->result = 2;  // CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED
  for (size_t i = 0; same && i < exec->nodes.size(); ++i) {
    same = exec->nodes[i].type == graph->nodes[i]->type && exec->nodes[i].kernel == graph->nodes[i]->kernel;
    if (!same && result) *result = {3, graph->nodes[i].get(), nullptr};  // ..._NODE_TYPE_CHANGED
  }
  if (!same) return abi::kGraphExecUpdateFailure;
  for (size_t i = 0; i < exec->nodes.size(); ++i) exec->nodes[i] = *graph->nodes[i];
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuGraphLaunch(abi::GraphExec* exec, abi::Stream* stream) {
  if (!IsLive(exec)) return abi::kInvalidHandle;
  Driver::Get().report.CountGraphLaunch();
  // A copy: the graph may be updated or destroyed while the launch is queued.
  return Submit(
      stream, abi::kNodeEmpty,
      [nodes = exec->nodes]() -> Result {
        for (const abi::GraphNode& node : nodes)
          if (Result r = node.work(); r != abi::kSuccess) return r;
        return abi::kSuccess;
      },
      false);
}
QWEN_EMU_EXPORT Result cuGraphUpload(abi::GraphExec* exec, abi::Stream*) {
  return IsLive(exec) ? abi::kSuccess : abi::kInvalidHandle;
}
QWEN_EMU_EXPORT Result cuGraphExecDestroy(abi::GraphExec* exec) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!Driver::Get().live.erase(exec)) return abi::kInvalidHandle;
  delete exec;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuGraphDestroy(abi::Graph* graph) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!Driver::Get().live.erase(graph)) return abi::kInvalidHandle;
  for (const auto& node : graph->nodes) Driver::Get().live.erase(node.get());
  delete graph;
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuGraphGetNodes(abi::Graph* graph, abi::GraphNode** nodes, size_t* count) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!Driver::Get().live.count(graph)) return abi::kInvalidHandle;
  if (!count) return abi::kInvalidValue;
  if (nodes)
    for (size_t i = 0; i < *count; ++i) nodes[i] = i < graph->nodes.size() ? Live(graph->nodes[i].get()) : nullptr;
  *count = nodes ? std::min(*count, graph->nodes.size()) : graph->nodes.size();
  return abi::kSuccess;
}
QWEN_EMU_EXPORT Result cuGraphNodeGetType(abi::GraphNode* node, int* type) {
  std::lock_guard lock(Driver::Get().mutex);
  if (!Driver::Get().live.count(node)) return abi::kInvalidHandle;
  if (!type) return abi::kInvalidValue;
  *type = node->type;
  return abi::kSuccess;
}
