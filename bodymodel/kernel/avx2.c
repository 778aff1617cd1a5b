/* The kernel for x86 processors with AVX2 and fused multiply-add. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define W 8
#define NARROW 4
#define HELD 12
#define KERNEL physique_avx2
#define NAME "avx2"
#include "tiles.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
