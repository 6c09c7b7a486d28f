// The bodies built with -mavx512f and its byte, word, doubleword and short-vector parts, and the only one.
#define QWEN_ISA avx512
#include "runtime/kernels/cpu/isa.inl"
