/* Reads the tensors of a call, as PyTorch's Python objects answer for themselves. */
#define PY_SSIZE_T_CLEAN
#include "module.h"

#include <string.h>

/* What tensors are asked, and what they must answer: set by `ask`. */
static struct {
    PyObject *tensor, *parameter, *float32, *strided;
    PyObject *dtype, *layout, *is_cpu, *requires_grad, *shape, *is_contiguous, *is_neg, *data_ptr;
} ask;

PyObject *set_ask(PyObject *self, PyObject *args)
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

/* Return where a tensor's numbers lie; NULL with an error set where it cannot tell. */
float *data_of(PyObject *tensor)
{
    PyObject *number = PyObject_CallMethodNoArgs(tensor, ask.data_ptr);
    float *data = number ? (float *)PyLong_AsSize_t(number) : NULL;
    Py_XDECREF(number);
    return data;
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
    if (!good || place < 0 || place >= MOST_SLOTS) return 0;
    slots[place] = (Slot){data_of(value), count, (int)count};
    return !PyErr_Occurred();
}

/* Read the arguments of a call where all are what they mostly are: contiguous float32 tensors of one batch, and with `grad`
 * such that want no gradient. Takes a dict of slots by name and the arguments. Returns the batch, or NULL without an error set for anything
 * else, wrong arguments included. */
PyObject *read_tensors(PyObject *by_name, PyObject *arguments, int grad, Slot *slots, Py_ssize_t *bodies)
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
PyObject *call_read(PyObject *self, PyObject *const *args, Py_ssize_t count)
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
