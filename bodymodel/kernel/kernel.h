/* What the compiled kernel works on: a tree of joints, packed points, and one call. See docs/kernels.md. */
#ifndef PHYSIQUE_KERNEL_H
#define PHYSIQUE_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Points are packed TILE at a time; a row of a tile is all their x, then y, then z. */
enum { TILE = 16, ROW = 3 * TILE, WORDS = 2 * TILE, MOST_SLOTS = 24 };

/* Rows whose gradients are made together: so many beyond the last may be read. */
enum { PANEL = 16 };

/* The joints of a model, and how its arguments reach them. Joints are in an order in which parents come first. */
typedef struct {
    int joints;
    int shapes;          /* S, directions of shape */
    int features;        /* P, numbers of the pose that drive the correctives */
    int shape_slots;     /* arguments: so many of shape, then parts of the pose in joint order, then transl */
    int part_slots;
    int *parent;
    int *moving;         /* (P) of the 9 (J - 1) entries of R - I of all joints but the root */
    int *shape_start;    /* (shape_slots) first direction of each */
    int *part_start;     /* (part_slots) first joint of each */
    int *part_joints;    /* (part_slots) how many */
    int *part_feature;   /* (part_slots + 1) first of the features that each drives */
    float *still;        /* (J, 3) axis-angle of parts left out */
    float *lever;        /* (1 + S, 2 J, 3): bones then rest joints, of the mean and along each direction */
} Tree;

/* Points that are blended and skinned, packed for it. */
typedef struct {
    ptrdiff_t count, tiles;
    int shapes, features, joints;
    float *mean;         /* (tiles, ROW) */
    float *rows;         /* (tiles, S + P, ROW), where `digits` is not used */
    float *shape_rows;   /* (tiles, S, ROW) */
    float *scales;       /* (tiles, P) */
    int32_t *digits;     /* (tiles, P, WORDS) fixed point of 21 bits, see `unpack_row` */
    int32_t *first;      /* (16 tiles + 1) where the weights of each point begin */
    int32_t *joint;
    float *weight;
} Points;

/* An argument: body b's numbers are at data + b * stride; data is NULL where it is left out. */
typedef struct {
    const float *data;
    ptrdiff_t stride;
    int count;
} Slot;

/* One call. Outputs and gradients that are not wanted are NULL. */
typedef struct {
    const Tree *tree;
    const Points *points; /* NULL: joints alone */
    ptrdiff_t bodies;
    int threads;
    Slot slots[MOST_SLOTS];
    float *posed;         /* (B, V, 3) */
    float *joints;        /* (B, J, 3) */
    float *rotations;     /* (B, J, 3, 3) */
    const float *posed_grad;
    ptrdiff_t posed_stride[3]; /* of its body, point and coordinate */
    const float *joints_grad;
    ptrdiff_t joints_stride; /* of its body */
    const float *rotations_grad;
    float *gradients[MOST_SLOTS]; /* (B, count) by each argument */
} Call;

/* Both passes return 0, or -1 when there is no memory. `shorter` is a kernel with vectors half as long, or NULL. */
typedef struct Kernel {
    const char *name;
    const struct Kernel *shorter;
    int (*forward)(const Call *);
    int (*backward)(const Call *);
} Kernel;

extern const Kernel physique_plain, physique_avx2, physique_avx512, physique_avx512_half;

#endif
