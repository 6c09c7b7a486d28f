// The bodies for any machine: built with the compiler's own flags.
#define QWEN_ISA base
#include "runtime/kernels/cpu/isa.inl"
