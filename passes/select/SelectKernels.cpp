//===- SelectKernels.cpp - family to Spec, by asking the catalogue --------===//
//
// Binds every dispatch (Bind.h), asks the catalogue whether it has a kernel with that Spec, and gives each distinct
// Spec one `kernel.kernel` record. The record's name is the kernel's, two underscores and a readable Spec.
//
//===----------------------------------------------------------------------===//

#include "passes/Passes.h"
#include "passes/select/Bind.h"
#include "passes/select/SpecAttr.h"

#include "runtime/kernels/cuda/cuda_catalog.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
namespace model = qwen::ir::model;
namespace kernel = qwen::ir::kernel;

namespace qwen::passes {

#define GEN_PASS_DEF_SELECTKERNELS
#include "passes/Passes.h.inc"

plan::Fields fieldsOf(DictionaryAttr dictionary) {
  plan::Fields fields;
  for (NamedAttribute named : dictionary) {
    plan::Field field{.name = named.getName().str()};
    using Kind = plan::Field::Kind;
    if (auto integer = dyn_cast<IntegerAttr>(named.getValue())) {
      field.kind = Kind::kInt;
      field.ints = {integer.getInt()};
    } else if (auto real = dyn_cast<FloatAttr>(named.getValue())) {
      field.kind = Kind::kReal;
      field.reals = {real.getValueAsDouble()};
    } else if (auto integers = dyn_cast<DenseI64ArrayAttr>(named.getValue())) {
      field.kind = Kind::kInts;
      field.ints.assign(integers.asArrayRef().begin(), integers.asArrayRef().end());
    } else if (auto reals = dyn_cast<DenseF64ArrayAttr>(named.getValue())) {
      field.kind = Kind::kReals;
      field.reals.assign(reals.asArrayRef().begin(), reals.asArrayRef().end());
    }
    fields.push_back(std::move(field));
  }
  return fields;
}

DictionaryAttr dictionaryOf(Builder &builder, const plan::Fields &fields) {
  SmallVector<NamedAttribute> entries;
  for (const plan::Field &field : fields) {
    Attribute value;
    switch (field.kind) {
    case plan::Field::Kind::kInt: value = builder.getI64IntegerAttr(field.ints[0]); break;
    case plan::Field::Kind::kReal: value = builder.getF64FloatAttr(field.reals[0]); break;
    case plan::Field::Kind::kInts: value = builder.getDenseI64ArrayAttr(field.ints); break;
    case plan::Field::Kind::kReals: value = builder.getDenseF64ArrayAttr(field.reals); break;
    }
    entries.push_back(builder.getNamedAttr(field.name, value));
  }
  return builder.getDictionaryAttr(entries);
}

StringRef partName(plan::Part part) {
  static constexpr StringRef kNames[] = {"all", "short", "long", "logit_rows"};
  return kNames[static_cast<int>(part)];
}

StringRef layoutName(plan::Layout layout) {
  static constexpr StringRef kNames[] = {"rows", "vector", "tile16"};
  return kNames[static_cast<int>(layout)];
}

bool embeddingIsTied(ModuleOp module) {
  auto tp = module->getAttrOfType<IntegerAttr>("model.tp");
  if (tp && tp.getInt() > 1)
    return false; // every rank holds all rows of the embedding, and some of lm_head
  for (auto param : module.getOps<model::ParamOp>())
    if (param.getSymName() == "lm_head" && param.getAlias())
      return true;
  return false;
}

namespace {

// {threads = 256, shared_bytes = 0, x = [count, mul, div, max], ...}
DictionaryAttr launchAttr(Builder &builder, const plan::LaunchShape &shape) {
  NamedAttrList entries;
  entries.set("threads", builder.getI64IntegerAttr(shape.threads));
  entries.set("shared_bytes", builder.getI64IntegerAttr(shape.shared_bytes));
  for (auto [name, dim] : llvm::zip(ArrayRef<StringRef>{"x", "y", "z"}, shape.grid))
    entries.set(name, builder.getDenseI64ArrayAttr({int64_t(dim.count), dim.mul, dim.div, dim.max}));
  return entries.getDictionary(builder.getContext());
}

struct SelectKernels : impl::SelectKernelsBase<SelectKernels> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    if (failed(refuseSchemes(module)))
      return signalPassFailure();
    copyPrograms(module);
    bool tied = embeddingIsTied(module);
    Builder builder(&getContext());
    llvm::MapVector<std::tuple<StringAttr, StringAttr, Attribute>, kernel::KernelOp> records; // target, entry, Spec
    llvm::StringMap<int> names;
    OpBuilder top = OpBuilder::atBlockBegin(module.getBody());

    auto select = [&](kernel::DispatchOp dispatch) -> WalkResult {
      FailureOr<Binding> binding = bindDispatch(dispatch, tied);
      if (failed(binding))
        return WalkResult::interrupt();
      SmallVector<Attribute> kernels, args, layouts;
      for (BoundKernel &bound : binding->kernels) {
        const kernels::KernelInfo *info = kernels::FindKernel(bound.entry);
        if (!info)
          return dispatch.emitOpError("no kernel is called ") << bound.entry, WalkResult::interrupt();
        if (auto spec = info->decode(bound.spec); !spec.ok())
          return dispatch.emitOpError("kernel ") << bound.entry << " does not take this Spec: "
                                                 << spec.status().message(),
                 WalkResult::interrupt();
        auto target = dispatch->getParentOp()->getAttrOfType<StringAttr>(model::kTargetAttr);
        DictionaryAttr spec = dictionaryOf(builder, bound.spec);
        auto [entry, inserted] = records.insert({{target, builder.getStringAttr(bound.entry), spec}, kernel::KernelOp()});
        if (inserted) {
          std::string name = bound.entry + "__" + bound.label;
          if (target != "cpu")
            name += "_" + target.str();
          if (int &count = names[name]; ++count > 1)
            name += "_v" + std::to_string(count); // Specs that differ in what the label leaves out
          entry->second = kernel::KernelOp::create(top, dispatch.getLoc(), name, info->family, bound.entry, target,
                                                   partName(info->part), spec);
          if (target != "cpu" && failed(addLaunch(dispatch, entry->second, bound, *info)))
            return WalkResult::interrupt();
        }
        kernels.push_back(FlatSymbolRefAttr::get(entry->second.getSymNameAttr()));
        args.push_back(builder.getDenseI32ArrayAttr(bound.args));
      }
      for (std::optional<plan::Layout> layout : binding->layouts)
        layouts.push_back(builder.getStringAttr(layout ? layoutName(*layout) : ""));
      dispatch.setKernelsAttr(builder.getArrayAttr(kernels));
      dispatch.setArgsAttr(builder.getArrayAttr(args));
      dispatch.setLayoutsAttr(builder.getArrayAttr(layouts));
      return WalkResult::advance();
    };
    if (module.walk(select).wasInterrupted())
      signalPassFailure();
  }

  // Every program for every target, one target after the other: the first one's come first in the plan.
  void copyPrograms(ModuleOp module) {
    Builder builder(&getContext());
    auto programs = llvm::to_vector(module.getOps<func::FuncOp>());
    const std::string first = targets.empty() ? "cpu" : *targets.begin();
    for (func::FuncOp program : programs)
      program->setAttr(model::kTargetAttr, builder.getStringAttr(first));
    for (const std::string &target : targets) {
      if (target == first)
        continue;
      for (func::FuncOp program : programs) {
        func::FuncOp copy = program.clone();
        copy.setSymName((program.getSymName() + "__" + target).str());
        copy->setAttr(model::kTargetAttr, builder.getStringAttr(target));
        module.push_back(copy);
      }
    }
  }

  LogicalResult addLaunch(kernel::DispatchOp dispatch, kernel::KernelOp record, const BoundKernel &bound,
                          const kernels::KernelInfo &info) {
    const kernels::CudaKernelInfo *cuda = kernels::FindCudaKernel(bound.entry);
    if (!cuda)
      return dispatch.emitOpError("kernel ") << bound.entry << " has no body for " << record.getTarget();
    kernels::SpecPtr spec = *info.decode(bound.spec); // decoded once before
    if (Status status = cuda->check(spec.get()); !status.ok())
      return dispatch.emitOpError("kernel ") << bound.entry << " for " << record.getTarget()
                                             << " does not take this Spec: " << status.message();
    Builder builder(&getContext());
    record->setAttr("launch", launchAttr(builder, cuda->shape(spec.get())));
    return success();
  }

  // Says it before any dispatch is looked at: the user's trouble is the checkpoint's format, not one matrix.
  LogicalResult refuseSchemes(ModuleOp module) {
    for (auto param : module.getOps<model::ParamOp>()) {
      auto type = cast<RankedTensorType>(param.getType());
      if (auto scheme = dyn_cast_or_null<model::SchemeAttr>(type.getEncoding())) {
        auto diagnostic = emitError(param.getLoc()) << "weight " << param.getSymName() << " is stored as "
                                                    << scheme.getFormat() << ", which no kernel reads yet";
        diagnostic.attachNote() << "use the checkpoint in bf16, before quantisation";
        return diagnostic;
      }
    }
    return success();
  }
};

} // namespace
} // namespace qwen::passes
