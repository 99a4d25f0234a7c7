// Products of bfloat16 images and float32 kernels of any size in the processor's tile registers (Intel AMX): what 1x1
// convolutions are, [pixels, Ci] by [Ci, Co], and their gradients; with bias and ReLU6 behind them too. Kernels are
// rounded to bfloat16, sums and gradients of kernels are float32.
#pragma once

#include "product.h"

#if !BONEAGE_AVX512

namespace boneage {
inline bool TilesUsable() { return false; }
inline void MultiplyInTiles(ffi::ThreadPool&, const uint16_t*, const uint16_t*, const float*, int64_t, int64_t, int64_t,
                            bool, Relu6, uint16_t*) {}
inline void MultiplyTransposedInTiles(ffi::ThreadPool&, const uint16_t*, const uint16_t*, const uint16_t*, int64_t,
                                      int64_t, int64_t, float*, float*) {}
}  // namespace boneage

#else

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace boneage {

#define BONEAGE_TILES __attribute__((target("amx-tile,amx-bf16")))

constexpr int64_t kSide = 16;                        // rows of a tile, and its columns where it holds sums
constexpr int64_t kDepth = 2 * kSide;                // numbers that two tiles are multiplied along
constexpr int64_t kTileNumbers = kSide * kDepth;     // bfloat16 numbers in a tile; 1,024 bytes
constexpr int64_t kBlock = 2 * kSide;                // rows and columns of the four tiles that are summed at a time
constexpr int64_t kTileRows = 8 * kBlock;            // rows of a task at most: with their results they fit the L2 cache
constexpr int64_t kTilePixels = 16 * kDepth;         // that are rearranged at a time in the gradient of the kernel
constexpr int64_t kTileShare = 4096;                 // pixels that have sums of their own where the kernel is small

// Whether this processor has tiles and the system lets this process use them (Linux since 5.16).
inline bool TilesUsable() {
  static const bool usable = [] {
    constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24;
    unsigned a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBFloat16) && (d & kTile) &&
           syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  }();
  return usable;
}

struct alignas(64) TileLine {
  uint16_t numbers[kDepth];
};

// What the processor is told of its tiles: all eight are whole.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The compiler does not see that the instructions of tiles read memory: what was stored before stays before.
inline void StoresEnd() { asm volatile("" ::: "memory"); }

BONEAGE_TILES inline void BeginTiles() {
  static const TileShapes shapes;
  StoresEnd();
  _tile_loadconfig(&shapes);
}
BONEAGE_TILES inline void EndTiles() { _tile_release(); }

// Four tiles of sums [2][2][kSide][kSide], set to or increased by the product of `steps` pairs of tiles at each side.
BONEAGE_TILES inline void MultiplyTiles(const uint16_t* left, const uint16_t* right, int64_t steps, bool add, float* sums) {
  constexpr int kSums = kSide * kSide;
  StoresEnd();
  if (add) {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + kSums, 64);
    _tile_loadd(2, sums + 2 * kSums, 64);
    _tile_loadd(3, sums + 3 * kSums, 64);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < steps; ++i, left += 2 * kTileNumbers, right += 2 * kTileNumbers) {
    _tile_loadd(4, left, 64);
    _tile_loadd(6, right, 64);
    _tile_loadd(7, right + kTileNumbers, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, left + kTileNumbers, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + kSums, 64);
  _tile_stored(2, sums + 2 * kSums, 64);
  _tile_stored(3, sums + 3 * kSums, 64);
}

// ---- Rearranging -------------------------------------------------------------------------------------------

inline __mmask32 FirstOf(int64_t count) { return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << std::max<int64_t>(count, 0)) - 1; }

// A gradient, which passes through the ReLU6 of `result` first, or does not without it; `x` alone is an image.
struct Half {
  const uint16_t* x;
  const uint16_t* result = nullptr;

  Half operator+(int64_t numbers) const { return {x + numbers, result ? result + numbers : nullptr}; }
  __m256i Load(__mmask16 shown) const {
    if (result) {
      __m256i y = _mm256_maskz_loadu_epi16(shown, result);
      shown = _mm256_cmpgt_epi16_mask(y, _mm256_setzero_si256()) & _mm256_cmplt_epi16_mask(y, _mm256_set1_epi16(kSix));
    }
    return _mm256_maskz_loadu_epi16(shown, x);
  }
  __m512i LoadTwice(__mmask32 shown) const {
    if (result) {
      __m512i y = _mm512_maskz_loadu_epi16(shown, result);
      shown = _mm512_cmpgt_epi16_mask(y, _mm512_setzero_si512()) & _mm512_cmplt_epi16_mask(y, _mm512_set1_epi16(kSix));
    }
    return _mm512_maskz_loadu_epi16(shown, x);
  }

  static constexpr int16_t kSix = 0x40c0;  // as bfloat16, which integers are ordered like from zero on
};

// A kernel, rounded when it is read.
struct Rounded {
  const float* x;

  Rounded operator+(int64_t numbers) const { return {x + numbers}; }
  __m256i Load(__mmask16 shown) const {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(shown, x)));
  }
  __m512i LoadTwice(__mmask32 shown) const {
    __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(shown), x);
    __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(shown >> kSide), x + kSide);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
};

// Up to kSide numbers of each of two rows, side by side, zeros behind them; the second row may be missing.
template <typename Numbers>
__m512i Pairs(Numbers a, Numbers b, bool both, int64_t count) {
  auto shown = static_cast<__mmask16>(FirstOf(std::min(count, kSide)));
  __m512i low = _mm512_cvtepu16_epi32(a.Load(shown));
  if (!both) return low;
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(b.Load(shown)), 16));
}

// Rows of kSide pairs become columns.
inline void Transpose(const __m512i (&rows)[kSide], uint16_t* to) {
  __m512i a[kSide], b[kSide];
#pragma GCC unroll 8
  for (int i = 0; i < kSide; i += 2) {
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kSide; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + 2 + j]);
      b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + 2 + j]);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {  // column j of each 128 bits
    a[j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
    a[4 + j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
    a[8 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
    a[12 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm512_store_si512(to + j * kDepth, _mm512_shuffle_i32x4(a[j], a[8 + j], 0x88));
    _mm512_store_si512(to + (8 + j) * kDepth, _mm512_shuffle_i32x4(a[j], a[8 + j], 0xdd));
    _mm512_store_si512(to + (4 + j) * kDepth, _mm512_shuffle_i32x4(a[4 + j], a[12 + j], 0x88));
    _mm512_store_si512(to + (12 + j) * kDepth, _mm512_shuffle_i32x4(a[4 + j], a[12 + j], 0xdd));
  }
}

// kBlock rows of a [rows, depth] from row `first` on, as [depth / kDepth][2][kSide][kDepth], zeros behind them.
inline void PackRows(Half a, int64_t rows, int64_t depth, int64_t first, uint16_t* to) {
  for (int64_t row = 0; row < kBlock; ++row) {
    auto* out = to + row * kDepth;
    int64_t shown = first + row < rows ? depth : 0;
    for (int64_t d = 0; d < depth; d += kDepth, out += 2 * kTileNumbers)
      _mm512_store_si512(out, (a + (shown ? (first + row) * depth + d : 0)).LoadTwice(FirstOf(shown - d)));
  }
}

// kDepth rows and kSide columns of b, whose rows are `stride` apart, as the right side wants them: pairs of rows side
// by side. As many as `rows` and `columns` are there, zeros behind them. Calls `each` with the pairs.
template <typename Numbers, typename Each>
void PackRight(Numbers b, int64_t stride, int64_t rows, int64_t columns, uint16_t* to, Each&& each) {
  for (int64_t d = 0; d < kDepth; d += 2, to += kDepth) {
    __m512i pairs = _mm512_setzero_si512();
    if (d < rows) pairs = Pairs(b + d * stride, b + (d + 1) * stride, d + 1 < rows, columns);
    each(pairs);
    _mm512_store_si512(to, pairs);
  }
}

// The same of the transpose of b: kSide rows and kDepth columns of it.
inline void PackRightTransposed(Rounded b, int64_t stride, int64_t rows, int64_t columns, uint16_t* to) {
  __m512i lines[kSide];
  for (int64_t c = 0; c < kSide; ++c)
    lines[c] = c < columns ? (b + c * stride).LoadTwice(FirstOf(rows)) : _mm512_setzero_si512();
  Transpose(lines, to);
}

// kDepth rows and kSide columns of x as the left side wants them for a product along the rows: the columns are its rows.
inline void PackLeftTransposed(Half x, int64_t stride, int64_t rows, int64_t columns, uint16_t* to) {
  __m512i lines[kSide];
  for (int64_t d = 0; d < kDepth; d += 2)
    lines[d / 2] = d < rows ? Pairs(x + d * stride, x + (d + 1) * stride, d + 1 < rows, columns) : _mm512_setzero_si512();
  Transpose(lines, to);
}

// ---- Products ----------------------------------------------------------------------------------------------

// `out` [rows, columns] = a [rows, depth] by b [depth, columns], or the transpose of b [columns, depth]; with a bias
// [columns], ReLU6 of the sum with it. With `result`, `a` is the gradient of its ReLU6.
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
    alignas(64) float sums[4 * kSide * kSide];
    for (int64_t block = 0; block < blocks; ++block)
      PackRows({a, result}, first + count, depth, first + block * kBlock, left + block * steps * 2 * kTileNumbers);
    BeginTiles();
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t block = 0; block < blocks; ++block) {
        MultiplyTiles(left + block * steps * 2 * kTileNumbers, right + panel * steps * 2 * kTileNumbers, steps,
                      false, sums);
        __mmask32 shown = FirstOf(columns - panel * kBlock);
        for (int64_t row = 0; row < std::min(kBlock, count - block * kBlock); ++row) {
          const float* from = sums + (row / kSide * 2 * kSide + row % kSide) * kSide;
          Vector low = LoadFloats(from), high = LoadFloats(from + kSide * kSide);
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

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels], of pixels begin ... end and
// `strip` channels of x from `first` on; with `of_bias`, the sums of g as well.
inline void MultiplyTransposedPartInTiles(Half x, Half g, int64_t begin, int64_t end, int64_t in, int64_t out_channels,
                                          int64_t first, int64_t strip, float* out, float* of_bias) {
  constexpr int64_t kSteps = kTilePixels / kDepth, kPanel = kSteps * 2 * kTileNumbers, kSums = 4 * kSide * kSide;
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
      Vector even = LoadFloats(biases + c), odd = Zero();  // sums of the pixels of such numbers
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
                      sums + (block * panels + panel) * kSums);
    EndTiles();
  }
  for (int64_t c = 0; c < shown; ++c)
    for (int64_t panel = 0; panel < 2 * panels; ++panel) {
      const float* from = sums + (c / kBlock * panels + panel / 2) * kSums + (c / kSide % 2 * 2 + panel % 2) * kSide * kSide;
      int64_t columns = std::clamp<int64_t>(out_channels - panel * kSide, 0, kSide);
      std::copy_n(from + c % kSide * kSide, columns, out + (first + c) * out_channels + panel * kSide);
    }
  if (of_bias) std::copy_n(biases, out_channels, of_bias);
}

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels]; with `of_bias`, the sums of g.
// With `result`, g is the gradient of its ReLU6. The shares of the pixels depend on the shapes alone, and so does the
// order of the sums.
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

}  // namespace boneage

#endif
