/* The trees of joints of a call: one body in floats, or several at a time in the lanes of vectors. */
#include <math.h>
#include <string.h>

#include "plan.h"

/* Read `count` numbers of each of some bodies, `stride` floats apart. Lanes left over repeat the last. */
INLINE void take_many(vf *to, const float *from, ptrdiff_t stride, ptrdiff_t count, int bodies)
{
    ptrdiff_t k = 0;
    for (; k + W <= count; k += W) {
        for (int lane = 0; lane < W; lane++) to[k + lane] = load(from + (lane < bodies ? lane : bodies - 1) * stride + k);
        transpose(to + k);
    }
    for (; k < count; k++)
        for (int lane = 0; lane < W; lane++) to[k][lane] = from[(lane < bodies ? lane : bodies - 1) * stride + k];
}

/* Write them. */
INLINE void give_many(float *to, const vf *from, ptrdiff_t stride, ptrdiff_t count, int bodies)
{
    ptrdiff_t k = 0;
    for (; k + W <= count; k += W) {
        vf square[W];
        memcpy(square, from + k, sizeof square);
        transpose(square);
        for (int lane = 0; lane < bodies; lane++) store(to + lane * stride + k, square[lane]);
    }
    for (; k < count; k++)
        for (int lane = 0; lane < bodies; lane++) to[lane * stride + k] = from[k][lane];
}

INLINE void take_one(float *to, const float *from, ptrdiff_t stride, ptrdiff_t count, int bodies)
{
    (void)stride, (void)bodies;
    memcpy(to, from, sizeof(float) * (size_t)count);
}

INLINE void give_one(float *to, const float *from, ptrdiff_t stride, ptrdiff_t count, int bodies)
{
    (void)stride, (void)bodies;
    memcpy(to, from, sizeof(float) * (size_t)count);
}

INLINE float at_least_one(float x, float least) { return x < least ? least : x; }

INLINE vf at_least_many(vf x, float least)
{
    for (int lane = 0; lane < W; lane++) x[lane] = x[lane] < least ? least : x[lane];
    return x;
}

/* Beyond half a turn, and for what is not a number, the half angle's functions are those of the library. */
INLINE void beyond_half_a_turn_one(float square, float *sinc, float *cosine)
{
    if (square < 9.8696044f) return; /* pi² */
    float half = 0.5f * sqrtf(square);
    *sinc = sinf(half) / half;
    *cosine = cosf(half);
}

INLINE void beyond_half_a_turn_many(vf square, vf *sinc, vf *cosine)
{
    int within = 1;
    for (int lane = 0; lane < W; lane++) within &= square[lane] < 9.8696044f;
    for (int lane = 0; lane < W && !within; lane++) {
        float one_sinc = (*sinc)[lane], one_cosine = (*cosine)[lane];
        beyond_half_a_turn_one(square[lane], &one_sinc, &one_cosine);
        (*sinc)[lane] = one_sinc, (*cosine)[lane] = one_cosine;
    }
}

#define REAL float
#define LANES 1
#define NAMED(name) name##_one
#include "chain.h"
#undef REAL
#undef LANES
#undef NAMED
#define REAL vf
#define LANES W
#define NAMED(name) name##_many
#include "chain.h"

/* Bodies from b on that are posed together. Two take less time one after the other. */
static int bodies_at(const Call *call, ptrdiff_t b)
{
    ptrdiff_t left = call->bodies - b;
    return left < 3 ? 1 : left < W ? (int)left : W;
}

/* Floats of memory for a chain of either kind; `chains_floats` beside it for the drives of its bodies. */
static size_t chain_floats(const Tree *t) { return W * ((size_t)t->joints * 62 + 2 * (size_t)t->shapes); }

static size_t chains_floats(const Plan *plan) { return chain_floats(plan->call->tree) + (size_t)(W * plan->width); }

/* Put the drives of bodies from b on where the tiles have them; or fetch them. */
static void put_drives(const Plan *plan, const vf *from, ptrdiff_t b, int bodies, float *drives)
{
    if (b >= plan->wide) give_many(drives + b * plan->width, from, plan->width, plan->width, bodies);
    else
        for (ptrdiff_t k = 0; k < plan->width; k++) memcpy(drives + (b / W * plan->width + k) * W + b % W, from + k, sizeof *from);
}

static void fetch_drives(const Plan *plan, vf *to, ptrdiff_t b, int bodies, const float *drives)
{
    if (b >= plan->wide) take_many(to, drives + b * plan->width, plan->width, plan->width, bodies);
    else
        for (ptrdiff_t k = 0; k < plan->width; k++) memcpy(to + k, drives + (b / W * plan->width + k) * W + b % W, sizeof *to);
}

static void chains_forward(const Plan *plan, float *memory)
{
    const Call *call = plan->call;
    vf *drive = plan->points ? (vf *)(memory + chain_floats(call->tree)) : NULL;
    for (ptrdiff_t b = 0; b < call->bodies; b += bodies_at(call, b)) {
        int bodies = bodies_at(call, b);
        if (bodies == 1) {
            Body_one body = body_in_one(memory, call->tree);
            chain_forward_one(call, &body, b, 1, plan->points ? plan->drives + b * plan->width : NULL);
        } else {
            Body_many body = body_in_many(memory, call->tree);
            chain_forward_many(call, &body, b, bodies, drive);
            if (drive) put_drives(plan, drive, b, bodies, plan->drives);
        }
    }
}

/* `gradients` are those by the drives; or NULL. */
static void chains_backward(const Plan *plan, float *memory, const float *gradients)
{
    /* Each chain is made again: it costs less than keeping it. */
    Call call = *plan->call;
    call.joints = call.rotations = NULL;
    vf *drive = gradients ? (vf *)(memory + chain_floats(call.tree)) : NULL;
    for (ptrdiff_t b = 0; b < call.bodies; b += bodies_at(&call, b)) {
        int bodies = bodies_at(&call, b);
        if (bodies == 1) {
            Body_one body = body_in_one(memory, call.tree);
            float *unused = gradients ? plan->drives + b * plan->width : NULL;
            chain_forward_one(&call, &body, b, 1, unused);
            chain_backward_one(&call, &body, b, 1, gradients ? gradients + b * plan->width : NULL);
        } else {
            Body_many body = body_in_many(memory, call.tree);
            chain_forward_many(&call, &body, b, bodies, drive);
            if (drive) fetch_drives(plan, drive, b, bodies, gradients);
            chain_backward_many(&call, &body, b, bodies, drive);
        }
    }
}
