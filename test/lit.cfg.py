# lit runs every *.mlir and *.test below this folder; qwenc, qwenrt and qwen-opt come from the build tree.
import os
import lit.formats

config.name = "qwenc"
config.test_format = lit.formats.ShTest(True)
config.suffixes = [".mlir", ".test"]
config.test_source_root = os.path.join(config.qwen_src, "test")
config.environment["PATH"] = os.pathsep.join([config.qwen_bin, config.llvm_bin, os.environ["PATH"]])
config.environment["QWENC_TARGET"] = "cpu"  # a test that wants PTX says so
config.substitutions.append(("%configs", os.path.join(config.qwen_src, "configs")))
config.substitutions.append(("%golden", os.path.join(config.qwen_src, "test", "golden")))
config.substitutions.append(("%src", config.qwen_src))
if "ASAN_OPTIONS" in os.environ:
    config.environment["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
