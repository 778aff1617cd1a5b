/* Vectors of W floats, in the C compiler's own words, and how they are transposed and summed across. */
#ifndef PHYSIQUE_VECTORS_H
#define PHYSIQUE_VECTORS_H

#include <stddef.h>
#include <stdint.h>

typedef float vf __attribute__((vector_size(4 * W)));
typedef float unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * W), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(count) PRAGMA(GCC unroll count)

/* Keep a vector in a register: the compiler would read it from memory again for every product. */
#if defined(__x86_64__)
#define IN_REGISTER(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define IN_REGISTER(vector) __asm__("" : "+w"(vector))
#else
#define IN_REGISTER(vector) (void)0
#endif

INLINE vf load(const float *p) { return *(const unaligned *)p; }
INLINE void store(float *p, vf v) { *(unaligned *)p = v; }

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#if W == 16
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif W == 8
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif

/* Each round interleaves the first half of the rows with the second; log2(W) of them transpose. */
INLINE void transpose(vf rows[W])
{
    vf next[W];
    UNROLL(4)
    for (int size = 1; size < W; size *= 2) {
        UNROLL(8)
        for (int i = 0; i < W / 2; i++) {
            next[2 * i] = SHUFFLE(rows[i], rows[i + W / 2], LOW);
            next[2 * i + 1] = SHUFFLE(rows[i], rows[i + W / 2], HIGH);
        }
        UNROLL(16)
        for (int i = 0; i < W; i++) rows[i] = next[i];
    }
}

/* The numbers of W points: first all x, all y and all z, then point after point; and back. */
#if W == 16
#define EACH_LANE(of, n)                                                                                               \
    of(n, 0), of(n, 1), of(n, 2), of(n, 3), of(n, 4), of(n, 5), of(n, 6), of(n, 7), of(n, 8), of(n, 9), of(n, 10),       \
        of(n, 11), of(n, 12), of(n, 13), of(n, 14), of(n, 15)
#elif W == 8
#define EACH_LANE(of, n) of(n, 0), of(n, 1), of(n, 2), of(n, 3), of(n, 4), of(n, 5), of(n, 6), of(n, 7)
#else
#define EACH_LANE(of, n) of(n, 0), of(n, 1), of(n, 2), of(n, 3)
#endif

INLINE void to_points(const vf planes[3], vf points[3])
{
#define NUMBER(n, lane) (W * n + lane)
#define OF_X_Y(n, lane) (NUMBER(n, lane) % 3 == 2 ? 0 : NUMBER(n, lane) % 3 * W + NUMBER(n, lane) / 3)
#define WITH_Z(n, lane) (NUMBER(n, lane) % 3 == 2 ? W + NUMBER(n, lane) / 3 : lane)
#define MADE(n) SHUFFLE(SHUFFLE(planes[0], planes[1], EACH_LANE(OF_X_Y, n)), planes[2], EACH_LANE(WITH_Z, n))
    points[0] = MADE(0), points[1] = MADE(1), points[2] = MADE(2);
#undef NUMBER
#undef OF_X_Y
#undef WITH_Z
#undef MADE
}

INLINE void to_planes(const vf points[3], vf planes[3])
{
#define NUMBER(n, lane) (3 * lane + n)
#define OF_TWO(n, lane) (NUMBER(n, lane) < 2 * W ? NUMBER(n, lane) : 0)
#define WITH_THIRD(n, lane) (NUMBER(n, lane) < 2 * W ? lane : NUMBER(n, lane) - W)
#define MADE(n) SHUFFLE(SHUFFLE(points[0], points[1], EACH_LANE(OF_TWO, n)), points[2], EACH_LANE(WITH_THIRD, n))
    planes[0] = MADE(0), planes[1] = MADE(1), planes[2] = MADE(2);
#undef NUMBER
#undef OF_TWO
#undef WITH_THIRD
#undef MADE
}

/* Return the sums across each of W vectors, in their order: pairs of lanes add up until one of each is left. */
INLINE vf sums_across(vf rows[W])
{
#define ADD_PAIRS(size)                                                                                                \
    UNROLL(8)                                                                                                          \
    for (int i = 0; i < size; i++)                                                                                     \
        rows[i] = SHUFFLE(rows[2 * i], rows[2 * i + 1], EVEN) + SHUFFLE(rows[2 * i], rows[2 * i + 1], ODD);
#if W >= 16
    ADD_PAIRS(8)
#endif
#if W >= 8
    ADD_PAIRS(4)
#endif
    ADD_PAIRS(2)
    ADD_PAIRS(1)
#undef ADD_PAIRS
    return rows[0];
}

#endif
