// Dense convolution of bfloat16 images with stride 1 in tile registers.
#pragma once

#include "convolution.h"
#include "tiles.h"

namespace boneage {

#if BONEAGE_AVX512

// Computes the same as `Convolve`. All pixels of a task form one long axis, so that kBlock neighbours are rows of tiles
// even across the ends of lines.
inline void ConvolveInTiles(ffi::ThreadPool& pool, const uint16_t* image, const uint16_t* kernel, const Shape& s,
                            bool transpose, uint16_t* out) {
  int64_t taps = s.k * s.k, depth = PartsOf(s.in, kDepth) * kDepth, panels = PartsOf(s.out, kBlock);
  int64_t panel_numbers = taps * depth * kBlock;
  std::vector<TileLine> lines(panels * panel_numbers / kDepth);
  auto* right = lines.data()->numbers;
  ParallelFor(pool, panels, [&](int64_t panel) {
    auto* to = right + panel * panel_numbers;
    for (int64_t tap = 0; tap < taps; ++tap) {
      Half source{kernel + (transpose ? taps - 1 - tap : tap) * s.in * s.out};
      for (int64_t d = 0; d < depth; d += kDepth)
        for (int64_t c = panel * kBlock; c < (panel + 1) * kBlock; c += kSide, to += kTileNumbers)
          if (transpose)
            PackRightTransposed(source + (c * s.in + d), s.in, s.in - d, s.out - c, to);
          else
            PackRight(source + (d * s.out + c), s.out, s.in - d, s.out - c, to, [](__m512i) {});
    }
  });
  int64_t pieces = std::clamp<int64_t>(16 / s.batch, 1, s.out_height);
  int64_t rows = PartsOf(s.out_height, pieces), width = s.padded_width();
  pieces = PartsOf(s.out_height, rows);
  ParallelFor(pool, s.batch * pieces, [&](int64_t task) {
    int64_t b = task / pieces, first = task % pieces * rows, count = std::min(rows, s.out_height - first);
    int64_t seen = (count + s.k - 1) * width, blocks = PartsOf(count * width, kBlock);
    auto* plain = Scratch<uint16_t, 0>(seen * s.in);
    auto* padded = Scratch<uint16_t, 1>((seen + kBlock + s.k) * depth);  // the last block reads beyond the last line
    PadLines<BFloat16>(image + b * s.height * s.width * s.in, s, first, count + s.k - 1, width, plain);
    for (int64_t pixel = 0; pixel < seen; ++pixel) {
      std::copy_n(plain + pixel * s.in, s.in, padded + pixel * depth);
      std::fill(padded + pixel * depth + s.in, padded + (pixel + 1) * depth, uint16_t{0});
    }
    std::fill_n(padded + seen * depth, (kBlock + s.k) * depth, uint16_t{0});
    alignas(64) float sums[kBlock * kBlock];
    BeginTiles();
    for (int64_t panel = 0; panel < panels; ++panel) {
      __mmask32 shown = FirstOf(s.out - panel * kBlock);
      for (int64_t block = 0; block < blocks; ++block) {
        ConvolveTiles(padded + block * kBlock * depth, depth, width, s.k, right + panel * panel_numbers, sums);
        for (int64_t row = 0; row < kBlock; ++row) {
          int64_t y = (block * kBlock + row) / width, x = (block * kBlock + row) % width;
          if (x >= s.out_width || y >= count) continue;
          __m512 low = _mm512_load_ps(sums + row * kBlock), high = _mm512_load_ps(sums + row * kBlock + kSide);
          _mm512_mask_storeu_epi16(out + ((b * s.out_height + first + y) * s.out_width + x) * s.out + panel * kBlock,
                                   shown, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
        }
      }
    }
    EndTiles();
  });
}

// Whether `AddTapsInTiles` can replace `AddTaps`.
inline bool FitsTiles(const Shape& s) { return s.in % kBlock == 0 && s.out % kBlock == 0; }

inline void AddTapsInTiles(const uint16_t* x, int64_t, const uint16_t* g, int64_t inner, int64_t line, const Shape& s,
                           float* sums) {
  int64_t steps = PartsOf(inner, kDepth), panel_numbers = steps * 2 * kTileNumbers;
  auto* left = Scratch<uint16_t, 2>(panel_numbers);
  auto* right = Scratch<uint16_t, 3>(s.out / kBlock * panel_numbers);
  for (int64_t c = 0; c < s.out; c += kSide)
    for (int64_t i = 0; i < steps; ++i)
      PackRight(Half{g + i * kDepth * s.out + c}, s.out, inner - i * kDepth, kSide,
                right + c / kBlock * panel_numbers + (i * 2 + c / kSide % 2) * kTileNumbers, [](__m512i) {});
  BeginTiles();
  for (int64_t tap = 0; tap < s.k * s.k; ++tap) {
    const auto* from = x + (tap / s.k * line + tap % s.k) * s.in;
    for (int64_t c = 0; c < s.in; c += kBlock) {
      for (int64_t i = 0; i < 2 * steps; ++i)
        PackLeftTransposed({from + i / 2 * kDepth * s.in + c + i % 2 * kSide}, s.in, inner - i / 2 * kDepth, kSide,
                           left + i * kTileNumbers);
      for (int64_t panel = 0; panel < s.out / kBlock; ++panel)
        MultiplyTiles(left, right + panel * panel_numbers, steps, true, sums + (tap * s.in + c) * s.out + panel * kBlock,
                      s.out);
    }
  }
  EndTiles();
}

#else

inline void ConvolveInTiles(ffi::ThreadPool&, const uint16_t*, const uint16_t*, const Shape&, bool, uint16_t*) {}
inline bool FitsTiles(const Shape&) { return false; }
inline void AddTapsInTiles(const BFloat16::Work*, int64_t, const BFloat16::Work*, int64_t, int64_t, const Shape&, float*) {}

#endif

}  // namespace boneage
