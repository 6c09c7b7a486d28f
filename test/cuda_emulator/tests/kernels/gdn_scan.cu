// The delta rule's scan over chunks, state in registers as accumulators (kernels design, section 0.2).
#include <cuda_fp16.h>
#include <stdint.h>
#define DI __device__ __forceinline__
DI void mma(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DI void ldsm4(uint32_t* r, uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(a));
}
DI void ldsm4t(uint32_t* r, uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(a));
}
DI uint32_t pk(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
DI uint32_t movm(uint32_t x) {
  uint32_t r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0,%1;" : "=r"(r) : "r"(x));
  return r;
}
DI void cpa(uint32_t s, const void* g) { asm volatile("cp.async.cg.shared.global [%0],[%1],16;" ::"r"(s), "l"(g)); }
// swizzled byte offset inside a [rows][COLS] fp16 tile, u = 16-byte unit
template <int COLS>
DI uint32_t sw(int r, int u) {
  return r * COLS * 2 + ((u ^ ((COLS == 32) ? ((r >> 1) & 3) : (COLS == 16) ? ((r >> 2) & 1) : (r & 7))) << 4);
}
template <int C, int STG, bool OUT>
struct L {
  static constexpr int K = 0, Q = C * 256, V = Q + (OUT ? C * 256 : 0), T = V + C * 128, P = T + C * C * 2,
                       G = P + (OUT ? C * C * 2 : 0), SZ = G + 3 * C * 4;
};

template <int C, int STG, bool OUT>
DI void body(const half* q, const half* k, const half* v, const half* tm, const half* pm, const float* gx,
             const float* h0, float* ht, half* o, int nch, int ldk, int ldv) {
  extern __shared__ __align__(128) uint8_t sm[];
  const uint32_t sb = (uint32_t)__cvta_generic_to_shared(sm);
  typedef L<C, STG, OUT> LL;
  const int lane = threadIdx.x & 31, w = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  float S[16][4];
#pragma unroll
  for (int j = 0; j < 16; j++) {
    const float* p = h0 + (w * 16 + g) * 128 + j * 8 + 2 * t;
    float2 x = *(const float2*)p, y = *(const float2*)(p + 8 * 128);
    S[j][0] = x.x;
    S[j][1] = x.y;
    S[j][2] = y.x;
    S[j][3] = y.y;
  }
  auto load = [&](int c, int s) {
    uint32_t b = sb + s * LL::SZ;
    for (int i = threadIdx.x; i < C * 16; i += 128) {
      int r = i >> 4, u = i & 15;
      cpa(b + LL::K + sw<128>(r, u), k + (size_t)(c * C + r) * ldk + u * 8);
      if (OUT) cpa(b + LL::Q + sw<128>(r, u), q + (size_t)(c * C + r) * ldk + u * 8);
    }
    for (int i = threadIdx.x; i < C * 8; i += 128) {
      int r = i >> 3, u = i & 7;
      cpa(b + LL::V + sw<64>(r, u), v + (size_t)(c * C + r) * ldv + u * 8);
    }
    for (int i = threadIdx.x; i < C * C / 8; i += 128) {
      int r = i / (C / 8), u = i % (C / 8);
      cpa(b + LL::T + sw<C>(r, u), tm + (size_t)c * C * C + i * 8);
      if (OUT) cpa(b + LL::P + sw<C>(r, u), pm + (size_t)c * C * C + i * 8);
    }
    if (threadIdx.x < 3 * C / 4) cpa(b + LL::G + threadIdx.x * 16, gx + (size_t)c * 3 * C + threadIdx.x * 4);
    asm volatile("cp.async.commit_group;");
  };
  for (int s = 0; s < STG - 1; s++) load(s, s);
  for (int c = 0; c < nch; c++) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STG - 2));
    __syncthreads();
    if (c + STG - 1 < nch)
      load(c + STG - 1, (c + STG - 1) % STG);
    else
      asm volatile("cp.async.commit_group;");
    const uint32_t b = sb + (c % STG) * LL::SZ;
    const float* G = (const float*)(sm + (c % STG) * LL::SZ + LL::G);  // [eG, eGlast-G, (eGlast)]
    constexpr int NT = C / 8;
    float U[NT][4], O[NT][4];
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        U[j][e] = 0;
        O[j][e] = 0;
      }
#pragma unroll
    for (int kk = 0; kk < 8; kk++) {
      uint32_t a[4] = {pk(S[2 * kk][0], S[2 * kk][1]), pk(S[2 * kk][2], S[2 * kk][3]),
                       pk(S[2 * kk + 1][0], S[2 * kk + 1][1]), pk(S[2 * kk + 1][2], S[2 * kk + 1][3])};
#pragma unroll
      for (int jj = 0; jj < NT / 2; jj++) {
        uint32_t r[4];
        int row = jj * 16 + (lane & 7) + ((lane >> 4) << 3), u = kk * 2 + ((lane >> 3) & 1);
        ldsm4(r, b + LL::K + sw<128>(row, u));
        mma(U[2 * jj], a, r[0], r[1]);
        mma(U[2 * jj + 1], a, r[2], r[3]);
        if (OUT) {
          ldsm4(r, b + LL::Q + sw<128>(row, u));
          mma(O[2 * jj], a, r[0], r[1]);
          mma(O[2 * jj + 1], a, r[2], r[3]);
        }
      }
    }
    uint32_t W[NT / 2][4];
#pragma unroll
    for (int jj = 0; jj < NT / 2; jj++) {  // V^T fragments: dv rows, token cols
      uint32_t r[4];
      int row = jj * 16 + (lane & 7) + ((lane >> 4) << 3), u = w * 2 + ((lane >> 3) & 1);
      ldsm4t(r, b + LL::V + sw<64>(row, u));  // r0: tok0-7,dv0-7  r1: tok0-7,dv8-15  r2: tok8-15,dv0-7 r3
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float2 e = *(const float2*)(G + (2 * jj + h) * 8 + 2 * t);
        float2 v0 = __half22float2(*(half2*)&r[2 * h]), v1 = __half22float2(*(half2*)&r[2 * h + 1]);
        float* u4 = U[2 * jj + h];
        W[jj][2 * h] = pk(v0.x - e.x * u4[0], v0.y - e.y * u4[1]);
        W[jj][2 * h + 1] = pk(v1.x - e.x * u4[2], v1.y - e.y * u4[3]);
        if (OUT) {
          float* o4 = O[2 * jj + h];
          o4[0] *= e.x;
          o4[1] *= e.y;
          o4[2] *= e.x;
          o4[3] *= e.y;
        }
      }
    }
    float N[NT][4];
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) N[j][e] = 0;
#pragma unroll
    for (int kk = 0; kk < NT / 2; kk++)
#pragma unroll
      for (int jj = kk; jj < NT / 2; jj++) {
        uint32_t r[4];
        int row = jj * 16 + (lane & 7) + ((lane >> 4) << 3), u = kk * 2 + ((lane >> 3) & 1);
        ldsm4(r, b + LL::T + sw<C>(row, u));
        mma(N[2 * jj], W[kk], r[0], r[1]);
        mma(N[2 * jj + 1], W[kk], r[2], r[3]);
      }
    uint32_t X[NT / 2][4];
    if (OUT) {
#pragma unroll
      for (int jj = 0; jj < NT / 2; jj++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          X[jj][2 * h] = pk(N[2 * jj + h][0], N[2 * jj + h][1]);
          X[jj][2 * h + 1] = pk(N[2 * jj + h][2], N[2 * jj + h][3]);
        }
#pragma unroll
      for (int kk = 0; kk < NT / 2; kk++)
#pragma unroll
        for (int jj = kk; jj < NT / 2; jj++) {
          uint32_t r[4];
          int row = jj * 16 + (lane & 7) + ((lane >> 4) << 3), u = kk * 2 + ((lane >> 3) & 1);
          ldsm4(r, b + LL::P + sw<C>(row, u));
          mma(O[2 * jj], X[kk], r[0], r[1]);
          mma(O[2 * jj + 1], X[kk], r[2], r[3]);
        }
#pragma unroll
      for (int j = 0; j < NT; j++) {
        uint32_t x = movm(pk(O[j][0], O[j][1])), y = movm(pk(O[j][2], O[j][3]));
        half* p = o + (size_t)(c * C + j * 8 + g) * ldv + w * 16 + 2 * t;
        *(uint32_t*)p = x;
        *(uint32_t*)(p + 8) = y;
      }
    }
#pragma unroll
    for (int jj = 0; jj < NT / 2; jj++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float2 e = *(const float2*)(G + C + (2 * jj + h) * 8 + 2 * t);
        float* n = N[2 * jj + h];
        X[jj][2 * h] = pk(n[0] * e.x, n[1] * e.y);
        X[jj][2 * h + 1] = pk(n[2] * e.x, n[3] * e.y);
      }
    float gl = G[2 * C];
#pragma unroll
    for (int jp = 0; jp < 8; jp++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        S[2 * jp][e] *= gl;
        S[2 * jp + 1][e] *= gl;
      }
#pragma unroll
      for (int kk = 0; kk < NT / 2; kk++) {
        uint32_t r[4];
        int row = kk * 16 + (lane & 15), u = jp * 2 + (lane >> 4);
        ldsm4t(r, b + LL::K + sw<128>(row, u));
        mma(S[2 * jp], X[kk], r[0], r[1]);
        mma(S[2 * jp + 1], X[kk], r[2], r[3]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < 16; j++) {
    float* p = ht + (w * 16 + g) * 128 + j * 8 + 2 * t;
    *(float2*)p = make_float2(S[j][0], S[j][1]);
    *(float2*)(p + 8 * 128) = make_float2(S[j][2], S[j][3]);
  }
}
#define KDEF(name, C, STG, OUT)                                                                          \
  extern "C" __global__ void __launch_bounds__(128)                                                      \
      name(const half* q, const half* k, const half* v, const half* tm, const half* pm, const float* gx, \
           const float* h0, float* ht, half* o, int nch, int ldk, int ldv) {                             \
    body<C, STG, OUT>(q, k, v, tm, pm, gx, h0, ht, o, nch, ldk, ldv);                                    \
  }                                                                                                      \
  extern "C" __device__ int name##_smem = STG * L<C, STG, OUT>::SZ;
KDEF(full_c32, 32, 3, true) KDEF(full_c16, 16, 4, true) KDEF(full_c64, 64, 1 + 1, true) KDEF(state_c32, 32, 3, false)
