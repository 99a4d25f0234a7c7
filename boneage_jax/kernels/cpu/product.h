// Products of float32 matrices of any size, for 1x1 convolutions ([pixels, Ci] by [Ci, Co]) and their gradients,
// optionally followed by bias and ReLU6.
#pragma once

#include "convolution.h"

namespace boneage {

constexpr int64_t kPanel = 2 * kLanes;         // columns that are processed at a time
constexpr int64_t kRowBytes = 256 * 1024;      // of a task's rows and their results: half of a typical L2 cache
constexpr int64_t kFewestRows = 8 * kWidest;   // of a task, so that every loaded column is used that often
constexpr int64_t kSmallKernel = 65536;        // numbers: up to this size, shares of the pixels have separate sums
constexpr int64_t kSharePixels = 1024;         // of such a share, at least

// Packs a panel of b [depth, columns], or [columns, depth] with `transpose`, as [depth][kPanel], padded with zeros.
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

// Packs all columns of `b` with `PackColumns`: [columns / kPanel][depth][kPanel].
inline std::vector<float> PackMatrix(ffi::ThreadPool& pool, const float* b, int64_t depth, int64_t columns,
                                     bool transpose) {
  int64_t panels = PartsOf(columns, kPanel);
  std::vector<float> packed(panels * depth * kPanel);
  ParallelFor(pool, panels, [&](int64_t panel) {
    PackColumns(b, depth, columns, transpose, panel, packed.data() + panel * depth * kPanel);
  });
  return packed;
}

// `out` [count, columns] = a [count, depth] by a packed matrix.
inline void MultiplyRows(const float* a, const float* packed, int64_t count, int64_t depth, int64_t columns,
                         float* out) {
  for (int64_t first = 0; first < columns; first += kPanel, packed += depth * kPanel) {
    int64_t shown = std::min(kPanel, columns - first);
    if (shown == kPanel) {
      Shape shape{1, 1, count, depth, 1, count, columns, 1, 0, 0};
      TileRow<Float32, 2>(a, shape, packed, out + first);
      continue;
    }
    Shape shape{1, 1, count, depth, 1, count, kPanel, 1, 0, 0};
    auto* padded = Scratch<float, 3>(count * kPanel);
    TileRow<Float32, 2>(a, shape, packed, padded);
    for (int64_t i = 0; i < count; ++i) std::copy_n(padded + i * kPanel, shown, out + i * columns + first);
  }
}

inline void AddBiasAndClamp(int64_t rows, int64_t columns, const float* bias, float* out) {
  for (int64_t row = 0; row < rows; ++row, out += columns)
    for (int64_t c = 0; c < columns; c += kLanes) {
      Vector sum = LoadLanes<Float32>(out + c, columns - c);
      StoreLanes<Float32>(Relu6::Of(sum, LoadLanes<Float32>(bias + c, columns - c)), columns - c, out + c);
    }
}

// `out` [rows, columns] = a [rows, depth] by b [depth, columns], or the transpose of b [columns, depth]; with a bias
// [columns], ReLU6 of the product plus the bias.
inline void MultiplyMatrices(ffi::ThreadPool& pool, const float* a, const float* b, int64_t rows, int64_t depth,
                             int64_t columns, bool transpose, Relu6 relu6, float* out) {
  const std::vector<float> packed = PackMatrix(pool, b, depth, columns, transpose);
  int64_t fitting = std::max<int64_t>(kRowBytes / (4 * (depth + columns)) / kWidest * kWidest, kFewestRows);
  int64_t fair = PartsOf(PartsOf(rows, 4 * pool.num_threads()), kWidest) * kWidest;
  int64_t at_a_time = std::min(fitting, fair);
  ParallelFor(pool, PartsOf(rows, at_a_time), [&](int64_t task) {
    int64_t first = task * at_a_time, count = std::min(at_a_time, rows - first);
    float* to = out + first * columns;
    MultiplyRows(a + first * depth, packed.data(), count, depth, columns, to);
    if (relu6.bias) AddBiasAndClamp(count, columns, relu6.bias, to);
  });
}

// Packs the channels of x [pixels, channels] from `first` on as [parts][pixels][kPart], padded with zeros.
template <int64_t kPart>
void PackChannels(const float* x, int64_t pixels, int64_t channels, int64_t first, int64_t parts, float* packed) {
  for (int64_t p = 0; p < pixels; ++p, x += channels)  // reads memory in order, which helps prefetching
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

// How the product over all pixels is divided: shares of the pixels with separate sums, strips of the input's channels.
// The shares, and therefore the order of the sums, depend only on the shapes.
struct GradientCut {
  int64_t shares;    // of the pixels
  int64_t channels;  // of a strip, so that its sums stay in the L2 cache next to the packed pixels
  int64_t pixels;    // that are packed at a time

  GradientCut(int64_t all, int64_t in, int64_t out_channels, int64_t threads) {
    bool small = in * out_channels <= kSmallKernel;
    shares = small ? std::clamp<int64_t>(all / kSharePixels, 1, kPartials) : 1;
    pixels = small ? 96 : 128;
    int64_t fair = PartsOf(in * shares, 2 * threads), most = small ? 132 : 192;
    channels = std::min(PartsOf(std::min(fair, in), kDeepest), most / kDeepest) * kDeepest;
  }
};

// Optional arguments for the gradients of a product, besides x [pixels, in] and g [pixels, out_channels].
struct ProductGradients {
  const float* result = nullptr;  // [pixels, out_channels]; if given, g is its gradient, zeroed where ReLU6 clipped it
  const float* kernel = nullptr;  // its transpose, packed, if the gradient of x is computed as well
  float* of_x = nullptr;
};

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels], for pixels begin ... end and
// a strip of channels from `first` on; with `of_bias`, the sums of g as well.
inline void MultiplyTransposedPart(const float* x, const float* g, int64_t begin, int64_t end, int64_t in,
                                   int64_t out_channels, int64_t first, const GradientCut& cut,
                                   const ProductGradients& more, float* out, float* of_bias) {
  constexpr int64_t kTile = kDeepest * kPanel;
  int64_t parts = cut.channels / kDeepest, panels = PartsOf(out_channels, kPanel);
  auto* left = Scratch<float, 0>(parts * cut.pixels * kDeepest);
  auto* right = Scratch<float, 1>(panels * cut.pixels * kPanel);
  auto* sums = Scratch<float, 2>(parts * panels * kTile);
  auto* through = Scratch<float, 4>(cut.pixels * out_channels);
  auto* biases = Scratch<float, 5>(panels * kPanel);
  std::fill_n(sums, parts * panels * kTile, 0.0f);
  std::fill_n(biases, panels * kPanel, 0.0f);
  for (int64_t p = begin; p < end; p += cut.pixels) {
    int64_t count = std::min(cut.pixels, end - p);
    const float* gradient = g + p * out_channels;
    if (more.result) {
      CopyThrough<Float32>(gradient, more.result + p * out_channels, count * out_channels, through);
      gradient = through;
    }
    PackChannels<kDeepest>(x + p * in, count, in, first, parts, left);
    PackChannels<kPanel>(gradient, count, out_channels, 0, panels, right);
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t part = 0; part < parts; ++part)
        Accumulate<Float32, kDeepest, 2>(left + part * count * kDeepest, kDeepest, right + panel * count * kPanel,
                                         kPanel, count, sums + (panel * parts + part) * kTile);
    if (more.of_x) MultiplyRows(gradient, more.kernel, count, out_channels, in, more.of_x + p * in);
    for (int64_t c = 0; of_bias && c < panels * kPanel; c += kLanes) {
      Vector sum = LoadFloats(biases + c);
      const float* from = right + c / kPanel * count * kPanel + c % kPanel;
      for (int64_t i = 0; i < count; ++i) sum = Add(sum, LoadFloats(from + i * kPanel));
      StoreFloats(biases + c, sum);
    }
  }
  for (int64_t c = first; c < std::min(first + cut.channels, in); ++c)
    for (int64_t panel = 0; panel < panels; ++panel) {
      int64_t part = (c - first) / kDeepest, row = (c - first) % kDeepest;
      std::copy_n(sums + (panel * parts + part) * kTile + row * kPanel,
                  std::min(kPanel, out_channels - panel * kPanel), out + c * out_channels + panel * kPanel);
    }
  if (of_bias) std::copy_n(biases, out_channels, of_bias);
}

// `out` [in, out_channels] = the transpose of x [pixels, in] by g [pixels, out_channels]; with `of_bias`, the sums of g.
inline void MultiplyTransposed(ffi::ThreadPool& pool, const float* x, const float* g, int64_t pixels, int64_t in,
                               int64_t out_channels, const ProductGradients& more, float* out, float* of_bias) {
  const GradientCut cut(pixels, in, out_channels, pool.num_threads());
  int64_t strips = PartsOf(in, cut.channels), size = in * out_channels;
  std::vector<float> others(size * (cut.shares - 1)), biases(out_channels * (cut.shares - 1));
  ParallelFor(pool, cut.shares * strips, [&](int64_t task) {
    int64_t share = task / strips, strip = task % strips;
    float* bias = share ? biases.data() + (share - 1) * out_channels : of_bias;
    MultiplyTransposedPart(x, g, share * pixels / cut.shares, (share + 1) * pixels / cut.shares, in, out_channels,
                           strip * cut.channels, cut, more, share ? others.data() + (share - 1) * size : out,
                           of_bias && strip == 0 ? bias : nullptr);
  });
  AddParts(pool, others, cut.shares - 1, size, out);
  if (of_bias) AddParts(pool, biases, cut.shares - 1, out_channels, of_bias);
}

// The gradients of ReLU6(x [pixels, in] by kernel [in, out_channels] + bias), from its result and the gradient of that
// result. Takes one pass if the input's channels fit into one strip, as in layers with many pixels.
inline void ProductRelu6Gradients(ffi::ThreadPool& pool, const float* x, const float* kernel, const float* result,
                                  const float* g, int64_t pixels, int64_t in, int64_t out_channels, float* of_x,
                                  float* of_kernel, float* of_bias) {
  const GradientCut cut(pixels, in, out_channels, pool.num_threads());
  if (cut.shares > 1 && in <= cut.channels) {
    const std::vector<float> packed = PackMatrix(pool, kernel, out_channels, in, true);
    MultiplyTransposed(pool, x, g, pixels, in, out_channels, {result, packed.data(), of_x}, of_kernel, of_bias);
    return;
  }
  std::vector<float> through(pixels * out_channels);
  int64_t pieces = 16, size = pixels * out_channels;
  ParallelFor(pool, pieces, [&](int64_t i) {
    int64_t begin = i * size / pieces;
    CopyThrough<Float32>(g + begin, result + begin, (i + 1) * size / pieces - begin, through.data() + begin);
  });
  MultiplyTransposed(pool, x, through.data(), pixels, in, out_channels, {}, of_kernel, of_bias);
  MultiplyMatrices(pool, through.data(), kernel, pixels, out_channels, in, true, {}, of_x);
}

}  // namespace boneage
