// Shared by all kernels: threads, scratch memory, number types.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "vector.h"
#include "xla/ffi/api/ffi.h"

namespace boneage {

namespace ffi = xla::ffi;

constexpr int kPartials = 8;  // independent partial sums over the batch, added up in order

inline int64_t PartsOf(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// ---- Threads ---------------------------------------------------------------------------------------------

// Calls f(0) ... f(n - 1), on XLA's threads and the calling one. Never waits for a task that has not started, so
// it cannot deadlock when all threads of the pool are busy with other calls.
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

// Thread-local memory that is reused across calls, aligned to a cache line.
template <typename T, int kSlot>
T* Scratch(size_t count) {
  static thread_local std::vector<char> memory;
  size_t bytes = count * sizeof(T) + 64;
  if (memory.size() < bytes) memory.resize(bytes);
  auto address = (reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63};
  return reinterpret_cast<T*>(address);
}

// Loads the first kLanes numbers at p, or only `lanes` of them, padded with zeros.
template <typename T>
Vector LoadLanes(const typename T::Number* p, int64_t lanes) {
  if (lanes >= kLanes) return T::Load(p);
  typename T::Number all[kLanes] = {};
  std::copy_n(p, lanes, all);
  return T::Load(all);
}

template <typename T>
void StoreLanes(Vector value, int64_t lanes, typename T::Number* to) {
  if (lanes >= kLanes) return T::Store(to, value);
  typename T::Number all[kLanes];
  T::Store(all, value);
  std::copy_n(all, lanes, to);
}

// The bias per channel that a layer adds before ReLU6; without a bias, neither is applied.
struct Relu6 {
  const float* bias = nullptr;

  static Vector Of(Vector sum, Vector bias) { return Clamp(Add(sum, bias), Zero(), Fill(6.0f)); }
  // The gradient of ReLU6's input, from ReLU6's result and the gradient of that result.
  static Vector Through(Vector result, Vector gradient) { return Between(result, Zero(), Fill(6.0f), gradient); }
};

// ---- Number types: how they are stored and how they are multiplied ------------------------------------------

// Products of float32.
struct FloatProducts {
  using Work = float;
  static constexpr int kGroup = 1;
  static Vector Broadcast(const float* p) { return Fill(*p); }
  static Vector LoadGroups(const float* p) { return LoadFloats(p); }
  static Vector MultiplyAdd(Vector sum, Vector a, Vector b) { return boneage::MultiplyAdd(a, b, sum); }
};

struct Float32 : FloatProducts {
  using Number = float;
  static Vector Load(const float* p) { return LoadFloats(p); }
  static void Store(float* p, Vector v) { StoreFloats(p, v); }
  static float ToFloat(float v) { return v; }
  static float ToWork(float v) { return v; }
};

#if BONEAGE_AVX512
// Products of bfloat16: kGroup neighbours along the summed axis are multiplied and added at once.
struct BFloat16Products {
  using Work = uint16_t;
  static constexpr int kGroup = 2;
  static Vector Broadcast(const uint16_t* p) {
    int32_t pair;
    std::memcpy(&pair, p, 4);
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
  }
  static Vector LoadGroups(const uint16_t* p) { return _mm512_castsi512_ps(_mm512_loadu_si512(p)); }
  static Vector MultiplyAdd(Vector sum, Vector a, Vector b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static uint16_t ToWork(uint16_t v) { return v; }
};

// Interleaves kLanes numbers of a and of b.
inline void StorePairs(const uint16_t* a, const uint16_t* b, uint16_t* out) {
  __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
  __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  _mm512_storeu_si512(out, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
#else
struct BFloat16Products : FloatProducts {
  static float ToWork(uint16_t v) { return BFloat16ToFloat(v); }
};
#endif

struct BFloat16 : BFloat16Products {
  using Number = uint16_t;
  static Vector Load(const uint16_t* p) { return LoadBFloat16(p); }
  static void Store(uint16_t* p, Vector v) { StoreBFloat16(p, v); }
  static float ToFloat(uint16_t v) { return BFloat16ToFloat(v); }
};

// Copies `count` numbers of the gradient of `result`, zeroed where ReLU6 clipped `result`; unchanged without `result`.
template <typename T>
void CopyThrough(const typename T::Number* gradient, const typename T::Number* result, int64_t count,
                 typename T::Number* to) {
  if (!result) {
    std::copy_n(gradient, count, to);
    return;
  }
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) T::Store(to + i, Relu6::Through(T::Load(result + i), T::Load(gradient + i)));
  for (; i < count; ++i) {
    float y = T::ToFloat(result[i]);
    to[i] = y > 0.0f && y < 6.0f ? gradient[i] : typename T::Number{0};
  }
}

template <typename T>
void CopyToWork(const typename T::Number* from, int64_t count, typename T::Work* to) {
  if constexpr (std::is_same_v<typename T::Number, typename T::Work>)
    std::copy_n(from, count, to);
  else
    std::transform(from, from + count, to, T::ToWork);
}

}  // namespace boneage
