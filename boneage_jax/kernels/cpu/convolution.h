// Dense convolution with stride 1: images [B, H, W, C], kernels [k, k, Ci, Co], any padding.
#pragma once

#include "common.h"

namespace boneage {

constexpr int kWidest = BONEAGE_AVX512 ? 14 : 6;  // pixels of a tile: their sums, two registers each, stay in registers
constexpr int kDeepest = BONEAGE_AVX512 ? 8 : 6;  // input channels of a tile in the kernel gradient
constexpr int kChunkPixels = 512;  // of the kernel gradient's inner loop: its operands stay in the L2 cache

// The shape of a convolution or of its gradients. The image is padded with `top` and `left` zeros before it, and with
// as many after it as the output needs.
struct Shape {
  int64_t batch, height, width, in, out_height, out_width, out, k, top, left;
  int64_t padded_width() const { return out_width + k - 1; }
};

// ---- Convolution: tiles of up to kWidest pixels of a row by two (or one) registers of output channels ------

// Packs a kernel [k, k, Ci, Co] as [Co / tile][k * k][Ci / group][tile][group], one tile, from channel `first` on, per
// call. With `transpose`, for the gradient of the image, the kernel is flipped and its input and output channels are
// swapped: `s.in` are then the kernel's output channels.
template <typename T>
void PackKernel(const typename T::Number* kernel, const Shape& s, bool transpose, int64_t tile, int64_t first,
                typename T::Work* packed) {
  int64_t taps = s.k * s.k;
  for (int64_t tap = 0; tap < taps; ++tap) {
    const auto* source = kernel + (transpose ? taps - 1 - tap : tap) * s.in * s.out;
    for (int64_t c = 0; c < s.in; c += T::kGroup)
      for (int64_t o = 0; o < tile; ++o)
        for (int g = 0; g < T::kGroup; ++g) {
          int64_t from = c + g, to = first + o;
          *packed++ = T::ToWork(transpose ? source[to * s.in + from] : source[from * s.out + to]);
        }
  }
}

template <typename T, int kPixels, int kRegisters>
void Tile(const typename T::Work* image, const Shape& s, const typename T::Work* kernel, typename T::Number* out) {
  Vector sum[kPixels][kRegisters];
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; ++r) sum[p][r] = Zero();
  const int64_t in = s.in;
  for (int64_t ky = 0; ky < s.k; ++ky)
    for (int64_t kx = 0; kx < s.k; ++kx) {
      const auto* x = image + (ky * s.padded_width() + kx) * in;
      for (int64_t c = 0; c < in; c += T::kGroup, kernel += kRegisters * kLanes * T::kGroup) {
        Vector w[kRegisters];
#pragma GCC unroll 2
        for (int r = 0; r < kRegisters; ++r) w[r] = T::LoadGroups(kernel + r * kLanes * T::kGroup);
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) {
          Vector v = T::Broadcast(x + p * in + c);
#pragma GCC unroll 2
          for (int r = 0; r < kRegisters; ++r) sum[p][r] = T::MultiplyAdd(sum[p][r], v, w[r]);
        }
      }
    }
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; ++r) T::Store(out + p * s.out + r * kLanes, sum[p][r]);
}

template <typename T, int kRegisters>
using TileFunction = void (*)(const typename T::Work*, const Shape&, const typename T::Work*, typename T::Number*);

template <typename T, int kRegisters, int... kCounts>
TileFunction<T, kRegisters> TileFor(int64_t pixels, std::integer_sequence<int, kCounts...>) {
  static constexpr TileFunction<T, kRegisters> table[] = {&Tile<T, kCounts + 1, kRegisters>...};
  return table[pixels - 1];
}

// Computes one row of output pixels, for the channels of one tile.
template <typename T, int kRegisters>
void TileRow(const typename T::Work* image, const Shape& s, const typename T::Work* panel, typename T::Number* out) {
  using Counts = std::make_integer_sequence<int, kWidest>;
  int64_t pieces = (s.out_width + kWidest - 1) / kWidest;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    int64_t begin = piece * s.out_width / pieces, end = (piece + 1) * s.out_width / pieces;
    TileFor<T, kRegisters>(end - begin, Counts())(image + begin * s.in, s, panel, out + begin * s.out);
  }
}

template <typename T, int kRegisters>
void Rows(const typename T::Work* padded, const Shape& s, int64_t rows, const typename T::Work* packed,
          typename T::Number* out) {
  int64_t tile = kRegisters * kLanes, panel = s.k * s.k * s.in * tile;
  for (int64_t o = 0; o < s.out; o += tile)
    for (int64_t y = 0; y < rows; ++y)
      TileRow<T, kRegisters>(padded + y * s.padded_width() * s.in, s, packed + o / tile * panel,
                             out + y * s.out_width * s.out + o);
}

// Copies `lines` lines of one zero-padded image, from line first - top on; each is `line` pixels long.
template <typename T>
void PadLines(const typename T::Number* image, const Shape& s, int64_t first, int64_t lines, int64_t line,
              typename T::Work* padded) {
  int64_t shown = std::min(s.width, line - s.left);  // pixels of the image that lie in the line
  int64_t before = s.left * s.in, within = shown * s.in, size = line * s.in;
  for (int64_t y = first - s.top; y < first - s.top + lines; ++y, padded += size) {
    if (y < 0 || y >= s.height) {
      std::fill_n(padded, size, 0);
      continue;
    }
    std::fill_n(padded, before, 0);
    CopyToWork<T>(image + y * s.width * s.in, within, padded + before);
    std::fill(padded + before + within, padded + size, 0);
  }
}

// Computes `out` [B, H', W', Co]. With `transpose`, `kernel` [k, k, Co, Ci] is flipped and its channels are swapped.
template <typename T>
void Convolve(ffi::ThreadPool& pool, const typename T::Number* image, const typename T::Number* kernel,
              const Shape& s, bool transpose, typename T::Number* out) {
  using Work = typename T::Work;
  int64_t tile = s.out % (2 * kLanes) ? kLanes : 2 * kLanes;
  std::vector<Work> packed(s.k * s.k * s.in * s.out);
  ParallelFor(pool, s.out / tile, [&](int64_t i) {
    PackKernel<T>(kernel, s, transpose, tile, i * tile, packed.data() + i * s.k * s.k * s.in * tile);
  });
  int64_t pieces = std::clamp<int64_t>(16 / s.batch, 1, s.out_height);
  int64_t rows = (s.out_height + pieces - 1) / pieces;
  pieces = (s.out_height + rows - 1) / rows;
  ParallelFor(pool, s.batch * pieces, [&](int64_t task) {
    int64_t b = task / pieces, first = task % pieces * rows, count = std::min(rows, s.out_height - first);
    auto* padded = Scratch<Work, 0>((count + s.k - 1) * s.padded_width() * s.in);
    PadLines<T>(image + b * s.height * s.width * s.in, s, first, count + s.k - 1, s.padded_width(), padded);
    auto* to = out + (b * s.out_height + first) * s.out_width * s.out;
    if (tile == kLanes)
      Rows<T, 1>(padded, s, count, packed.data(), to);
    else
      Rows<T, 2>(padded, s, count, packed.data(), to);
  });
}

// ---- Gradient of the kernel: a product over all pixels, kDeepest (or 4) input by two (or one) registers of output channels

// Interleaves `count` pixels of an image [*, channels]: [count / group][channels][group]. In groups of 2, the first
// pixel is `shift`, 0 or 1; with 1, pixel `count` is read too.
template <typename T>
void Interleave(const typename T::Work* image, int64_t count, int64_t channels, int shift, typename T::Work* out) {
  if constexpr (T::kGroup == 1) {
    std::copy_n(image, count * channels, out);
  } else {
    for (int64_t q = shift; q < count + shift; q += 2) {
      const auto *a = image + q * channels, *b = a + channels;
      int64_t c = 0;
      for (; c + kLanes <= channels; c += kLanes, out += 2 * kLanes) {
        StorePairs(a + c, b + c, out);
      }
      for (; c < channels; ++c) {
        *out++ = a[c];
        *out++ = b[c];
      }
    }
  }
}

template <typename T, int kIn, int kRegisters>
void Accumulate(const typename T::Work* x, int64_t in, const typename T::Work* g, int64_t out, int64_t groups,
                float* sums) {
  Vector sum[kIn][kRegisters];
#pragma GCC unroll 8
  for (int i = 0; i < kIn; ++i)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; ++r) sum[i][r] = LoadFloats(sums + i * out + r * kLanes);
  for (int64_t j = 0; j < groups; ++j, x += in * T::kGroup, g += out * T::kGroup) {
    Vector w[kRegisters];
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; ++r) w[r] = T::LoadGroups(g + r * kLanes * T::kGroup);
#pragma GCC unroll 8
    for (int i = 0; i < kIn; ++i) {
      Vector v = T::Broadcast(x + i * T::kGroup);
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; ++r) sum[i][r] = T::MultiplyAdd(sum[i][r], v, w[r]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kIn; ++i)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; ++r) StoreFloats(sums + i * out + r * kLanes, sum[i][r]);
}

template <typename T, int kRegisters>
void AccumulateAll(const typename T::Work* x, const typename T::Work* g, const Shape& s, int64_t groups,
                   float* sums) {
  for (int64_t c = 0; c < s.in;) {
    int64_t rest = s.in - c;
    bool deep = rest == kDeepest || rest >= kDeepest + 4;  // `in` is a multiple of 4
    for (int64_t o = 0; o < s.out; o += kRegisters * kLanes) {
      const auto *from = x + c * T::kGroup, *to = g + o * T::kGroup;
      float* into = sums + c * s.out + o;
      if (deep)
        Accumulate<T, kDeepest, kRegisters>(from, s.in, to, s.out, groups, into);
      else
        Accumulate<T, 4, kRegisters>(from, s.in, to, s.out, groups, into);
    }
    c += deep ? kDeepest : 4;
  }
}

// Adds the products of an image x [pixels + 1, Ci] and a gradient g [inner, Co] to `sums` [k, k, Ci, Co], for all taps.
// Their lines have the same length, so that a tap is a shift of the image.
template <typename T>
void AddTaps(const typename T::Work* x, int64_t pixels, const typename T::Work* g, int64_t inner, int64_t line,
             const Shape& s, float* sums) {
  using Work = typename T::Work;
  auto* even = Scratch<Work, 2>(pixels * s.in);
  auto* odd = Scratch<Work, 3>(pixels * s.in);
  auto* beside = Scratch<Work, 4>(inner * s.out);
  Interleave<T>(x, pixels, s.in, 0, even);
  if (T::kGroup == 2 && s.k > 1) Interleave<T>(x, pixels, s.in, 1, odd);
  Interleave<T>(g, inner, s.out, 0, beside);
  for (int64_t tap = 0; tap < s.k * s.k; ++tap) {
    int64_t shift = tap / s.k * line + tap % s.k;
    const auto* from = T::kGroup == 1 || shift % 2 == 0 ? even : odd;
    from += shift / T::kGroup * T::kGroup * s.in;
    float* into = sums + tap * s.in * s.out;
    if (s.out % (2 * kLanes))
      AccumulateAll<T, 1>(from, beside, s, inner / T::kGroup, into);
    else
      AccumulateAll<T, 2>(from, beside, s, inner / T::kGroup, into);
  }
}

template <typename T>
using AddTapsFunction = void (*)(const typename T::Work*, int64_t, const typename T::Work*, int64_t, int64_t,
                                 const Shape&, float*);

// Processes the batch in parts: rows of one large image, or several small images with empty lines between them. Lines
// are padded, so that all pixels of a part form one long axis and a tap is a shift along it.
template <typename T>
class KernelGradient {
 public:
  using Number = typename T::Number;
  using Work = typename T::Work;

  KernelGradient(const Shape& s, AddTapsFunction<T> add_taps)
      : s_(s), line_((s.padded_width() + 1) / 2 * 2), add_taps_(add_taps) {}

  void Add(const Number* image, const Number* gradient, int64_t begin, int64_t end, float* sums) {
    int64_t rows = std::clamp<int64_t>(kChunkPixels / line_, 1, s_.out_height);
    int64_t images = rows < s_.out_height ? 1 : std::max<int64_t>(1, kChunkPixels / (line_ * s_.out_height));
    for (int64_t b = begin; b < end; b += images)
      for (int64_t y = 0; y < s_.out_height; y += rows)
        AddPart(image, gradient, b, std::min(images, end - b), y, std::min(rows, s_.out_height - y), sums);
  }

 private:
  void AddPart(const Number* image, const Number* gradient, int64_t b, int64_t images, int64_t y, int64_t rows,
               float* sums) {
    int64_t lines = images * (rows + s_.k - 1);
    int64_t inner = (lines - s_.k + 1) * line_;  // pixels of the gradient
    int64_t pixels = (lines + 1) * line_;  // of the image; the last taps of the last pixels read beyond its lines
    auto* x = Scratch<Work, 0>((pixels + 1) * s_.in);
    auto* g = Scratch<Work, 1>(inner * s_.out);
    std::fill(x + lines * line_ * s_.in, x + (pixels + 1) * s_.in, Work{0});
    std::fill(g, g + inner * s_.out, Work{0});
    for (int64_t i = 0; i < images; ++i) {
      int64_t line = i * (rows + s_.k - 1);
      PadLines<T>(image + (b + i) * s_.height * s_.width * s_.in, s_, y, rows + s_.k - 1, line_, x + line * line_ * s_.in);
      for (int64_t r = 0; r < rows; ++r)
        CopyToWork<T>(gradient + ((b + i) * s_.out_height + y + r) * s_.out_width * s_.out, s_.out_width * s_.out,
                      g + (line + r) * line_ * s_.out);
    }
    add_taps_(x, pixels, g, inner, line_, s_, sums);
  }

  Shape s_;
  int64_t line_;  // pixels of a padded line, even
  AddTapsFunction<T> add_taps_;
};

// Adds partial sums [parts][size] to `out`, in order.
inline void AddParts(ffi::ThreadPool& pool, const std::vector<float>& sums, int64_t parts, int64_t size, float* out) {
  int64_t pieces = 16;
  ParallelFor(pool, pieces, [&](int64_t piece) {
    for (int64_t p = 0; p < parts; ++p)
      for (int64_t i = piece * size / pieces; i < (piece + 1) * size / pieces; ++i) out[i] += sums[p * size + i];
  });
}

template <typename T>
void ConvolveKernelGradient(ffi::ThreadPool& pool, const typename T::Number* image,
                            const typename T::Number* gradient, const Shape& s, AddTapsFunction<T> add_taps,
                            float* out) {
  int64_t size = s.k * s.k * s.in * s.out, parts = std::min<int64_t>(kPartials, s.batch);
  std::vector<float> sums(size * (parts - 1), 0.0f);
  std::fill(out, out + size, 0.0f);
  ParallelFor(pool, parts, [&](int64_t p) {
    KernelGradient<T>(s, add_taps).Add(image, gradient, p * s.batch / parts, (p + 1) * s.batch / parts,
                             p ? sums.data() + (p - 1) * size : out);
  });
  AddParts(pool, sums, parts - 1, size, out);
}

}  // namespace boneage
