/* The tree of joints: axis-angle and shape to joints and transforms, and the way back. Included once for each kind of REAL, a
 * float or a vector whose lanes are bodies, LANES of them; NAMED tells the names apart. */

/* What a chain keeps between its steps; each has one entry a joint. */
typedef struct {
    REAL (*vector)[3], *sinc, *cosine;
    REAL (*local)[9], (*world)[9];
    REAL (*at)[3];         /* posed joints, without transl */
    REAL (*bone)[3], (*rest)[3];
    /* Gradients by these. */
    REAL (*to_local)[9], (*to_world)[9], (*to_at)[3], (*to_bone)[3], (*to_rest)[3];
    REAL *numbers;         /* (3 J + S) what is about to be given back */
    REAL *shape;           /* (S) */
} NAMED(Body);

static NAMED(Body) NAMED(body_in)(float *memory, const Tree *t)
{
    size_t j = (size_t)t->joints;
    REAL *next = (void *)memory;
    NAMED(Body) w;
#define TAKE(member, width) w.member = (void *)next, next += (width) * j
    TAKE(vector, 3); TAKE(sinc, 1); TAKE(cosine, 1); TAKE(local, 9); TAKE(world, 9); TAKE(at, 3);
    TAKE(bone, 3); TAKE(rest, 3); /* one after the other, as a lever is */
    TAKE(to_local, 9); TAKE(to_world, 9); TAKE(to_at, 3);
    TAKE(to_bone, 3); TAKE(to_rest, 3); /* likewise */
    TAKE(numbers, 3);
#undef TAKE
    w.shape = next + t->shapes;
    return w;
}

INLINE void NAMED(multiply)(const REAL a[9], const REAL b[9], REAL out[9])
{
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 3; c++) out[3 * r + c] = a[3 * r] * b[c] + a[3 * r + 1] * b[3 + c] + a[3 * r + 2] * b[6 + c];
}

INLINE void NAMED(turn)(const REAL a[9], const REAL x[3], REAL out[3])
{
    for (int r = 0; r < 3; r++) out[r] = a[3 * r] * x[0] + a[3 * r + 1] * x[1] + a[3 * r + 2] * x[2];
}

INLINE void NAMED(turn_back)(const REAL a[9], const REAL x[3], REAL out[3])
{
    for (int c = 0; c < 3; c++) out[c] = a[c] * x[0] + a[3 + c] * x[1] + a[6 + c] * x[2];
}

INLINE void NAMED(cross)(const REAL a[3], const REAL b[3], REAL out[3])
{
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

/* sin(a/2) / (a/2) and cos(a/2) of a², in which both are entire. Up to half a turn, where nearly all poses are, they are their
 * series, of which the next term is below 1e-8. */
INLINE void NAMED(half_angle)(REAL square, REAL *sinc, REAL *cosine)
{
    REAL x = 0.25f * square;
    REAL s = x * (1 / 6227020800.0f) - 1 / 39916800.0f, c = x * (-1 / 87178291200.0f) + 1 / 479001600.0f;
    s = s * x + 1 / 362880.0f;
    s = s * x - 1 / 5040.0f;
    s = s * x + 1 / 120.0f;
    s = s * x - 1 / 6.0f;
    *sinc = s * x + 1;
    c = c * x - 1 / 3628800.0f;
    c = c * x + 1 / 40320.0f;
    c = c * x - 1 / 720.0f;
    c = c * x + 1 / 24.0f;
    c = c * x - 1 / 2.0f;
    *cosine = c * x + 1;
    NAMED(beyond_half_a_turn)(square, sinc, cosine);
}

/* R - I = cos(a/2) K + K²/2 with K the cross product with u = r sin(a/2) / (a/2): nothing cancels. */
INLINE void NAMED(rotate)(NAMED(Body) *w, int j, const REAL r[3], REAL bend[9])
{
    REAL sinc, cosine;
    NAMED(half_angle)(r[0] * r[0] + r[1] * r[1] + r[2] * r[2], &sinc, &cosine);
    REAL x = sinc * r[0], y = sinc * r[1], z = sinc * r[2];
    REAL cx = cosine * x, cy = cosine * y, cz = cosine * z;
    bend[0] = -0.5f * (y * y + z * z), bend[1] = 0.5f * x * y - cz, bend[2] = 0.5f * x * z + cy;
    bend[3] = 0.5f * x * y + cz, bend[4] = -0.5f * (x * x + z * z), bend[5] = 0.5f * y * z - cx;
    bend[6] = 0.5f * x * z - cy, bend[7] = 0.5f * y * z + cx, bend[8] = -0.5f * (x * x + y * y);
    REAL *local = w->local[j];
    for (int e = 0; e < 9; e++) local[e] = bend[e];
    local[0] += 1, local[4] += 1, local[8] += 1;
    w->vector[j][0] = r[0], w->vector[j][1] = r[1], w->vector[j][2] = r[2];
    w->sinc[j] = sinc, w->cosine[j] = cosine;
}

/* Pose `bodies` bodies from b on. `drive`, where it is wanted, takes what their points need: shape, features of the pose,
 * transl, then of each joint its 3x4 transform from rest to pose. */
static void NAMED(chain_forward)(const Call *c, NAMED(Body) *w, ptrdiff_t b, int bodies, REAL *drive)
{
    const Tree *t = c->tree;
    const int joints = t->joints, levers = drive ? 2 * joints : joints;
    REAL *lever = &w->bone[0][0];
    for (int e = 0; e < 3 * levers; e++) lever[e] = (REAL){0} + t->lever[e];
    for (int s = 0; s < t->shapes; s++) w->shape[s] = (REAL){0};
    for (int n = 0; n < t->shape_slots; n++) {
        const Slot *slot = &c->slots[n];
        if (!slot->data) continue;
        REAL *shape = w->shape + t->shape_start[n];
        NAMED(take)(shape, slot->data + b * slot->stride, slot->stride, slot->count, bodies);
        for (int k = 0; k < slot->count; k++) {
            const float *along = t->lever + (size_t)(1 + t->shape_start[n] + k) * 6 * (size_t)joints;
            for (int e = 0; e < 3 * levers; e++) lever[e] += shape[k] * along[e];
        }
    }
    REAL *features = drive ? drive + t->shapes : NULL;
    int feature = 0;
    for (int n = 0; n < t->part_slots; n++) {
        const Slot *slot = &c->slots[t->shape_slots + n];
        REAL *given = w->vector[t->part_start[n]];
        if (slot->data) NAMED(take)(given, slot->data + b * slot->stride, slot->stride, 3 * t->part_joints[n], bodies);
        else NAMED(take)(given, t->still + 3 * t->part_start[n], 0, 3 * t->part_joints[n], bodies);
    }
    for (int j = 0; j < joints; j++) {
        REAL bend[9];
        NAMED(rotate)(w, j, w->vector[j], bend);
        int from = 9 * (j - 1); /* the root drives nothing */
        while (features && feature < t->features && t->moving[feature] < from + 9) {
            features[feature] = bend[t->moving[feature] - from];
            feature++;
        }
    }
    for (int j = 0; j < joints; j++) {
        int p = t->parent[j];
        if (p < 0) {
            memcpy(w->world[j], w->local[j], sizeof w->local[j]);
            memcpy(w->at[j], w->bone[j], sizeof w->bone[j]);
        } else {
            NAMED(multiply)(w->world[p], w->local[j], w->world[j]);
            NAMED(turn)(w->world[p], w->bone[j], w->at[j]);
            for (int r = 0; r < 3; r++) w->at[j][r] += w->at[p][r];
        }
    }
    const Slot *transl = &c->slots[t->shape_slots + t->part_slots];
    REAL shift[3] = {0};
    if (transl->data) NAMED(take)(shift, transl->data + b * transl->stride, transl->stride, 3, bodies);
    if (c->joints) {
        for (int j = 0; j < joints; j++)
            for (int r = 0; r < 3; r++) w->numbers[3 * j + r] = w->at[j][r] + shift[r];
        NAMED(give)(c->joints + b * 3 * joints, w->numbers, 3 * joints, 3 * joints, bodies);
    }
    if (c->rotations) NAMED(give)(c->rotations + b * 9 * joints, w->world[0], 9 * joints, 9 * joints, bodies);
    if (!drive) return;
    for (int s = 0; s < t->shapes; s++) drive[s] = w->shape[s];
    drive = features + t->features;
    for (int r = 0; r < 3; r++) drive[r] = shift[r];
    drive += 3;
    for (int j = 0; j < joints; j++, drive += 12) {
        REAL moved[3];
        NAMED(turn)(w->world[j], w->rest[j], moved);
        for (int r = 0; r < 3; r++) {
            for (int e = 0; e < 3; e++) drive[4 * r + e] = w->world[j][3 * r + e];
            drive[4 * r + 3] = w->at[j][r] - moved[r];
        }
    }
}

/* The gradient by r from that by the rotation R(r): of a turn from the left it is the torque, the sum of the columns of
 * R crossed with their gradients; the transposed left Jacobian of the exponential takes it to r. */
INLINE void NAMED(rotate_back)(const NAMED(Body) *w, int j, REAL out[3])
{
    const REAL *local = w->local[j], *to_local = w->to_local[j], *r = w->vector[j];
    REAL torque[3] = {0}, part[3], once[3], twice[3];
    for (int c = 0; c < 3; c++) {
        REAL column[3] = {local[c], local[3 + c], local[6 + c]}, pull[3] = {to_local[c], to_local[3 + c], to_local[6 + c]};
        NAMED(cross)(column, pull, part);
        for (int e = 0; e < 3; e++) torque[e] += part[e];
    }
    REAL square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2], sinc = w->sinc[j], cosine = w->cosine[j];
    REAL first = -0.5f * sinc * sinc;                                           /* -(1 - cos a) / a² */
    REAL second = (1 - sinc * cosine) / NAMED(at_least)(square, 1.1920929e-7f); /* (1 - sin(a) / a) / a² */
    NAMED(cross)(r, torque, once);
    NAMED(cross)(r, once, twice);
    for (int e = 0; e < 3; e++) out[e] = torque[e] + first * once[e] + second * twice[e];
}

/* Gradients of the bodies by the arguments, after their `chain_forward`. `to_drive` is as `drive` was there; or NULL. */
static void NAMED(chain_backward)(const Call *c, NAMED(Body) *w, ptrdiff_t b, int bodies, const REAL *to_drive)
{
    const Tree *t = c->tree;
    const int joints = t->joints, levers = to_drive ? 2 * joints : joints;
    const REAL *to_feature = NULL, *to_transform = NULL;
    REAL to_shift[3] = {0};
    if (to_drive) {
        to_feature = to_drive + t->shapes;
        for (int r = 0; r < 3; r++) to_shift[r] = to_feature[t->features + r];
        to_transform = to_feature + t->features + 3;
    }
    memset(w->to_local, 0, sizeof *w->to_local * (size_t)joints);
    if (c->rotations_grad) NAMED(take)(w->to_world[0], c->rotations_grad + b * 9 * joints, 9 * joints, 9 * joints, bodies);
    else memset(w->to_world, 0, sizeof *w->to_world * (size_t)joints);
    if (c->joints_grad) NAMED(take)(w->to_at[0], c->joints_grad + b * c->joints_stride, c->joints_stride, 3 * joints, bodies);
    else memset(w->to_at, 0, sizeof *w->to_at * (size_t)joints);
    for (int j = 0; j < joints; j++) {
        for (int r = 0; r < 3; r++) to_shift[r] += w->to_at[j][r];
        if (!to_drive) continue;
        REAL pull[3];
        for (int r = 0; r < 3; r++) {
            pull[r] = to_transform[12 * j + 4 * r + 3];
            w->to_at[j][r] += pull[r];
            for (int e = 0; e < 3; e++) w->to_world[j][3 * r + e] += to_transform[12 * j + 4 * r + e] - pull[r] * w->rest[j][e];
        }
        NAMED(turn_back)(w->world[j], pull, w->to_rest[j]);
        for (int e = 0; e < 3; e++) w->to_rest[j][e] = -w->to_rest[j][e];
    }
    for (int f = 0; to_feature && f < t->features; f++) w->to_local[1 + t->moving[f] / 9][t->moving[f] % 9] = to_feature[f];
    for (int j = joints - 1; j >= 0; j--) {
        int p = t->parent[j];
        const REAL *pull = w->to_world[j], *force = w->to_at[j];
        if (p < 0) {
            for (int e = 0; e < 9; e++) w->to_local[j][e] += pull[e];
            for (int e = 0; e < 3; e++) w->to_bone[j][e] = force[e];
            continue;
        }
        const REAL *above = w->world[p], *local = w->local[j];
        for (int r = 0; r < 3; r++)
            for (int e = 0; e < 3; e++) {
                w->to_local[j][3 * r + e] += above[r] * pull[e] + above[3 + r] * pull[3 + e] + above[6 + r] * pull[6 + e];
                w->to_world[p][3 * r + e] += pull[3 * r] * local[3 * e] + pull[3 * r + 1] * local[3 * e + 1]
                    + pull[3 * r + 2] * local[3 * e + 2] + force[r] * w->bone[j][e];
            }
        NAMED(turn_back)(above, force, w->to_bone[j]);
        for (int e = 0; e < 3; e++) w->to_at[p][e] += force[e];
    }
    const REAL *to_lever = &w->to_bone[0][0];
    for (int n = 0; n < t->shape_slots; n++) {
        int count = c->slots[n].count;
        if (!c->gradients[n]) continue;
        for (int k = 0; k < count; k++) {
            int s = t->shape_start[n] + k;
            const float *along = t->lever + (size_t)(1 + s) * 6 * (size_t)joints;
            REAL sum[4] = {0}; /* 3 or 6 numbers a joint: four sums leave at most two over */
            int e = 0;
            for (; e + 4 <= 3 * levers; e += 4)
                for (int q = 0; q < 4; q++) sum[q] += along[e + q] * to_lever[e + q];
            for (; e < 3 * levers; e++) sum[0] += along[e] * to_lever[e];
            w->numbers[k] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            if (to_drive) w->numbers[k] += to_drive[s];
        }
        NAMED(give)(c->gradients[n] + b * count, w->numbers, count, count, bodies);
    }
    for (int n = 0; n < t->part_slots; n++) {
        float *out = c->gradients[t->shape_slots + n];
        int count = t->part_joints[n];
        if (!out) continue;
        for (int k = 0; k < count; k++) NAMED(rotate_back)(w, t->part_start[n] + k, w->numbers + 3 * k);
        NAMED(give)(out + b * 3 * count, w->numbers, 3 * count, 3 * count, bodies);
    }
    float *out = c->gradients[t->shape_slots + t->part_slots];
    if (out) NAMED(give)(out + 3 * b, to_shift, 3, 3, bodies);
}
