// Products of bfloat16 images and float32 kernels of any size in tile registers, for 1x1 convolutions ([pixels, Ci] by
// [Ci, Co]) and their gradients, optionally followed by bias and ReLU6. Kernels are rounded to bfloat16; sums and
// gradients of kernels are float32.
#pragma once

#include "product.h"
#include "tiles.h"

namespace boneage {

#if BONEAGE_AVX512

constexpr int64_t kTileRows = 8 * kBlock;     // of a task, at most: with their results they fit into the L2 cache
constexpr int64_t kTilePixels = 16 * kDepth;  // that are packed at a time in the kernel gradient
constexpr int64_t kTileShare = 4096;          // pixels per separate sum if the kernel is small

// `out` [rows, columns] = a [rows, depth] by b [depth, columns], or the transpose of b [columns, depth]; with a bias
// [columns], ReLU6 of the product plus the bias. With `result`, `a` is its gradient, zeroed where ReLU6 clipped it.
inline void MultiplyInTiles(ffi::ThreadPool& pool, const uint16_t* a, const uint16_t* result, const float* b,
                            int64_t rows, int64_t depth, int64_t columns, bool transpose, Relu6 relu6, uint16_t* out) {
  int64_t panels = PartsOf(columns, kBlock), steps = PartsOf(depth, kDepth);
  std::vector<TileLine> lines(panels * steps * kBlock);
  std::vector<float> bias(panels * kBlock);
  if (relu6.bias) std::copy_n(relu6.bias, columns, bias.data());
  auto* right = lines.data()->numbers;
  ParallelFor(pool, panels, [&](int64_t panel) {
    auto* to = right + panel * steps * 2 * kTileNumbers;
    for (int64_t d = 0; d < depth; d += kDepth)
      for (int64_t c = panel * kBlock; c < (panel + 1) * kBlock; c += kSide, to += kTileNumbers)
        if (transpose)
          PackRightTransposed(Rounded{b} + (c * depth + d), depth, depth - d, columns - c, to);
        else
          PackRight(Rounded{b} + (d * columns + c), columns, depth - d, columns - c, to, [](__m512i) {});
  });
  int64_t fair = PartsOf(PartsOf(rows, 2 * pool.num_threads()), kBlock) * kBlock;
  int64_t at_a_time = std::min(kTileRows, fair);
  ParallelFor(pool, PartsOf(rows, at_a_time), [&](int64_t task) {
    int64_t first = task * at_a_time, count = std::min(at_a_time, rows - first), blocks = PartsOf(count, kBlock);
    auto* left = Scratch<uint16_t, 0>(blocks * steps * 2 * kTileNumbers);
    alignas(64) float sums[kBlock * kBlock];
    for (int64_t block = 0; block < blocks; ++block)
      PackRows({a, result}, first + count, depth, first + block * kBlock, left + block * steps * 2 * kTileNumbers);
    BeginTiles();
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t block = 0; block < blocks; ++block) {
        MultiplyTiles(left + block * steps * 2 * kTileNumbers, right + panel * steps * 2 * kTileNumbers, steps,
                      false, sums, kBlock);
        __mmask32 shown = FirstOf(columns - panel * kBlock);
        for (int64_t row = 0; row < std::min(kBlock, count - block * kBlock); ++row) {
          Vector low = LoadFloats(sums + row * kBlock), high = LoadFloats(sums + row * kBlock + kSide);
          if (relu6.bias) {
            low = Relu6::Of(low, LoadFloats(bias.data() + panel * kBlock));
            high = Relu6::Of(high, LoadFloats(bias.data() + panel * kBlock + kSide));
          }
          auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
          _mm512_mask_storeu_epi16(out + (first + block * kBlock + row) * columns + panel * kBlock, shown, both);
        }
      }
    EndTiles();
  });
}

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels], for pixels begin ... end and
// `strip` channels of x from `first` on; with `of_bias`, the sums of g as well.
inline void MultiplyTransposedPartInTiles(Half x, Half g, int64_t begin, int64_t end, int64_t in, int64_t out_channels,
                                          int64_t first, int64_t strip, float* out, float* of_bias) {
  constexpr int64_t kSteps = kTilePixels / kDepth, kPanel = kSteps * 2 * kTileNumbers, kSums = kBlock * kBlock;
  int64_t shown = std::min(strip, in - first), blocks = PartsOf(shown, kBlock), panels = PartsOf(out_channels, kBlock);
  auto* left = Scratch<uint16_t, 0>(blocks * kPanel);
  auto* right = Scratch<uint16_t, 1>(panels * kPanel);
  auto* sums = Scratch<float, 2>(blocks * panels * kSums);
  auto* biases = Scratch<float, 5>(panels * kBlock);
  std::fill_n(biases, panels * kBlock, 0.0f);
  for (int64_t p = begin; p < end; p += kTilePixels) {
    int64_t count = std::min(kTilePixels, end - p), steps = PartsOf(count, kDepth);
    for (int64_t c = 0; c < blocks * kBlock; c += kSide)
      for (int64_t i = 0; i < steps; ++i)
        PackLeftTransposed(x + ((p + i * kDepth) * in + first + c), in, end - p - i * kDepth, shown - c,
                           left + c / kBlock * kPanel + (i * 2 + c / kSide % 2) * kTileNumbers);
    for (int64_t c = 0; c < panels * kBlock; c += kSide) {
      Vector even = LoadFloats(biases + c), odd = Zero();  // sums over the even and the odd pixels
      for (int64_t i = 0; i < steps; ++i)
        PackRight(g + ((p + i * kDepth) * out_channels + c), out_channels, end - p - i * kDepth, out_channels - c,
                  right + c / kBlock * kPanel + (i * 2 + c / kSide % 2) * kTileNumbers, [&](__m512i pairs) {
                    if (!of_bias) return;
                    even = Add(even, _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)));
                    odd = Add(odd, _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000))));
                  });
      StoreFloats(biases + c, Add(even, odd));
    }
    BeginTiles();
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t panel = 0; panel < panels; ++panel)
        MultiplyTiles(left + block * kPanel, right + panel * kPanel, steps, p > begin,
                      sums + (block * panels + panel) * kSums, kBlock);
    EndTiles();
  }
  for (int64_t c = 0; c < shown; ++c)
    for (int64_t panel = 0; panel < panels; ++panel)
      std::copy_n(sums + (c / kBlock * panels + panel) * kSums + c % kBlock * kBlock,
                  std::min(kBlock, out_channels - panel * kBlock), out + (first + c) * out_channels + panel * kBlock);
  if (of_bias) std::copy_n(biases, out_channels, of_bias);
}

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels]; with `of_bias`, the sums of g.
// With `result`, g is its gradient, zeroed where ReLU6 clipped it. The shares of the pixels, and therefore the
// order of the sums, depend only on the shapes.
inline void MultiplyTransposedInTiles(ffi::ThreadPool& pool, const uint16_t* x, const uint16_t* g, const uint16_t* result,
                                      int64_t pixels, int64_t in, int64_t out_channels, float* out, float* of_bias) {
  int64_t size = in * out_channels;
  int64_t shares = size > kSmallKernel ? 1 : std::clamp<int64_t>(pixels / kTileShare, 1, kPartials);
  int64_t strip = PartsOf(PartsOf(in * shares, 2 * pool.num_threads()), kBlock) * kBlock;
  int64_t strips = PartsOf(in, strip);
  std::vector<float> others(size * (shares - 1)), biases(out_channels * (shares - 1));
  ParallelFor(pool, shares * strips, [&](int64_t task) {
    int64_t share = task / strips, part = task % strips;
    float* bias = share ? biases.data() + (share - 1) * out_channels : of_bias;
    MultiplyTransposedPartInTiles({x}, {g, result}, share * pixels / shares, (share + 1) * pixels / shares, in,
                                  out_channels, part * strip, strip, share ? others.data() + (share - 1) * size : out,
                                  of_bias && part == 0 ? bias : nullptr);
  });
  AddParts(pool, others, shares - 1, size, out);
  if (of_bias) AddParts(pool, biases, shares - 1, out_channels, of_bias);
}

#else

inline void MultiplyInTiles(ffi::ThreadPool&, const uint16_t*, const uint16_t*, const float*, int64_t, int64_t, int64_t,
                            bool, Relu6, uint16_t*) {}
inline void MultiplyTransposedInTiles(ffi::ThreadPool&, const uint16_t*, const uint16_t*, const uint16_t*, int64_t,
                                      int64_t, int64_t, float*, float*) {}

#endif

}  // namespace boneage
