// Whether a sanitizer runs the test: it has the allocator and the crash handlers, and its shadow is resident memory.
#ifndef QWEN_TEST_SANITIZERS_H_
#define QWEN_TEST_SANITIZERS_H_

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // of g++, and of clang since 21
#define QWEN_SANITIZED 1
#else
#define QWEN_SANITIZED 0
#endif

#endif  // QWEN_TEST_SANITIZERS_H_
