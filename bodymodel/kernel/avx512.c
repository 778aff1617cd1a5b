/* The kernel for x86 processors with AVX-512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#endif
#define W 16
#define NARROW 8
#define HELD 24
#define SHORTER &physique_avx512_half
#define KERNEL physique_avx512
#define NAME "avx512"
#include "tiles.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
