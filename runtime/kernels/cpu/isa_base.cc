// The bodies with the compiler's own flags: any x86-64, or any other machine.
#define QWEN_ISA base
#include "runtime/kernels/cpu/isa.inl"
