/* The kernel for any processor: vectors of four, which are SSE2 on x86, NEON on ARM, and plain C elsewhere. */
#define W 4
#if defined(__aarch64__)
#define NARROW 8
#define HELD 24
#define NAME "neon"
#else
#define NARROW 4
#define HELD 12
#if defined(__x86_64__)
#define NAME "sse2"
#else
#define NAME "plain"
#endif
#endif
#define KERNEL physique_plain
#include "tiles.h"
