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
#include "chains.h"
#include "narrow.h"
#include "wide.h"

/* Memory of one thread: rows made of digits, and backward the gradients by drives, those by the transforms of narrow bodies,
 * and those by their blended points. */
typedef struct {
    float *made, *gradients, *turns, *pulls;
} Own;

/* Tiles from `begin` to `end`: forward where there are no gradients. */
static void tiles_pass(const Plan *plan, ptrdiff_t begin, ptrdiff_t end, Own own)
{
    ptrdiff_t first = 0, deep = plan->deep;
    do {
        ptrdiff_t last = first + CHUNK < plan->wide ? first + CHUNK : plan->wide;
        int narrow = last == plan->wide && plan->narrow;
        for (ptrdiff_t block = begin; block < end; block += deep) {
            ptrdiff_t tiles = end - block < deep ? end - block : deep;
            float *rows = plan->points->digits ? own.made : rows_of(plan->points, block);
            for (ptrdiff_t n = 0; n < tiles; n++) {
                ptrdiff_t tile = block + n;
                float *now = rows + n * plan->rows * ROW;
                if (plan->points->digits && !plan->straight) make_rows(plan, tile, now);
                for (ptrdiff_t body = first; body < last; body += W) {
                    if (own.gradients) wide_backward(plan, now, tile, body, own.gradients);
                    else wide_forward(plan, now, tile, body);
                }
                if (narrow && own.gradients) narrow_backward(plan, now, tile, own.pulls + n * plan->narrow * ROW, own.turns);
                else if (narrow) narrow_forward(plan, now, tile);
            }
            if (narrow && own.gradients) narrow_products(plan, rows, block, tiles, own.pulls, own.gradients);
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

/* What is left out does not turn, and so drives no row; nor is a gradient by it wanted. */
static void choose_rows(Plan *plan)
{
    const Tree *t = plan->call->tree;
    const Slot *slots = plan->call->slots;
    for (int n = 0; n < t->shape_slots && !plan->ranges; n++)
        if (slots[n].data) plan->range[plan->ranges++] = (Range){0, t->shapes, 0};
    for (int n = 0; n < t->part_slots; n++) {
        Range part = {t->shapes + t->part_feature[n], t->shapes + t->part_feature[n + 1], 0};
        if (!slots[t->shape_slots + n].data || part.begin == part.end) continue;
        if (plan->ranges && plan->range[plan->ranges - 1].end == part.begin) plan->range[plan->ranges - 1].end = part.end;
        else plan->range[plan->ranges++] = part;
    }
    for (int n = 0; n < plan->ranges; n++) {
        ptrdiff_t next = n + 1 < plan->ranges ? plan->range[n + 1].begin : larger(plan->range[0].begin, t->shapes) + t->features;
        plan->range[n].jump = next - plan->range[n].end;
    }
}

static Plan plan_of(const Call *call, int backward)
{
    Plan plan = {.call = call, .points = call->points};
    if (!call->points) return plan;
    plan.rows = call->points->shapes + call->points->features;
    plan.width = plan.rows + 3 + 12 * (ptrdiff_t)call->tree->joints;
    choose_rows(&plan);
    plan.wide = call->bodies / W * W;
    plan.narrow = call->bodies - plan.wide;
    plan.straight = call->points->digits && call->bodies == 1;
    plan.deep = backward && plan.narrow && !plan.straight ? DEEP : 1;
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
    Plan plan = plan_of(call, backward);
    const Points *points = plan.points;
    int threads = call->threads;
    /* A thread is worth waking for some 10 us of work, which is 64 tiles of a body. */
    ptrdiff_t worth = points ? 1 + points->tiles * call->bodies / 64 : 1;
    if (points && worth > points->tiles) worth = points->tiles;
    if (threads > worth) threads = (int)worth;
    /* Memory: a chain, the drives, and what each thread has of its own. */
    size_t chain = whole_lines(chains_floats(&plan));
    size_t drives = points ? whole_lines((size_t)(call->bodies * plan.width)) : 0;
    size_t made = points && points->digits ? whole_lines((size_t)((plan.deep * plan.rows + PANEL) * ROW)) : 0;
    size_t turns = points && backward ? (size_t)(plan.narrow * (points->joints + 1) * TILE) : 0;
    size_t pulls = points && backward ? (size_t)(plan.deep * plan.narrow * ROW) : 0;
    size_t each = made + (backward ? drives + turns + pulls : 0);
    float *memory = allocate(chain + drives + (size_t)threads * each);
    if (!memory) return -1;
    plan.drives = memory + chain;
    float *owned = plan.drives + drives;
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
            Own own = {.made = owned + (size_t)owner * each};
            if (backward) {
                own.gradients = own.made + made;
                own.turns = own.gradients + drives;
                own.pulls = own.turns + turns;
                memset(own.gradients, 0, sizeof(float) * (drives + turns));
            }
            tiles_pass(&plan, points->tiles * piece / pieces, points->tiles * (piece + 1) / pieces, own);
            if (backward) gather_turns(&plan, own.gradients, own.turns);
        }
    }
    if (backward) {
        float *gradients = points ? owned + made : NULL;
        for (int thread = 1; points && thread < threads; thread++) /* always in the same order */
            for (size_t n = 0; n < drives; n++) gradients[n] += gradients[(size_t)thread * each + n];
        chains_backward(&plan, memory, gradients);
    }
    free(memory);
    return 0;
}

static int forward(const Call *call) { return run(call, 0); }
static int backward(const Call *call) { return run(call, 1); }

#ifndef SHORTER
#define SHORTER NULL
#endif
const Kernel KERNEL = {NAME, SHORTER, forward, backward};
