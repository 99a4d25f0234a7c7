// Max pooling, k x k, and its gradient, which goes to the first of equal pixels (rows from above, then from the left).
#pragma once

#include <limits>

#include "common.h"

namespace boneage {

struct PoolShape {
  int64_t batch, height, width, channels, out_height, out_width, k, stride, top, left;
};

// The first 16 numbers at p, or as many as there are.
template <typename T>
__m512 LoadLanes(const typename T::Number* p, int64_t lanes) {
  if (lanes >= kLanes) return T::Load(p);
  typename T::Number all[kLanes] = {};
  std::copy_n(p, lanes, all);
  return T::Load(all);
}

template <typename T>
void PutLanes(__m512 value, int64_t lanes, typename T::Number* to) {
  if (lanes >= kLanes) return T::Store(to, value);
  typename T::Number all[kLanes];
  T::Store(all, value);
  std::copy_n(all, lanes, to);
}

// `out` [B, H', W', C]; `winner` too, if it is given: which pixel of the window (k * row + column) is the largest.
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
        __m512 largest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
        __m512i place = _mm512_setzero_si512();
        for (int64_t i = std::max<int64_t>(0, -top); i < std::min(s.k, s.height - top); ++i)
          for (int64_t j = begin; j < end; ++j) {
            __m512 v = LoadLanes<T>(x + ((top + i) * s.width + left + j) * s.channels + c, s.channels - c);
            // Unlike max, keeps a NaN of either, so that training sees it.
            __mmask16 takes =
                _mm512_cmp_ps_mask(v, largest, _CMP_NLE_UQ) & _mm512_cmp_ps_mask(largest, largest, _CMP_ORD_Q);
            largest = _mm512_mask_mov_ps(largest, takes, v);
            place = _mm512_mask_set1_epi32(place, takes, static_cast<int>(i * s.k + j));
          }
        PutLanes<T>(largest, s.channels - c, out + to + c);
        if (winner == nullptr) continue;
        alignas(16) uint8_t all[kLanes];
        _mm_store_si128(reinterpret_cast<__m128i*>(all), _mm512_cvtepi32_epi8(place));
        std::copy_n(all, std::min<int64_t>(kLanes, s.channels - c), winner + to + c);
      }
    }
  });
}

// For every pixel the sum of the gradients of those windows whose winner it is.
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
        __mmask16 exist = static_cast<__mmask16>((1u << lanes) - 1);
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = first; i <= last; ++i)
          for (int64_t j = begin; j <= end; ++j) {
            int64_t from = ((b * s.out_height + i) * s.out_width + j) * s.channels + c;
            __m128i won = _mm_maskz_loadu_epi8(exist, winner + from);
            auto here = static_cast<char>((y - i * s.stride) * s.k + x - j * s.stride);
            __mmask16 hit = _mm_cmpeq_epi8_mask(won, _mm_set1_epi8(here)) & exist;
            if (hit) sum = _mm512_mask_add_ps(sum, hit, sum, LoadLanes<T>(gradient + from, lanes));
          }
        PutLanes<T>(sum, lanes, to + c);
      }
    }
  });
}

}  // namespace boneage
