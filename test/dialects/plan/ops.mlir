// Every op prints as it parses, as text, in the generic form and as bytecode.
// RUN: qwen-opt %s | FileCheck %s
// RUN: qwen-opt %s | qwen-opt | FileCheck %s
// RUN: qwen-opt %s --mlir-print-op-generic | qwen-opt | FileCheck %s
// RUN: qwen-opt %s --emit-bytecode | qwen-opt | FileCheck %s

// CHECK: plan.packed @layers.0.gdn.z__r0 param "layers.0.gdn.z" rank 0 layout "tile16" slices {{\[\[}}0, 60], []] bytes 8192 net_bytes 7680
plan.packed @"layers.0.gdn.z__r0" param "layers.0.gdn.z" rank 0 layout "tile16" slices [[0, 60], []] bytes 8192 net_bytes 7680

// CHECK: plan.program @step__cpu_r0 name "step" target "cpu" rank 0 arena_bytes 4160 {
plan.program @step__cpu_r0 name "step" target "cpu" rank 0 arena_bytes 4160 {
  // CHECK-NEXT: %[[X:.+]] = plan.buffer "arena" "x" offset 0 bytes 4096 : tensor<?x40xf32>
  %x = plan.buffer "arena" "x" offset 0 bytes 4096 : tensor<?x40xf32>
  // CHECK-NEXT: %[[Y:.+]] = plan.buffer "arena" "y" offset 4096 bytes 64 : tensor<?x4xf32>
  %y = plan.buffer "arena" "y" offset 4096 bytes 64 : tensor<?x4xf32>
  // Others than arena buffers lie anywhere.
  // CHECK-NEXT: %[[W:.+]] = plan.buffer "weight" "layers.0.gdn.z__r0" offset 3 bytes 8192 : tensor<60x40xf32>
  %w = plan.buffer "weight" "layers.0.gdn.z__r0" offset 3 bytes 8192 : tensor<60x40xf32>
  // CHECK-NEXT: plan.launch @linear__k40_n96(%[[X]], %[[W]], %[[Y]]) args [0, 1, -1, 2] part "short" waits bytes 10 flops 20 origin "layers.0.in"
  plan.launch @linear__k40_n96 (%x, %w, %y) args [0, 1, -1, 2] part "short" waits bytes 10 flops 20 origin "layers.0.in"
  // CHECK-NEXT: plan.launch @linear__k40_n96(%[[X]]) args [] part "all" bytes 0 flops 0 origin ""
  plan.launch @linear__k40_n96 (%x) args [] part "all" bytes 0 flops 0 origin ""
  // CHECK-NEXT: plan.collective @all_reduce__c40(%[[X]], %[[Y]]) args [0, 1] bytes 160 flops 40 origin "layers.0.gdn.out"
  plan.collective @all_reduce__c40 (%x, %y) args [0, 1] bytes 160 flops 40 origin "layers.0.gdn.out"
}
