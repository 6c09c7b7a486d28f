// Opcodes one by one: the same operands through the device and through a formula of the host. 64 lanes of operands: the
// corner cases first, then random bits.
#include <bit>
#include <cmath>
#include <random>

#include "test/cuda_emulator/tests/gpu.h"

namespace qwen::emu {
namespace {

using U = uint32_t;
using S = int32_t;

float F(U bits) { return std::bit_cast<float>(bits); }
U B(float x) { return std::bit_cast<U>(x); }
/// NaNs have one spelling.
U Nan(float x) { return x != x ? 0x7fffffffu : B(x); }
float Ftz(float x) { return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x; }

struct Row {
  const char* name;
  const char* ptx;  // %r20, %r21, %r22 in, %r23 out; %rd20 is %r20 above %r21, %h1 the low half of %r20
  U (*expected)(U a, U b, U c);
};

U HalfBits(double x) {  // to nearest even, through exact steps: an independent slow way
  if (x != x) return 0x7fff;
  U sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (x >= 65520.0) return sign | 0x7c00;
  int exponent = x == 0 ? -14 : std::max(std::ilogb(x), -14);
  double units = x / std::exp2(exponent - 10), whole = std::floor(units), rest = units - whole;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) == 1)) whole += 1;
  return sign | static_cast<U>(static_cast<int>(whole) + (exponent + 14) * 1024);
}
double HalfValue(U h) {
  int exponent = h >> 10 & 31, mantissa = h & 1023;
  double sign = h & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return exponent ? sign * std::ldexp(1024 + mantissa, exponent - 25) : sign * std::ldexp(mantissa, -24);
}
U Bf16Bits(float x) {
  if (x != x) return 0x7fff;
  U low = B(x) & 0xffff, high = B(x) >> 16;
  return low > 0x8000 || (low == 0x8000 && (high & 1)) ? high + 1 : high;
}
/// The bf16 nearest to s + e, ties to even; e is what s, a double, was rounded by.
U Bf16OfSum(double s, double e) {
  if (s != s) return 0x7fff;
  U sign = std::signbit(s) ? 0x8000 : 0;
  if (sign) s = -s, e = -e;
  if (s == INFINITY) return sign | 0x7f80;
  int exponent = s == 0 ? -126 : std::max(std::ilogb(s), -126);
  double units = std::ldexp(s, 7 - exponent), whole = std::floor(units), rest = units - whole;
  if (rest > 0.5 || (rest == 0.5 && (e > 0 || (e == 0 && std::fmod(whole, 2) == 1)))) whole += 1;
  return sign | (std::ldexp(whole, exponent - 7) >= 0x1p128 ? 0x7f80 : static_cast<U>(whole) + (exponent + 126) * 128);
}
U Bf16Fma(U a, U b, U c) {
  double product = double{F(a << 16)} * F(b << 16), addend = F(c << 16);  // 16 digits: exact
  double sum = product + addend, shadow = sum - product;
  return Bf16OfSum(sum, (product - (sum - shadow)) + (addend - shadow));
}
double E4m3Value(U code) {
  int exponent = code >> 3 & 15, mantissa = code & 7;
  double sign = code & 0x80 ? -1 : 1;
  if ((code & 0x7f) == 0x7f) return NAN;
  return sign * (exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9));
}
U E4m3Bits(float x) {  // the nearest of the 127 magnitudes, ties to the even code
  if (x != x) return 0x7f;
  U sign = std::signbit(x) ? 0x80 : 0, best = 0;
  double wanted = std::fabs(static_cast<double>(x)), distance = INFINITY;
  for (U code = 0; code < 0x7f; ++code) {
    double d = std::fabs(wanted - E4m3Value(code));
    if (d < distance || (d == distance && code % 2 == 0)) best = code, distance = d;
  }
  return sign | (wanted > 448 ? 0x7e : best);
}

/// .relu: a NaN stays one.
float Relu(float x) { return x < 0 ? 0 : x; }
/// The nearest number of 11 digits, ties away from zero.
U Tf32Bits(float x) {
  if (x != x || std::isinf(x)) return Nan(x);
  double magnitude = std::fabs(x);
  int exponent = magnitude == 0 ? -126 : std::max(std::ilogb(magnitude), -126);
  double near = std::ldexp(std::floor(std::ldexp(magnitude, 10 - exponent) + 0.5), exponent - 10);
  return B(static_cast<float>(std::copysign(near, x)));
}

const Row kRows[] = {
    {"add", "add.s32 %r23, %r20, %r21;", [](U a, U b, U) { return a + b; }},
    {"add_sat", "add.sat.s32 %r23, %r20, %r21;",
     [](U a, U b, U) {
       int64_t s = int64_t{S(a)} + S(b);
       return U(s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s);
     }},
    {"sub", "sub.u32 %r23, %r20, %r21;", [](U a, U b, U) { return a - b; }},
    {"mul_lo", "mul.lo.s32 %r23, %r20, %r21;", [](U a, U b, U) { return a * b; }},
    {"mul_hi_s", "mul.hi.s32 %r23, %r20, %r21;", [](U a, U b, U) { return U(int64_t{S(a)} * S(b) >> 32); }},
    {"mul_hi_u", "mul.hi.u32 %r23, %r20, %r21;", [](U a, U b, U) { return U(uint64_t{a} * b >> 32); }},
    {"mul_wide", "mul.wide.s32 %rd21, %r20, %r21; shr.u64 %rd21, %rd21, 7; cvt.u32.u64 %r23, %rd21;",
     [](U a, U b, U) { return U(uint64_t(int64_t{S(a)} * S(b)) >> 7); }},
    {"mad_lo", "mad.lo.u32 %r23, %r20, %r21, %r22;", [](U a, U b, U c) { return a * b + c; }},
    {"mad_wide", "mad.wide.u32 %rd21, %r20, %r21, %rd20; shr.u64 %rd21, %rd21, 32; cvt.u32.u64 %r23, %rd21;",
     [](U a, U b, U) { return U((uint64_t{a} * b + (uint64_t{a} << 32 | b)) >> 32); }},
    {"div_s", "or.b32 %r21, %r21, 1; and.b32 %r20, %r20, 0x7fffffff; div.s32 %r23, %r20, %r21;",
     [](U a, U b, U) { return U(S(a & 0x7fffffff) / S(b | 1)); }},
    {"rem_u", "or.b32 %r21, %r21, 1; rem.u32 %r23, %r20, %r21;", [](U a, U b, U) { return a % (b | 1); }},
    {"min_s", "min.s32 %r23, %r20, %r21;", [](U a, U b, U) { return U(std::min(S(a), S(b))); }},
    {"max_u", "max.u32 %r23, %r20, %r21;", [](U a, U b, U) { return std::max(a, b); }},
    {"abs", "abs.s32 %r23, %r20;", [](U a, U, U) { return S(a) < 0 ? 0 - a : a; }},
    {"neg", "neg.s32 %r23, %r20;", [](U a, U, U) { return 0 - a; }},
    {"and", "and.b32 %r23, %r20, %r21;", [](U a, U b, U) { return a & b; }},
    {"not", "not.b32 %r23, %r20;", [](U a, U, U) { return ~a; }},
    {"shl", "shl.b32 %r23, %r20, %r21;", [](U a, U b, U) { return b > 31 ? 0 : a << b; }},
    {"shr_s", "and.b32 %r21, %r21, 63; shr.s32 %r23, %r20, %r21;",
     [](U a, U b, U) { return U(S(a) >> std::min(b & 63, 31u)); }},
    {"shr_u", "and.b32 %r21, %r21, 63; shr.u32 %r23, %r20, %r21;",
     [](U a, U b, U) { return (b & 63) > 31 ? 0 : a >> (b & 63); }},
    {"shf_l", "shf.l.wrap.b32 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) { return c % 32 ? b << c % 32 | a >> (32 - c % 32) : b; }},
    {"shf_r_clamp", "and.b32 %r22, %r22, 63; shf.r.clamp.b32 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) {
       c = std::min(c & 63, 32u);
       return c == 0 ? a : c == 32 ? b : b << (32 - c) | a >> c;
     }},
    {"popc", "popc.b32 %r23, %r20;", [](U a, U, U) { return U(__builtin_popcount(a)); }},
    {"clz", "clz.b32 %r23, %r20;", [](U a, U, U) { return a ? U(__builtin_clz(a)) : 32; }},
    {"bfind_s", "bfind.s32 %r23, %r20;",
     [](U a, U, U) {
       U x = S(a) < 0 ? ~a : a;
       return x ? 31 - U(__builtin_clz(x)) : ~0u;
     }},
    {"brev", "brev.b32 %r23, %r20;",
     [](U a, U, U) {
       U r = 0;
       for (int i = 0; i < 32; ++i)
         if (a >> i & 1) r |= 0x80000000u >> i;
       return r;
     }},
    {"bfe_u", "bfe.u32 %r23, %r20, 5, 9;", [](U a, U, U) { return a / 32 % 512; }},
    {"bfe_s", "bfe.s32 %r23, %r20, 25, 20;", [](U a, U, U) { return U(S(a) >> 25); }},
    {"bfi", "bfi.b32 %r23, %r20, %r21, 8, 16;", [](U a, U b, U) { return (b & 0xff0000ff) | (a & 0xffff) << 8; }},
    {"lop3_ea", "lop3.b32 %r23, %r20, %r21, %r22, 0xEA;", [](U a, U b, U c) { return (a & b) | c; }},
    {"lop3_96", "lop3.b32 %r23, %r20, %r21, %r22, 0x96;", [](U a, U b, U c) { return a ^ b ^ c; }},
    {"lop3_d8", "lop3.b32 %r23, %r20, %r21, %r22, 0xD8;",
     [](U a, U b, U c) { return c & b ? (a & ~c) | (b & c) : (a & ~c) | (b & c); }},
    {"prmt", "prmt.b32 %r23, %r20, %r21, 0x5410;", [](U a, U b, U) { return (a & 0xffff) | b << 16; }},
    {"prmt_sign", "prmt.b32 %r23, %r20, %r21, 0xBA98;",
     [](U a, U, U) {
       U r = 0;
       for (int i = 0; i < 4; ++i) r |= (a >> (8 * i + 7) & 1 ? 255u : 0u) << (8 * i);
       return r;
     }},
    {"dp4a", "dp4a.s32.s32 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) {
       for (int i = 0; i < 4; ++i) c += U(S(int8_t(a >> 8 * i)) * S(int8_t(b >> 8 * i)));
       return c;
     }},
    {"selp", "setp.lt.s32 %p1, %r20, %r21; selp.b32 %r23, %r21, %r22, %p1;",
     [](U a, U b, U c) { return S(a) < S(b) ? b : c; }},
    {"setp_and",
     "setp.hi.u32 %p2, %r21, %r22; setp.ne.and.u32 %p1|%p3, %r20, %r22, %p2; selp.u32 %r23, 1, 0, %p1; @%p3 add.u32 "
     "%r23, %r23, 2;",
     [](U a, U b, U c) { return U(b > c ? (a != c ? 1 : 2) : 0); }},
    {"setp_gtu", "setp.gtu.f32 %p1, %r20, %r21; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U b, U) { return U(!(F(a) <= F(b))); }},
    {"setp_nan", "setp.nan.f32 %p1, %r20, %r21; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U b, U) { return U(std::isnan(F(a)) || std::isnan(F(b))); }},
    {"setp_ne_f", "setp.ne.f32 %p1, %r20, %r21; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U b, U) { return U(F(a) < F(b) || F(a) > F(b)); }},
    {"guard", "mov.u32 %r23, %r22; setp.lt.u32 %p1, %r20, %r21; @!%p1 mov.u32 %r23, %r20;",
     [](U a, U b, U c) { return a < b ? c : a; }},
    {"add_f", "add.rn.f32 %r23, %r20, %r21;", [](U a, U b, U) { return Nan(F(a) + F(b)); }},
    {"add_ftz", "add.ftz.f32 %r23, %r20, %r21;", [](U a, U b, U) { return Nan(Ftz(Ftz(F(a)) + Ftz(F(b)))); }},
    {"mul_f", "mul.f32 %r23, %r20, %r21;", [](U a, U b, U) { return Nan(F(a) * F(b)); }},
    {"fma_f", "fma.rn.f32 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) { return Nan(__builtin_fmaf(F(a), F(b), F(c))); }},
    {"fma_sat", "fma.rn.sat.f32 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) {
       float r = __builtin_fmaf(F(a), F(b), F(c));
       return r > 0 ? B(std::fmin(r, 1.0f)) : 0;
     }},
    {"div_f", "div.rn.f32 %r23, %r20, %r21;", [](U a, U b, U) { return Nan(F(a) / F(b)); }},
    {"sqrt_f", "sqrt.rn.f32 %r23, %r20;", [](U a, U, U) { return Nan(__builtin_sqrtf(F(a))); }},
    {"min_f", "min.f32 %r23, %r20, %r21;",
     [](U a, U b, U) {
       float x = F(a), y = F(b);
       if (x != x) return Nan(y);
       if (y != y) return Nan(x);
       return x == y ? a | b : B(x < y ? x : y);
     }},
    {"neg_f", "neg.f32 %r23, %r20;", [](U a, U, U) { return (a & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : a ^ 0x80000000u; }},
    {"add_rz",
     "and.b32 %r20, %r20, 0x3fffffff; and.b32 %r21, %r21, 0x3fffffff; or.b32 %r20, %r20, 0x30000000;"
     "or.b32 %r21, %r21, 0x30000000; add.rz.f32 %r23, %r20, %r21;",
     [](U a, U b, U) {
       double exact = double{F((a & 0x3fffffff) | 0x30000000)} + F((b & 0x3fffffff) | 0x30000000);  // 24 + 32 bits
       float r = static_cast<float>(exact);
       return r > exact ? B(r) - 1 : B(r);
     }},
    {"cvt_rzi", "cvt.rzi.s32.f32 %r23, %r20;",
     [](U a, U, U) {
       double x = F(a);
       return x != x ? 0 : x >= 2147483648.0 ? 0x7fffffffu : x <= -2147483648.0 ? 0x80000000u : U(S(x));
     }},
    {"cvt_rni", "cvt.rni.s32.f32 %r23, %r20;",
     [](U a, U, U) {
       double x = std::nearbyint(static_cast<double>(F(a)));
       return x != x ? 0 : x >= 2147483648.0 ? 0x7fffffffu : x <= -2147483648.0 ? 0x80000000u : U(S(x));
     }},
    {"cvt_f32_s32", "cvt.rn.f32.s32 %r23, %r20;", [](U a, U, U) { return B(static_cast<float>(S(a))); }},
    {"cvt_s8", "cvt.s32.s8 %r23, %r20;", [](U a, U, U) { return U(S(int8_t(a))); }},
    {"cvt_sat_u8", "cvt.sat.u8.s32 %r23, %r20;", [](U a, U, U) { return U(std::min(std::max(S(a), 0), 255)); }},
    {"cvt_f16", "cvt.rn.f16.f32 %h2, %r20; mov.b32 %r23, {%h2, %h2};",
     [](U a, U, U) { return HalfBits(F(a)) * 0x10001u; }},
    {"cvt_from_f16", "cvt.f32.f16 %r23, %h1;",
     [](U a, U, U) { return Nan(static_cast<float>(HalfValue(a & 0xffff))); }},
    {"cvt_f16x2", "cvt.rn.f16x2.f32 %r23, %r20, %r21;",
     [](U a, U b, U) { return HalfBits(F(a)) << 16 | HalfBits(F(b)); }},
    {"cvt_bf16x2", "cvt.rn.bf16x2.f32 %r23, %r20, %r21;",
     [](U a, U b, U) { return Bf16Bits(F(a)) << 16 | Bf16Bits(F(b)); }},
    {"cvt_e4m3x2", "cvt.rn.satfinite.e4m3x2.f32 %h2, %r20, %r21; cvt.u32.u16 %r23, %h2;",
     [](U a, U b, U) { return E4m3Bits(F(a)) << 8 | E4m3Bits(F(b)); }},
    {"fma_f16x2", "fma.rn.f16x2 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) {
       // 22 + 11 digits over 2^-48..2^32 fit a long double's 64 but for a tie's last digit: good enough to be exact
       // here.
       auto one = [](U x, U y, U z) {
         long double r = static_cast<long double>(HalfValue(x)) * HalfValue(y) + HalfValue(z);
         double near = static_cast<double>(r);
         if (near == near && static_cast<long double>(near) != r)
           near = std::nextafter(near, r > near ? INFINITY : -INFINITY), near = (near + static_cast<double>(r)) / 2;
         return HalfBits(near);
       };
       return one(a & 0xffff, b & 0xffff, c & 0xffff) | one(a >> 16, b >> 16, c >> 16) << 16;
     }},
    {"add_f16x2", "add.f16x2 %r23, %r20, %r21;",
     [](U a, U b, U) {
       return HalfBits(HalfValue(a & 0xffff) + HalfValue(b & 0xffff)) |
              HalfBits(HalfValue(a >> 16) + HalfValue(b >> 16)) << 16;
     }},
    {"pack", "mov.b64 %rd21, {%r21, %r20}; mov.b64 {%r23, %r24}, %rd21; xor.b32 %r23, %r23, %r24;",
     [](U a, U b, U) { return a ^ b; }},
    {"shift_64",
     "and.b32 %r22, %r22, 63; shl.b64 %rd21, %rd20, %r22; shr.s64 %rd21, %rd21, 32; cvt.u32.u64 %r23, %rd21;",
     [](U a, U b, U c) { return U((uint64_t{a} << 32 | b) << (c & 63) >> 32); }},
    {"sad_s", "sad.s32 %r23, %r20, %r21, %r22;", [](U a, U b, U c) { return c + U(std::abs(int64_t{S(a)} - S(b))); }},
    {"sad_u", "sad.u32 %r23, %r20, %r21, %r22;", [](U a, U b, U c) { return c + std::max(a, b) - std::min(a, b); }},
    {"slct_s", "slct.u32.s32 %r23, %r20, %r21, %r22;", [](U a, U b, U c) { return S(c) >= 0 ? a : b; }},
    {"slct_f", "slct.b32.f32 %r23, %r20, %r21, %r22;",  // -0 is not below zero, and a NaN is not above
     [](U a, U b, U c) { return F(c) >= 0 ? a : b; }},
    {"slct_ftz", "slct.ftz.b32.f32 %r23, %r20, %r21, %r22;",  // a negative subnormal is -0
     [](U a, U b, U c) { return F(c) >= 0 || (c >> 23 & 255) == 0 ? a : b; }},
    {"testp_finite", "testp.finite.f32 %p1, %r20; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U, U) { return U((a >> 23 & 255) != 255); }},
    {"testp_infinite", "testp.infinite.f32 %p1, %r20; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U, U) { return U((a & 0x7fffffff) == 0x7f800000); }},
    {"testp_number", "testp.number.f32 %p1, %r20; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U, U) { return U((a & 0x7fffffff) <= 0x7f800000); }},
    {"testp_notanumber", "testp.notanumber.f32 %p1, %r20; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U, U) { return U((a & 0x7fffffff) > 0x7f800000); }},
    {"testp_normal",  // zeros are normal numbers here
     "testp.normal.f32 %p1, %r20; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U, U) { return U((a & 0x7fffffff) == 0 || ((a >> 23 & 255) != 0 && (a >> 23 & 255) != 255)); }},
    {"testp_subnormal", "testp.subnormal.f32 %p1, %r20; selp.u32 %r23, 1, 0, %p1;",
     [](U a, U, U) { return U((a >> 23 & 255) == 0 && (a & 0x7fffff) != 0); }},
    {"rcp_rn", "rcp.rn.f32 %r23, %r20;", [](U a, U, U) { return Nan(1 / F(a)); }},
    {"fma_bf16x2", "fma.rn.bf16x2 %r23, %r20, %r21, %r22;",
     [](U a, U b, U c) {
       return Bf16Fma(a & 0xffff, b & 0xffff, c & 0xffff) | Bf16Fma(a >> 16, b >> 16, c >> 16) << 16;
     }},
    {"cvt_from_e4m3x2", "cvt.rn.f16x2.e4m3x2 %r23, %h1;",
     [](U a, U, U) { return HalfBits(E4m3Value(a & 255)) | HalfBits(E4m3Value(a >> 8 & 255)) << 16; }},
    {"cvt_from_e5m2x2", "cvt.rn.f16x2.e5m2x2 %r23, %h1;",  // the upper half of an f16
     [](U a, U, U) { return HalfBits(HalfValue((a & 255) << 8)) | HalfBits(HalfValue(a & 0xff00)) << 16; }},
    // Of the register that holds a tf32 the low 13 bits are anyone's, and of a NaN all but that it is one.
    {"cvt_tf32",
     "cvt.rna.tf32.f32 %r23, %r20; setp.nan.f32 %p1, %r23, %r23; and.b32 %r23, %r23, 0xffffe000;"
     "selp.b32 %r23, 0x7fffffff, %r23, %p1;",
     [](U a, U, U) { return Tf32Bits(F(a)); }},
    // A zero's sign under .relu is not said: -0 is made +0 before.
    {"cvt_relu_f16x2",
     "add.f32 %r20, %r20, 0f00000000; add.f32 %r21, %r21, 0f00000000; cvt.rn.relu.f16x2.f32 %r23, %r20, %r21;",
     [](U a, U b, U) { return HalfBits(Relu(F(a) + 0.0f)) << 16 | HalfBits(Relu(F(b) + 0.0f)); }},
    {"cvt_relu_bf16x2",
     "add.f32 %r20, %r20, 0f00000000; add.f32 %r21, %r21, 0f00000000; cvt.rn.relu.bf16x2.f32 %r23, %r20, %r21;",
     [](U a, U b, U) { return Bf16Bits(Relu(F(a) + 0.0f)) << 16 | Bf16Bits(Relu(F(b) + 0.0f)); }},
    {"cvt_relu_e4m3x2",
     "add.f32 %r20, %r20, 0f00000000; add.f32 %r21, %r21, 0f00000000;"
     "cvt.rn.satfinite.relu.e4m3x2.f32 %h2, %r20, %r21; cvt.u32.u16 %r23, %h2;",
     [](U a, U b, U) { return E4m3Bits(Relu(F(a) + 0.0f)) << 8 | E4m3Bits(Relu(F(b) + 0.0f)); }},
    {"volatile_global",
     "xor.b32 %r24, %r20, %r21; st.volatile.global.u32 [%rd4], %r24; ld.volatile.global.u32 %r23, [%rd4];"
     "add.u32 %r23, %r23, %r22;",
     [](U a, U b, U c) { return (a ^ b) + c; }},
    {"volatile_vector",
     "ld.volatile.global.v2.u16 {%h1, %h2}, [%rd3+4]; st.volatile.global.v2.u16 [%rd4], {%h2, %h1};"
     "ld.volatile.global.u32 %r23, [%rd4];",
     [](U, U b, U) { return b << 16 | b >> 16; }},
    {"volatile_shared",
     ".shared .align 4 .b8 tile[256]; mov.u32 %r24, tile; mov.u32 %r25, %tid.x; mad.lo.u32 %r24, %r25, 4, %r24;"
     "st.volatile.shared.u32 [%r24], %r20; ld.volatile.shared.u8 %r23, [%r24+1];",
     [](U a, U, U) { return a >> 8 & 255; }},
    {"match_all", "shr.u32 %r24, %r1, 5; match.all.sync.b32 %r23|%p1, %r24, -1; selp.u32 %r23, %r23, 5, %p1;",
     [](U, U, U) { return ~0u; }},
    {"match_not_all", "shr.u32 %r24, %r1, 4; match.all.sync.b32 %r23|%p1, %r24, -1; @%p1 add.u32 %r23, %r23, 5;",
     [](U, U, U) { return 0u; }},
    {"match_all_64",
     "shr.u32 %r24, %r1, 5; mov.b64 %rd21, {%r24, %r1}; match.all.sync.b64 %r23|%p1, %rd21, -1;"
     "@!%p1 add.u32 %r23, %r23, 5;",
     [](U, U, U) { return 5u; }},
    {"vote_uni",
     "shr.u32 %r24, %r1, 5; and.b32 %r24, %r24, 1; setp.eq.u32 %p1, %r24, 0;"
     "vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r23, 1, 2, %p2;",
     [](U, U, U) { return 1u; }},
    {"vote_not_uni",
     "and.b32 %r24, %r1, 31; setp.ne.u32 %p1, %r24, 30; vote.sync.uni.pred %p2, %p1, -1;"
     "selp.u32 %r23, 1, 2, %p2;",
     [](U, U, U) { return 2u; }},
    {"ballot",
     "setp.lt.s32 %p1, %r20, 0; vote.sync.ballot.b32 %r23, %p1, -1; popc.b32 %r23, %r23; sub.u32 %r23, %r23, %r23;",
     [](U, U, U) { return 0u; }},
    {"brx",
     "and.b32 %r24, %r20, 3; mov.u32 %r23, 9; $list: .branchtargets $t0, $t1, $t2, $t3;"
     "brx.idx %r24, $list; $t0: mov.u32 %r23, 10; bra $end; $t1: mov.u32 %r23, 11; bra $end;"
     "$t2: mov.u32 %r23, 12; $t3: add.u32 %r23, %r23, 100; $end: add.u32 %r23, %r23, 1;",
     [](U a, U, U) { return std::initializer_list<U>{11, 12, 113, 110}.begin()[a & 3]; }},
};

constexpr int kCases = 64 * 16;

class RowTest : public GpuTest {
 protected:
  /// Three operands a case: every corner with every other, then random bits, half of them of numbers about one.
  static std::vector<U> Operands() {
    static constexpr U kCorners[] = {0,          1,          0x80000000, 0xffffffff, 0x7fffffff, 0x3f800000,
                                     0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x00000001, 0x807fffff,
                                     0x43e00000, 0x477fe000, 0x3c003c00, 0x00010001, 33,         0x42f6e979};
    std::mt19937 random(7);
    std::vector<U> in(3 * kCases);
    for (size_t i = 0; i < in.size(); ++i)
      in[i] = i < 3 * 324 ? kCorners[i % 3 == 0   ? i / 3 % 18
                                     : i % 3 == 1 ? i / 54 % 18
                                                  : (i / 7) % 18]
              : i % 2     ? static_cast<U>(random())
                          : (static_cast<U>(random()) & 0x83ffffff) | 0x3c000000;
    return in;
  }
  /// %r23 of every case.
  void Outputs(const char* ptx, const std::vector<U>& in, std::vector<U>* out) {
    abi::Function* k = Kernel(fmt::format(R"(
.visible .entry k(.param .u64 in, .param .u64 out) {{
  .reg .pred %p<4>; .reg .b32 %r<32>; .reg .b64 %rd<32>; .reg .b16 %h<4>;
  ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
  mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r2, 64, %r1;
  mul.wide.u32 %rd3, %r1, 12; add.u64 %rd3, %rd1, %rd3; mul.wide.u32 %rd4, %r1, 4; add.u64 %rd4, %rd2, %rd4;
  ld.global.b32 %r20, [%rd3]; ld.global.b32 %r21, [%rd3+4]; ld.global.b32 %r22, [%rd3+8];
  mov.b64 %rd20, {{%r21, %r20}}; mov.b32 {{%h1, %h2}}, %r20;
  {}
  st.global.b32 [%rd4], %r23;
  ret;
}})",
                                          ptx));
    abi::DevicePtr in_address = Upload(in), out_address = Allocate(4 * kCases);
    QWEN_OK(Run(k, kCases / 64, 64, in_address, out_address));
    *out = Download<U>(out_address, kCases);
  }
};

class OpcodeTest : public RowTest, public ::testing::WithParamInterface<Row> {};

TEST_P(OpcodeTest, AsTheFormula) {
  const Row& row = GetParam();
  std::vector<U> in = Operands(), out;
  ASSERT_NO_FATAL_FAILURE(Outputs(row.ptx, in, &out));
  for (size_t i = 0; i < kCases; ++i) {
    U a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
    ASSERT_EQ(out[i], row.expected(a, b, c))
        << fmt::format("{} of {:#x}, {:#x}, {:#x} gives {:#x}", row.ptx, a, b, c, out[i]);
  }
}
INSTANTIATE_TEST_SUITE_P(All, OpcodeTest, ::testing::ValuesIn(kRows),
                         [](const auto& info) { return std::string(info.param.name); });

/// The distance between floats about y.
double Ulp(double y) { return std::ldexp(1, std::max(y == 0 ? -126 : std::ilogb(y), -126) - 23); }

struct Approximation {
  const char* name;
  const char* ptx;  // of %r20
  bool ftz;
  double (*function)(double x);
  double (*bound)(double x, double y);  // how far from y = function(x) the PTX ISA lets a result be
};
double Reciprocal(double x) { return 1 / x; }
double ReciprocalRoot(double x) { return 1 / std::sqrt(x); }
double RootBound(double, double y) { return 0x1p-22 * std::fabs(y); }  // 2^-22.9 of ISA 8.x, 2^-22.4 before
double Log2Bound(double x, double y) { return 0x1p-22 * (x > 0.5 && x < 2 ? 1 : std::fabs(y)); }

const Approximation kApproximations[] = {
    {"rcp", "rcp.approx.f32 %r23, %r20;", false, Reciprocal, [](double, double y) { return Ulp(y); }},
    {"rcp_ftz", "rcp.approx.ftz.f32 %r23, %r20;", true, Reciprocal, [](double, double y) { return Ulp(y); }},
    {"rsqrt", "rsqrt.approx.f32 %r23, %r20;", false, ReciprocalRoot, RootBound},
    {"rsqrt_ftz", "rsqrt.approx.ftz.f32 %r23, %r20;", true, ReciprocalRoot, RootBound},
    {"ex2", "ex2.approx.f32 %r23, %r20;", false, std::exp2, [](double, double y) { return 2 * Ulp(y); }},
    {"ex2_ftz", "ex2.approx.ftz.f32 %r23, %r20;", true, std::exp2, [](double, double y) { return 2 * Ulp(y); }},
    {"lg2", "lg2.approx.f32 %r23, %r20;", false, std::log2, Log2Bound},
    {"lg2_ftz", "lg2.approx.ftz.f32 %r23, %r20;", true, std::log2, Log2Bound},
    {"tanh", "tanh.approx.f32 %r23, %r20;", false, std::tanh, [](double, double y) { return 0x1p-11 * std::fabs(y); }},
};

class ApproximationTest : public RowTest, public ::testing::WithParamInterface<Approximation> {};

TEST_P(ApproximationTest, WithinTheBoundOfTheIsa) {
  const Approximation& row = GetParam();
  std::vector<U> in = Operands(), out;
  for (size_t i = 0; i < in.size(); i += 12) in[i] = B(0.37f * static_cast<float>(i) - 200.0f);  // where ex2 ends
  ASSERT_NO_FATAL_FAILURE(Outputs(row.ptx, in, &out));
  for (size_t i = 0; i < kCases; ++i) {
    const float x = row.ftz ? Ftz(F(in[3 * i])) : F(in[3 * i]), got = F(out[i]);
    double y = row.function(x);
    SCOPED_TRACE(fmt::format("{} of {:#x} gives {:#x}, not {}", row.ptx, in[3 * i], out[i], y));
    if (row.ftz && std::fabs(y) < 0x1p-126) y = std::copysign(0.0, y);
    ASSERT_EQ(std::isnan(got), std::isnan(y));
    if (std::isnan(y)) continue;
    // Infinity stands where the next float would: a result may round to it.
    auto finite = [](double v) { return std::fmin(std::fmax(v, -0x1p128), 0x1p128); };
    const double bound = std::isinf(y) || y == 0 ? 0 : row.bound(x, finite(y));
    ASSERT_LE(std::fabs(finite(got) - finite(y)), bound);
    if (std::fabs(y) >= bound) ASSERT_EQ(std::signbit(got), std::signbit(y));
  }
}
INSTANTIATE_TEST_SUITE_P(All, ApproximationTest, ::testing::ValuesIn(kApproximations),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qwen::emu
