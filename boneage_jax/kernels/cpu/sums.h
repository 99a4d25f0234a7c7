// Sums over pixels, which normalisation and its gradient need.
#pragma once

#include "common.h"

namespace boneage {

// ---- Sums over pixels: of a and of a * (b - centre), per channel -------------------------------------------

constexpr int64_t kSummedPixels = 32;  // that stay in the L1 cache while their channels are summed register by register

template <typename T>
void ChannelSums(ffi::ThreadPool& pool, const typename T::Number* a, const typename T::Number* b,
                 const float* centre, int64_t pixels, int64_t channels, float* out) {
  int64_t parts = std::clamp<int64_t>(pixels / 256, 1, 64);
  std::vector<float> sums(parts * 2 * channels, 0.0f);
  ParallelFor(pool, parts, [&](int64_t part) {
    float *first = sums.data() + part * 2 * channels, *second = first + channels;
    int64_t end = (part + 1) * pixels / parts;
    for (int64_t n = part * pixels / parts; n < end; n += kSummedPixels) {
      int64_t count = std::min(kSummedPixels, end - n);
      const auto *x = a + n * channels, *y = b + n * channels;
      int64_t c = 0;
      for (; c + kLanes <= channels; c += kLanes) {
        Vector of_a = LoadFloats(first + c), of_both = LoadFloats(second + c), middle = LoadFloats(centre + c);
        for (int64_t i = c; i < count * channels; i += channels) {
          Vector u = T::Load(x + i);
          of_a = Add(of_a, u);
          of_both = MultiplyAdd(u, Subtract(T::Load(y + i), middle), of_both);
        }
        StoreFloats(first + c, of_a);
        StoreFloats(second + c, of_both);
      }
      for (; c < channels; ++c)
        for (int64_t i = c; i < count * channels; i += channels) {
          first[c] += T::ToFloat(x[i]);
          second[c] += T::ToFloat(x[i]) * (T::ToFloat(y[i]) - centre[c]);
        }
    }
  });
  std::fill(out, out + 2 * channels, 0.0f);
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t c = 0; c < 2 * channels; ++c) out[c] += sums[part * 2 * channels + c];
}

}  // namespace boneage
