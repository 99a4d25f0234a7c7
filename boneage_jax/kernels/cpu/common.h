// What all kernels share: threads, scratch memory, numbers.
#pragma once

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512BF16__)
#error "this processor has no AVX-512 with bfloat16"
#endif

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace boneage {

namespace ffi = xla::ffi;

constexpr int kLanes = 16;    // float32 numbers in a register
constexpr int kPartials = 8;  // independent sums over the batch, added up in order

// ---- Threads ---------------------------------------------------------------------------------------------

// Calls f(0) ... f(n - 1), on XLA's threads and this one. Never waits for a task that has not begun, so it
// cannot lock up when all threads of the pool are in calls of their own.
template <typename F>
inline void ParallelFor(ffi::ThreadPool& pool, int64_t n, F&& f) {
  struct Job {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto job = std::make_shared<Job>();
  auto* body = &f;
  auto work = [job, body, n] {
    for (int64_t i; (i = job->next.fetch_add(1)) < n;) {
      (*body)(i);
      job->done.fetch_add(1, std::memory_order_release);
    }
  };
  int64_t helpers = std::min<int64_t>(pool.num_threads(), n) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(work));
  work();
  while (job->done.load(std::memory_order_acquire) < n) std::this_thread::yield();
}

// Memory of this thread that lasts from call to call, aligned to a cache line.
template <typename T, int kSlot>
T* Scratch(size_t count) {
  static thread_local std::vector<char> memory;
  size_t bytes = count * sizeof(T) + 64;
  if (memory.size() < bytes) memory.resize(bytes);
  auto address = (reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63};
  return reinterpret_cast<T*>(address);
}

// ---- Numbers: kGroup neighbours along the summed axis are multiplied and added at once --------------------

struct Float32 {
  using Number = float;
  static constexpr int kGroup = 1;
  static __m512 Broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static __m512 LoadGroups(const float* p) { return _mm512_loadu_ps(p); }
  static __m512 MultiplyAdd(__m512 sum, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, sum); }
  static __m512 Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
  static float ToFloat(float v) { return v; }
};

struct BFloat16 {
  using Number = uint16_t;
  static constexpr int kGroup = 2;
  static __m512 Broadcast(const uint16_t* p) {
    int32_t pair;
    std::memcpy(&pair, p, 4);
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
  }
  static __m512 LoadGroups(const uint16_t* p) { return _mm512_castsi512_ps(_mm512_loadu_si512(p)); }
  static __m512 MultiplyAdd(__m512 sum, __m512 a, __m512 b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static __m512 Load(const uint16_t* p) {
    __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static void Store(uint16_t* p, __m512 v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  }
  static float ToFloat(uint16_t v) {
    uint32_t bits = uint32_t{v} << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
  }
};

}  // namespace boneage
