/* The kernel's Python module: packs constants once, and runs calls on addresses that the caller has checked. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel.h"

static const Kernel *kernels[4]; /* that this processor runs, best first */
static const Kernel *kernel;
static pid_t home; /* the process that loaded the module */

static void find_kernels(void)
{
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma"))
        kernels[n++] = &physique_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels[n++] = &physique_avx2;
#endif
    kernels[n] = &physique_plain;
    kernel = kernels[0];
    home = getpid();
}

/* ---- packing ---- */

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
    void *owned[] = {t->parent, t->moving, t->shape_start, t->part_start, t->part_joints, t->still, t->lever};
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

static PyObject *make_tree(PyObject *self, PyObject *args)
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
        t->still = copy(&still, &failed);
        t->lever = copy(&lever, &failed);
        for (int n = 0, start = 0; !failed && n < t->part_slots; n++) {
            t->part_start[n] = start;
            start += t->part_joints[n];
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

static PyObject *make_points(PyObject *self, PyObject *args)
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

static PyObject *points_bytes(PyObject *self, PyObject *capsule)
{
    (void)self;
    const Points *p = PyCapsule_GetPointer(capsule, "points");
    if (!p) return NULL;
    size_t rows = p->digits ? (size_t)p->shapes * ROW * 4 + (size_t)p->features * (WORDS * 4 + 4)
                            : (size_t)(p->shapes + p->features) * ROW * 4;
    size_t each = (size_t)p->tiles * (rows + ROW * 4 + TILE * 4);
    return PyLong_FromSize_t(each + 8 * (size_t)p->first[p->tiles * TILE]);
}

/* Keypoints as means of points and joints: the weights that are not zero, row by row. */
typedef struct {
    ptrdiff_t keypoints, points;
    int joints, *first, *column; /* columns are points, then joints */
    float *weight;
} Mixture;

static void mixture_free(Mixture *m)
{
    if (!m) return;
    free(m->first), free(m->column), free(m->weight), free(m);
}

static void mixture_capsule_free(PyObject *capsule) { mixture_free(PyCapsule_GetPointer(capsule, "mixture")); }

static PyObject *make_mixture(PyObject *self, PyObject *args)
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

/* ---- calls ---- */

/* Read a sequence of numbers; return 0, or -1 with an error set. */
static int read_numbers(PyObject *sequence, Py_ssize_t most, Py_ssize_t *numbers, Py_ssize_t *count)
{
    PyObject *fast = PySequence_Fast(sequence, "expected a sequence of numbers");
    if (!fast) return -1;
    *count = PySequence_Fast_GET_SIZE(fast);
    if (*count > most) PyErr_SetString(PyExc_ValueError, "too many numbers");
    for (Py_ssize_t n = 0; n < *count && !PyErr_Occurred(); n++)
        numbers[n] = (Py_ssize_t)PyLong_AsSize_t(PySequence_Fast_GET_ITEM(fast, n));
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

/* Read what both directions take: tree, points or None, bodies, arguments (address, stride, count) flat, threads. */
static int read_call(PyObject *const *args, Call *call)
{
    Py_ssize_t numbers[3 * MOST_SLOTS], count;
    memset(call, 0, sizeof *call);
    call->tree = PyCapsule_GetPointer(args[0], "tree");
    if (!call->tree) return -1;
    if (args[1] != Py_None && !(call->points = PyCapsule_GetPointer(args[1], "points"))) return -1;
    call->bodies = PyLong_AsSsize_t(args[2]);
    call->threads = (int)PyLong_AsLong(args[4]);
    if (PyErr_Occurred() || read_numbers(args[3], 3 * MOST_SLOTS, numbers, &count)) return -1;
    const Tree *t = call->tree;
    int slots = t->shape_slots + t->part_slots + 1;
    const Points *p = call->points;
    if (count != 3 * slots || (p && (p->joints != t->joints || p->features != t->features || p->shapes != t->shapes))) {
        PyErr_SetString(PyExc_ValueError, "arguments: they do not fit the tree");
        return -1;
    }
    for (int n = 0; n < slots; n++) {
        call->slots[n].data = (const float *)numbers[3 * n];
        call->slots[n].stride = numbers[3 * n + 1];
        call->slots[n].count = (int)numbers[3 * n + 2];
    }
#ifdef _OPENMP
    /* A child made by fork has no workers, and OpenMP may wait for them forever. */
    if (call->threads < 1 || getpid() != home) call->threads = 1;
#else
    call->threads = 1;
#endif
    return 0;
}

/* Rows of directions, counted for each body, from which on a call takes the longest vectors. */
static ptrdiff_t long_from = 1 << 16;

/* The longest vectors slow the processor down for a while after, which a short call between other work does not win back.
 * One or two bodies hardly use them. */
static const Kernel *kernel_for(const Call *call)
{
    const Points *p = call->points;
    ptrdiff_t rows = p ? p->tiles * (p->shapes + p->features) * call->bodies : 0;
    return kernel->shorter && call->bodies > 2 && rows < long_from ? kernel->shorter : kernel;
}

/* Run without the interpreter's lock where it takes long enough to matter. */
static int run(const Call *call, int backward)
{
    const Kernel *chosen = kernel_for(call);
    int (*pass)(const Call *) = backward ? chosen->backward : chosen->forward;
    int failed;
    if (!call->points && call->bodies < 64)
        failed = pass(call);
    else {
        Py_BEGIN_ALLOW_THREADS
        failed = pass(call);
        Py_END_ALLOW_THREADS
    }
    if (failed) PyErr_NoMemory();
    return failed;
}

static float *address(PyObject *number) { return (float *)PyLong_AsSize_t(number); }

static PyObject *call_forward(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Call call;
    if (count != 8) return PyErr_Format(PyExc_TypeError, "forward: expected 8 arguments, got %zd", count);
    if (read_call(args, &call)) return NULL;
    call.posed = address(args[5]);
    call.joints = address(args[6]);
    call.rotations = address(args[7]);
    if (PyErr_Occurred() || run(&call, 0)) return NULL;
    Py_RETURN_NONE;
}

/* Read where gradients lie and their steps. */
static int read_gradient(PyObject *numbers, const float **gradient, ptrdiff_t *steps, Py_ssize_t count)
{
    Py_ssize_t read[4], found;
    if (read_numbers(numbers, 1 + count, read, &found)) return -1;
    *gradient = (const float *)read[0];
    for (Py_ssize_t n = 0; n < count; n++) steps[n] = read[n + 1];
    return 0;
}

static int read_wanted(PyObject *numbers, Call *call)
{
    Py_ssize_t gradients[MOST_SLOTS], found;
    if (PyErr_Occurred() || read_numbers(numbers, MOST_SLOTS, gradients, &found)) return -1;
    for (int n = 0; n < found; n++) call->gradients[n] = (float *)gradients[n];
    return 0;
}

static PyObject *call_backward(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Call call;
    if (count != 9) return PyErr_Format(PyExc_TypeError, "backward: expected 9 arguments, got %zd", count);
    if (read_call(args, &call) || read_gradient(args[5], &call.posed_grad, call.posed_stride, 3)) return NULL;
    if (!call.posed_grad) call.points = NULL;
    if (read_gradient(args[6], &call.joints_grad, &call.joints_stride, 1)) return NULL;
    call.rotations_grad = address(args[7]);
    if (read_wanted(args[8], &call) || run(&call, 1)) return NULL;
    Py_RETURN_NONE;
}

/* Read the mixture of a call, and take memory for its bodies' points and joints: (B, P, 3), then (B, J, 3). */
static const Mixture *read_mixture(PyObject *capsule, const Call *call, float **memory)
{
    const Mixture *m = PyCapsule_GetPointer(capsule, "mixture");
    if (!m) return NULL;
    ptrdiff_t points = call->points ? call->points->count : 0, joints = call->tree->joints;
    if (m->points != points || (m->joints && m->joints != joints)) {
        PyErr_SetString(PyExc_ValueError, "mixture: it does not fit the points");
        return NULL;
    }
    *memory = calloc((size_t)(call->bodies * (points + joints)) + 1, 3 * sizeof(float));
    if (*memory) return m;
    PyErr_NoMemory();
    return NULL;
}

/* Return where body b has the point or joint of a column. */
static float *column_of(const Call *call, float *memory, ptrdiff_t b, ptrdiff_t column)
{
    ptrdiff_t points = call->points ? call->points->count : 0, joints = call->tree->joints;
    return memory + 3 * (column < points ? b * points + column : call->bodies * points + b * joints + column - points);
}

/* Pose points, and write keypoints (B, K, 3) made of them and of the joints. */
static PyObject *call_mixed(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Call call;
    float *memory;
    if (count != 7) return PyErr_Format(PyExc_TypeError, "mixed: expected 7 arguments, got %zd", count);
    if (read_call(args, &call)) return NULL;
    float *out = address(args[6]);
    if (PyErr_Occurred()) return NULL;
    const Mixture *m = read_mixture(args[5], &call, &memory);
    if (!m) return NULL;
    call.posed = memory;
    call.joints = column_of(&call, memory, 0, m->points);
    int failed = run(&call, 0);
    for (ptrdiff_t b = 0; !failed && b < call.bodies; b++)
        for (ptrdiff_t k = 0; k < m->keypoints; k++, out += 3) {
            float sum[3] = {0, 0, 0};
            for (int n = m->first[k]; n < m->first[k + 1]; n++) {
                const float *from = column_of(&call, memory, b, m->column[n]);
                for (int c = 0; c < 3; c++) sum[c] += m->weight[n] * from[c];
            }
            memcpy(out, sum, sizeof sum);
        }
    free(memory);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* Its gradients, from those by the keypoints: address, and steps of body, keypoint and coordinate. */
static PyObject *call_mixed_backward(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Call call;
    float *memory;
    const float *gradient;
    ptrdiff_t step[3];
    if (count != 8) return PyErr_Format(PyExc_TypeError, "mixed_backward: expected 8 arguments, got %zd", count);
    if (read_call(args, &call) || read_gradient(args[6], &gradient, step, 3) || read_wanted(args[7], &call)) return NULL;
    const Mixture *m = read_mixture(args[5], &call, &memory);
    if (!m) return NULL;
    for (ptrdiff_t b = 0; gradient && b < call.bodies; b++)
        for (ptrdiff_t k = 0; k < m->keypoints; k++)
            for (int n = m->first[k]; n < m->first[k + 1]; n++) {
                float *to = column_of(&call, memory, b, m->column[n]);
                for (int c = 0; c < 3; c++) to[c] += m->weight[n] * gradient[b * step[0] + k * step[1] + c * step[2]];
            }
    call.posed_grad = memory;
    call.posed_stride[0] = 3 * m->points, call.posed_stride[1] = 3, call.posed_stride[2] = 1;
    if (m->joints) {
        call.joints_grad = column_of(&call, memory, 0, m->points);
        call.joints_stride = 3 * call.tree->joints;
    }
    if (!m->points) call.points = NULL;
    int failed = run(&call, 1);
    free(memory);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* ---- reading tensors ---- */

/* What tensors are asked, and what they must answer: set by `ask`. */
static struct {
    PyObject *tensor, *parameter, *float32, *strided;
    PyObject *dtype, *layout, *is_cpu, *requires_grad, *shape, *is_contiguous, *is_neg, *data_ptr;
} ask;

static PyObject *set_ask(PyObject *self, PyObject *args)
{
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOO", &ask.tensor, &ask.parameter, &ask.float32, &ask.strided)) return NULL;
    Py_INCREF(ask.tensor), Py_INCREF(ask.parameter), Py_INCREF(ask.float32), Py_INCREF(ask.strided);
    const char *names[] = {"dtype", "layout", "is_cpu", "requires_grad", "shape", "is_contiguous", "is_neg", "data_ptr"};
    PyObject **to[] = {&ask.dtype, &ask.layout, &ask.is_cpu, &ask.requires_grad, &ask.shape, &ask.is_contiguous, &ask.is_neg, &ask.data_ptr};
    for (size_t n = 0; n < sizeof to / sizeof *to; n++)
        if (!(*to[n] = PyUnicode_InternFromString(names[n]))) return NULL;
    Py_RETURN_NONE;
}

static int is_attribute(PyObject *tensor, PyObject *name, const PyObject *wanted)
{
    PyObject *found = PyObject_GetAttr(tensor, name);
    Py_XDECREF(found); /* singletons all */
    return found == wanted;
}

static int is_answer(PyObject *tensor, PyObject *name, const PyObject *wanted)
{
    PyObject *found = PyObject_CallMethodNoArgs(tensor, name);
    Py_XDECREF(found);
    return found == wanted;
}

/* Read one tensor into its place; the first decides the batch. Return whether it is as it should be. */
static int read_tensor(PyObject *value, PyObject *slot, int grad, Slot *slots, PyObject **batch, Py_ssize_t *bodies)
{
    if (Py_TYPE(value) != (PyTypeObject *)ask.tensor && Py_TYPE(value) != (PyTypeObject *)ask.parameter) return 0;
    if (!is_attribute(value, ask.dtype, ask.float32) || !is_attribute(value, ask.is_cpu, Py_True)
        || !is_attribute(value, ask.layout, ask.strided) || (grad && !is_attribute(value, ask.requires_grad, Py_False))
        || !is_answer(value, ask.is_contiguous, Py_True) || !is_answer(value, ask.is_neg, Py_False))
        return 0;
    Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GET_ITEM(slot, 0)), count = PyLong_AsSsize_t(PyTuple_GET_ITEM(slot, 2));
    PyObject *event = PyTuple_GET_ITEM(slot, 1), *shape = PyObject_GetAttr(value, ask.shape);
    if (!shape || !PyTuple_Check(shape)) {
        Py_XDECREF(shape);
        return 0;
    }
    /* Of a shape argument any number up to all of them; of a part exactly its own. */
    Py_ssize_t after = PyTuple_GET_SIZE(event), start = PyTuple_GET_SIZE(shape) - (after ? after : 1);
    int good = start >= 0 && (!*batch || PyTuple_GET_SIZE(*batch) == start);
    if (good && !after) {
        Py_ssize_t given = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, start));
        good = given <= count;
        count = given;
    }
    for (Py_ssize_t n = 0; good && n < after; n++)
        good = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, start + n)) == PyLong_AsSsize_t(PyTuple_GET_ITEM(event, n));
    for (Py_ssize_t n = 0; good && *batch && n < start; n++)
        good = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, n)) == PyLong_AsSsize_t(PyTuple_GET_ITEM(*batch, n));
    if (good && !*batch) {
        *bodies = 1;
        for (Py_ssize_t n = 0; n < start; n++) *bodies *= PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, n));
        good = (*batch = PyTuple_GetSlice(shape, 0, start)) != NULL;
    }
    Py_DECREF(shape);
    PyObject *number = good && place >= 0 && place < MOST_SLOTS ? PyObject_CallMethodNoArgs(value, ask.data_ptr) : NULL;
    if (!number) return 0;
    slots[place] = (Slot){address(number), count, (int)count};
    Py_DECREF(number);
    return 1;
}

/* Read the arguments of a call where all are what they mostly are: contiguous float32 tensors of one batch, and with `grad`
 * such that want no gradient. Takes a dict of slots by name and the arguments. Returns the batch, or NULL without an error set for anything
 * else, wrong arguments included. */
static PyObject *read_tensors(PyObject *by_name, PyObject *arguments, int grad, Slot *slots, Py_ssize_t *bodies)
{
    PyObject *batch = NULL, *name, *value;
    Py_ssize_t at = 0;
    int good = ask.data_ptr && PyDict_Check(by_name) && PyDict_Check(arguments);
    memset(slots, 0, sizeof(Slot) * MOST_SLOTS);
    *bodies = 1;
    while (good && PyDict_Next(arguments, &at, &name, &value)) {
        if (value == Py_None) continue;
        PyObject *slot = PyDict_GetItemWithError(by_name, name);
        good = slot && PyTuple_Check(slot) && PyTuple_GET_SIZE(slot) == 3 && read_tensor(value, slot, grad, slots, &batch, bodies);
    }
    if (good && !batch) batch = PyTuple_New(0);
    if (!good) Py_CLEAR(batch);
    PyErr_Clear(); /* what a tensor could not answer, the plain reading asks again */
    return batch;
}

/* Takes slots by name, arguments, and the number of places; returns (batch, bodies, slots) as the calls above take them,
 * or None. Whether gradients are wanted is not looked at. */
static PyObject *call_read(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Slot slots[MOST_SLOTS];
    Py_ssize_t bodies, places = count == 3 ? PyLong_AsSsize_t(args[2]) : -1;
    if (places < 0 || places > MOST_SLOTS) return PyErr_Format(PyExc_ValueError, "read: expected slots, arguments and the number of places");
    PyObject *batch = read_tensors(args[0], args[1], 0, slots, &bodies), *list;
    if (!batch) Py_RETURN_NONE;
    if (!(list = PyList_New(3 * places))) return NULL;
    for (Py_ssize_t n = 0; n < places; n++) {
        PyList_SET_ITEM(list, 3 * n, PyLong_FromVoidPtr((void *)slots[n].data));
        PyList_SET_ITEM(list, 3 * n + 1, PyLong_FromSsize_t(slots[n].stride));
        PyList_SET_ITEM(list, 3 * n + 2, PyLong_FromLong(slots[n].count));
    }
    return Py_BuildValue("NnN", batch, bodies, list);
}

/* Joints alone, in one step, since one body's take a microsecond: takes the tree, slots by name, arguments, whether
 * gradients are enabled, and `new_empty` of a tensor; returns joints (*B, J, 3), or None as `read` does. */
static PyObject *call_joints(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    Call call;
    memset(&call, 0, sizeof call);
    if (count != 5) return PyErr_Format(PyExc_TypeError, "joints: expected 5 arguments, got %zd", count);
    if (!(call.tree = PyCapsule_GetPointer(args[0], "tree"))) return NULL;
    PyObject *batch = read_tensors(args[1], args[2], args[3] == Py_True, call.slots, &call.bodies);
    if (!batch) Py_RETURN_NONE;
    Py_ssize_t more = PyTuple_GET_SIZE(batch);
    PyObject *shape = PyTuple_New(more + 2), *joints = NULL, *number = NULL;
    for (Py_ssize_t n = 0; shape && n < more; n++) {
        PyObject *size = PyTuple_GET_ITEM(batch, n);
        Py_INCREF(size);
        PyTuple_SET_ITEM(shape, n, size);
    }
    Py_DECREF(batch);
    if (shape) {
        PyTuple_SET_ITEM(shape, more, PyLong_FromLong(call.tree->joints));
        PyTuple_SET_ITEM(shape, more + 1, PyLong_FromLong(3));
        joints = PyObject_CallOneArg(args[4], shape);
        Py_DECREF(shape);
    }
    if (joints) number = PyObject_CallMethodNoArgs(joints, ask.data_ptr);
    if (number) call.joints = address(number);
    Py_XDECREF(number);
    call.threads = 1;
    if (PyErr_Occurred() || run(&call, 0)) Py_CLEAR(joints);
    return joints;
}

/* ---- which kernel ---- */

static PyObject *supported(PyObject *self, PyObject *ignored)
{
    (void)self, (void)ignored;
    PyObject *names = PyList_New(0);
    for (int n = 0; names && kernels[n]; n++) {
        PyObject *name = PyUnicode_FromString(kernels[n]->name);
        if (!name || PyList_Append(names, name)) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *use(PyObject *self, PyObject *name)
{
    (void)self;
    const char *text = PyUnicode_AsUTF8(name);
    if (!text) return NULL;
    for (int n = 0; kernels[n]; n++)
        if (!strcmp(kernels[n]->name, text)) {
            kernel = kernels[n];
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "name: expected an instruction set of this processor, got %s", text);
}

static PyObject *set_long_from(PyObject *self, PyObject *rows)
{
    (void)self;
    Py_ssize_t given = PyLong_AsSsize_t(rows), before = long_from;
    if (PyErr_Occurred()) return NULL;
    long_from = given;
    return PyLong_FromSsize_t(before);
}

static PyMethodDef methods[] = {
    {"make_tree", make_tree, METH_VARARGS, "Pack a tree of joints."},
    {"make_points", make_points, METH_VARARGS, "Pack points."},
    {"points_bytes", points_bytes, METH_O, "Return how much memory packed points take."},
    {"forward", (PyCFunction)(void (*)(void))call_forward, METH_FASTCALL, "Pose bodies."},
    {"backward", (PyCFunction)(void (*)(void))call_backward, METH_FASTCALL, "Return gradients by the arguments."},
    {"mixed", (PyCFunction)(void (*)(void))call_mixed, METH_FASTCALL, "Pose points and mix them."},
    {"mixed_backward", (PyCFunction)(void (*)(void))call_mixed_backward, METH_FASTCALL, "Return its gradients by the arguments."},
    {"make_mixture", make_mixture, METH_VARARGS, "Pack the weights of keypoints."},
    {"ask", set_ask, METH_VARARGS, "Say what tensors are: their types, dtype and layout."},
    {"read", (PyCFunction)(void (*)(void))call_read, METH_FASTCALL, "Read arguments that are as they mostly are."},
    {"joints", (PyCFunction)(void (*)(void))call_joints, METH_FASTCALL, "Read arguments and return joints."},
    {"supported", supported, METH_NOARGS, "Return the instruction sets that this processor has, the best first."},
    {"long_from", set_long_from, METH_O, "Say from how many rows on a call takes the longest vectors; return what it was."},
    {"use", use, METH_O, "Choose the instruction set."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "The compiled kernel of physique.bodymodel.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    find_kernels();
    PyObject *module = PyModule_Create(&definition);
#ifdef _OPENMP
    int openmp = 1;
#else
    int openmp = 0;
#endif
    if (module && PyModule_AddIntConstant(module, "openmp", openmp)) Py_CLEAR(module);
    return module;
}
