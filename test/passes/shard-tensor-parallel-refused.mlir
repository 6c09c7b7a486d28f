// RUN: qwen-opt %s --shard-tensor-parallel=tp=2 --split-input-file --verify-diagnostics
// RUN: not qwen-opt %s --shard-tensor-parallel=tp=9 2>&1 | FileCheck %s --check-prefix=RANKS
// RUN: not qwen-opt %s --shard-tensor-parallel="tp=2 moe=dp" 2>&1 | FileCheck %s --check-prefix=MOE
// RANKS: error: tp is 9, must be 1 to 8
// MOE: error: moe is "dp", must be tp or ep

// A cut activation has no sum before the norm of whole rows.
module {
  model.param @w group "model" transform "none" sources [[]] : tensor<40x20xf32>
  func.func @norm_of_part(%x: tensor<?x20xf32>, %n: tensor<40xf32>) -> tensor<?x40xf32> {
    %w = model.weight @w : tensor<40x20xf32>
    %g = model.linear %x, %w : (tensor<?x20xf32>, tensor<40x20xf32>) -> tensor<?x40xf32>
    %m = model.silu_mul %g, %g : tensor<?x40xf32>
    // expected-error @+1 {{needs whole rows, but operand 0 is cut over the ranks and no projection sums it up before}}
    %y = model.rms_norm %m, %n eps 1.0e-06 : tensor<?x40xf32>, tensor<40xf32>
    return %y : tensor<?x40xf32>
  }
}

// -----

// The gate is a program's argument, which every rank gets whole.
// expected-error @+2 {{argument 0 is whole, but its readers cut it}}
module {
  func.func @argument(%g: tensor<?x40xf32>, %w: tensor<20x40xf32>) -> tensor<?x20xf32> {
    %m = model.silu_mul %g, %g : tensor<?x40xf32>
    %y = model.linear %m, %w : (tensor<?x40xf32>, tensor<20x40xf32>) -> tensor<?x20xf32>
    return %y : tensor<?x20xf32>
  }
}

// -----

// Whole rows feed an activation that is cut.
module {
  func.func @whole(%x: tensor<?x40xf32>, %n: tensor<40xf32>, %w: tensor<20x40xf32>) -> tensor<?x20xf32> {
    // expected-error @+1 {{gives whole rows, but what reads them knows only a rank's part}}
    %h = model.rms_norm %x, %n eps 1.0e-06 : tensor<?x40xf32>, tensor<40xf32>
    %m = model.silu_mul %h, %h : tensor<?x40xf32>
    %y = model.linear %m, %w : (tensor<?x40xf32>, tensor<20x40xf32>) -> tensor<?x20xf32>
    return %y : tensor<?x20xf32>
  }
}

// -----

// Two activations in a row without a sum.
module {
  func.func @twice(%x: tensor<?x20xf32>, %w: tensor<40x20xf32>, %v: tensor<40x40xf32>) -> tensor<?x40xf32> {
    %g = model.linear %x, %w : (tensor<?x20xf32>, tensor<40x20xf32>) -> tensor<?x40xf32>
    %m = model.silu_mul %g, %g : tensor<?x40xf32>
    // expected-error @+1 {{has both its input and its output cut}}
    %h = model.linear %m, %v : (tensor<?x40xf32>, tensor<40x40xf32>) -> tensor<?x40xf32>
    %n = model.silu_mul %h, %h : tensor<?x40xf32>
    %y = model.linear %n, %v : (tensor<?x40xf32>, tensor<40x40xf32>) -> tensor<?x40xf32>
    return %y : tensor<?x40xf32>
  }
}

// -----

// Attention of 4 heads and of 2 share a query: the second would cut it elsewhere.
module {
  func.func @two_ways(%batch: !model.batch, %x: tensor<?x20xf32>, %w: tensor<24x20xf32>) -> (tensor<?x24xf32>, tensor<?x24xf32>) {
    // expected-error @+1 {{channels are cut in two ways}}
    %q = model.linear %x, %w : (tensor<?x20xf32>, tensor<24x20xf32>) -> tensor<?x24xf32>
    %c = model.state "layers.0.attn" : !model.kv_cache<1x8, f32>
    %d = model.state "layers.1.attn" : !model.kv_cache<1x6, f32>
    %o = model.attention %q, %c, %batch kv_map [0, 0, 0] scale 0.5 mask "causal" window 0 : tensor<?x24xf32>, !model.kv_cache<1x8, f32>
    %p = model.attention %q, %d, %batch kv_map [0, 0, 0, 0] scale 0.5 mask "causal" window 0 : tensor<?x24xf32>, !model.kv_cache<1x6, f32>
    return %o, %p : tensor<?x24xf32>, tensor<?x24xf32>
  }
}

// -----

// Two programs disagree on the heads of one cache.
module {
  func.func @one(%batch: !model.batch, %q: tensor<?x16xf32>) -> tensor<?x16xf32> {
    %c = model.state "layers.0.attn" : !model.kv_cache<2x4, f32>
    %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.5 mask "causal" window 0 : tensor<?x16xf32>, !model.kv_cache<2x4, f32>
    return %o : tensor<?x16xf32>
  }
  func.func @two(%batch: !model.batch, %q: tensor<?x16xf32>) -> tensor<?x16xf32> {
    %c = model.state "layers.0.attn" : !model.kv_cache<2x4, f32>
    // expected-error @+1 {{reads state "layers.0.attn" with another kv_map than a program before it}}
    %o = model.attention %q, %c, %batch kv_map [0, 1, 0, 1] scale 0.5 mask "causal" window 0 : tensor<?x16xf32>, !model.kv_cache<2x4, f32>
    return %o : tensor<?x16xf32>
  }
}

// -----

// A part that nothing with heads reads leaves the cut of the whole unknown.
module {
  func.func @loose_part(%batch: !model.batch, %x: tensor<?x20xf32>, %w: tensor<32x20xf32>) -> (tensor<?x16xf32>, tensor<?x16xf32>) {
    %qg = model.linear %x, %w : (tensor<?x20xf32>, tensor<32x20xf32>) -> tensor<?x32xf32>
    // expected-error @+1 {{has a part that no op with heads reads}}
    %q, %gate = model.split %qg heads 4 : (tensor<?x32xf32>) -> (tensor<?x16xf32>, tensor<?x16xf32>)
    %c = model.state "layers.0.attn" : !model.kv_cache<2x4, f32>
    %o = model.attention %q, %c, %batch kv_map [0, 0, 1, 1] scale 0.5 mask "causal" window 0 : tensor<?x16xf32>, !model.kv_cache<2x4, f32>
    return %o, %gate : tensor<?x16xf32>, tensor<?x16xf32>
  }
}

// -----

// The shared rows are whole already.
module {
  func.func @whole_shared(%x: tensor<?x20xf32>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>, %gu: tensor<7x48x20xf32>,
                          %d: tensor<7x20x24xf32>, %g: tensor<?x1xf32>) -> tensor<?x20xf32> {
    %r = model.experts %x, %w, %ids, %gu, %d first_expert 0
      : (tensor<?x20xf32>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x48x20xf32>, tensor<7x20x24xf32>) -> tensor<?x20xf32>
    // expected-error @+1 {{adds a partial sum to a whole one}}
    %y = model.combine %r, %x, %g : tensor<?x20xf32>, tensor<?x1xf32>
    return %y : tensor<?x20xf32>
  }
}

// -----

module {
  model.param @w group "model" transform "none" sources [[]] : tensor<40x20xf32>
  func.func @sliced(%x: tensor<?x20xf32>) -> tensor<?x8xf32> {
    // expected-error @+1 {{is sliced already}}
    %w = model.weight @w slices [[0, 8], []] : tensor<8x20xf32>
    %y = model.linear %x, %w : (tensor<?x20xf32>, tensor<8x20xf32>) -> tensor<?x8xf32>
    return %y : tensor<?x8xf32>
  }
}

// -----

// expected-error @+1 {{is sharded already}}
module attributes {model.tp = 2 : i64} {
}
