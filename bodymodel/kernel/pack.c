/* Packs constants once, into capsules. */
#define PY_SSIZE_T_CLEAN
#include "module.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *copy(const Py_buffer *from, int *failed)
{
    void *to = malloc((size_t)from->len + 1);
    if (!to) *failed = 1;
    else memcpy(to, from->buf, (size_t)from->len);
    return to;
}

static void *lines(size_t bytes, int *failed)
{
    void *memory = NULL;
    size_t large = 2 << 20, align = bytes < 2 * large ? 64 : large;
    if (posix_memalign(&memory, align, bytes + align)) {
        *failed = 1;
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    /* Reading megabytes through pages of 4 KiB, the processor would also read where they lie. */
    if (align == large) madvise(memory, bytes + align, MADV_HUGEPAGE);
#endif
    memset(memory, 0, bytes + 64);
    return memory;
}

static void tree_free(Tree *t)
{
    if (!t) return;
    void *owned[] = {t->parent, t->moving, t->shape_start, t->part_start, t->part_joints, t->part_feature, t->still, t->lever};
    for (size_t n = 0; n < sizeof owned / sizeof *owned; n++) free(owned[n]);
    free(t);
}

static void points_free(Points *p)
{
    if (!p) return;
    void *owned[] = {p->mean, p->rows, p->shape_rows, p->scales, p->digits, p->first, p->joint, p->weight};
    for (size_t n = 0; n < sizeof owned / sizeof *owned; n++) free(owned[n]);
    free(p);
}

static void tree_capsule_free(PyObject *capsule) { tree_free(PyCapsule_GetPointer(capsule, "tree")); }
static void points_capsule_free(PyObject *capsule) { points_free(PyCapsule_GetPointer(capsule, "points")); }

PyObject *make_tree(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer parent, moving, shape_start, part_joints, still, lever;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*", &parent, &moving, &shape_start, &part_joints, &still, &lever)) return NULL;
    Tree *t = calloc(1, sizeof *t);
    int failed = !t;
    PyObject *capsule = NULL;
    if (t) {
        t->joints = (int)(parent.len / (Py_ssize_t)sizeof(int));
        t->features = (int)(moving.len / (Py_ssize_t)sizeof(int));
        t->shape_slots = (int)(shape_start.len / (Py_ssize_t)sizeof(int));
        t->part_slots = (int)(part_joints.len / (Py_ssize_t)sizeof(int));
        t->shapes = (int)(lever.len / (Py_ssize_t)(6 * sizeof(float) * (size_t)t->joints)) - 1;
        t->parent = copy(&parent, &failed);
        t->moving = copy(&moving, &failed);
        t->shape_start = copy(&shape_start, &failed);
        t->part_joints = copy(&part_joints, &failed);
        t->part_start = copy(&part_joints, &failed);
        if (!(t->part_feature = calloc((size_t)t->part_slots + 1, sizeof(int)))) failed = 1;
        t->still = copy(&still, &failed);
        t->lever = copy(&lever, &failed);
        for (int n = 0, start = 0, feature = 0; !failed && n < t->part_slots; n++) {
            t->part_start[n] = start;
            start += t->part_joints[n];
            while (feature < t->features && t->moving[feature] < 9 * (start - 1)) feature++;
            t->part_feature[n + 1] = feature;
        }
    }
    if (failed) PyErr_NoMemory();
    else if (t->shape_slots + t->part_slots + 1 > MOST_SLOTS) PyErr_SetString(PyExc_ValueError, "too many arguments");
    else capsule = PyCapsule_New(t, "tree", tree_capsule_free);
    if (!capsule) tree_free(t);
    Py_buffer *buffers[] = {&parent, &moving, &shape_start, &part_joints, &still, &lever};
    for (size_t n = 0; n < 6; n++) PyBuffer_Release(buffers[n]);
    return capsule;
}

/* Copy one tile's part of a row of planes (3 V). */
static void pack_row(float *to, const float *planes, ptrdiff_t count, ptrdiff_t tile)
{
    for (int c = 0; c < 3; c++)
        for (ptrdiff_t i = 0; i < TILE && tile * TILE + i < count; i++) to[TILE * c + i] = planes[c * count + tile * TILE + i];
}

/* Write a row in fixed point of 21 bits, see `unpack_row`, and return its scale. The rounding is at most a millionth of half
 * the row's largest number: what a number takes along of another's bits is known when it is rounded. */
static float pack_digits(int32_t *to, const float row[ROW])
{
    float most = 0;
    for (int i = 0; i < ROW; i++) most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    float scale = (float)(most / (2147483648.0 - 4096)); /* room for the bits of another */
    for (int i = 0; i < TILE && scale > 0; i++) {
        uint32_t y = (uint32_t)lrint((double)row[TILE + i] / scale / 1024) & 0x3fffff;
        uint32_t z = (uint32_t)lrint(((double)row[2 * TILE + i] / scale - (y >> 11)) / 2048) & 0x1fffff;
        uint32_t x = (uint32_t)lrint(((double)row[i] / scale - (z >> 10)) / 2048);
        to[i] = (int32_t)(x << 11 | z >> 10);
        to[TILE + i] = (int32_t)(z << 22 | y);
    }
    return scale;
}

static int pack_weights(Points *p, const float *weights)
{
    int failed = 0;
    ptrdiff_t entries = 0;
    for (ptrdiff_t n = 0; n < p->count * p->joints; n++) entries += weights[n] != 0;
    p->first = lines(sizeof(int32_t) * (size_t)(p->tiles * TILE + 1), &failed);
    p->joint = lines(sizeof(int32_t) * (size_t)entries, &failed);
    p->weight = lines(sizeof(float) * (size_t)entries, &failed);
    if (failed) return -1;
    entries = 0;
    for (ptrdiff_t v = 0; v < p->tiles * TILE; v++) {
        for (int j = 0; v < p->count && j < p->joints; j++)
            if (weights[j * p->count + v] != 0) {
                p->joint[entries] = j;
                p->weight[entries++] = weights[j * p->count + v];
            }
        p->first[v + 1] = (int32_t)entries;
    }
    return 0;
}

static int pack_points(Points *p, const float *mean, const float *shape, const float *pose, const float *weights, int digits)
{
    int failed = 0;
    size_t tiles = (size_t)p->tiles, shapes = (size_t)p->shapes, features = (size_t)p->features;
    p->mean = lines(sizeof(float) * tiles * ROW, &failed);
    if (digits) {
        p->shape_rows = lines(sizeof(float) * tiles * shapes * ROW, &failed);
        p->scales = lines(sizeof(float) * tiles * features, &failed);
        p->digits = lines(sizeof(int32_t) * tiles * features * WORDS, &failed);
    } else
        p->rows = lines(sizeof(float) * (tiles * (shapes + features) + PANEL) * ROW, &failed);
    if (failed) return -1;
    for (ptrdiff_t tile = 0; tile < p->tiles; tile++) {
        pack_row(p->mean + tile * ROW, mean, p->count, tile);
        float *rows = digits ? p->shape_rows + (size_t)tile * shapes * ROW : p->rows + (size_t)tile * (shapes + features) * ROW;
        for (size_t s = 0; s < shapes; s++) pack_row(rows + s * ROW, shape + s * 3 * (size_t)p->count, p->count, tile);
        for (size_t f = 0; f < features; f++) {
            const float *planes = pose + f * 3 * (size_t)p->count;
            if (!digits) {
                pack_row(rows + (shapes + f) * ROW, planes, p->count, tile);
                continue;
            }
            float row[ROW] = {0};
            pack_row(row, planes, p->count, tile);
            size_t at = (size_t)tile * features + f;
            p->scales[at] = pack_digits(p->digits + at * WORDS, row);
        }
    }
    return pack_weights(p, weights);
}

PyObject *make_points(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer mean, shape, pose, weights;
    int shapes, features, joints, digits;
    if (!PyArg_ParseTuple(args, "y*y*y*y*iiip", &mean, &shape, &pose, &weights, &shapes, &features, &joints, &digits)) return NULL;
    PyObject *capsule = NULL;
    Points *p = calloc(1, sizeof *p);
    int failed = !p;
    if (p) {
        p->count = mean.len / (Py_ssize_t)(3 * sizeof(float));
        p->tiles = (p->count + TILE - 1) / TILE;
        p->shapes = shapes, p->features = features, p->joints = joints;
        if (shape.len != shapes * mean.len || pose.len != features * mean.len || weights.len * 3 != joints * mean.len) {
            PyErr_SetString(PyExc_ValueError, "points: expected arrays that fit each other");
            failed = 1;
        }
        Py_BEGIN_ALLOW_THREADS
        if (!failed) failed = pack_points(p, mean.buf, shape.buf, pose.buf, weights.buf, digits);
        Py_END_ALLOW_THREADS
    }
    if (failed && !PyErr_Occurred()) PyErr_NoMemory();
    if (!failed) capsule = PyCapsule_New(p, "points", points_capsule_free);
    if (!capsule) points_free(p);
    PyBuffer_Release(&mean), PyBuffer_Release(&shape), PyBuffer_Release(&pose), PyBuffer_Release(&weights);
    return capsule;
}

PyObject *points_bytes(PyObject *self, PyObject *capsule)
{
    (void)self;
    const Points *p = PyCapsule_GetPointer(capsule, "points");
    if (!p) return NULL;
    size_t rows = p->digits ? (size_t)p->shapes * ROW * 4 + (size_t)p->features * (WORDS * 4 + 4)
                            : (size_t)(p->shapes + p->features) * ROW * 4;
    size_t each = (size_t)p->tiles * (rows + ROW * 4 + TILE * 4);
    return PyLong_FromSize_t(each + 8 * (size_t)p->first[p->tiles * TILE]);
}

static void mixture_free(Mixture *m)
{
    if (!m) return;
    free(m->first), free(m->column), free(m->weight), free(m);
}

static void mixture_capsule_free(PyObject *capsule) { mixture_free(PyCapsule_GetPointer(capsule, "mixture")); }

PyObject *make_mixture(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer points, joints;
    int keypoints, failed = 0;
    if (!PyArg_ParseTuple(args, "y*y*i", &points, &joints, &keypoints)) return NULL;
    size_t rows = (size_t)keypoints, numbers = ((size_t)points.len + (size_t)joints.len) / sizeof(float);
    Mixture *m = calloc(1, sizeof *m);
    PyObject *capsule = NULL;
    if (m) {
        m->first = lines(sizeof(int) * (rows + 1), &failed);
        m->column = lines(sizeof(int) * numbers, &failed);
        m->weight = lines(sizeof(float) * numbers, &failed);
    }
    if (!m || failed) PyErr_NoMemory();
    else {
        m->keypoints = keypoints;
        m->points = rows ? points.len / (Py_ssize_t)(sizeof(float) * rows) : 0;
        m->joints = rows ? (int)((size_t)joints.len / (sizeof(float) * rows)) : 0;
        int n = 0;
        for (ptrdiff_t k = 0; k < keypoints; k++) {
            for (ptrdiff_t c = 0; c < m->points + m->joints; c++) {
                float w = c < m->points ? ((const float *)points.buf)[k * m->points + c]
                                        : ((const float *)joints.buf)[k * m->joints + c - m->points];
                if (w != 0) m->column[n] = (int)c, m->weight[n++] = w;
            }
            m->first[k + 1] = n;
        }
        capsule = PyCapsule_New(m, "mixture", mixture_capsule_free);
    }
    if (!capsule) mixture_free(m);
    PyBuffer_Release(&points), PyBuffer_Release(&joints);
    return capsule;
}
