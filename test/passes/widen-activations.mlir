// RUN: qwen-opt %s --widen-activations | FileCheck %s

!state = !model.recurrent_state<k 1 v 1 dk 8 dv 8 w 4, bf16>
// Rows become f32, and with them the convolution's history; weights and the KV cache keep their type.
// CHECK-LABEL: func.func @step
// CHECK-SAME: %{{.+}}: tensor<?x24xf32>, %{{.+}}: tensor<24x24xbf16>
// CHECK-SAME: -> (tensor<?x24xf32>, tensor<?x1xi32>)
module {
  func.func @step(%x: tensor<?x24xbf16>, %w: tensor<24x24xbf16>, %cw: tensor<24x4xf32>, %r: tensor<7x24xbf16>, %batch: !model.batch)
      -> (tensor<?x24xbf16>, tensor<?x1xi32>) attributes {model.program = "step", model.rank = 0 : i64} {
    // CHECK: model.linear {{.*}} : (tensor<?x24xf32>, tensor<24x24xbf16>) -> tensor<?x24xf32>
    %y = model.linear %x, %w : (tensor<?x24xbf16>, tensor<24x24xbf16>) -> tensor<?x24xbf16>
    // CHECK: model.state "layers.0.gdn" : !model.recurrent_state<k 1 v 1 dk 8 dv 8 w 4, f32>
    %s = model.state "layers.0.gdn" : !state
    // CHECK: model.causal_conv1d {{.*}} : tensor<?x24xf32>, tensor<24x4xf32>, {{.*}}<k 1 v 1 dk 8 dv 8 w 4, f32>
    %c = model.causal_conv1d %y, %cw, %s, %batch : tensor<?x24xbf16>, tensor<24x4xf32>, !state
    // CHECK: model.state "layers.1.attn" : !model.kv_cache<1x24, bf16>
    %k = model.state "layers.1.attn" : !model.kv_cache<1x24, bf16>
    // CHECK: model.kv_append {{.*}} : tensor<?x24xf32>, tensor<?x24xf32>, {{.*}}<1x24, bf16>
    model.kv_append %c, %c, %k, %batch : tensor<?x24xbf16>, tensor<?x24xbf16>, !model.kv_cache<1x24, bf16>
    // CHECK: model.router {{.*}} -> (tensor<?x1xf32>, tensor<?x1xi32>)
    %p, %ids = model.router %c, %r : (tensor<?x24xbf16>, tensor<7x24xbf16>) -> (tensor<?x1xf32>, tensor<?x1xi32>)
    return %c, %ids : tensor<?x24xbf16>, tensor<?x1xi32>
  }
}
