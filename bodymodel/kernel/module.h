/* What the files of the kernel's Python module have in common. */
#ifndef PHYSIQUE_MODULE_H
#define PHYSIQUE_MODULE_H

#include <Python.h>

#include "kernel.h"

/* Keypoints as means of points and joints: the weights that are not zero, row by row. */
typedef struct {
    ptrdiff_t keypoints, points;
    int joints, *first, *column; /* columns are points, then joints */
    float *weight;
} Mixture;

/* Of pack.c: see `methods`. */
PyObject *make_tree(PyObject *self, PyObject *args);
PyObject *make_points(PyObject *self, PyObject *args);
PyObject *points_bytes(PyObject *self, PyObject *capsule);
PyObject *make_mixture(PyObject *self, PyObject *args);

/* Of tensors.c. */
PyObject *set_ask(PyObject *self, PyObject *args);
PyObject *call_read(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *read_tensors(PyObject *by_name, PyObject *arguments, int grad, Slot *slots, Py_ssize_t *bodies);
float *data_of(PyObject *tensor);

#endif
