// One case a constraint, with its number.
// RUN: qwen-opt %s --split-input-file --verify-diagnostics

// program_c1
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  // expected-error @+1 {{ends at 192, the arena has 128 bytes}}
  %x = plan.buffer "arena" "x" offset 64 bytes 128 : tensor<?x40xf32>
}

// -----

// program_c2
plan.program @step name "step" target "cpu" rank 0 arena_bytes 4096 {
  // expected-error @+1 {{lies at 96, not a multiple of 64}}
  %x = plan.buffer "arena" "x" offset 96 bytes 64 : tensor<?x40xf32>
}

// -----

// packed_c1
// expected-error @+1 {{layout "tile32" is none of}}
plan.packed @w param "w" rank 0 layout "tile32" slices [[], []] bytes 64 net_bytes 64

// -----

// packed_c2
// expected-error @+1 {{net_bytes 65 exceed bytes 64}}
plan.packed @w param "w" rank 0 layout "rows" slices [[], []] bytes 64 net_bytes 65

// -----

// buffer_c1
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  // expected-error @+1 {{kind "stack" is unknown}}
  %x = plan.buffer "stack" "x" offset 0 bytes 64 : tensor<?x40xf32>
}

// -----

// buffer_c2
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  // expected-error @+1 {{has a negative offset or size}}
  %x = plan.buffer "weight" "x" offset -64 bytes 64 : tensor<?x40xf32>
}

// -----

// buffer_c2
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  // expected-error @+1 {{has a negative offset or size}}
  %x = plan.buffer "weight" "x" offset 0 bytes -1 : tensor<?x40xf32>
}

// -----

// launch_c1
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  %x = plan.buffer "arena" "x" offset 0 bytes 64 : tensor<?x4xf32>
  // expected-error @+1 {{args names buffer 1 of 1}}
  plan.launch @linear (%x) args [0, 1] part "all" bytes 0 flops 0 origin ""
}

// -----

// launch_c1
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  %x = plan.buffer "arena" "x" offset 0 bytes 64 : tensor<?x4xf32>
  // expected-error @+1 {{args names buffer -2 of 1}}
  plan.launch @linear (%x) args [-1, -2] part "all" bytes 0 flops 0 origin ""
}

// -----

// launch_c2
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  %x = plan.buffer "arena" "x" offset 0 bytes 64 : tensor<?x4xf32>
  // expected-error @+1 {{part "tail" is none of all, short, long, logit_rows}}
  plan.launch @linear (%x) args [0] part "tail" bytes 0 flops 0 origin ""
}

// -----

// collective_c1
plan.program @step name "step" target "cpu" rank 0 arena_bytes 128 {
  %x = plan.buffer "arena" "x" offset 0 bytes 64 : tensor<?x4xf32>
  // expected-error @+1 {{args names buffer 2 of 1}}
  plan.collective @all_reduce (%x) args [0, 2] bytes 0 flops 0 origin ""
}
