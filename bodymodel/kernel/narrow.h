/* The bodies left over: the lanes of a vector are points. */
#include "plan.h"

/* Blend one body straight from the digits, which is then bound by the memory that they are read from. */
INLINE void blend_digits(const Plan *plan, ptrdiff_t tile, const float *drive, int s, vf v[3])
{
    const Points *points = plan->points;
    const float *rows = points->shape_rows + tile * points->shapes * ROW;
    const float *scales = points->scales + tile * points->features;
    vf sum[3] = {{0}};
    EACH_RANGE(plan, r) {
        ptrdiff_t k = r->begin;
        for (; k < points->shapes; k++) {
            UNROLL(3)
            for (int c = 0; c < 3; c++) sum[c] += drive[k] * load(rows + k * ROW + TILE * c + s);
        }
        EACH_DIGIT_ROW(r, k, ahead) {
            vf row[3];
            unpack_row(digits_of(points, tile, k, ahead), s, row);
            float coefficient = drive[k] * scales[k - points->shapes];
            UNROLL(3)
            for (int c = 0; c < 3; c++) sum[c] += coefficient * row[c];
        }
    }
    UNROLL(3)
    for (int c = 0; c < 3; c++) v[c] = sum[c] + load(points->mean + tile * ROW + TILE * c + s);
}

/* Blend `count` bodies: W points from s on. One body alone has two sums for each coordinate, or it would wait for them. */
INLINE void narrow_blend(const Plan *plan, const float *rows, ptrdiff_t tile, const float *drive, int s, vf v[][3],
                         const int count)
{
    if (count == 1 && plan->straight) {
        blend_digits(plan, tile, drive, s, v[0]);
        return;
    }
    const float *mean = plan->points->mean + tile * ROW;
    vf sum[NARROW][3] = {{{0}}}, odd[3] = {{0}};
    EACH_RANGE(plan, r) {
        ptrdiff_t k = r->begin;
        if (count == 1) {
            for (; k + 2 <= r->end; k += 2) {
                UNROLL(3)
                for (int c = 0; c < 3; c++) {
                    sum[0][c] += drive[k] * load(rows + k * ROW + TILE * c + s);
                    odd[c] += drive[k + 1] * load(rows + (k + 1) * ROW + TILE * c + s);
                }
            }
        }
        for (; k < r->end; k++) {
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
        narrow_blend(plan, rows, tile, drive, s, v, count);
        for (int b = 0; b < count; b++, drive += plan->width) {
            const float *shift = drive + plan->rows;
            vf turn[TILE];
            narrow_turns(points, tile, s, shift + 3, turn);
            vf planes[3], out[3];
            UNROLL(3)
            for (int r = 0; r < 3; r++)
                planes[r] = turn[4 * r] * v[b][0] + turn[4 * r + 1] * v[b][1] + turn[4 * r + 2] * v[b][2] + turn[4 * r + 3]
                    + shift[r];
            to_points(planes, out);
            float *to = plan->call->posed + 3 * ((body + b) * points->count + tile * TILE + s);
            if (left - s < W) memcpy(to, out, sizeof(float) * 3 * (size_t)(left - s));
            else
                for (int n = 0; n < 3; n++) store(to + W * n, out[n]);
        }
    }
}

/* As `wide_backward`, up to the gradients by the blended points, which go to `pulls`, (narrow, ROW). Those by transforms go
 * to `turns`, (narrow, J + 1, TILE), of which the last is the sum over all points. */
INLINE void narrow_backward_of(const Plan *plan, float *rows, ptrdiff_t tile, ptrdiff_t body, float *pulls, float *turns,
                               const int count)
{
    const Points *points = plan->points;
    ptrdiff_t left = points->count - tile * TILE, joints = points->joints;
    pulls += (body - plan->wide) * ROW;
    if (left < TILE) memset(pulls, 0, sizeof(float) * (size_t)count * ROW);
    turns += (body - plan->wide) * (joints + 1) * TILE;
    for (int s = 0; s < TILE && s < left; s += W) {
        vf v[NARROW][3];
        const float *drive = plan->drives + body * plan->width;
        narrow_blend(plan, rows, tile, drive, s, v, count);
        for (int b = 0; b < count; b++, drive += plan->width) {
            vf pull[3], g[3], turn[TILE], by[TILE] = {{0}};
            narrow_turns(points, tile, s, drive + plan->rows + 3, turn);
            for (int n = 0; n < 3; n++) pull[n] = pull_of(plan, tile, body + b, 3 * s + W * n);
            to_planes(pull, g);
            UNROLL(3)
            for (int r = 0; r < 3; r++) {
                UNROLL(3)
                for (int c = 0; c < 3; c++) by[4 * r + c] = g[r] * v[b][c];
                by[4 * r + 3] = g[r];
            }
            UNROLL(3)
            for (int c = 0; c < 3; c++)
                store(pulls + b * ROW + TILE * c + s, turn[c] * g[0] + turn[4 + c] * g[1] + turn[8 + c] * g[2]);
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
    }
}

/* Add the first `count` lanes to what is there. */
INLINE void add_to(float *at, vf some, ptrdiff_t count)
{
    if (count >= W) store(at, load(at) + some);
    else
        for (int lane = 0; lane < count; lane++) at[lane] += some[lane];
}

/* Add to the gradients by rows, of `count` bodies, the products of the rows of some tiles with what `narrow_backward_of` left
 * of each. Lanes are added up only then: it takes about as long as the products of one tile. */
INLINE void narrow_products_of(const Plan *plan, const float *rows, ptrdiff_t tiles, const float *pulls, ptrdiff_t body,
                               float *to, const int count)
{
    const int some = SUMS / count;
    pulls += (body - plan->wide) * ROW;
    to += body * plan->width;
    EACH_RANGE(plan, r)
        for (ptrdiff_t k = r->begin; k < r->end; k += PANEL) {
            ptrdiff_t left = r->end - k;
            vf part[NARROW][PANEL];
            for (int q = 0; q < PANEL; q += some) { /* what it reads beyond the last row is not used */
                vf sum[SUMS] = {{0}};
                const float *row = rows + (k + q) * ROW, *pull = pulls;
                for (ptrdiff_t tile = 0; tile < tiles; tile++, row += plan->rows * ROW, pull += plan->narrow * ROW)
                    for (int i = 0; i < ROW; i += W) {
                        vf p[NARROW];
                        UNROLL(8)
                        for (int b = 0; b < count; b++) p[b] = load(pull + b * ROW + i);
                        UNROLL(16)
                        for (int n = 0; n < some; n++) {
                            vf one = load(row + n * ROW + i);
                            IN_REGISTER(one);
                            UNROLL(8)
                            for (int b = 0; b < count; b++) sum[b * some + n] += p[b] * one;
                        }
                    }
                UNROLL(16)
                for (int n = 0; n < SUMS; n++) part[n / some][q + n % some] = sum[n];
            }
            for (int b = 0; b < count; b++)
                for (int q = 0; q < PANEL && q < left; q += W)
                    add_to(to + b * plan->width + k + q, sums_across(part[b] + q), left - q);
        }
}

/* Products of `count` rows of digits, of at most W, with what pulls at a tile's points, in units of the rows' scales. */
INLINE vf digit_products(const int32_t *digits, ptrdiff_t next, const vf pull[ROW / W], const int count)
{
    vf part[W] = {{0}};
    UNROLL(16)
    for (int q = 0; q < count; q++, digits += WORDS) {
        __builtin_prefetch(digits + next, 0, 2);
        __builtin_prefetch(digits + next + TILE, 0, 2);
        UNROLL(4)
        for (int s = 0; s < TILE; s += W) {
            vf row[3];
            unpack_row(digits, s, row);
            UNROLL(3)
            for (int c = 0; c < 3; c++) part[q] += row[c] * pull[(TILE * c + s) / W];
        }
    }
    return sums_across(part);
}

/* As `narrow_products_of`, of one body and one tile, whose digits are unpacked once more: it takes less time than to keep the
 * rows. Meanwhile the digits of the next tile are on their way. */
static void straight_products(const Plan *plan, ptrdiff_t tile, const float *pulls, float *to)
{
    const Points *points = plan->points;
    ptrdiff_t shapes = points->shapes, features = points->features;
    const float *rows = points->shape_rows + tile * shapes * ROW, *scales = points->scales + tile * features;
    vf pull[ROW / W];
    for (int n = 0; n < ROW / W; n++) pull[n] = load(pulls + n * W);
    EACH_RANGE(plan, r) {
        ptrdiff_t k = r->begin;
        for (; k < shapes; k += W) {
            vf part[W] = {{0}};
            for (int q = 0; q < W && k + q < shapes; q++)
                for (int n = 0; n < ROW / W; n++) part[q] += load(rows + (k + q) * ROW + n * W) * pull[n];
            add_to(to + k, sums_across(part), shapes - k);
        }
        const int32_t *digits = points->digits + (tile * features + larger(r->begin, shapes) - shapes) * WORDS;
        for (k = larger(r->begin, shapes); k < r->end; k += W, digits += W * WORDS) {
            int left = r->end - k < W ? (int)(r->end - k) : W;
            ptrdiff_t next = features * WORDS;
            vf sums = left == W ? digit_products(digits, next, pull, W) : digit_products(digits, next, pull, left);
            add_to(to + k, load(scales + k - shapes) * sums, left);
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
#define BACKWARD_PASS(count) narrow_backward_of(plan, rows, tile, body, pulls, turns, count)
#define PRODUCTS_PASS(count) narrow_products_of(plan, rows, tiles, pulls, body, gradients, count)

static void narrow_forward(const Plan *plan, float *rows, ptrdiff_t tile)
{
    NARROW_PASSES(FORWARD_PASS)
}

static void narrow_backward(const Plan *plan, float *rows, ptrdiff_t tile, float *pulls, float *turns)
{
    NARROW_PASSES(BACKWARD_PASS)
}

static void narrow_products(const Plan *plan, const float *rows, ptrdiff_t tile, ptrdiff_t tiles, const float *pulls,
                            float *gradients)
{
    if (plan->straight) straight_products(plan, tile, pulls, gradients);
    else NARROW_PASSES(PRODUCTS_PASS)
}
