/* W bodies at a time: the lanes of a vector are bodies. */
#include "plan.h"

INLINE void wide_blend(const Plan *plan, const float *rows, const float *mean, const float *drive, vf v[ROW])
{
    for (int begin = 0; begin < ROW; begin += HELD) {
        vf sum[HELD] = {{0}};
        EACH_RANGE(plan, r)
            for (ptrdiff_t k = r->begin; k < r->end; k++) {
                vf coefficient = load(drive + k * W);
                const float *row = rows + k * ROW + begin;
                UNROLL(24)
                for (int i = 0; i < HELD; i++) sum[i] += coefficient * row[i];
            }
        /* The metre-sized mean comes last: its rounding is then made once. */
        UNROLL(24)
        for (int i = 0; i < HELD; i++) v[begin + i] = sum[i] + mean[begin + i];
    }
}

static void wide_forward(const Plan *plan, const float *rows, ptrdiff_t tile, ptrdiff_t body)
{
    const Points *points = plan->points;
    const float *drive = plan->drives + body * plan->width;
    const float *shift = drive + plan->rows * W, *transforms = shift + 3 * W;
    ptrdiff_t left = points->count - tile * TILE;
    float *to = plan->call->posed + 3 * (body * points->count + tile * TILE);
    /* The memory written to is asked for before it is needed: the stores would wait for it. */
    for (int lane = 0; lane < W && left >= TILE; lane++)
        for (int n = 0; n < 3; n++) __builtin_prefetch(to + 3 * lane * points->count + TILE * n + TILE - 1, 1);
    vf v[ROW], out[ROW];
    wide_blend(plan, rows, points->mean + tile * ROW, drive, v);
    for (int i = 0; i < TILE; i++) {
        vf turn[12] = {{0}};
        for (int n = points->first[tile * TILE + i]; n < points->first[tile * TILE + i + 1]; n++) {
            const float *transform = transforms + 12 * W * (ptrdiff_t)points->joint[n];
            float weight = points->weight[n];
            UNROLL(12)
            for (int e = 0; e < 12; e++) turn[e] += weight * load(transform + e * W);
        }
        vf x = v[i], y = v[TILE + i], z = v[2 * TILE + i];
        UNROLL(3)
        for (int r = 0; r < 3; r++)
            out[3 * i + r] = turn[4 * r] * x + turn[4 * r + 1] * y + turn[4 * r + 2] * z + turn[4 * r + 3]
                + load(shift + r * W);
    }
    for (int n = 0; n < ROW; n += W, to += W) {
        ptrdiff_t some = 3 * left - n;
        transpose(out + n);
        for (int lane = 0; lane < W; lane++) {
            if (some >= W) store(to + 3 * lane * points->count, out[n + lane]);
            else if (some > 0) memcpy(to + 3 * lane * points->count, &out[n + lane], sizeof(float) * (size_t)some);
        }
    }
}

/* Hide from the compiler where a pointer comes from. It would keep one for each of many rows that lie at fixed distances
 * from one, and load them from memory again and again. */
#define OPAQUE(pointer) __asm__("" : "+r"(pointer))

/* Add to rows of `to` the products of the rows of D with p, `block` rows at a time in registers. */
#define WIDE_BLOCK(block)                                                                                              \
    for (; k + block <= r->end; k += block) {                                                                          \
        vf sum[block] = {{0}};                                                                                         \
        const float *from = rows + k * ROW;                                                                            \
        for (int i = 0; i < ROW; i++, from++) {                                                                        \
            OPAQUE(from);                                                                                              \
            UNROLL(24)                                                                                                 \
            for (int q = 0; q < block; q++) sum[q] += p[i] * from[q * ROW];                                            \
        }                                                                                                              \
        UNROLL(24)                                                                                                     \
        for (int q = 0; q < block; q++) store(to + (k + q) * W, load(to + (k + q) * W) + sum[q]);                      \
    }

static void wide_backward(const Plan *plan, const float *rows, ptrdiff_t tile, ptrdiff_t body, float *gradients)
{
    const Points *points = plan->points;
    const float *drive = plan->drives + body * plan->width, *transforms = drive + (plan->rows + 3) * W;
    float *to = gradients + body * plan->width, *to_shift = to + plan->rows * W, *to_transforms = to_shift + 3 * W;
    vf v[ROW], g[ROW], p[ROW];
    wide_blend(plan, rows, points->mean + tile * ROW, drive, v);
    for (int n = 0; n < ROW; n += W) {
        for (int lane = 0; lane < W; lane++) g[n + lane] = pull_of(plan, tile, body + lane, n);
        transpose(g + n);
    }
    vf shift[3] = {{0}};
    for (int i = 0; i < TILE; i++) {
        vf turn[9] = {{0}}, by[12];
        UNROLL(3)
        for (int r = 0; r < 3; r++) {
            vf pull = g[3 * i + r];
            shift[r] += pull;
            UNROLL(3)
            for (int c = 0; c < 3; c++) by[4 * r + c] = pull * v[TILE * c + i];
            by[4 * r + 3] = pull;
        }
        for (int n = points->first[tile * TILE + i]; n < points->first[tile * TILE + i + 1]; n++) {
            ptrdiff_t at = 12 * W * (ptrdiff_t)points->joint[n];
            float weight = points->weight[n];
            UNROLL(9)
            for (int e = 0; e < 9; e++) turn[e] += weight * load(transforms + at + (4 * (e / 3) + e % 3) * W);
            UNROLL(12)
            for (int e = 0; e < 12; e++) {
                float *sum = to_transforms + at + e * W;
                store(sum, load(sum) + weight * by[e]);
            }
        }
        UNROLL(3)
        for (int c = 0; c < 3; c++)
            p[TILE * c + i] = turn[c] * g[3 * i] + turn[3 + c] * g[3 * i + 1] + turn[6 + c] * g[3 * i + 2];
    }
    for (int r = 0; r < 3; r++) store(to_shift + r * W, load(to_shift + r * W) + shift[r]);
    EACH_RANGE(plan, r) {
        ptrdiff_t k = r->begin;
        WIDE_BLOCK(HELD)
        WIDE_BLOCK(4)
        WIDE_BLOCK(1)
    }
}
