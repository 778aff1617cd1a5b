/* The kernel's Python module: runs calls on addresses that the caller has checked. */
#define PY_SSIZE_T_CLEAN
#include "module.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    PyObject *shape = PyTuple_New(more + 2), *joints = NULL;
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
    if (joints) call.joints = data_of(joints);
    call.threads = 1;
    if (PyErr_Occurred() || run(&call, 0)) Py_CLEAR(joints);
    return joints;
}

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
