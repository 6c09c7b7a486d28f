// The bodies built with -mavx2 -mfma -mf16c, and the only one.
#define QWEN_ISA avx2
#include "runtime/kernels/cpu/isa.inl"
