// The functions that XLA calls: kernels for x86 CPUs with AVX2, or with AVX-512 and bfloat16 products.
//
// On the CPU, XLA's own convolutions compute in float32 whatever their type and do not use Winograd's algorithm. Its
// depthwise convolutions and max-pool gradients reach a fraction of the processor's speed, and its sums over pixels use
// one core. All kernels here add in float32, in an order that depends only on the shapes: results are bit-identical for
// any number of threads.

#include "convolution.h"
#include "depthwise.h"
#include "pooling.h"
#include "product.h"
#include "sums.h"
#include "tile_convolution.h"
#include "tile_products.h"
#include "winograd.h"

namespace boneage {

// ---- Interface to XLA --------------------------------------------------------------------------------------

using Matrices = ffi::Buffer<ffi::F32>;  // [..., channels]
using Numbers = ffi::BufferR1<ffi::F32>;

constexpr char kNoTiles[] = "products of bfloat16 matrices of any size need a processor with AMX tiles";

template <typename T, typename Buffer>
auto* Data(Buffer&& buffer) {
  return static_cast<typename T::Number*>(buffer.untyped_data());
}

template <typename T>
void ConvolveAnyWay(ffi::ThreadPool& pool, ffi::AnyBuffer& image, ffi::AnyBuffer& kernel, const Shape& s,
                    bool transpose, ffi::AnyBuffer& out) {
  if constexpr (std::is_same_v<T, BFloat16>)
    if (TilesUsable()) return ConvolveInTiles(pool, Data<T>(image), Data<T>(kernel), s, transpose, Data<T>(out));
  if constexpr (T::kGroup == 1)
    if (FitsWinograd(s)) return WinogradConvolve<T>(pool, Data<T>(image), Data<T>(kernel), s, transpose, Data<T>(out));
  Convolve<T>(pool, Data<T>(image), Data<T>(kernel), s, transpose, Data<T>(out));
}

ffi::Error ConvolutionCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::AnyBuffer kernel,
                           ffi::Result<ffi::AnyBuffer> out, bool transpose, int64_t top, int64_t left) {
  auto x = image.dimensions(), w = kernel.dimensions(), y = out->dimensions();
  Shape s{x[0], x[1], x[2], x[3], y[1], y[2], y[3], w[0], top, left};
  image.element_type() == ffi::F32 ? ConvolveAnyWay<Float32>(pool, image, kernel, s, transpose, *out)
                                   : ConvolveAnyWay<BFloat16>(pool, image, kernel, s, transpose, *out);
  return ffi::Error::Success();
}

template <typename T>
void KernelGradientAnyWay(ffi::ThreadPool& pool, ffi::AnyBuffer& image, ffi::AnyBuffer& gradient, const Shape& s,
                          float* out) {
  if constexpr (T::kGroup == 1)
    if (FitsWinograd(s)) return WinogradKernelGradient<T>(pool, Data<T>(image), Data<T>(gradient), s, out);
  AddTapsFunction<T> add_taps = AddTaps<T>;
  if constexpr (std::is_same_v<T, BFloat16>)
    if (TilesUsable() && FitsTiles(s)) add_taps = AddTapsInTiles;
  ConvolveKernelGradient<T>(pool, Data<T>(image), Data<T>(gradient), s, add_taps, out);
}

ffi::Error KernelGradientCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::AnyBuffer gradient,
                              ffi::Result<ffi::BufferR4<ffi::F32>> out, int64_t top, int64_t left) {
  auto x = image.dimensions(), g = gradient.dimensions();
  Shape s{x[0], x[1], x[2], x[3], g[1], g[2], g[3], out->dimensions()[0], top, left};
  image.element_type() == ffi::F32 ? KernelGradientAnyWay<Float32>(pool, image, gradient, s, out->typed_data())
                                   : KernelGradientAnyWay<BFloat16>(pool, image, gradient, s, out->typed_data());
  return ffi::Error::Success();
}

DepthwiseShape DepthwiseShapeOf(ffi::AnyBuffer& image, ffi::AnyBuffer& out, int64_t k, int64_t stride, int64_t top,
                                int64_t left) {
  auto x = image.dimensions(), y = out.dimensions();
  return {x[0], x[1], x[2], x[3], y[1], y[2], k, stride, top, left};
}

template <typename T>
void Depthwise(ffi::ThreadPool& pool, ffi::AnyBuffer& image, ffi::AnyBuffer& kernel, ffi::AnyBuffer& out,
               const DepthwiseShape& s) {
  DepthwiseConvolve<T>(pool, Data<T>(image), Data<T>(kernel), s, {}, Data<T>(out));
}

ffi::Error DepthwiseCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::AnyBuffer kernel,
                         ffi::Result<ffi::AnyBuffer> out, int64_t stride, int64_t top, int64_t left) {
  DepthwiseShape s = DepthwiseShapeOf(image, *out, kernel.dimensions()[0], stride, top, left);
  image.element_type() == ffi::F32 ? Depthwise<Float32>(pool, image, kernel, *out, s)
                                   : Depthwise<BFloat16>(pool, image, kernel, *out, s);
  return ffi::Error::Success();
}

template <typename T>
void DepthwiseRelu6(ffi::ThreadPool& pool, ffi::AnyBuffer& image, ffi::AnyBuffer& kernel, Numbers& bias,
                    ffi::AnyBuffer& out, const DepthwiseShape& s) {
  DepthwiseConvolve<T>(pool, Data<T>(image), Data<T>(kernel), s, {bias.typed_data()}, Data<T>(out));
}

ffi::Error DepthwiseRelu6Call(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::AnyBuffer kernel, Numbers bias,
                              ffi::Result<ffi::AnyBuffer> out, int64_t stride, int64_t top, int64_t left) {
  DepthwiseShape s = DepthwiseShapeOf(image, *out, kernel.dimensions()[0], stride, top, left);
  image.element_type() == ffi::F32 ? DepthwiseRelu6<Float32>(pool, image, kernel, bias, *out, s)
                                   : DepthwiseRelu6<BFloat16>(pool, image, kernel, bias, *out, s);
  return ffi::Error::Success();
}

template <typename T>
void DepthwiseGradient(ffi::ThreadPool& pool, ffi::AnyBuffer& image, ffi::AnyBuffer& gradient,
                       const DepthwiseShape& s, float* out) {
  DepthwiseKernelGradient<T>(pool, Data<T>(image), Data<T>(gradient), nullptr, s, out, nullptr);
}

ffi::Error DepthwiseKernelGradientCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::AnyBuffer gradient,
                                       ffi::Result<ffi::BufferR3<ffi::F32>> out, int64_t stride, int64_t top,
                                       int64_t left) {
  DepthwiseShape s = DepthwiseShapeOf(image, gradient, out->dimensions()[0], stride, top, left);
  image.element_type() == ffi::F32 ? DepthwiseGradient<Float32>(pool, image, gradient, s, out->typed_data())
                                   : DepthwiseGradient<BFloat16>(pool, image, gradient, s, out->typed_data());
  return ffi::Error::Success();
}

template <typename T>
void DepthwiseRelu6Gradients(ffi::ThreadPool& pool, ffi::AnyBuffer& image, ffi::AnyBuffer& kernel, ffi::AnyBuffer& result,
                             ffi::AnyBuffer& gradient, const DepthwiseShape& s, ffi::AnyBuffer& of_image,
                             float* of_kernel, float* of_bias) {
  const auto *y = Data<T>(result), *g = Data<T>(gradient);
  DepthwiseKernelGradient<T>(pool, Data<T>(image), g, y, s, of_kernel, of_bias);
  DepthwiseImageGradient<T>(pool, Data<T>(kernel), g, y, s, Data<T>(of_image));
}

ffi::Error DepthwiseRelu6GradientsCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::AnyBuffer kernel,
                                       ffi::AnyBuffer result, ffi::AnyBuffer gradient,
                                       ffi::Result<ffi::AnyBuffer> of_image,
                                       ffi::Result<ffi::BufferR3<ffi::F32>> of_kernel, ffi::Result<Numbers> of_bias,
                                       int64_t stride, int64_t top, int64_t left) {
  DepthwiseShape s = DepthwiseShapeOf(image, gradient, kernel.dimensions()[0], stride, top, left);
  float *taps = of_kernel->typed_data(), *bias = of_bias->typed_data();
  image.element_type() == ffi::F32
      ? DepthwiseRelu6Gradients<Float32>(pool, image, kernel, result, gradient, s, *of_image, taps, bias)
      : DepthwiseRelu6Gradients<BFloat16>(pool, image, kernel, result, gradient, s, *of_image, taps, bias);
  return ffi::Error::Success();
}

template <typename T>
void MaxPool(ffi::ThreadPool& pool, ffi::AnyBuffer& image, const PoolShape& s, ffi::AnyBuffer& out, uint8_t* winner) {
  MaxPool<T>(pool, Data<T>(image), s, Data<T>(out), winner);
}

PoolShape PoolOf(ffi::AnyBuffer& image, ffi::AnyBuffer& out, int64_t k, int64_t stride, int64_t top, int64_t left) {
  auto x = image.dimensions(), y = out.dimensions();
  return {x[0], x[1], x[2], x[3], y[1], y[2], k, stride, top, left};
}

ffi::Error MaxPoolCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::Result<ffi::AnyBuffer> out, int64_t k,
                       int64_t stride, int64_t top, int64_t left) {
  PoolShape s = PoolOf(image, *out, k, stride, top, left);
  image.element_type() == ffi::F32 ? MaxPool<Float32>(pool, image, s, *out, nullptr)
                                   : MaxPool<BFloat16>(pool, image, s, *out, nullptr);
  return ffi::Error::Success();
}

ffi::Error MaxPoolWinnerCall(ffi::ThreadPool pool, ffi::AnyBuffer image, ffi::Result<ffi::AnyBuffer> out,
                             ffi::Result<ffi::BufferR4<ffi::U8>> winner, int64_t k, int64_t stride, int64_t top,
                             int64_t left) {
  PoolShape s = PoolOf(image, *out, k, stride, top, left);
  image.element_type() == ffi::F32 ? MaxPool<Float32>(pool, image, s, *out, winner->typed_data())
                                   : MaxPool<BFloat16>(pool, image, s, *out, winner->typed_data());
  return ffi::Error::Success();
}

ffi::Error MaxPoolGradientCall(ffi::ThreadPool pool, ffi::BufferR4<ffi::U8> winner, ffi::AnyBuffer gradient,
                               ffi::Result<ffi::AnyBuffer> of_image, int64_t k, int64_t stride, int64_t top,
                               int64_t left) {
  PoolShape s = PoolOf(*of_image, gradient, k, stride, top, left);
  if (gradient.element_type() == ffi::F32)
    MaxPoolGradient<Float32>(pool, winner.typed_data(), Data<Float32>(gradient), s, Data<Float32>(*of_image));
  else
    MaxPoolGradient<BFloat16>(pool, winner.typed_data(), Data<BFloat16>(gradient), s, Data<BFloat16>(*of_image));
  return ffi::Error::Success();
}

ffi::Error Product(ffi::ThreadPool& pool, ffi::AnyBuffer& a, Matrices& b, bool transpose, Relu6 relu6,
                   ffi::AnyBuffer& out) {
  int64_t depth = a.dimensions().back(), columns = out.dimensions().back(), rows = a.element_count() / depth;
  const float* kernel = b.typed_data();
  if (a.element_type() == ffi::F32)
    MultiplyMatrices(pool, Data<Float32>(a), kernel, rows, depth, columns, transpose, relu6, Data<Float32>(out));
  else if (TilesUsable())
    MultiplyInTiles(pool, Data<BFloat16>(a), nullptr, kernel, rows, depth, columns, transpose, relu6, Data<BFloat16>(out));
  else
    return ffi::Error::Internal(kNoTiles);
  return ffi::Error::Success();
}

ffi::Error ProductCall(ffi::ThreadPool pool, ffi::AnyBuffer a, Matrices b, ffi::Result<ffi::AnyBuffer> out,
                       bool transpose) {
  return Product(pool, a, b, transpose, {}, *out);
}

ffi::Error ProductRelu6Call(ffi::ThreadPool pool, ffi::AnyBuffer x, Matrices kernel, Numbers bias,
                            ffi::Result<ffi::AnyBuffer> out) {
  return Product(pool, x, kernel, false, {bias.typed_data()}, *out);
}

ffi::Error ProductRelu6GradientsCall(ffi::ThreadPool pool, ffi::AnyBuffer x, Matrices kernel, ffi::AnyBuffer result,
                                     ffi::AnyBuffer gradient, ffi::Result<ffi::AnyBuffer> of_x,
                                     ffi::Result<Matrices> of_kernel, ffi::Result<Numbers> of_bias) {
  int64_t in = x.dimensions().back(), out_channels = gradient.dimensions().back(), pixels = x.element_count() / in;
  if (x.element_type() == ffi::F32) {
    ProductRelu6Gradients(pool, Data<Float32>(x), kernel.typed_data(), Data<Float32>(result), Data<Float32>(gradient),
                          pixels, in, out_channels, Data<Float32>(*of_x), of_kernel->typed_data(),
                          of_bias->typed_data());
  } else if (TilesUsable()) {
    const auto *y = Data<BFloat16>(result), *g = Data<BFloat16>(gradient);
    MultiplyTransposedInTiles(pool, Data<BFloat16>(x), g, y, pixels, in, out_channels, of_kernel->typed_data(),
                              of_bias->typed_data());
    MultiplyInTiles(pool, g, y, kernel.typed_data(), pixels, out_channels, in, true, {}, Data<BFloat16>(*of_x));
  } else {
    return ffi::Error::Internal(kNoTiles);
  }
  return ffi::Error::Success();
}

ffi::Error ProductKernelGradientCall(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer gradient,
                                     ffi::Result<Matrices> out) {
  int64_t in = x.dimensions().back(), out_channels = gradient.dimensions().back(), pixels = x.element_count() / in;
  float* sums = out->typed_data();
  if (x.element_type() == ffi::F32)
    MultiplyTransposed(pool, Data<Float32>(x), Data<Float32>(gradient), pixels, in, out_channels, {}, sums, nullptr);
  else if (TilesUsable())
    MultiplyTransposedInTiles(pool, Data<BFloat16>(x), Data<BFloat16>(gradient), nullptr, pixels, in, out_channels, sums,
                              nullptr);
  else
    return ffi::Error::Internal(kNoTiles);
  return ffi::Error::Success();
}

ffi::Error ChannelSumsCall(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, Numbers centre,
                           ffi::Result<ffi::BufferR2<ffi::F32>> out) {
  int64_t channels = a.dimensions().back(), pixels = a.element_count() / channels;
  if (a.element_type() == ffi::F32)
    ChannelSums<Float32>(pool, Data<Float32>(a), Data<Float32>(b), centre.typed_data(), pixels, channels, out->typed_data());
  else
    ChannelSums<BFloat16>(pool, Data<BFloat16>(a), Data<BFloat16>(b), centre.typed_data(), pixels, channels,
                          out->typed_data());
  return ffi::Error::Success();
}

}  // namespace boneage


#define BONEAGE_HANDLER(name, function, binding) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, boneage::function, binding)

namespace ffi = xla::ffi;
using Any = ffi::AnyBuffer;
using Bytes = ffi::BufferR4<ffi::U8>;
using Rank2 = ffi::BufferR2<ffi::F32>;
using Rank3 = ffi::BufferR3<ffi::F32>;
using Rank4 = ffi::BufferR4<ffi::F32>;

static auto Bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>(); }

BONEAGE_HANDLER(BoneageConvolution, ConvolutionCall,
                Bind().Arg<Any>().Arg<Any>().Ret<Any>().Attr<bool>("transpose").Attr<int64_t>("top").Attr<int64_t>(
                    "left"));
BONEAGE_HANDLER(BoneageKernelGradient, KernelGradientCall,
                Bind().Arg<Any>().Arg<Any>().Ret<Rank4>().Attr<int64_t>("top").Attr<int64_t>("left"));
BONEAGE_HANDLER(
    BoneageDepthwise, DepthwiseCall,
    Bind().Arg<Any>().Arg<Any>().Ret<Any>().Attr<int64_t>("stride").Attr<int64_t>("top").Attr<int64_t>("left"));
BONEAGE_HANDLER(
    BoneageDepthwiseKernelGradient, DepthwiseKernelGradientCall,
    Bind().Arg<Any>().Arg<Any>().Ret<Rank3>().Attr<int64_t>("stride").Attr<int64_t>("top").Attr<int64_t>("left"));
BONEAGE_HANDLER(BoneageDepthwiseRelu6, DepthwiseRelu6Call,
                Bind().Arg<Any>().Arg<Any>().Arg<boneage::Numbers>().Ret<Any>().Attr<int64_t>("stride").Attr<int64_t>(
                    "top").Attr<int64_t>("left"));
BONEAGE_HANDLER(BoneageDepthwiseRelu6Gradients, DepthwiseRelu6GradientsCall,
                Bind().Arg<Any>().Arg<Any>().Arg<Any>().Arg<Any>().Ret<Any>().Ret<Rank3>().Ret<boneage::Numbers>()
                    .Attr<int64_t>("stride").Attr<int64_t>("top").Attr<int64_t>("left"));
BONEAGE_HANDLER(BoneageMaxPool, MaxPoolCall,
                Bind().Arg<Any>().Ret<Any>().Attr<int64_t>("k").Attr<int64_t>("stride").Attr<int64_t>("top").Attr<
                    int64_t>("left"));
BONEAGE_HANDLER(BoneageMaxPoolWinner, MaxPoolWinnerCall,
                Bind().Arg<Any>().Ret<Any>().Ret<Bytes>().Attr<int64_t>("k").Attr<int64_t>("stride").Attr<int64_t>(
                    "top").Attr<int64_t>("left"));
BONEAGE_HANDLER(BoneageMaxPoolGradient, MaxPoolGradientCall,
                Bind().Arg<Bytes>().Arg<Any>().Ret<Any>().Attr<int64_t>("k").Attr<int64_t>("stride").Attr<int64_t>(
                    "top").Attr<int64_t>("left"));
BONEAGE_HANDLER(BoneageProduct, ProductCall,
                Bind().Arg<Any>().Arg<boneage::Matrices>().Ret<Any>().Attr<bool>("transpose"));
BONEAGE_HANDLER(BoneageProductKernelGradient, ProductKernelGradientCall,
                Bind().Arg<Any>().Arg<Any>().Ret<boneage::Matrices>());
BONEAGE_HANDLER(BoneageProductRelu6, ProductRelu6Call,
                Bind().Arg<Any>().Arg<boneage::Matrices>().Arg<boneage::Numbers>().Ret<Any>());
BONEAGE_HANDLER(BoneageProductRelu6Gradients, ProductRelu6GradientsCall,
                Bind().Arg<Any>().Arg<boneage::Matrices>().Arg<Any>().Arg<Any>().Ret<Any>().Ret<boneage::Matrices>()
                    .Ret<boneage::Numbers>());
BONEAGE_HANDLER(BoneageChannelSums, ChannelSumsCall,
                Bind().Arg<Any>().Arg<Any>().Arg<boneage::Numbers>().Ret<Rank2>());

// Whether `BoneageProduct` and its gradient take bfloat16 on this machine.
extern "C" bool BoneageTilesUsable() { return boneage::TilesUsable(); }
