// 3x3 convolution with stride 1 by Winograd's F(2x2, 3x3) (Lavin and Gray, CVPR 2016): a square of 2x2 output pixels
// takes 16 products per pair of channels instead of 36. With image patches d of 4x4 pixels, kernels g and the
// constant matrices A, B, G:
//
//   output square        y  = A^T [(G g G^T) * (B^T d B)] A
//   gradient of g        g' = G^T [sum over squares of (B^T d B) * (A y' A^T)] G
//
// The products * are summed over channels (or squares): 16 matrix products, in float32.
#pragma once

#include "convolution.h"

namespace boneage {

constexpr int64_t kSquareBytes = 192 * 1024;  // of the data processed at a time: most of a typical L2 cache
constexpr int64_t kChannels = 64;             // output channels at a time; in the kernel gradient, input channels too

inline bool FitsWinograd(const Shape& s) {
  return s.k == 3 && s.in % 16 == 0 && s.out % 16 == 0 && s.out_height > 2 && s.out_width > 2;
}

// The 2x2 squares of a batch of outputs: line by line, image by image.
struct Squares {
  int64_t down, right, count;

  Squares(const Shape& s, int64_t batch)
      : down((s.out_height + 1) / 2), right((s.out_width + 1) / 2), count(batch * down * right) {}
};

// The number of squares of `channels` channels (input and output together) that fit into the cache, at least 12.
inline int64_t SquaresAtATime(int64_t channels) {
  return std::clamp<int64_t>(kSquareBytes / (16 * 4 * channels) / kWidest, 12 / kWidest + 1, 16) * kWidest;
}

inline void Transform(Vector a, Vector b, Vector c, Vector d, Vector (&to)[4]) {  // B^T
  to[0] = Subtract(a, c);
  to[1] = Add(b, c);
  to[2] = Subtract(c, b);
  to[3] = Subtract(b, d);
}

// B^T d B as [16][count][channels], for `count` squares from `first` on and channels from `channel` on.
template <typename T>
void TransformImage(const typename T::Number* image, const Shape& s, const Squares& squares, int64_t first,
                    int64_t count, int64_t channel, int64_t channels, float* out) {
  auto* zeros = Scratch<typename T::Number, 7>(channels);
  std::fill_n(zeros, channels, 0);
  for (int64_t i = 0; i < count; ++i) {
    int64_t square = first + i, b = square / (squares.down * squares.right);
    int64_t y = square / squares.right % squares.down * 2 - s.top, x = square % squares.right * 2 - s.left;
    const typename T::Number* at[16];
    for (int64_t j = 0; j < 16; ++j) {
      int64_t row = y + j / 4, column = x + j % 4;
      bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
      at[j] = inside ? image + ((b * s.height + row) * s.width + column) * s.in + channel : zeros;
    }
    for (int64_t c = 0; c < channels; c += kLanes) {
      Vector half[4][4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        Transform(T::Load(at[j] + c), T::Load(at[4 + j] + c), T::Load(at[8 + j] + c), T::Load(at[12 + j] + c), half[j]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        Vector whole[4];
        Transform(half[0][j], half[1][j], half[2][j], half[3][j], whole);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) StoreFloats(out + ((j * 4 + k) * count + i) * channels + c, whole[k]);
      }
    }
  }
}

// The same for the gradient of the output: A y' A^T as [16][count][channels].
template <typename T>
void TransformGradient(const typename T::Number* gradient, const Shape& s, const Squares& squares, int64_t first,
                       int64_t count, int64_t channel, int64_t channels, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t square = first + i, b = square / (squares.down * squares.right);
    int64_t y = square / squares.right % squares.down * 2, x = square % squares.right * 2;
    const auto* from = gradient + ((b * s.out_height + y) * s.out_width + x) * s.out + channel;
    bool below = y + 1 < s.out_height, beside = x + 1 < s.out_width;
    for (int64_t c = 0; c < channels; c += kLanes) {
      Vector v[4] = {T::Load(from + c), beside ? T::Load(from + s.out + c) : Zero(),
                     below ? T::Load(from + s.out_width * s.out + c) : Zero(),
                     below && beside ? T::Load(from + (s.out_width + 1) * s.out + c) : Zero()};
      Vector half[4][2] = {{v[0], v[1]},
                           {Add(v[0], v[2]), Add(v[1], v[3])},
                           {Subtract(v[0], v[2]), Subtract(v[1], v[3])},
                           {Subtract(Zero(), v[2]), Subtract(Zero(), v[3])}};
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        float* to = out + (j * 4 * count + i) * channels + c;
        StoreFloats(to, half[j][0]);
        StoreFloats(to + count * channels, Add(half[j][0], half[j][1]));
        StoreFloats(to + 2 * count * channels, Subtract(half[j][0], half[j][1]));
        StoreFloats(to + 3 * count * channels, Subtract(Zero(), half[j][1]));
      }
    }
  }
}

// A^T m A of products [16][count][channels], written to the output's channels from `channel` on.
template <typename T>
void TransformOutput(const float* products, const Shape& s, const Squares& squares, int64_t first, int64_t count,
                     int64_t channel, int64_t channels, typename T::Number* out) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t square = first + i, b = square / (squares.down * squares.right);
    int64_t y = square / squares.right % squares.down * 2, x = square % squares.right * 2;
    auto* to = out + ((b * s.out_height + y) * s.out_width + x) * s.out + channel;
    bool below = y + 1 < s.out_height, beside = x + 1 < s.out_width;
    for (int64_t c = 0; c < channels; c += kLanes) {
      Vector half[2][4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const float* from = products + (j * count + i) * channels + c;
        Vector m[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) m[k] = LoadFloats(from + k * 4 * count * channels);
        half[0][j] = Add(Add(m[0], m[1]), m[2]);
        half[1][j] = Subtract(Subtract(m[1], m[2]), m[3]);
      }
      for (int j = 0; j < (below ? 2 : 1); ++j) {
        auto* line = to + j * s.out_width * s.out + c;
        T::Store(line, Add(Add(half[j][0], half[j][1]), half[j][2]));
        if (beside) T::Store(line + s.out, Subtract(Subtract(half[j][1], half[j][2]), half[j][3]));
      }
    }
  }
}

// G g G^T of a kernel packed as [9][Ci][tile], written as 16 blocks [Ci][tile] that lie `panel` numbers apart.
inline void TransformKernel(const float* packed, int64_t in, int64_t tile, int64_t panel, float* out) {
  const Vector half = Fill(0.5f);
  auto transform = [half](Vector a, Vector b, Vector c, Vector (&to)[4]) {
    Vector outer = Multiply(half, Add(a, c)), inner = Multiply(half, b);
    to[0] = a;
    to[1] = Add(outer, inner);
    to[2] = Subtract(outer, inner);
    to[3] = c;
  };
  for (int64_t i = 0; i < in * tile; i += kLanes) {
    Vector down[3][4];
    for (int j = 0; j < 3; ++j)
      transform(LoadFloats(packed + j * in * tile + i), LoadFloats(packed + (3 + j) * in * tile + i),
                LoadFloats(packed + (6 + j) * in * tile + i), down[j]);
    for (int j = 0; j < 4; ++j) {
      Vector whole[4];
      transform(down[0][j], down[1][j], down[2][j], whole);
      for (int k = 0; k < 4; ++k) StoreFloats(out + (j * 4 + k) * panel + i, whole[k]);
    }
  }
}

// Adds G^T m G of kLanes products from [16][size], from `i` on, to the 9 taps of `out`, `tap` numbers apart.
inline void AddKernelGradient(const float* products, int64_t size, int64_t i, int64_t tap, float* out) {
  const Vector half = Fill(0.5f);
  auto transform = [half](const Vector (&m)[4], Vector (&to)[3]) {
    Vector sum = Multiply(half, Add(m[1], m[2]));
    to[0] = Add(m[0], sum);
    to[1] = Multiply(half, Subtract(m[1], m[2]));
    to[2] = Add(sum, m[3]);
  };
  Vector across[3][4];
  for (int j = 0; j < 4; ++j) {
    Vector m[4], down[3];
    for (int k = 0; k < 4; ++k) m[k] = LoadFloats(products + (k * 4 + j) * size + i);
    transform(m, down);
    for (int k = 0; k < 3; ++k) across[k][j] = down[k];
  }
  for (int k = 0; k < 3; ++k) {
    Vector taps[3];
    transform(across[k], taps);
    for (int j = 0; j < 3; ++j) {
      float* to = out + (k * 3 + j) * tap;
      StoreFloats(to, Add(LoadFloats(to), taps[j]));
    }
  }
}

// Computes the same as `Convolve`.
template <typename T>
void WinogradConvolve(ffi::ThreadPool& pool, const typename T::Number* image, const typename T::Number* kernel,
                      const Shape& s, bool transpose, typename T::Number* out) {
  const Squares squares(s, s.batch);
  int64_t tile = s.out % (2 * kLanes) ? kLanes : 2 * kLanes, panel = s.in * tile;
  std::vector<float> packed(16 * s.in * s.out);  // [16][Co / tile][Ci][tile]
  ParallelFor(pool, s.out / tile, [&](int64_t i) {
    auto* taps = Scratch<float, 0>(9 * panel);
    PackKernel<T>(kernel, s, transpose, tile, i * tile, taps);
    TransformKernel(taps, s.in, tile, s.in * s.out, packed.data() + i * panel);
  });
  int64_t chunk = std::min(kChannels, s.out), at_a_time = SquaresAtATime(s.in + chunk);
  ParallelFor(pool, (squares.count + at_a_time - 1) / at_a_time, [&](int64_t task) {
    int64_t first = task * at_a_time, count = std::min(at_a_time, squares.count - first);
    auto* seen = Scratch<float, 0>(16 * count * s.in);
    auto* products = Scratch<float, 1>(16 * count * chunk);
    TransformImage<T>(image, s, squares, first, count, 0, s.in, seen);
    for (int64_t o = 0; o < s.out; o += chunk) {
      int64_t channels = std::min(chunk, s.out - o);
      Shape product{1, 1, count, s.in, 1, count, channels, 1, 0, 0};
      for (int64_t e = 0; e < 16; ++e) {
        const float *from = seen + e * count * s.in, *with = packed.data() + (e * s.out + o) * s.in;
        if (tile == kLanes)
          Rows<Float32, 1>(from, product, 1, with, products + e * count * channels);
        else
          Rows<Float32, 2>(from, product, 1, with, products + e * count * channels);
      }
      TransformOutput<T>(products, s, squares, first, count, o, channels, out);
    }
  });
}

// Computes the same as `ConvolveKernelGradient`.
template <typename T>
void WinogradKernelGradient(ffi::ThreadPool& pool, const typename T::Number* image, const typename T::Number* gradient,
                            const Shape& s, float* out) {
  const Squares squares(s, s.batch);
  int64_t size = 9 * s.in * s.out, parts = std::min<int64_t>(kPartials, s.batch);
  int64_t ins = (s.in + kChannels - 1) / kChannels, outs = (s.out + kChannels - 1) / kChannels;
  std::vector<float> sums(size * (parts - 1), 0.0f);
  std::fill_n(out, size, 0.0f);
  ParallelFor(pool, parts * ins * outs, [&](int64_t task) {
    int64_t part = task / (ins * outs), c = task / outs % ins * kChannels, o = task % outs * kChannels;
    Shape chunk = s;
    chunk.in = std::min(kChannels, s.in - c), chunk.out = std::min(kChannels, s.out - o);
    int64_t products = chunk.in * chunk.out, at_a_time = SquaresAtATime(chunk.in + chunk.out);
    auto* seen = Scratch<float, 0>(16 * at_a_time * chunk.in);
    auto* pulled = Scratch<float, 1>(16 * at_a_time * chunk.out);
    auto* total = Scratch<float, 2>(16 * products);
    std::fill_n(total, 16 * products, 0.0f);
    int64_t end = (part + 1) * squares.count / parts;
    for (int64_t first = part * squares.count / parts; first < end; first += at_a_time) {
      int64_t count = std::min(at_a_time, end - first);
      TransformImage<T>(image, s, squares, first, count, c, chunk.in, seen);
      TransformGradient<T>(gradient, s, squares, first, count, o, chunk.out, pulled);
      for (int64_t e = 0; e < 16; ++e) {
        const float *x = seen + e * count * chunk.in, *g = pulled + e * count * chunk.out;
        if (chunk.out % (2 * kLanes))
          AccumulateAll<Float32, 1>(x, g, chunk, count, total + e * products);
        else
          AccumulateAll<Float32, 2>(x, g, chunk, count, total + e * products);
      }
    }
    float* to = part ? sums.data() + (part - 1) * size : out;
    for (int64_t i = 0; i < chunk.in; ++i)
      for (int64_t j = 0; j < chunk.out; j += kLanes)
        AddKernelGradient(total, products, i * chunk.out + j, s.in * s.out, to + (c + i) * s.out + o + j);
  });
  AddParts(pool, sums, parts - 1, size, out);
}

}  // namespace boneage
