// The bodies for AMX with bf16: AVX-512 beside the tiles.
#define QWEN_ISA amx
#define QWEN_AMX
#include "runtime/kernels/cpu/isa.inl"
