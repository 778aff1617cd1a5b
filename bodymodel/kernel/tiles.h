/* Blend and skin, tile by tile, for one instruction set. The file that includes this defines W, the floats of a vector;
 * NARROW, how many bodies pass together with a tile's points across the vector; HELD, how many sums a core's registers
 * hold; and KERNEL and NAME.
 *
 * W bodies at a time go through "wide", where the lanes of a vector are bodies: every weight and direction is one number
 * for all of them, and points take only the joints that they hang on. The bodies left over go through "narrow", where
 * the lanes are points. Nothing between the arguments and the posed points is ever in memory for more than a tile. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernel.h"

typedef float vf __attribute__((vector_size(4 * W)));
typedef float unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * W), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(count) PRAGMA(GCC unroll count)

#include "chain.h"

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

/* How one call is cut up. A "drive" is what the points of a body need of it, see `chain_forward`. */
typedef struct {
    const Call *call;
    const Points *points;
    ptrdiff_t rows, width; /* S + P; numbers in a drive */
    ptrdiff_t first_row;   /* S where no shape is given, else 0 */
    ptrdiff_t wide, narrow; /* bodies that pass each way */
    int straight;          /* whether the digits of rows are blended without making the rows first */
    float *drives;         /* (wide / W, width, W), then (narrow, width) */
} Plan;

/* Bodies of a chunk: what a wide pass reads and writes of so many stays in the second-level cache. */
enum { CHUNK = 128 };

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

INLINE const int32_t *digits_of(const Points *points, ptrdiff_t tile, ptrdiff_t feature)
{
    const int32_t *from = points->digits + (tile * points->features + feature) * WORDS;
    __builtin_prefetch(from + AHEAD * WORDS);
    __builtin_prefetch(from + AHEAD * WORDS + TILE);
    return from;
}

/* Return the rows of a tile as they are, or made from their digits into `made`. */
static float *tile_rows(const Points *points, ptrdiff_t tile, ptrdiff_t first_row, float *made)
{
    ptrdiff_t shapes = points->shapes, features = points->features;
    if (!points->digits) return points->rows + tile * (shapes + features) * ROW;
    if (first_row == 0) memcpy(made, points->shape_rows + tile * shapes * ROW, sizeof(float) * (size_t)shapes * ROW);
    for (ptrdiff_t f = 0; f < features; f++) {
        const int32_t *from = digits_of(points, tile, f);
        float scale = points->scales[tile * features + f];
        UNROLL(4)
        for (int s = 0; s < TILE; s += W) {
            vf row[3];
            unpack_row(from, s, row);
            UNROLL(3)
            for (int c = 0; c < 3; c++) store(made + (shapes + f) * ROW + TILE * c + s, scale * row[c]);
        }
    }
    return made;
}

/* ---- wide: lanes are bodies ---- */

INLINE void wide_blend(const Plan *plan, const float *rows, const float *mean, const float *drive, vf v[ROW])
{
    for (int begin = 0; begin < ROW; begin += HELD) {
        vf sum[HELD] = {{0}};
        for (ptrdiff_t k = plan->first_row; k < plan->rows; k++) {
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
    float *out = plan->call->posed + body * 3 * points->count + tile * TILE;
    /* The memory written to is asked for before it is needed: the stores would wait for it. */
    for (int row = 0; row < 3 * W && left >= TILE; row++) __builtin_prefetch(out + row * points->count + TILE - 1, 1);
    vf v[ROW];
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
            v[TILE * r + i] = turn[4 * r] * x + turn[4 * r + 1] * y + turn[4 * r + 2] * z + turn[4 * r + 3]
                + load(shift + r * W);
    }
    for (int c = 0; c < 3; c++)
        for (int s = 0; s < TILE; s += W) {
            vf *square = v + TILE * c + s;
            transpose(square);
            for (int lane = 0; lane < W; lane++) {
                float *to = out + (3 * lane + c) * points->count + s;
                if (left >= TILE) store(to, square[lane]);
                else if (left > s) memcpy(to, &square[lane], sizeof(float) * (size_t)(left - s < W ? left - s : W));
            }
        }
}

/* Read the incoming gradient of a tile's points: W of them from point s on, of one body and coordinate; zero beyond the
 * last point. */
INLINE vf pull_of(const Plan *plan, ptrdiff_t tile, ptrdiff_t body, int c, int s)
{
    const Call *call = plan->call;
    const float *from = call->posed_grad + body * call->posed_stride[0] + c * call->posed_stride[1];
    ptrdiff_t first = tile * TILE + s, left = plan->points->count - first, step = call->posed_stride[2];
    if (left >= W && step == 1) return load(from + first);
    float pull[W] = {0};
    if (left >= W)
        for (int i = 0; i < W; i++) pull[i] = from[(first + i) * step];
    else
        for (int i = 0; i < left; i++) pull[i] = from[(first + i) * step];
    return load(pull);
}

/* Hide from the compiler where a pointer comes from. It would keep one for each of many rows that lie at fixed distances
 * from one, and load them from memory again and again. */
#define OPAQUE(pointer) __asm__("" : "+r"(pointer))

/* Add to rows of `to` the products of the rows of D with p, `block` rows at a time in registers. */
#define WIDE_BLOCK(block)                                                                                              \
    for (; k + block <= plan->rows; k += block) {                                                                      \
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
    for (int c = 0; c < 3; c++)
        for (int s = 0; s < TILE; s += W) {
            for (int lane = 0; lane < W; lane++) g[TILE * c + s + lane] = pull_of(plan, tile, body + lane, c, s);
            transpose(g + TILE * c + s);
        }
    vf shift[3] = {{0}};
    for (int i = 0; i < TILE; i++) {
        vf turn[9] = {{0}}, by[12];
        UNROLL(3)
        for (int r = 0; r < 3; r++) {
            vf pull = g[TILE * r + i];
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
            p[TILE * c + i] = turn[c] * g[i] + turn[3 + c] * g[TILE + i] + turn[6 + c] * g[2 * TILE + i];
    }
    for (int r = 0; r < 3; r++) store(to_shift + r * W, load(to_shift + r * W) + shift[r]);
    ptrdiff_t k = plan->first_row;
    WIDE_BLOCK(HELD)
    WIDE_BLOCK(4)
    WIDE_BLOCK(1)
}

/* ---- narrow: lanes are points ---- */

/* Blend one body straight from the digits, which is then bound by the memory that they are read from. The rows are kept
 * in `made` unless it is NULL. */
INLINE void blend_digits(const Plan *plan, ptrdiff_t tile, const float *drive, int s, vf v[3], float *made)
{
    const Points *points = plan->points;
    const float *rows = points->shape_rows + tile * points->shapes * ROW, *scales = points->scales + tile * points->features;
    vf sum[3] = {{0}};
    for (ptrdiff_t k = plan->first_row; k < points->shapes; k++) {
        UNROLL(3)
        for (int c = 0; c < 3; c++) {
            vf row = load(rows + k * ROW + TILE * c + s);
            sum[c] += drive[k] * row;
            if (made) store(made + k * ROW + TILE * c + s, row);
        }
    }
    for (ptrdiff_t f = 0; f < points->features; f++) {
        vf row[3];
        unpack_row(digits_of(points, tile, f), s, row);
        float coefficient = drive[points->shapes + f] * scales[f];
        UNROLL(3)
        for (int c = 0; c < 3; c++) {
            sum[c] += coefficient * row[c];
            if (made) store(made + (points->shapes + f) * ROW + TILE * c + s, scales[f] * row[c]);
        }
    }
    UNROLL(3)
    for (int c = 0; c < 3; c++) v[c] = sum[c] + load(points->mean + tile * ROW + TILE * c + s);
}

/* Blend `count` bodies: W points from s on. One body alone has two sums for each coordinate, or it would wait for them. */
INLINE void narrow_blend(const Plan *plan, const float *rows, const float *mean, const float *drive, int s, vf v[][3],
                         const int count)
{
    vf sum[NARROW][3] = {{{0}}}, odd[3] = {{0}};
    ptrdiff_t k = plan->first_row;
    if (count == 1) {
        for (; k + 2 <= plan->rows; k += 2) {
            UNROLL(3)
            for (int c = 0; c < 3; c++) {
                sum[0][c] += drive[k] * load(rows + k * ROW + TILE * c + s);
                odd[c] += drive[k + 1] * load(rows + (k + 1) * ROW + TILE * c + s);
            }
        }
    }
    for (; k < plan->rows; k++) {
        vf row[3];
        UNROLL(3)
        for (int c = 0; c < 3; c++) row[c] = load(rows + k * ROW + TILE * c + s);
        UNROLL(8)
        for (int b = 0; b < count; b++) {
            float coefficient = drive[b * plan->width + k];
            UNROLL(3)
            for (int c = 0; c < 3; c++) sum[b][c] += coefficient * row[c];
        }
    }
    UNROLL(8)
    for (int b = 0; b < count; b++) {
        UNROLL(3)
        for (int c = 0; c < 3; c++) v[b][c] = sum[b][c] + (count == 1 ? odd[c] : (vf){0}) + load(mean + TILE * c + s);
    }
}

/* Blend the transforms of W points from s on: each number of a transform across the vector, in the first 12 of `turn`.
 * A point's transform is a row of its own until they are transposed, so that it takes only the joints that it hangs on. */
INLINE void narrow_turns(const Points *points, ptrdiff_t tile, int s, const float *transforms, vf turn[TILE])
{
    for (int i = 0; i < W; i++) {
        vf row[TILE / W] = {{0}};
        for (int n = points->first[tile * TILE + s + i]; n < points->first[tile * TILE + s + i + 1]; n++) {
            UNROLL(4)
            for (int q = 0; q < TILE / W; q++)
                row[q] += points->weight[n] * load(transforms + 12 * (ptrdiff_t)points->joint[n] + q * W);
        }
        UNROLL(4)
        for (int q = 0; q < TILE / W; q++) turn[q * W + i] = row[q];
    }
    UNROLL(4)
    for (int q = 0; q < TILE / W; q++) transpose(turn + q * W);
}

INLINE void narrow_forward_of(const Plan *plan, float *rows, ptrdiff_t tile, ptrdiff_t body, const int count)
{
    const Points *points = plan->points;
    ptrdiff_t left = points->count - tile * TILE;
    for (int s = 0; s < TILE && s < left; s += W) {
        vf v[NARROW][3];
        const float *drive = plan->drives + body * plan->width;
        if (count == 1 && plan->straight) blend_digits(plan, tile, drive, s, v[0], NULL);
        else narrow_blend(plan, rows, points->mean + tile * ROW, drive, s, v, count);
        for (int b = 0; b < count; b++, drive += plan->width) {
            const float *shift = drive + plan->rows;
            vf turn[TILE];
            narrow_turns(points, tile, s, shift + 3, turn);
            for (int r = 0; r < 3; r++) {
                vf out = turn[4 * r] * v[b][0] + turn[4 * r + 1] * v[b][1] + turn[4 * r + 2] * v[b][2] + turn[4 * r + 3]
                    + shift[r];
                float *to = plan->call->posed + ((body + b) * 3 + r) * points->count + tile * TILE + s;
                if (left - s >= W) store(to, out);
                else memcpy(to, &out, sizeof(float) * (size_t)(left - s));
            }
        }
    }
}

/* As `wide_backward`. Gradients by rows go to `to`, (narrow, width); those by transforms to `turns`, (narrow, J + 1, TILE),
 * of which the last is the sum over all points. */
INLINE void narrow_backward_of(const Plan *plan, float *rows, ptrdiff_t tile, ptrdiff_t body, float *to, float *turns,
                               const int count)
{
    const Points *points = plan->points;
    ptrdiff_t left = points->count - tile * TILE, joints = points->joints;
    to += body * plan->width;
    turns += (body - plan->wide) * (joints + 1) * TILE;
    for (int s = 0; s < TILE && s < left; s += W) {
        vf v[NARROW][3], p[NARROW][3];
        const float *drive = plan->drives + body * plan->width;
        if (count == 1 && plan->straight) blend_digits(plan, tile, drive, s, v[0], rows);
        else narrow_blend(plan, rows, points->mean + tile * ROW, drive, s, v, count);
        for (int b = 0; b < count; b++, drive += plan->width) {
            vf g[3], turn[TILE], by[TILE] = {{0}};
            narrow_turns(points, tile, s, drive + plan->rows + 3, turn);
            UNROLL(3)
            for (int r = 0; r < 3; r++) {
                g[r] = pull_of(plan, tile, body + b, r, s);
                UNROLL(3)
                for (int c = 0; c < 3; c++) by[4 * r + c] = g[r] * v[b][c];
                by[4 * r + 3] = g[r];
            }
            UNROLL(3)
            for (int c = 0; c < 3; c++) p[b][c] = turn[c] * g[0] + turn[4 + c] * g[1] + turn[8 + c] * g[2];
            float *sums = turns + b * (joints + 1) * TILE;
            UNROLL(4)
            for (int q = 0; q < TILE / W; q++) {
                transpose(by + q * W);
                vf all = load(sums + joints * TILE + q * W);
                for (int i = 0; i < W; i++) {
                    all += by[q * W + i];
                    for (int n = points->first[tile * TILE + s + i]; n < points->first[tile * TILE + s + i + 1]; n++) {
                        float *sum = sums + points->joint[n] * TILE + q * W;
                        store(sum, load(sum) + points->weight[n] * by[q * W + i]);
                    }
                }
                store(sums + joints * TILE + q * W, all);
            }
        }
        for (ptrdiff_t k = plan->first_row; k < plan->rows; k += W) {
            const float *row = rows + k * ROW + s;
            ptrdiff_t some = plan->rows - k < W ? plan->rows - k : W;
            for (int b = 0; b < count; b++) {
                vf part[W];
#define PRODUCT (load(row + q * ROW) * p[b][0] + load(row + q * ROW + TILE) * p[b][1] + load(row + q * ROW + 2 * TILE) * p[b][2])
                if (some == W) {
                    UNROLL(16)
                    for (int q = 0; q < W; q++) part[q] = PRODUCT;
                } else
                    for (int q = 0; q < W; q++) part[q] = q < some ? PRODUCT : (vf){0};
#undef PRODUCT
                float *sum = to + b * plan->width + k; /* beyond the last row zero is added to what is not used */
                store(sum, load(sum) + sums_across(part));
            }
        }
    }
}

/* Call a narrow pass for the bodies left over, as many together as registers hold. */
#define NARROW_PASSES(pass)                                                                                            \
    for (ptrdiff_t body = plan->wide; body < plan->wide + plan->narrow;) {                                             \
        ptrdiff_t left = plan->wide + plan->narrow - body;                                                             \
        if (left >= 8 && NARROW == 8) { pass(NARROW); body += NARROW; }                  \
        else if (left >= 4) { pass(4); body += 4; }                                      \
        else if (left >= 2) { pass(2); body += 2; }                                      \
        else { pass(1); body += 1; }                                                     \
    }
#define FORWARD_PASS(count) narrow_forward_of(plan, rows, tile, body, count)
#define BACKWARD_PASS(count) narrow_backward_of(plan, rows, tile, body, gradients, turns, count)

static void narrow_forward(const Plan *plan, float *rows, ptrdiff_t tile)
{
    NARROW_PASSES(FORWARD_PASS)
}

static void narrow_backward(const Plan *plan, float *rows, ptrdiff_t tile, float *gradients, float *turns)
{
    NARROW_PASSES(BACKWARD_PASS)
}

/* Tiles from `begin` to `end`: forward where `gradients` is NULL. */
static void tiles_pass(const Plan *plan, ptrdiff_t begin, ptrdiff_t end, float *made, float *gradients, float *turns)
{
    ptrdiff_t first = 0;
    do {
        ptrdiff_t last = first + CHUNK < plan->wide ? first + CHUNK : plan->wide;
        for (ptrdiff_t tile = begin; tile < end; tile++) {
            float *rows = plan->straight ? made : tile_rows(plan->points, tile, plan->first_row, made);
            for (ptrdiff_t body = first; body < last; body += W) {
                if (gradients) wide_backward(plan, rows, tile, body, gradients);
                else wide_forward(plan, rows, tile, body);
            }
            if (last == plan->wide && plan->narrow) {
                if (gradients) narrow_backward(plan, rows, tile, gradients, turns);
                else narrow_forward(plan, rows, tile);
            }
        }
        first = last;
    } while (first < plan->wide);
}

/* Put the narrow gradients by transforms where those of wide bodies are. */
static void gather_turns(const Plan *plan, float *gradients, const float *turns)
{
    ptrdiff_t joints = plan->points->joints;
    for (ptrdiff_t body = plan->wide; body < plan->wide + plan->narrow; body++, turns += (joints + 1) * TILE) {
        float *to_shift = gradients + body * plan->width + plan->rows;
        for (int r = 0; r < 3; r++) to_shift[r] = turns[joints * TILE + 4 * r + 3];
        for (ptrdiff_t j = 0; j < joints; j++) memcpy(to_shift + 3 + 12 * j, turns + j * TILE, 12 * sizeof(float));
    }
}

/* ---- a whole call ---- */

/* Return where body b's drive lies in an array of them, and the step between its numbers. */
INLINE float *drive_of(const Plan *plan, float *drives, ptrdiff_t b, ptrdiff_t *step)
{
    *step = b < plan->wide ? W : 1;
    return b < plan->wide ? drives + b / W * W * plan->width + b % W : drives + b * plan->width;
}

static void chains_forward(const Plan *plan, float *memory)
{
    Body body = body_in(memory, plan->call->tree);
    for (ptrdiff_t b = 0; b < plan->call->bodies; b++) {
        ptrdiff_t step = 1;
        float *drive = plan->points ? drive_of(plan, plan->drives, b, &step) : NULL;
        chain_forward(plan->call, &body, b, drive, step);
    }
}

static void chains_backward(const Plan *plan, float *memory, float *gradients)
{
    /* Each chain is made again: it costs less than keeping it. */
    Call quiet = *plan->call;
    quiet.joints = quiet.rotations = NULL;
    Body body = body_in(memory, quiet.tree);
    for (ptrdiff_t b = 0; b < quiet.bodies; b++) {
        ptrdiff_t step = 1;
        float *drive = gradients ? drive_of(plan, plan->drives, b, &step) : NULL;
        chain_forward(&quiet, &body, b, drive, step);
        chain_backward(&quiet, &body, b, gradients ? drive_of(plan, gradients, b, &step) : NULL, step);
    }
}

static Plan plan_of(const Call *call)
{
    Plan plan = {.call = call, .points = call->points};
    if (!call->points) return plan;
    plan.rows = call->points->shapes + call->points->features;
    plan.width = plan.rows + 3 + 12 * (ptrdiff_t)call->tree->joints;
    plan.first_row = call->points->shapes;
    for (int n = 0; n < call->tree->shape_slots; n++)
        if (call->slots[n].data) plan.first_row = 0;
    plan.wide = call->bodies / W * W;
    plan.narrow = call->bodies - plan.wide;
    plan.straight = call->points->digits && call->bodies == 1;
    return plan;
}

static float *allocate(size_t floats)
{
    void *memory = NULL;
    return posix_memalign(&memory, 64, sizeof(float) * (floats + 16)) ? NULL : memory;
}

static size_t whole_lines(size_t floats) { return (floats + 15) / 16 * 16; }

static int run(const Call *call, int backward)
{
    Plan plan = plan_of(call);
    const Points *points = plan.points;
    int threads = call->threads;
    /* A thread is worth waking for some 10 us of work, which is 64 tiles of a body. */
    ptrdiff_t worth = points ? 1 + points->tiles * call->bodies / 64 : 1;
    if (points && worth > points->tiles) worth = points->tiles;
    if (threads > worth) threads = (int)worth;
    /* Memory: a chain; a tile's rows for each thread; drives; and backward, for each thread, gradients by the drives and by
     * the transforms of narrow bodies. */
    size_t chain = whole_lines(body_floats(call->tree));
    size_t made = points && points->digits ? whole_lines((size_t)(plan.rows * ROW)) : 0;
    size_t drives = points ? whole_lines((size_t)(call->bodies * plan.width)) : 0;
    size_t own_turns = points && backward ? (size_t)(plan.narrow * (points->joints + 1) * TILE) : 0;
    size_t each = made + (backward ? drives + own_turns : 0);
    float *memory = allocate(chain + drives + (size_t)threads * each);
    if (!memory) return -1;
    plan.drives = memory + chain;
    float *own = plan.drives + drives;
    if (!backward || points) chains_forward(&plan, memory);
    if (points && call->bodies) {
        /* Forward in more pieces than threads, for whoever is free. Backward in one each, whoever takes it: its sums are
         * those of the piece, so that they do not depend on who was first. */
        int pieces = backward || threads == 1 ? threads : 8 * threads;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
#endif
        for (int piece = 0; piece < pieces; piece++) {
#ifdef _OPENMP
            int owner = backward ? piece : omp_get_thread_num();
#else
            int owner = piece;
#endif
            float *mine = own + (size_t)owner * each, *gradients = backward ? mine + made : NULL;
            float *turns = backward ? gradients + drives : NULL;
            if (backward) memset(gradients, 0, sizeof(float) * (drives + own_turns));
            tiles_pass(&plan, points->tiles * piece / pieces, points->tiles * (piece + 1) / pieces, mine, gradients, turns);
            if (backward) gather_turns(&plan, gradients, turns);
        }
    }
    if (backward) {
        float *gradients = points ? own + made : NULL;
        for (int thread = 1; points && thread < threads; thread++) /* always in the same order */
            for (size_t n = 0; n < drives; n++) gradients[n] += gradients[(size_t)thread * each + n];
        chains_backward(&plan, memory, gradients);
    }
    free(memory);
    return 0;
}

static int forward(const Call *call) { return run(call, 0); }
static int backward(const Call *call) { return run(call, 1); }

const Kernel KERNEL = {NAME, forward, backward};
