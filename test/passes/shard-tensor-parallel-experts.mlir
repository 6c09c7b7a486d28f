// RUN: qwen-opt %s --shard-tensor-parallel=tp=2 | FileCheck %s --check-prefixes=CHECK,TP
// RUN: qwen-opt %s --shard-tensor-parallel="tp=2 moe=ep" | FileCheck %s --check-prefixes=CHECK,EP
// RUN: qwen-opt %s --shard-tensor-parallel="tp=2 rotate" | FileCheck %s --check-prefix=ROTATE
// RUN: qwen-opt %s --shard-tensor-parallel="tp=2 drop-collective=1" | FileCheck %s --check-prefix=DROP
// RUN: not qwen-opt %s --shard-tensor-parallel="tp=2 drop-collective=7" 2>&1 | FileCheck %s --check-prefix=NONE

// Router and scalar gate are whole on every rank. With moe=tp each rank has 16 or 8 of the 24 channels of every expert,
// gate rows and up rows being two ranges; with moe=ep it has 4 or 3 of the 7 experts. The shared expert is cut either
// way and added to the partial sum, so that one all_reduce serves both.
// CHECK-LABEL: func.func @moe_r1
// CHECK-SAME: %[[X:[^:]+]]: tensor<?x20xbf16>
// CHECK: model.weight @layers.3.moe.router : tensor<7x20xbf16>
// TP: model.weight @layers.3.moe.gate_up slices {{\[\[}}], [16, 24, 40, 48], []] : tensor<7x16x20xbf16>
// TP: model.weight @layers.3.moe.down slices {{\[\[}}], [], [16, 24]] : tensor<7x20x8xbf16>
// EP: model.weight @layers.3.moe.gate_up slices {{\[\[}}4, 7], [], []] : tensor<3x48x20xbf16>
// EP: model.weight @layers.3.moe.down slices {{\[\[}}4, 7], [], []] : tensor<3x20x24xbf16>
// TP: %[[R:.+]] = model.experts {{.*}} first_expert 0 : {{.*}} -> tensor<?x20xf32>
// EP: %[[R:.+]] = model.experts {{.*}} first_expert 4 : {{.*}} -> tensor<?x20xf32>
// CHECK: model.weight @layers.3.moe.shared.gate slices {{\[\[}}16, 20], []]
// CHECK: model.weight @layers.3.moe.shared.down slices {{\[\[}}], [16, 20]]
// CHECK: %[[S:.+]] = model.linear {{.*}} -> tensor<?x20xf32>
// CHECK: model.weight @layers.3.moe.shared_gate : tensor<1x20xbf16>
// CHECK: %[[Y:.+]] = model.combine %[[R]], %[[S]], %{{.+}} : tensor<?x20xf32>
// CHECK: %[[SUM:.+]] = model.all_reduce %[[Y]] : tensor<?x20xf32> -> tensor<?x20xbf16>
// CHECK-NOT: model.all_reduce
// CHECK: model.add %[[SUM]], %[[X]]

// Layer 3 gives its larger share to rank 1.
// ROTATE-LABEL: func.func @moe_r1
// ROTATE: model.weight @layers.3.moe.gate_up slices {{\[\[}}], [0, 16, 24, 40], []]

// The hook: the rank's own part goes on as if it were the sum.
// DROP-LABEL: func.func @moe_r1
// DROP: %[[R:.+]] = model.experts {{.*}} -> tensor<?x20xbf16>
// DROP: %[[Y:.+]] = model.combine %[[R]], {{.*}} : tensor<?x20xbf16>
// DROP-NOT: model.all_reduce
// DROP: model.add %[[Y]]
// NONE: error: no program has 7 all_reduce ops to drop the last of
module {
  model.param @layers.3.moe.router group "model" transform "none" sources [[]] : tensor<7x20xbf16>
  model.param @layers.3.moe.gate_up group "model" transform "none" sources [[]] : tensor<7x48x20xbf16>
  model.param @layers.3.moe.down group "model" transform "none" sources [[]] : tensor<7x20x24xbf16>
  model.param @layers.3.moe.shared.gate group "model" transform "none" sources [[]] : tensor<20x20xbf16>
  model.param @layers.3.moe.shared.down group "model" transform "none" sources [[]] : tensor<20x20xbf16>
  model.param @layers.3.moe.shared_gate group "model" transform "none" sources [[]] : tensor<1x20xbf16>
  func.func @moe(%x: tensor<?x20xbf16>) -> tensor<?x20xbf16> attributes {model.program = "step", model.rank = 0 : i64} {
    %wr = model.weight @layers.3.moe.router : tensor<7x20xbf16>
    %w, %ids = model.router %x, %wr renormalize : (tensor<?x20xbf16>, tensor<7x20xbf16>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
    %gu = model.weight @layers.3.moe.gate_up : tensor<7x48x20xbf16>
    %d = model.weight @layers.3.moe.down : tensor<7x20x24xbf16>
    %r = model.experts %x, %w, %ids, %gu, %d first_expert 0
      : (tensor<?x20xbf16>, tensor<?x2xf32>, tensor<?x2xi32>, tensor<7x48x20xbf16>, tensor<7x20x24xbf16>) -> tensor<?x20xbf16>
    %sg = model.weight @layers.3.moe.shared.gate : tensor<20x20xbf16>
    %g = model.linear %x, %sg : (tensor<?x20xbf16>, tensor<20x20xbf16>) -> tensor<?x20xbf16>
    %m = model.silu_mul %g, %g : tensor<?x20xbf16>
    %sd = model.weight @layers.3.moe.shared.down : tensor<20x20xbf16>
    %s = model.linear %m, %sd : (tensor<?x20xbf16>, tensor<20x20xbf16>) -> tensor<?x20xbf16>
    %wg = model.weight @layers.3.moe.shared_gate : tensor<1x20xbf16>
    %gate = model.linear %x, %wg : (tensor<?x20xbf16>, tensor<1x20xbf16>) -> tensor<?x1xf32>
    %y = model.combine %r, %s, %gate : tensor<?x20xbf16>, tensor<?x1xf32>
    %x1 = model.add %y, %x : tensor<?x20xbf16>
    return %x1 : tensor<?x20xbf16>
  }
}
