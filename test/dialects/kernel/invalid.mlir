// One case a constraint, with its number.
// RUN: qwen-opt %s --split-input-file --verify-diagnostics

// dispatch_c1
func.func @argument_types(%x: tensor<?x40xf32>) -> tensor<?x40xf32> {
  // expected-error @+1 {{block arguments do not have the types of the inputs}}
  %y = "kernel.dispatch"(%x) <{family = @elementwise}> ({
  ^bb0(%a: tensor<?x41xf32>):
    %s = model.add %a, %a : tensor<?x41xf32>
    "kernel.yield"(%s) : (tensor<?x41xf32>) -> ()
  }) : (tensor<?x40xf32>) -> tensor<?x41xf32>
  return %x : tensor<?x40xf32>
}

// -----

// dispatch_c1
func.func @argument_count(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{block arguments do not have the types of the inputs}}
  "kernel.dispatch"(%x) <{family = @elementwise}> ({
  ^bb0:
    "kernel.yield"() : () -> ()
  }) : (tensor<?x40xf32>) -> ()
  return
}

// -----

// dispatch_c2
func.func @yield_types(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{region does not end in a kernel.yield of the results' types}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x41xf32>) {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c2
func.func @no_yield(%x: tensor<?x40xf32>) {
  kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) {
    // expected-error @+1 {{block with no terminator}}
    %s = model.add %a, %a : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c3
func.func @empty(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{region holds no model op}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    kernel.yield %a : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c3
func.func @nested(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{region holds kernel.dispatch, which is no model op}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    %z = kernel.dispatch @elementwise(%b = %a : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
      %s = model.add %b, %b : tensor<?x40xf32>
      kernel.yield %s : tensor<?x40xf32>
    }
    kernel.yield %z : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c4
func.func @args_without_kernels(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{args and kernels do not pair up}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) attributes {args = [array<i32: 0>]} {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c4
func.func @one_list_for_two(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{args and kernels do not pair up}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
      attributes {kernels = [@a, @b], args = [array<i32: 0>]} {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c4
func.func @args_of_other_type(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{args holds [0], which is no array of i32}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
      attributes {kernels = [@a], args = [[0]]} {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c4: 0 and 1 are operand and result, 2 the arena space.
func.func @args_beyond(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{args names value 3 of 3}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
      attributes {kernels = [@a], args = [array<i32: 0, 1, 2, 3>]} {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c4
func.func @args_below(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{args names value -2 of 3}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
      attributes {kernels = [@a], args = [array<i32: -1, -2>]} {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// dispatch_c5
func.func @family(%x: tensor<?x40xf32>) {
  // expected-error @+1 {{family @matmul is not in the catalogue}}
  %y = kernel.dispatch @matmul(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    %s = model.add %a, %a : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// A region sees only its arguments.
func.func @isolated(%x: tensor<?x40xf32>) {
  // expected-note @+1 {{required by region isolation constraints}}
  %y = kernel.dispatch @elementwise(%a = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    // expected-error @+1 {{using value defined outside the region}}
    %s = model.add %a, %x : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return
}

// -----

// A yield ends a dispatch and nothing else.
func.func @yield_elsewhere() {
  // expected-error @+1 {{expects parent op 'kernel.dispatch'}}
  kernel.yield
}

// -----

// kernel_c1
// expected-error @+1 {{family "matmul" is not in the catalogue}}
kernel.kernel @matmul__k40 family "matmul" entry "linear" target "cpu" part "all" {}
