// Max pooling, k x k, and its gradient, which goes to the first of equal pixels (rows from above, then from the left).
#pragma once

#include <limits>

#include "common.h"

namespace boneage {

struct PoolShape {
  int64_t batch, height, width, channels, out_height, out_width, k, stride, top, left;
};

// Computes `out` [B, H', W', C] and, if given, `winner`: the largest pixel's index in its window (k * row + column).
template <typename T>
void MaxPool(ffi::ThreadPool& pool, const typename T::Number* image, const PoolShape& s, typename T::Number* out,
             uint8_t* winner) {
  ParallelFor(pool, s.batch * s.out_height, [&](int64_t task) {
    const auto* x = image + task / s.out_height * s.height * s.width * s.channels;
    int64_t to = task * s.out_width * s.channels, top = task % s.out_height * s.stride - s.top;
    for (int64_t column = 0; column < s.out_width; ++column, to += s.channels) {
      int64_t left = column * s.stride - s.left;
      int64_t begin = std::max<int64_t>(0, -left), end = std::min(s.k, s.width - left);
      for (int64_t c = 0; c < s.channels; c += kLanes) {
        Vector largest = Fill(-std::numeric_limits<float>::infinity());
        Integers place = FillIntegers(0);
        for (int64_t i = std::max<int64_t>(0, -top); i < std::min(s.k, s.height - top); ++i)
          for (int64_t j = begin; j < end; ++j) {
            Vector v = LoadLanes<T>(x + ((top + i) * s.width + left + j) * s.channels + c, s.channels - c);
            Mask takes = Beats(v, largest);
            largest = Select(takes, v, largest);
            place = Select(takes, FillIntegers(static_cast<int>(i * s.k + j)), place);
          }
        StoreLanes<T>(largest, s.channels - c, out + to + c);
        if (winner == nullptr) continue;
        uint8_t all[kLanes];
        StoreBytes(all, place);
        std::copy_n(all, std::min<int64_t>(kLanes, s.channels - c), winner + to + c);
      }
    }
  });
}

// Sums, for every pixel, the gradients of the windows that it is the winner of.
template <typename T>
void MaxPoolGradient(ffi::ThreadPool& pool, const uint8_t* winner, const typename T::Number* gradient,
                     const PoolShape& s, typename T::Number* of_image) {
  ParallelFor(pool, s.batch * s.height, [&](int64_t task) {
    int64_t b = task / s.height, y = task % s.height + s.top;
    int64_t first = std::max<int64_t>(0, (y - s.k + s.stride) / s.stride), last = std::min(y / s.stride, s.out_height - 1);
    if (y < s.k) first = 0;
    auto* to = of_image + task * s.width * s.channels;
    for (int64_t column = 0; column < s.width; ++column, to += s.channels) {
      int64_t x = column + s.left;
      int64_t begin = x < s.k ? 0 : (x - s.k + s.stride) / s.stride, end = std::min(x / s.stride, s.out_width - 1);
      for (int64_t c = 0; c < s.channels; c += kLanes) {
        int64_t lanes = std::min<int64_t>(kLanes, s.channels - c);
        Vector sum = Zero();
        for (int64_t i = first; i <= last; ++i)
          for (int64_t j = begin; j <= end; ++j) {
            int64_t from = ((b * s.out_height + i) * s.out_width + j) * s.channels + c;
            auto here = static_cast<uint8_t>((y - i * s.stride) * s.k + x - j * s.stride);
            Mask hit = EqualBytes(winner + from, lanes, here);
            if (Any(hit)) sum = Add(sum, Select(hit, LoadLanes<T>(gradient + from, lanes), Zero()));
          }
        StoreLanes<T>(sum, lanes, to + c);
      }
    }
  });
}

}  // namespace boneage
