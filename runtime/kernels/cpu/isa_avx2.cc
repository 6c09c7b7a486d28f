// The bodies for AVX2: the only file built with -mavx2 -mfma -mf16c.
#define QWEN_ISA avx2
#include "runtime/kernels/cpu/isa.inl"
