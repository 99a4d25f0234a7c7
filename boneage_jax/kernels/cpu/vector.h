// One set of functions for the vector registers: AVX-512 with bfloat16 products, else AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512BF16__)
#define BONEAGE_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__)
#define BONEAGE_AVX512 0
#else
#error "this processor has neither AVX-512 with bfloat16 nor AVX2 with FMA"
#endif

namespace boneage {

inline float BFloat16ToFloat(uint16_t v) {
  uint32_t bits = uint32_t{v} << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

#if BONEAGE_AVX512

using Vector = __m512;
using Integers = __m512i;
using Mask = __mmask16;
constexpr int kLanes = 16;  // float32 numbers in a register

inline Vector Zero() { return _mm512_setzero_ps(); }
inline Vector Fill(float v) { return _mm512_set1_ps(v); }
inline Vector LoadFloats(const float* p) { return _mm512_loadu_ps(p); }
inline void StoreFloats(float* p, Vector v) { _mm512_storeu_ps(p, v); }
inline Vector Add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector Subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
inline Vector Multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }

inline Vector LoadBFloat16(const uint16_t* p) {
  __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline void StoreBFloat16(uint16_t* p, Vector v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

inline Integers FillIntegers(int v) { return _mm512_set1_epi32(v); }
inline Vector Select(Mask m, Vector yes, Vector no) { return _mm512_mask_mov_ps(no, m, yes); }
inline Integers Select(Mask m, Integers yes, Integers no) { return _mm512_mask_mov_epi32(no, m, yes); }
inline void StoreBytes(uint8_t* p, Integers v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
// Where v replaces `largest`. Unlike max, propagates a NaN of either operand, so that training detects it.
inline Mask Beats(Vector v, Vector largest) {
  return _mm512_cmp_ps_mask(v, largest, _CMP_NLE_UQ) & _mm512_cmp_ps_mask(largest, largest, _CMP_ORD_Q);
}
inline Mask EqualBytes(const uint8_t* p, int64_t lanes, uint8_t value) {
  auto exist = static_cast<__mmask16>((1u << lanes) - 1);
  return _mm_cmpeq_epi8_mask(_mm_maskz_loadu_epi8(exist, p), _mm_set1_epi8(static_cast<char>(value))) & exist;
}
inline bool Any(Mask m) { return m != 0; }
// NaN stays NaN: both operations return their second operand then.
inline Vector Clamp(Vector v, Vector low, Vector high) { return _mm512_min_ps(high, _mm512_max_ps(low, v)); }
// v where low < at < high, else zero.
inline Vector Between(Vector at, Vector low, Vector high, Vector v) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(at, low, _CMP_GT_OQ) & _mm512_cmp_ps_mask(at, high, _CMP_LT_OQ), v);
}

#else

using Vector = __m256;
using Integers = __m256i;
using Mask = __m256;
constexpr int kLanes = 8;

inline Vector Zero() { return _mm256_setzero_ps(); }
inline Vector Fill(float v) { return _mm256_set1_ps(v); }
inline Vector LoadFloats(const float* p) { return _mm256_loadu_ps(p); }
inline void StoreFloats(float* p, Vector v) { _mm256_storeu_ps(p, v); }
inline Vector Add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector Subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
inline Vector Multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }

inline Vector LoadBFloat16(const uint16_t* p) {
  __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
// Rounds to nearest, ties to even; a NaN stays a NaN.
inline void StoreBFloat16(uint16_t* p, Vector v) {
  __m256i bits = _mm256_castps_si256(v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  __m256i none = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, none), 16);
  __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0b1000);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

inline Integers FillIntegers(int v) { return _mm256_set1_epi32(v); }
inline Vector Select(Mask m, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, m); }
inline Integers Select(Mask m, Integers yes, Integers no) {
  return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(m));
}
inline void StoreBytes(uint8_t* p, Integers v) {
  __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0b1000);
  __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_castsi256_si128(words));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes);
}
inline Mask Beats(Vector v, Vector largest) {
  return _mm256_and_ps(_mm256_cmp_ps(v, largest, _CMP_NLE_UQ), _mm256_cmp_ps(largest, largest, _CMP_ORD_Q));
}
inline Mask EqualBytes(const uint8_t* p, int64_t lanes, uint8_t value) {
  uint64_t all = 0;
  std::memcpy(&all, p, lanes < kLanes ? lanes : kLanes);
  __m256i bytes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(all)));
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(bytes, _mm256_set1_epi32(value)));
}
inline bool Any(Mask m) { return _mm256_movemask_ps(m) != 0; }
inline Vector Clamp(Vector v, Vector low, Vector high) { return _mm256_min_ps(high, _mm256_max_ps(low, v)); }
inline Vector Between(Vector at, Vector low, Vector high, Vector v) {
  __m256 inside = _mm256_and_ps(_mm256_cmp_ps(at, low, _CMP_GT_OQ), _mm256_cmp_ps(at, high, _CMP_LT_OQ));
  return _mm256_and_ps(inside, v);
}

#endif

}  // namespace boneage
