/* How a call is cut up, and what both ways through the tiles read: rows of directions and incoming gradients. */
#ifndef PHYSIQUE_PLAN_H
#define PHYSIQUE_PLAN_H

#include "kernel.h"
#include "vectors.h"

INLINE ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* Rows side by side. `jump` is how many rows of digits lie between its end and the next that are read, in the next tile after
 * the last. */
typedef struct {
    ptrdiff_t begin, end, jump;
} Range;

#define EACH_RANGE(plan, r) for (const Range *r = (plan)->range; r < (plan)->range + (plan)->ranges; r++)

/* How one call is cut up. A "drive" is what the points of a body need of it, see `chain_forward`. */
typedef struct {
    const Call *call;
    const Points *points;
    ptrdiff_t rows, width; /* S + P; numbers in a drive */
    int ranges;            /* the rows that a call needs: of shape, if any is given, and of the parts that are not left out */
    Range range[MOST_SLOTS + 1];
    ptrdiff_t wide, narrow; /* bodies that pass each way */
    ptrdiff_t deep;        /* tiles of a block */
    int straight;          /* whether the digits of rows are blended without making the rows first */
    float *drives;         /* (wide / W, width, W), then (narrow, width) */
} Plan;

/* Bodies of a chunk: what a wide pass reads and writes of so many stays in the second-level cache. */
enum { CHUNK = 128 };

/* Tiles of a block in the backward pass of narrow bodies; their rows stay in the second-level cache. */
enum { DEEP = 8 };

/* Sums of products that a narrow backward pass has in registers, beside what they are made of. */
enum { SUMS = HELD * 2 / 3 };

/* Rows of digits that are asked for before they are needed. */
enum { AHEAD = 64 };

/* Rows of 21-bit fixed point, two words for each point: x and the upper 11 bits of z, then the lower 10 bits of z and y (which
 * has 22). What stands below a number's own bits is left there, less work than taking it away: numbers were rounded with it
 * in mind. Returned are W points from s on, in units of the row's scale. */
INLINE void unpack_row(const int32_t *from, int s, vf out[3])
{
    vi x = *(const vi *)(from + s);
    vu last = *(const vu *)(from + TILE + s);
    out[0] = __builtin_convertvector(x, vf);
    out[1] = __builtin_convertvector((vi)(last << 10), vf);
    out[2] = __builtin_convertvector((vi)((vu)x << 21 | last >> 11), vf);
}

/* Return a row's digits, and ask for those `ahead` rows later. */
INLINE const int32_t *digits_of(const Points *points, ptrdiff_t tile, ptrdiff_t row, ptrdiff_t ahead)
{
    const int32_t *from = points->digits + (tile * points->features + row - points->shapes) * WORDS;
    __builtin_prefetch(from + ahead * WORDS);
    __builtin_prefetch(from + ahead * WORDS + TILE);
    return from;
}

/* The rows k of digits of a range, up to its end, each with how far ahead lies what is to be asked for. */
#define EACH_DIGIT_ROW(r, k, ahead)                                                                                    \
    for (ptrdiff_t last = 0, ahead = AHEAD; last < 2; last++, ahead += (r)->jump)                                      \
        for (; k < (r)->end - (last ? 0 : AHEAD); k++)

INLINE float *rows_of(const Points *points, ptrdiff_t tile)
{
    return points->rows + tile * (points->shapes + points->features) * ROW;
}

/* Make the rows of a tile that are needed from their digits. */
static void make_rows(const Plan *plan, ptrdiff_t tile, float *made)
{
    const Points *points = plan->points;
    ptrdiff_t shapes = points->shapes;
    const float *scales = points->scales + tile * points->features;
    EACH_RANGE(plan, r) {
        ptrdiff_t k = r->begin;
        if (k < shapes) {
            memcpy(made, points->shape_rows + tile * shapes * ROW, sizeof(float) * (size_t)shapes * ROW);
            k = shapes;
        }
        EACH_DIGIT_ROW(r, k, ahead) {
            const int32_t *from = digits_of(points, tile, k, ahead);
            UNROLL(4)
            for (int s = 0; s < TILE; s += W) {
                vf row[3];
                unpack_row(from, s, row);
                UNROLL(3)
                for (int c = 0; c < 3; c++) store(made + k * ROW + TILE * c + s, scales[k - shapes] * row[c]);
            }
        }
    }
}

/* Read the incoming gradient of a tile's points: W of its ROW numbers, point after point, from `first` on, of one body; zero
 * beyond the last point. */
INLINE vf pull_of(const Plan *plan, ptrdiff_t tile, ptrdiff_t body, int first)
{
    const ptrdiff_t *stride = plan->call->posed_stride;
    const float *from = plan->call->posed_grad + body * stride[0] + tile * TILE * stride[1];
    ptrdiff_t left = 3 * (plan->points->count - tile * TILE);
    if (left - first >= W && stride[1] == 3 && stride[2] == 1) return load(from + first);
    float pull[W] = {0};
    for (int n = first; n < first + W && n < left; n++) pull[n - first] = from[n / 3 * stride[1] + n % 3 * stride[2]];
    return load(pull);
}

#endif
