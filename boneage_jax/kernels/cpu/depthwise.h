// Depthwise convolution: images [B, H, W, C], kernels [k, k, C]; any channels, a register of them at a time.
#pragma once

#include "common.h"

namespace boneage {

struct DepthwiseShape {
  int64_t batch, height, width, channels, out_height, out_width, k, stride, top, left;
};

constexpr int kRun = BONEAGE_AVX512 ? 8 : 4;       // neighbouring output pixels that share what they read
constexpr int kMostSeen = BONEAGE_AVX512 ? 20 : 11;  // input pixels that fit into registers beside their sums
constexpr int64_t kBandBytes = 512 * 1024;  // of an image that is worked on at a time: half of a usual L2 cache

// How an image is cut: bands of output lines, groups of channels.
struct Bands {
  int64_t rows, group;  // output lines and channels of a part; the channels are whole registers
  int64_t line;         // pixels of a padded line
  int64_t row_parts, channel_parts;

  Bands(const DepthwiseShape& s, int64_t bytes) {
    int64_t runs = (s.out_width + kRun - 1) / kRun;
    line = (runs * kRun - 1) * s.stride + s.k;
    int64_t whole = (s.channels + kLanes - 1) / kLanes * kLanes;
    int64_t wanted = (std::min<int64_t>(s.out_height, 16) - 1) * s.stride + s.k;  // lines that make the rim worth while
    group = std::clamp<int64_t>(kBandBytes / (wanted * line * bytes) / kLanes * kLanes, 2 * kLanes, whole);
    group = std::min(group, whole);
    int64_t lines = std::max<int64_t>(kBandBytes / (line * group * bytes), s.k);
    rows = std::clamp<int64_t>((lines - s.k) / s.stride + 1, 1, s.out_height);
    row_parts = (s.out_height + rows - 1) / rows;
    channel_parts = (s.channels + group - 1) / group;
  }
};

// Lines of an image with zeros around them: [lines][line][group], from output line `row` and channel `channel` on.
template <typename T>
void PadBand(const typename T::Number* image, const DepthwiseShape& s, const Bands& bands, int64_t row, int64_t channel,
             int64_t lines, typename T::Number* band) {
  int64_t shown = std::min(bands.group, s.channels - channel);
  int64_t first = row * s.stride - s.top, end = std::min(bands.line, s.left + s.width);
  for (int64_t y = first; y < first + lines; ++y, band += bands.line * bands.group) {
    if (y < 0 || y >= s.height) {
      std::fill_n(band, bands.line * bands.group, 0);
      continue;
    }
    std::fill_n(band, s.left * bands.group, 0);
    std::fill(band + end * bands.group, band + bands.line * bands.group, 0);
    const auto* from = image + y * s.width * s.channels + channel;
    for (int64_t x = s.left; x < end; ++x, from += s.channels) {
      std::copy_n(from, shown, band + x * bands.group);
      if (shown < bands.group) std::fill_n(band + x * bands.group + shown, bands.group - shown, 0);
    }
  }
}

// kRun output pixels; `x` is where the first one's window begins, `line` numbers from line to line.
template <typename T, int kSize, int kStride>
inline void WindowSums(const typename T::Number* x, int64_t line, int64_t group, const float* kernel,
                       Vector (&sum)[kRun]) {
  constexpr int kSeen = (kRun - 1) * kStride + kSize;
#pragma GCC unroll 8
  for (int p = 0; p < kRun; ++p) sum[p] = Zero();
  for (int ky = 0; ky < kSize; ++ky, x += line) {
    if constexpr (kSeen <= kMostSeen) {
      Vector seen[kSeen];
#pragma GCC unroll 20
      for (int i = 0; i < kSeen; ++i) seen[i] = T::Load(x + i * group);
#pragma GCC unroll 9
      for (int kx = 0; kx < kSize; ++kx) {
        Vector w = LoadFloats(kernel + (ky * kSize + kx) * group);
#pragma GCC unroll 8
        for (int p = 0; p < kRun; ++p) sum[p] = MultiplyAdd(seen[p * kStride + kx], w, sum[p]);
      }
    } else {
      for (int kx = 0; kx < kSize; ++kx) {
        Vector w = LoadFloats(kernel + (ky * kSize + kx) * group);
#pragma GCC unroll 8
        for (int p = 0; p < kRun; ++p)
          sum[p] = MultiplyAdd(T::Load(x + (p * kStride + kx) * group), w, sum[p]);
      }
    }
  }
}

template <typename T, int kSize, int kStride>
void DepthwiseOf(ffi::ThreadPool& pool, const typename T::Number* image, const typename T::Number* kernel,
                 const DepthwiseShape& s, typename T::Number* out) {
  using Number = typename T::Number;
  const Bands bands(s, sizeof(Number));
  int64_t parts = bands.row_parts * bands.channel_parts;
  ParallelFor(pool, s.batch * parts, [&](int64_t task) {
    int64_t b = task / parts, row = task % parts / bands.channel_parts * bands.rows;
    int64_t channel = task % bands.channel_parts * bands.group, rows = std::min(bands.rows, s.out_height - row);
    int64_t lines = (rows - 1) * kStride + kSize, shown = std::min(bands.group, s.channels - channel);
    auto* band = Scratch<Number, 5>(lines * bands.line * bands.group);
    PadBand<T>(image + b * s.height * s.width * s.channels, s, bands, row, channel, lines, band);
    auto* taps = Scratch<float, 6>(kSize * kSize * bands.group);
    std::fill_n(taps, kSize * kSize * bands.group, 0.0f);
    for (int tap = 0; tap < kSize * kSize; ++tap)
      for (int64_t c = 0; c < shown; ++c)
        taps[tap * bands.group + c] = T::ToFloat(kernel[tap * s.channels + channel + c]);
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < s.out_width; x += kRun) {
        const auto* from = band + (y * bands.line + x) * kStride * bands.group;
        auto* to = out + ((b * s.out_height + row + y) * s.out_width + x) * s.channels + channel;
        int64_t pixels = std::min<int64_t>(kRun, s.out_width - x);
        for (int64_t c = 0; c < shown; c += kLanes) {
          Vector sum[kRun];
          WindowSums<T, kSize, kStride>(from + c, bands.line * bands.group, bands.group, taps + c, sum);
#pragma GCC unroll 8
          for (int p = 0; p < kRun; ++p)
            if (p < pixels) StoreLanes<T>(sum[p], shown - c, to + p * s.channels + c);
        }
      }
  });
}

template <typename T, int kSize, int kStride>
void DepthwiseKernelGradientOf(ffi::ThreadPool& pool, const typename T::Number* image,
                               const typename T::Number* gradient, const DepthwiseShape& s, float* out) {
  using Number = typename T::Number;
  constexpr int kTaps = kSize * kSize;
  const Bands bands(s, 2 * sizeof(Number));  // of the image and of the gradient
  int64_t parts = std::min<int64_t>(kPartials, s.batch), size = kTaps * bands.group;
  std::vector<float> sums(parts * bands.channel_parts * size, 0.0f);
  ParallelFor(pool, parts * bands.channel_parts, [&](int64_t task) {
    int64_t part = task / bands.channel_parts, channel = task % bands.channel_parts * bands.group;
    int64_t shown = std::min(bands.group, s.channels - channel), lines = (bands.rows - 1) * kStride + kSize;
    auto* band = Scratch<Number, 5>(lines * bands.line * bands.group);
    auto* g = Scratch<Number, 6>(bands.rows * s.out_width * bands.group);
    std::fill_n(g, bands.rows * s.out_width * bands.group, 0);
    float* total = sums.data() + task * size;
    for (int64_t b = part * s.batch / parts; b < (part + 1) * s.batch / parts; ++b)
      for (int64_t row = 0; row < s.out_height; row += bands.rows) {
        int64_t rows = std::min(bands.rows, s.out_height - row);
        PadBand<T>(image + b * s.height * s.width * s.channels, s, bands, row, channel, (rows - 1) * kStride + kSize,
                   band);
        const auto* from = gradient + (b * s.out_height + row) * s.out_width * s.channels + channel;
        for (int64_t i = 0; i < rows * s.out_width; ++i) std::copy_n(from + i * s.channels, shown, g + i * bands.group);
        for (int64_t c = 0; c < shown; c += kLanes)
          for (int ky = 0; ky < kSize; ++ky) {
            Vector sum[kSize];
#pragma GCC unroll 9
            for (int kx = 0; kx < kSize; ++kx) sum[kx] = LoadFloats(total + (ky * kSize + kx) * bands.group + c);
            for (int64_t y = 0; y < rows; ++y) {
              const auto* x = band + (y * kStride + ky) * bands.line * bands.group + c;
              const auto* v = g + y * s.out_width * bands.group + c;
              for (int64_t i = 0; i < s.out_width; ++i) {
                Vector value = T::Load(v + i * bands.group);
#pragma GCC unroll 9
                for (int kx = 0; kx < kSize; ++kx)
                  sum[kx] = MultiplyAdd(T::Load(x + (i * kStride + kx) * bands.group), value, sum[kx]);
              }
            }
#pragma GCC unroll 9
            for (int kx = 0; kx < kSize; ++kx) StoreFloats(total + (ky * kSize + kx) * bands.group + c, sum[kx]);
          }
      }
  });
  std::fill_n(out, kTaps * s.channels, 0.0f);
  for (int64_t task = 0; task < parts * bands.channel_parts; ++task) {
    int64_t channel = task % bands.channel_parts * bands.group, shown = std::min(bands.group, s.channels - channel);
    for (int tap = 0; tap < kTaps; ++tap)
      for (int64_t c = 0; c < shown; ++c)
        out[tap * s.channels + channel + c] += sums[task * size + tap * bands.group + c];
  }
}

// Calls f with the size and the stride as compile-time constants.
template <typename F>
void WithSizeAndStride(const DepthwiseShape& s, F&& f) {
  auto with_stride = [&](auto size) {
    if (s.stride == 1)
      f(size, std::integral_constant<int, 1>());
    else
      f(size, std::integral_constant<int, 2>());
  };
  switch (s.k) {
    case 3: return with_stride(std::integral_constant<int, 3>());
    case 5: return with_stride(std::integral_constant<int, 5>());
    case 7: return with_stride(std::integral_constant<int, 7>());
    default: return with_stride(std::integral_constant<int, 9>());
  }
}

// `out` [B, H', W', C].
template <typename T>
void DepthwiseConvolve(ffi::ThreadPool& pool, const typename T::Number* image, const typename T::Number* kernel,
                       const DepthwiseShape& s, typename T::Number* out) {
  WithSizeAndStride(s, [&](auto size, auto stride) { DepthwiseOf<T, size(), stride()>(pool, image, kernel, s, out); });
}

// `out` [k, k, C].
template <typename T>
void DepthwiseKernelGradient(ffi::ThreadPool& pool, const typename T::Number* image,
                             const typename T::Number* gradient, const DepthwiseShape& s, float* out) {
  WithSizeAndStride(s, [&](auto size, auto stride) {
    DepthwiseKernelGradientOf<T, size(), stride()>(pool, image, gradient, s, out);
  });
}

}  // namespace boneage
