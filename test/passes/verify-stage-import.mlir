// RUN: qwen-opt %s --verify-stage=stage=import --split-input-file --verify-diagnostics
// RUN: not qwen-opt %s --verify-stage=stage=link --split-input-file 2>&1 | FileCheck %s
// CHECK: error: stage "link" is none of import, shard, fuse, select, memory

// Model ops and whole weights pass.
module {
  model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
  func.func @step(%x: tensor<?x40xf32>) -> tensor<?x12xf32> attributes {model.program = "step"} {
    %w = model.weight @w : tensor<12x40xf32>
    %y = model.linear %x, %w : (tensor<?x40xf32>, tensor<12x40xf32>) -> tensor<?x12xf32>
    return %y : tensor<?x12xf32>
  }
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step"} {
  // expected-error @+1 {{may not exist after import: only shard-tensor-parallel adds collectives}}
  %y = model.all_reduce %x : tensor<?x40xf32> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
func.func @step() -> tensor<4x40xf32> attributes {model.program = "step"} {
  // expected-error @+1 {{may not exist after import: a program reads whole weights until shard-tensor-parallel slices them}}
  %w = model.weight @w slices [[0, 4], []] : tensor<4x40xf32>
  return %w : tensor<4x40xf32>
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step"} {
  // expected-error @+1 {{may not exist after import: dispatches are formed by the fusions, which run later}}
  %y = kernel.dispatch @elementwise(%ix = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    %s = model.add %ix, %ix : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return %y : tensor<?x40xf32>
}

// -----

// expected-error @+1 {{may not exist after import: kernel records are added by select-kernels}}
kernel.kernel @linear__k40_n96 family "linear" entry "linear" target "cpu" part "all" {k = 40}

// -----

// expected-error @+1 {{may not exist after import: plan ops are made by plan-memory}}
plan.program @step__cpu_r0 name "step" target "cpu" rank 0 arena_bytes 0 {
}

// -----

// expected-error @+1 {{has no model.program: the importer names every program}}
func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> {
  return %x : tensor<?x40xf32>
}

// -----

// expected-error @+1 {{is not one block of ops: programs have no control flow}}
func.func private @step(tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step"}

// -----

// A call would hide what a program holds.
func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step"} {
  // expected-error @+1 {{may not exist after import: a program holds model ops, dispatches and a return}}
  %y = func.call @step(%x) : (tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

module {
  // expected-error @+1 {{may not exist after import: a module holds params, programs, kernels and plan ops}}
  module @inner {
  }
}
