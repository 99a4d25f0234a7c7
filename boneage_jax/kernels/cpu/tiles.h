// The tile registers of Intel's AMX: products of bfloat16 matrices with float32 sums, and the layout of their operands.
#pragma once

#include "common.h"

#if BONEAGE_AVX512

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace boneage {

#define BONEAGE_TILES __attribute__((target("amx-tile,amx-bf16")))

constexpr int64_t kSide = 16;                        // rows of a tile, and its columns if it holds sums
constexpr int64_t kDepth = 2 * kSide;                // length of the summed axis in a product of two tiles
constexpr int64_t kTileNumbers = kSide * kDepth;     // bfloat16 numbers in a tile; 1,024 bytes
constexpr int64_t kBlock = 2 * kSide;                // rows and columns of the 2x2 tiles that are summed at a time

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

// The tile configuration of the processor: all eight tiles have full size.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The compiler does not know that tile instructions read memory: this keeps earlier stores in front of them.
inline void StoresEnd() { asm volatile("" ::: "memory"); }

BONEAGE_TILES inline void BeginTiles() {
  static const TileShapes shapes;
  StoresEnd();
  _tile_loadconfig(&shapes);
}
BONEAGE_TILES inline void EndTiles() { _tile_release(); }

// Sets `sums` [kBlock][kBlock], rows `stride` apart, to the product of `steps` pairs of tiles of either operand; with
// `add`, adds the product to `sums`.
BONEAGE_TILES inline void MultiplyTiles(const uint16_t* left, const uint16_t* right, int64_t steps, bool add, float* sums,
                                        int64_t stride) {
  StoresEnd();
  float* lower = sums + kSide * stride;
  if (add) {
    _tile_loadd(0, sums, 4 * stride);
    _tile_loadd(1, sums + kSide, 4 * stride);
    _tile_loadd(2, lower, 4 * stride);
    _tile_loadd(3, lower + kSide, 4 * stride);
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
  _tile_stored(0, sums, 4 * stride);
  _tile_stored(1, sums + kSide, 4 * stride);
  _tile_stored(2, lower, 4 * stride);
  _tile_stored(3, lower + kSide, 4 * stride);
}

// Sets `sums` [kBlock][kBlock] to the convolution of kBlock neighbouring pixels of `depth` numbers each. The k x k
// window of the first begins at `pixels`; lines are `line` pixels long.
BONEAGE_TILES inline void ConvolveTiles(const uint16_t* pixels, int64_t depth, int64_t line, int64_t k,
                                        const uint16_t* right, float* sums) {
  StoresEnd();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t tap = 0; tap < k * k; ++tap) {
    const auto* left = pixels + (tap / k * line + tap % k) * depth;
    const auto* lower = left + kSide * depth;
    for (int64_t d = 0; d < depth; d += kDepth, right += 2 * kTileNumbers) {
      _tile_loadd(4, left + d, 2 * depth);
      _tile_loadd(6, right, 64);
      _tile_loadd(7, right + kTileNumbers, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, lower + d, 2 * depth);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 4 * kBlock);
  _tile_stored(1, sums + kSide, 4 * kBlock);
  _tile_stored(2, sums + kSide * kBlock, 4 * kBlock);
  _tile_stored(3, sums + kSide * kBlock + kSide, 4 * kBlock);
}

// ---- Rearranging -------------------------------------------------------------------------------------------

inline __mmask32 FirstOf(int64_t count) { return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << std::max<int64_t>(count, 0)) - 1; }

// bfloat16 numbers; with `result`, they are its gradient and are zeroed where ReLU6 clipped `result`.
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

  static constexpr int16_t kSix = 0x40c0;  // 6 as bfloat16; bfloat16 numbers from zero on are ordered like integers
};

// A float32 kernel, rounded to bfloat16 when it is read.
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

// Interleaves up to kSide numbers of two rows, padded with zeros; without `both`, the second row is zeros.
template <typename Numbers>
__m512i Pairs(Numbers a, Numbers b, bool both, int64_t count) {
  auto shown = static_cast<__mmask16>(FirstOf(std::min(count, kSide)));
  __m512i low = _mm512_cvtepu16_epi32(a.Load(shown));
  if (!both) return low;
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(b.Load(shown)), 16));
}

// Transposes kSide rows of kSide pairs.
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

// Packs kBlock rows of a [rows, depth] from row `first` on as [depth / kDepth][2][kSide][kDepth], padded with zeros.
inline void PackRows(Half a, int64_t rows, int64_t depth, int64_t first, uint16_t* to) {
  for (int64_t row = 0; row < kBlock; ++row) {
    auto* out = to + row * kDepth;
    int64_t shown = first + row < rows ? depth : 0;
    for (int64_t d = 0; d < depth; d += kDepth, out += 2 * kTileNumbers)
      _mm512_store_si512(out, (a + (shown ? (first + row) * depth + d : 0)).LoadTwice(FirstOf(shown - d)));
  }
}

// Packs kDepth rows and kSide columns of b, rows `stride` apart, for the right operand: pairs of rows are interleaved.
// Only `rows` and `columns` of them exist; the rest is padded with zeros. Calls `each` with the pairs.
template <typename Numbers, typename Each>
void PackRight(Numbers b, int64_t stride, int64_t rows, int64_t columns, uint16_t* to, Each&& each) {
  for (int64_t d = 0; d < kDepth; d += 2, to += kDepth) {
    __m512i pairs = _mm512_setzero_si512();
    if (d < rows) pairs = Pairs(b + d * stride, b + (d + 1) * stride, d + 1 < rows, columns);
    each(pairs);
    _mm512_store_si512(to, pairs);
  }
}

// The same for the transpose of b: reads kSide rows and kDepth columns of b.
template <typename Numbers>
void PackRightTransposed(Numbers b, int64_t stride, int64_t rows, int64_t columns, uint16_t* to) {
  __m512i lines[kSide];
  for (int64_t c = 0; c < kSide; ++c)
    lines[c] = c < columns ? (b + c * stride).LoadTwice(FirstOf(rows)) : _mm512_setzero_si512();
  Transpose(lines, to);
}

// Packs kDepth rows and kSide columns of x for the left operand of a product that sums over the rows of x: the columns
// of x become the operand's rows.
inline void PackLeftTransposed(Half x, int64_t stride, int64_t rows, int64_t columns, uint16_t* to) {
  __m512i lines[kSide];
  for (int64_t d = 0; d < kDepth; d += 2)
    lines[d / 2] = d < rows ? Pairs(x + d * stride, x + (d + 1) * stride, d + 1 < rows, columns) : _mm512_setzero_si512();
  Transpose(lines, to);
}

}  // namespace boneage

#else

namespace boneage {
inline bool TilesUsable() { return false; }
}  // namespace boneage

#endif
