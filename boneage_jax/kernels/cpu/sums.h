// Sums over pixels, which normalisation and its gradient need.
#pragma once

#include "common.h"

namespace boneage {

// ---- Sums over pixels: of a and of a * (b - centre), per channel -------------------------------------------

template <typename T>
void ChannelSums(ffi::ThreadPool& pool, const typename T::Number* a, const typename T::Number* b,
                 const float* centre, int64_t pixels, int64_t channels, float* out) {
  int64_t parts = std::clamp<int64_t>(pixels / 256, 1, 64);
  std::vector<float> sums(parts * 2 * channels, 0.0f);
  ParallelFor(pool, parts, [&](int64_t part) {
    float *first = sums.data() + part * 2 * channels, *second = first + channels;
    for (int64_t n = part * pixels / parts; n < (part + 1) * pixels / parts; ++n) {
      const auto *x = a + n * channels, *y = b + n * channels;
      int64_t c = 0;
      for (; c + kLanes <= channels; c += kLanes) {
        Vector u = T::Load(x + c), v = Subtract(T::Load(y + c), LoadFloats(centre + c));
        StoreFloats(first + c, Add(LoadFloats(first + c), u));
        StoreFloats(second + c, MultiplyAdd(u, v, LoadFloats(second + c)));
      }
      for (; c < channels; ++c) {
        first[c] += T::ToFloat(x[c]);
        second[c] += T::ToFloat(x[c]) * (T::ToFloat(y[c]) - centre[c]);
      }
    }
  });
  std::fill(out, out + 2 * channels, 0.0f);
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t c = 0; c < 2 * channels; ++c) out[c] += sums[part * 2 * channels + c];
}

}  // namespace boneage
