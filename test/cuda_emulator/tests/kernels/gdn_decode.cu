// One step of the delta rule, and a product with 4-bit weights in fragment order (kernels design, D1 and D2).
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
// GDN decode: CTA = (seq, v-head, 32 dv rows), 128 threads
extern "C" __global__ void __launch_bounds__(128)
    gdn_decode(const __nv_bfloat16* qkv, const float* ba, __nv_bfloat16* ring, const __nv_bfloat16* cw,
               const float* alog, const float* dtb, float* S, const int* slot, const int* pos, __nv_bfloat16* o, int Hk,
               int Hv) {
  __shared__ float sq[128], sk[128], sv[32], red[8];
  int tid = threadIdx.x, lane = tid & 31, w = tid >> 5, hv = blockIdx.x >> 2, part = blockIdx.x & 3, b = blockIdx.y,
      hk = hv / (Hv / Hk);
  int sl = slot[b];
  if (sl < 0) {
    if (tid < 32) o[((size_t)b * Hv + hv) * 128 + part * 32 + tid] = __float2bfloat16(0.f);
    return;
  }
  float* Sb = S + (((size_t)sl * Hv + hv) * 128 + part * 32) * 128;
  int r0 = w * 8 + (lane >> 3), c = (lane & 7) * 4;
  float4 st[2][4];
#pragma unroll
  for (int p = 0; p < 2; p++)
#pragma unroll
    for (int i = 0; i < 4; i++) st[p][i] = __ldcs((const float4*)(Sb + (r0 + p * 4) * 128 + c + i * 32));
  int CH = (2 * Hk + Hv) * 128, ps = pos[b];
  const __nv_bfloat16* x = qkv + (size_t)b * CH;
  __nv_bfloat16* rg = ring + (size_t)sl * 8 * CH;
  auto conv = [&](int ch) {
    float a = __bfloat162float(x[ch]) * __bfloat162float(cw[ch * 4 + 3]);
#pragma unroll
    for (int j = 1; j < 4; j++)
      a += (ps - j >= 0 ? __bfloat162float(rg[((ps - j) & 7) * CH + ch]) : 0.f) * __bfloat162float(cw[ch * 4 + 3 - j]);
    return a / (1.f + __expf(-a));
  };
  float yq = conv(hk * 128 + tid), yk = conv(Hk * 128 + hk * 128 + tid), q2 = yq * yq, k2 = yk * yk;
  float yv = 0;
  if (tid < 32) yv = conv(2 * Hk * 128 + hv * 128 + part * 32 + tid);
  if (part == 0 && (hv % (Hv / Hk)) == 0) {
    rg[(ps & 7) * CH + hk * 128 + tid] = x[hk * 128 + tid];
    rg[(ps & 7) * CH + (Hk + hk) * 128 + tid] = x[(Hk + hk) * 128 + tid];
  }
  if (tid < 32)
    rg[(ps & 7) * CH + 2 * Hk * 128 + hv * 128 + part * 32 + tid] = x[2 * Hk * 128 + hv * 128 + part * 32 + tid];
#pragma unroll
  for (int d = 16; d; d >>= 1) {
    q2 += __shfl_xor_sync(~0u, q2, d);
    k2 += __shfl_xor_sync(~0u, k2, d);
  }
  if (lane == 0) {
    red[w] = q2;
    red[4 + w] = k2;
  }
  __syncthreads();
  q2 = red[0] + red[1] + red[2] + red[3];
  k2 = red[4] + red[5] + red[6] + red[7];
  sq[tid] = yq * rsqrtf(q2 + 1e-6f) * 0.08838834764f;
  sk[tid] = yk * rsqrtf(k2 + 1e-6f);
  if (tid < 32) sv[tid] = yv;
  __syncthreads();
  float bt = 1.f / (1.f + __expf(-ba[b * 2 * Hv + hv])), a = ba[b * 2 * Hv + Hv + hv] + dtb[hv],
        sp = a > 20.f ? a : log1pf(expf(a)), d = expf(-expf(alog[hv]) * sp);
  float4 kf[4];
  float kq = 0;
  float rk[2] = {0, 0}, rq[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    kf[i] = *(float4*)&sk[c + i * 32];
    float4 qf = *(float4*)&sq[c + i * 32];
    kq += kf[i].x * qf.x + kf[i].y * qf.y + kf[i].z * qf.z + kf[i].w * qf.w;
#pragma unroll
    for (int p = 0; p < 2; p++) {
      float4 s = st[p][i];
      rk[p] += s.x * kf[i].x + s.y * kf[i].y + s.z * kf[i].z + s.w * kf[i].w;
      rq[p] += s.x * qf.x + s.y * qf.y + s.z * qf.z + s.w * qf.w;
    }
  }
#pragma unroll
  for (int m = 4; m; m >>= 1) {
    kq += __shfl_xor_sync(~0u, kq, m);
#pragma unroll
    for (int p = 0; p < 2; p++) {
      rk[p] += __shfl_xor_sync(~0u, rk[p], m);
      rq[p] += __shfl_xor_sync(~0u, rq[p], m);
    }
  }
#pragma unroll
  for (int p = 0; p < 2; p++) {
    int r = r0 + p * 4;
    float u = bt * (sv[r] - d * rk[p]);
    if ((lane & 7) == 0) o[((size_t)b * Hv + hv) * 128 + part * 32 + r] = __float2bfloat16(d * rq[p] + u * kq);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float4 s = st[p][i];
      s.x = d * s.x + u * kf[i].x;
      s.y = d * s.y + u * kf[i].y;
      s.z = d * s.z + u * kf[i].z;
      s.w = d * s.w + u * kf[i].w;
      __stcs((float4*)(Sb + r * 128 + c + i * 32), s);
    }
  }
}
// W4 skinny: 8 warps split K, NB n8 tiles, fragment-major weights
__device__ __forceinline__ void mmab(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <int NB>
__device__ void w4(const uint4* W, const uint32_t* meta, const uint2* xf, float* out, int K, int nt) {
  __shared__ float acc_s[8][NB][32][4];
  int lane = threadIdx.x & 31, w = threadIdx.x >> 5, g = lane >> 2;
  for (int tile = blockIdx.x; tile < nt; tile += gridDim.x) {
    float acc[NB][4] = {};
    int k64 = K / 64, gpw = K / 128 / 8;
    const uint4* p = W + ((size_t)tile * k64 + w * gpw * 2) * 32 + lane;
    const uint32_t* mp = meta + ((size_t)tile * (K / 128) + w * gpw) * 16;
    uint4 buf[4];
#pragma unroll
    for (int i = 0; i < 4; i++) buf[i] = (i < gpw * 2) ? __ldcs(p + i * 32) : make_uint4(0, 0, 0, 0);
    for (int q = 0; q < gpw; q++) {
      uint32_t m0 = __ldg(mp + q * 16 + g), m1 = __ldg(mp + q * 16 + g + 8);  // {scale fp16, -(128+z) bf16}
      uint32_t z0 = __byte_perm(m0, 0, 0x3232), z1 = __byte_perm(m1, 0, 0x3232);
      float s0 = __half2float(__ushort_as_half(m0 & 0xffff)), s1 = __half2float(__ushort_as_half(m1 & 0xffff));
      float part[NB][4] = {};
#pragma unroll
      for (int h = 0; h < 2; h++) {
        uint4 v = buf[(q & 1) * 2 + h];
        int nx = (q + 2) * 2 + h;
        if (nx < gpw * 2) buf[(q & 1) * 2 + h] = __ldcs(p + nx * 32);
        uint32_t ww[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int s = 0; s < 4; s++) {
          uint32_t a[4];
#pragma unroll
          for (int r = 0; r < 4; r++) {
            uint32_t t;
            asm("lop3.b32 %0,%1,0x000F000F,0x43004300,0xEA;" : "=r"(t) : "r"(ww[s] >> (4 * r)));
            asm("fma.rn.bf16x2 %0,%1,%2,%3;" : "=r"(a[r]) : "r"(t), "r"(0x3F803F80u), "r"((r & 1) ? z1 : z0));
          }
#pragma unroll
          for (int n = 0; n < NB; n++) {
            uint2 b = xf[((((w * gpw + q) * 2 + h) * 4 + s) * NB + n) * 32 + lane];
            mmab(part[n], a, b.x, b.y);
          }
        }
      }
#pragma unroll
      for (int n = 0; n < NB; n++) {
        acc[n][0] += s0 * part[n][0];
        acc[n][1] += s0 * part[n][1];
        acc[n][2] += s1 * part[n][2];
        acc[n][3] += s1 * part[n][3];
      }
    }
#pragma unroll
    for (int n = 0; n < NB; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc_s[w][n][lane][e] = acc[n][e];
    __syncthreads();
    for (int i = threadIdx.x; i < NB * 128; i += 256) {
      float s = 0;
#pragma unroll
      for (int ww2 = 0; ww2 < 8; ww2++) s += ((float*)acc_s[ww2])[i];
      out[(size_t)tile * NB * 128 + i] = s;
    }
    __syncthreads();
  }
}
extern "C" __global__ void __launch_bounds__(256, 2)
    w4_n8(const uint4* W, const uint32_t* meta, const uint2* xf, float* out, int K, int nt) {
  w4<1>(W, meta, xf, out, K, nt);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    w4_n16(const uint4* W, const uint32_t* meta, const uint2* xf, float* out, int K, int nt) {
  w4<2>(W, meta, xf, out, K, nt);
}
