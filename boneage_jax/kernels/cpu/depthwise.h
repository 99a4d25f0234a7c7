// Depthwise convolution: images [B, H, W, C], kernels [k, k, C]; any number of channels, one register of them at a
// time. Optionally followed by bias and ReLU6.
#pragma once

#include "common.h"

namespace boneage {

struct DepthwiseShape {
  int64_t batch, height, width, channels, out_height, out_width, k, stride, top, left;
};

constexpr int kRun = BONEAGE_AVX512 ? 8 : 4;       // neighbouring output pixels that share the pixels they read
constexpr int kMostSeen = BONEAGE_AVX512 ? 20 : 11;  // input pixels that fit into registers next to the sums
constexpr int64_t kBandBytes = 512 * 1024;  // of a band, processed at a time: half of a typical L2 cache
constexpr int64_t kWantedRows = 8;  // output lines that justify a band's rim; reached by taking fewer channels
constexpr int64_t kSummedRun = 16;  // pixels that the kernel gradient sums at a time, in the L1 cache

// How an image is divided: bands of output lines, groups of channels.
struct Bands {
  int64_t rows, group;  // output lines and channels of a part; the channels fill whole registers
  int64_t line;         // pixels of a padded line
  int64_t row_parts, channel_parts;

  Bands(const DepthwiseShape& s, int64_t bytes) {
    int64_t runs = (s.out_width + kRun - 1) / kRun;
    line = (runs * kRun - 1) * s.stride + s.k;
    int64_t whole = (s.channels + kLanes - 1) / kLanes * kLanes;
    int64_t wanted = (std::min(s.out_height, kWantedRows) - 1) * s.stride + s.k;
    group = std::max<int64_t>(kBandBytes / (wanted * line * bytes) / kLanes * kLanes, 2 * kLanes);
    group = std::min(group, whole);
    int64_t lines = std::max<int64_t>(kBandBytes / (line * group * bytes), s.k);
    rows = std::clamp<int64_t>((lines - s.k) / s.stride + 1, 1, s.out_height);
    row_parts = (s.out_height + rows - 1) / rows;
    channel_parts = (s.channels + group - 1) / group;
  }
};

// The input of a convolution: an image, or a gradient.
template <typename T>
struct Source {
  const typename T::Number* image;              // [B, H, W, C]
  const typename T::Number* result = nullptr;   // if given, `image` is its gradient, zeroed where ReLU6 clipped it
  int64_t spread = 1;                           // dilation: there are spread - 1 zeros between the pixels of a gradient
};

// Copies zero-padded lines of image `b`: [lines][line][group], from output line `row` and channel `channel` on. The
// height and width in `s` include the zeros between the pixels.
template <typename T>
void PadBand(const Source<T>& source, const DepthwiseShape& s, const Bands& bands, int64_t b, int64_t row,
             int64_t channel, int64_t lines, typename T::Number* band) {
  int64_t shown = std::min(bands.group, s.channels - channel), size = bands.line * bands.group;
  int64_t height = (s.height - 1) / source.spread + 1, width = (s.width - 1) / source.spread + 1;
  int64_t first = row * s.stride - s.top, pixels = std::min(bands.line - s.left, s.width);
  bool whole = source.spread == 1 && bands.group == s.channels;
  for (int64_t y = first; y < first + lines; ++y, band += size) {
    if (y < 0 || y >= s.height || y % source.spread) {
      std::fill_n(band, size, 0);
      continue;
    }
    int64_t at = (b * height + y / source.spread) * width * s.channels + channel;
    auto* to = band + s.left * bands.group;
    std::fill(band, to, 0);
    std::fill(to + pixels * bands.group, band + size, 0);
    if (whole) {
      CopyThrough<T>(source.image + at, source.result ? source.result + at : nullptr, pixels * s.channels, to);
      continue;
    }
    for (int64_t x = 0; x < pixels; ++x, to += bands.group) {
      if (x % source.spread) {
        std::fill_n(to, bands.group, 0);
        continue;
      }
      CopyThrough<T>(source.image + at, source.result ? source.result + at : nullptr, shown, to);
      std::fill_n(to + shown, bands.group - shown, 0);
      at += s.channels;
    }
  }
}

// Computes kRun output pixels. The first pixel's window begins at `x`; lines are `line` numbers apart.
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

// With `turned`, the kernel is flipped, as for the gradient of an image.
template <typename T, int kSize, int kStride>
void DepthwiseOf(ffi::ThreadPool& pool, const Source<T>& source, const typename T::Number* kernel, bool turned,
                 const DepthwiseShape& s, Relu6 relu6, typename T::Number* out) {
  using Number = typename T::Number;
  const Bands bands(s, sizeof(Number));
  int64_t parts = bands.row_parts * bands.channel_parts;
  ParallelFor(pool, s.batch * parts, [&](int64_t task) {
    int64_t b = task / parts, row = task % parts / bands.channel_parts * bands.rows;
    int64_t channel = task % bands.channel_parts * bands.group, rows = std::min(bands.rows, s.out_height - row);
    int64_t lines = (rows - 1) * kStride + kSize, shown = std::min(bands.group, s.channels - channel);
    auto* band = Scratch<Number, 5>(lines * bands.line * bands.group);
    PadBand<T>(source, s, bands, b, row, channel, lines, band);
    constexpr int kTaps = kSize * kSize;
    auto* taps = Scratch<float, 6>((kTaps + 1) * bands.group);
    float* bias = taps + kTaps * bands.group;
    std::fill_n(taps, (kTaps + 1) * bands.group, 0.0f);
    for (int tap = 0; tap < kTaps; ++tap)
      for (int64_t c = 0; c < shown; ++c)
        taps[tap * bands.group + c] = T::ToFloat(kernel[(turned ? kTaps - 1 - tap : tap) * s.channels + channel + c]);
    if (relu6.bias) std::copy_n(relu6.bias + channel, shown, bias);
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < s.out_width; x += kRun) {
        const auto* from = band + (y * bands.line + x) * kStride * bands.group;
        auto* to = out + ((b * s.out_height + row + y) * s.out_width + x) * s.channels + channel;
        int64_t pixels = std::min<int64_t>(kRun, s.out_width - x);
        for (int64_t c = 0; c < shown; c += kLanes) {
          Vector sum[kRun];
          WindowSums<T, kSize, kStride>(from + c, bands.line * bands.group, bands.group, taps + c, sum);
          if (relu6.bias) {
            Vector added = LoadFloats(bias + c);
#pragma GCC unroll 8
            for (int p = 0; p < kRun; ++p) sum[p] = Relu6::Of(sum[p], added);
          }
#pragma GCC unroll 8
          for (int p = 0; p < kRun; ++p)
            if (p < pixels) StoreLanes<T>(sum[p], shown - c, to + p * s.channels + c);
        }
      }
  });
}

// Adds the products of a run of gradient pixels g [count][group] and their windows in x to `total` [k, k, group].
template <typename T, int kSize, int kStride>
void AddProducts(const typename T::Number* x, int64_t line, const typename T::Number* g, int64_t count, int64_t group,
                 float* total) {
  constexpr int kLines = kSize * kSize <= (BONEAGE_AVX512 ? 25 : 9) ? kSize : 1;  // kernel lines: sums fit in registers
  for (int64_t c = 0; c < group; c += kLanes)
    for (int ky = 0; ky < kSize; ky += kLines) {
      float* sums = total + ky * kSize * group + c;
      const auto* from = x + ky * line + c;
      Vector sum[kLines * kSize];
#pragma GCC unroll 25
      for (int t = 0; t < kLines * kSize; ++t) sum[t] = LoadFloats(sums + t * group);
      for (int64_t i = 0; i < count; ++i) {
        Vector value = T::Load(g + i * group + c);
#pragma GCC unroll 25
        for (int t = 0; t < kLines * kSize; ++t)
          sum[t] = MultiplyAdd(T::Load(from + t / kSize * line + (i * kStride + t % kSize) * group), value, sum[t]);
      }
#pragma GCC unroll 25
      for (int t = 0; t < kLines * kSize; ++t) StoreFloats(sums + t * group, sum[t]);
    }
}

template <typename T, int kSize, int kStride>
void DepthwiseKernelGradientOf(ffi::ThreadPool& pool, const Source<T>& source, const Source<T>& gradient,
                               const DepthwiseShape& s, float* out, float* of_bias) {
  using Number = typename T::Number;
  constexpr int kTaps = kSize * kSize;
  const Bands bands(s, sizeof(Number));
  int64_t parts = std::min<int64_t>(kPartials, s.batch), size = (kTaps + 1) * bands.group;  // including the bias
  std::vector<float> sums(parts * bands.channel_parts * size, 0.0f);
  ParallelFor(pool, parts * bands.channel_parts, [&](int64_t task) {
    int64_t part = task / bands.channel_parts, channel = task % bands.channel_parts * bands.group;
    int64_t shown = std::min(bands.group, s.channels - channel), lines = (bands.rows - 1) * kStride + kSize;
    int64_t line = bands.line * bands.group;
    auto* band = Scratch<Number, 5>(lines * line);
    auto* g = Scratch<Number, 6>(kSummedRun * bands.group);
    std::fill_n(g, kSummedRun * bands.group, 0);
    float *total = sums.data() + task * size, *bias = total + kTaps * bands.group;
    for (int64_t b = part * s.batch / parts; b < (part + 1) * s.batch / parts; ++b)
      for (int64_t row = 0; row < s.out_height; row += bands.rows) {
        int64_t rows = std::min(bands.rows, s.out_height - row);
        PadBand<T>(source, s, bands, b, row, channel, (rows - 1) * kStride + kSize, band);
        for (int64_t y = 0; y < rows; ++y)
          for (int64_t x = 0; x < s.out_width; x += kSummedRun) {
            int64_t count = std::min(kSummedRun, s.out_width - x);
            int64_t at = ((b * s.out_height + row + y) * s.out_width + x) * s.channels + channel;
            for (int64_t i = 0; i < count; ++i, at += s.channels)
              CopyThrough<T>(gradient.image + at, gradient.result ? gradient.result + at : nullptr, shown,
                             g + i * bands.group);
            AddProducts<T, kSize, kStride>(band + y * kStride * line + x * kStride * bands.group, line, g, count,
                                           bands.group, total);
            for (int64_t c = 0; of_bias && c < bands.group; c += kLanes) {
              Vector sum = LoadFloats(bias + c);
              for (int64_t i = 0; i < count; ++i) sum = Add(sum, T::Load(g + i * bands.group + c));
              StoreFloats(bias + c, sum);
            }
          }
      }
  });
  auto add = [&](int64_t tap, float* to) {
    std::fill_n(to, s.channels, 0.0f);
    for (int64_t task = 0; task < parts * bands.channel_parts; ++task) {
      int64_t channel = task % bands.channel_parts * bands.group;
      for (int64_t c = 0; c < std::min(bands.group, s.channels - channel); ++c)
        to[channel + c] += sums[task * size + tap * bands.group + c];
    }
  };
  for (int tap = 0; tap < kTaps; ++tap) add(tap, out + tap * s.channels);
  if (of_bias) add(kTaps, of_bias);
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
                       const DepthwiseShape& s, Relu6 relu6, typename T::Number* out) {
  WithSizeAndStride(s, [&](auto size, auto stride) {
    DepthwiseOf<T, size(), stride()>(pool, Source<T>{image}, kernel, false, s, relu6, out);
  });
}

// Computes `out` [k, k, C] and, with `of_bias`, the sums of the gradient [C]; `result` as in `Source`.
template <typename T>
void DepthwiseKernelGradient(ffi::ThreadPool& pool, const typename T::Number* image,
                             const typename T::Number* gradient, const typename T::Number* result,
                             const DepthwiseShape& s, float* out, float* of_bias) {
  WithSizeAndStride(s, [&](auto size, auto stride) {
    DepthwiseKernelGradientOf<T, size(), stride()>(pool, Source<T>{image}, Source<T>{gradient, result}, s, out, of_bias);
  });
}

// Computes the gradient `out` [B, H, W, C] of the image of convolution `s` from that of its output [B, H', W', C].
template <typename T>
void DepthwiseImageGradient(ffi::ThreadPool& pool, const typename T::Number* kernel, const typename T::Number* gradient,
                            const typename T::Number* result, const DepthwiseShape& s, typename T::Number* out) {
  DepthwiseShape back{s.batch, (s.out_height - 1) * s.stride + 1, (s.out_width - 1) * s.stride + 1, s.channels,
                      s.height, s.width, s.k, 1, s.k - 1 - s.top, s.k - 1 - s.left};
  WithSizeAndStride(back, [&](auto size, auto stride) {
    DepthwiseOf<T, size(), stride()>(pool, Source<T>{gradient, result, s.stride}, kernel, true, back, {}, out);
  });
}

}  // namespace boneage
