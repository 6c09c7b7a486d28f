// The bodies for AVX-512: the only file built with -mavx512f and its bw, dq and vl parts.
#define QWEN_ISA avx512
#include "runtime/kernels/cpu/isa.inl"
