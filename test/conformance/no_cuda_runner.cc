// Without the compiler there is nothing to make PTX with.
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {

void TrackBlock(const void*, size_t) {}
void ForgetBlock(const void*) {}
std::string WhyNoCuda() { return "built without qwenc, which makes the PTX"; }
void RunOnCuda(const BodyCall&, const KernelInfo&, const plan::Fields&, const void*) { FAIL() << WhyNoCuda(); }

}  // namespace qwen::kernels::conformance
