// Products of float32 matrices of any size, which is what 1x1 convolutions are: [pixels, Ci] by [Ci, Co], and
// their gradients.
#pragma once

#include "convolution.h"

namespace boneage {

constexpr int64_t kPanel = 2 * kLanes;         // columns that are worked on at a time
constexpr int64_t kRowBytes = 256 * 1024;      // of the rows of a task: half of a usual L2 cache
constexpr int64_t kSmallKernel = 65536;        // numbers: with so few, parts of the pixels have sums of their own
constexpr int64_t kSharePixels = 1024;         // of such a part, at least

inline int64_t PartsOf(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// b [depth, columns], or [columns, depth] with `transpose`, as [columns / kPanel][depth][kPanel], zeros behind it.
inline void PackColumns(const float* b, int64_t depth, int64_t columns, bool transpose, int64_t panel, float* packed) {
  int64_t first = panel * kPanel, shown = std::min(kPanel, columns - first);
  for (int64_t d = 0; d < depth; ++d, packed += kPanel) {
    if (transpose)
      for (int64_t c = 0; c < shown; ++c) packed[c] = b[(first + c) * depth + d];
    else
      std::copy_n(b + d * columns + first, shown, packed);
    std::fill(packed + shown, packed + kPanel, 0.0f);
  }
}

// `out` [rows, columns] = a [rows, depth] by b [depth, columns], or the transpose of b [columns, depth].
inline void MultiplyMatrices(ffi::ThreadPool& pool, const float* a, const float* b, int64_t rows, int64_t depth,
                             int64_t columns, bool transpose, float* out) {
  int64_t panels = PartsOf(columns, kPanel);
  std::vector<float> packed(panels * depth * kPanel);
  ParallelFor(pool, panels, [&](int64_t panel) {
    PackColumns(b, depth, columns, transpose, panel, packed.data() + panel * depth * kPanel);
  });
  int64_t fitting = std::max<int64_t>(kRowBytes / (4 * depth) / kWidest, 1) * kWidest;
  int64_t fair = PartsOf(PartsOf(rows, 4 * pool.num_threads()), kWidest) * kWidest;
  int64_t at_a_time = std::min(fitting, fair);
  ParallelFor(pool, PartsOf(rows, at_a_time), [&](int64_t task) {
    int64_t first = task * at_a_time, count = std::min(at_a_time, rows - first);
    for (int64_t panel = 0; panel < panels; ++panel) {
      int64_t shown = std::min(kPanel, columns - panel * kPanel);
      const float *from = a + first * depth, *with = packed.data() + panel * depth * kPanel;
      float* to = out + first * columns + panel * kPanel;
      if (shown == kPanel) {
        Shape shape{1, 1, count, depth, 1, count, columns, 1, 0, 0};
        TileRow<Float32, 2>(from, shape, with, to);
        continue;
      }
      Shape shape{1, 1, count, depth, 1, count, kPanel, 1, 0, 0};
      auto* padded = Scratch<float, 0>(count * kPanel);
      TileRow<Float32, 2>(from, shape, with, padded);
      for (int64_t i = 0; i < count; ++i) std::copy_n(padded + i * kPanel, shown, to + i * columns);
    }
  });
}

// Channels first ... of so many pixels [pixels, channels] as [parts][pixels][kPart], zeros behind them.
template <int64_t kPart>
void PackChannels(const float* x, int64_t pixels, int64_t channels, int64_t first, int64_t parts, float* packed) {
  for (int64_t p = 0; p < pixels; ++p, x += channels)  // reads along memory, for the sake of prefetching
    for (int64_t part = 0; part < parts; ++part) {
      int64_t from = first + part * kPart, shown = std::clamp<int64_t>(channels - from, 0, kPart);
      float* to = packed + (part * pixels + p) * kPart;
      if (shown == kPart) {
        std::memcpy(to, x + from, kPart * sizeof(float));
        continue;
      }
      std::copy_n(x + from, shown, to);
      std::fill(to + shown, to + kPart, 0.0f);
    }
}

// How the product over all pixels is cut: shares of the pixels with sums of their own, strips of the input's channels.
// The shares depend on the shapes alone, and so does the order of the sums.
struct GradientCut {
  int64_t shares;    // of the pixels
  int64_t channels;  // of a strip, so that its sums stay in the L2 cache beside what is rearranged
  int64_t pixels;    // that are rearranged at a time

  GradientCut(int64_t all, int64_t in, int64_t out_channels, int64_t threads) {
    bool small = in * out_channels <= kSmallKernel;
    shares = small ? std::clamp<int64_t>(all / kSharePixels, 1, kPartials) : 1;
    pixels = small ? 96 : 128;
    int64_t fair = PartsOf(in * shares, 2 * threads), most = small ? 132 : 192;
    channels = std::min(PartsOf(std::min(fair, in), kDeepest), most / kDeepest) * kDeepest;
  }
};

// [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels], of pixels begin ... end and a strip
// of channels from `first` on.
inline void MultiplyTransposedPart(const float* x, const float* g, int64_t begin, int64_t end, int64_t in,
                                   int64_t out_channels, int64_t first, const GradientCut& cut, float* out) {
  constexpr int64_t kTile = kDeepest * kPanel;
  int64_t parts = cut.channels / kDeepest, panels = PartsOf(out_channels, kPanel);
  auto* left = Scratch<float, 0>(parts * cut.pixels * kDeepest);
  auto* right = Scratch<float, 1>(panels * cut.pixels * kPanel);
  auto* sums = Scratch<float, 2>(parts * panels * kTile);
  std::fill_n(sums, parts * panels * kTile, 0.0f);
  for (int64_t p = begin; p < end; p += cut.pixels) {
    int64_t count = std::min(cut.pixels, end - p);
    PackChannels<kDeepest>(x + p * in, count, in, first, parts, left);
    PackChannels<kPanel>(g + p * out_channels, count, out_channels, 0, panels, right);
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t part = 0; part < parts; ++part)
        Accumulate<Float32, kDeepest, 2>(left + part * count * kDeepest, kDeepest, right + panel * count * kPanel,
                                         kPanel, count, sums + (panel * parts + part) * kTile);
  }
  for (int64_t c = first; c < std::min(first + cut.channels, in); ++c)
    for (int64_t panel = 0; panel < panels; ++panel) {
      int64_t part = (c - first) / kDeepest, row = (c - first) % kDeepest;
      std::copy_n(sums + (panel * parts + part) * kTile + row * kPanel,
                  std::min(kPanel, out_channels - panel * kPanel), out + c * out_channels + panel * kPanel);
    }
}

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels].
inline void MultiplyTransposed(ffi::ThreadPool& pool, const float* x, const float* g, int64_t pixels, int64_t in,
                               int64_t out_channels, float* out) {
  const GradientCut cut(pixels, in, out_channels, pool.num_threads());
  int64_t strips = PartsOf(in, cut.channels), size = in * out_channels;
  std::vector<float> others(size * (cut.shares - 1));
  ParallelFor(pool, cut.shares * strips, [&](int64_t task) {
    int64_t share = task / strips;
    MultiplyTransposedPart(x, g, share * pixels / cut.shares, (share + 1) * pixels / cut.shares, in, out_channels,
                           task % strips * cut.channels, cut, share ? others.data() + (share - 1) * size : out);
  });
  AddParts(pool, others, cut.shares - 1, size, out);
}

}  // namespace boneage
