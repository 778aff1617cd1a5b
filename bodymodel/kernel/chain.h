/* The tree of joints, one body at a time: axis-angle and shape to joints and transforms, and the way back. */

/* What one body's chain keeps between its steps; each has one entry a joint. */
typedef struct {
    float (*vector)[3], *sinc, *cosine;
    float (*local)[9], (*world)[9];
    float (*at)[3];       /* posed joints, without transl */
    float (*bone)[3], (*rest)[3];
    float *shape;         /* (S) */
    /* Gradients by these. */
    float (*to_local)[9], (*to_world)[9], (*to_at)[3], (*to_bone)[3], (*to_rest)[3];
} Body;

static size_t body_floats(const Tree *t) { return (size_t)t->joints * (3 + 2 + 18 + 3 + 6 + 18 + 9) + (size_t)t->shapes; }

static Body body_in(float *memory, const Tree *t)
{
    size_t j = (size_t)t->joints;
    Body w;
#define TAKE(member, width) w.member = (void *)memory, memory += (width) * j
    TAKE(vector, 3); TAKE(sinc, 1); TAKE(cosine, 1); TAKE(local, 9); TAKE(world, 9); TAKE(at, 3);
    TAKE(bone, 3); TAKE(rest, 3); /* one after the other, as a lever is */
    TAKE(to_local, 9); TAKE(to_world, 9); TAKE(to_at, 3);
    TAKE(to_bone, 3); TAKE(to_rest, 3); /* likewise */
#undef TAKE
    w.shape = memory;
    return w;
}

static inline void multiply(const float a[9], const float b[9], float out[9])
{
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 3; c++) out[3 * r + c] = a[3 * r] * b[c] + a[3 * r + 1] * b[3 + c] + a[3 * r + 2] * b[6 + c];
}

static inline void turn(const float a[9], const float x[3], float out[3])
{
    for (int r = 0; r < 3; r++) out[r] = a[3 * r] * x[0] + a[3 * r + 1] * x[1] + a[3 * r + 2] * x[2];
}

static inline void turn_back(const float a[9], const float x[3], float out[3])
{
    for (int c = 0; c < 3; c++) out[c] = a[c] * x[0] + a[3 + c] * x[1] + a[6 + c] * x[2];
}

static inline void cross(const float a[3], const float b[3], float out[3])
{
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

/* R - I = cos(a/2) K + K²/2 with K the cross product with u = r sin(a/2) / (a/2): nothing cancels. Both factors are
 * entire in a²; below the threshold they are straight lines in it, and the next term is lost in rounding. */
static void rotate(Body *w, int j, const float r[3], float bend[9])
{
    const float threshold = 8 * 3.4526698e-4f; /* 8 sqrt(2^-23) */
    float square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    float sinc, cosine;
    if (square < threshold) {
        sinc = 1 - square * (1.0f / 24);
        cosine = 1 - square * (1.0f / 8);
    } else { /* NaN goes here */
        float half = 0.5f * sqrtf(square);
        sinc = sinf(half) / half;
        cosine = cosf(half);
    }
    float x = sinc * r[0], y = sinc * r[1], z = sinc * r[2];
    float cx = cosine * x, cy = cosine * y, cz = cosine * z;
    bend[0] = -0.5f * (y * y + z * z), bend[1] = 0.5f * x * y - cz, bend[2] = 0.5f * x * z + cy;
    bend[3] = 0.5f * x * y + cz, bend[4] = -0.5f * (x * x + z * z), bend[5] = 0.5f * y * z - cx;
    bend[6] = 0.5f * x * z - cy, bend[7] = 0.5f * y * z + cx, bend[8] = -0.5f * (x * x + y * y);
    float *local = w->local[j];
    for (int e = 0; e < 9; e++) local[e] = bend[e];
    local[0] += 1, local[4] += 1, local[8] += 1;
    w->vector[j][0] = r[0], w->vector[j][1] = r[1], w->vector[j][2] = r[2];
    w->sinc[j] = sinc, w->cosine[j] = cosine;
}

/* Pose body b. `drive`, where it is wanted, takes what its points need, one number every `step`: shape, features of the
 * pose, transl, then of each joint its 3x4 transform from rest to pose. */
static void chain_forward(const Call *c, Body *w, ptrdiff_t b, float *drive, ptrdiff_t step)
{
    const Tree *t = c->tree;
    const int joints = t->joints, levers = drive ? 2 * joints : joints;
    float *lever = &w->bone[0][0];
    memcpy(lever, t->lever, sizeof(float) * 3 * (size_t)levers);
    for (int s = 0; s < t->shapes; s++) w->shape[s] = 0;
    for (int n = 0; n < t->shape_slots; n++) {
        const Slot *slot = &c->slots[n];
        for (int k = 0; slot->data && k < slot->count; k++) {
            int s = t->shape_start[n] + k;
            float value = w->shape[s] = slot->data[b * slot->stride + k];
            const float *along = t->lever + (size_t)(1 + s) * 6 * (size_t)joints;
            for (int e = 0; e < 3 * levers; e++) lever[e] += value * along[e];
        }
    }
    float *features = drive ? drive + t->shapes * step : NULL;
    int feature = 0;
    for (int n = 0; n < t->part_slots; n++) {
        const Slot *slot = &c->slots[t->shape_slots + n];
        const float *given = slot->data ? slot->data + b * slot->stride : t->still + 3 * t->part_start[n];
        for (int k = 0; k < t->part_joints[n]; k++) {
            int j = t->part_start[n] + k;
            float bend[9];
            rotate(w, j, given + 3 * k, bend);
            int from = 9 * (j - 1); /* the root drives nothing */
            while (features && feature < t->features && t->moving[feature] < from + 9) {
                features[feature * step] = bend[t->moving[feature] - from];
                feature++;
            }
        }
    }
    for (int j = 0; j < joints; j++) {
        int p = t->parent[j];
        if (p < 0) {
            memcpy(w->world[j], w->local[j], sizeof w->local[j]);
            memcpy(w->at[j], w->bone[j], sizeof w->bone[j]);
        } else {
            multiply(w->world[p], w->local[j], w->world[j]);
            turn(w->world[p], w->bone[j], w->at[j]);
            for (int r = 0; r < 3; r++) w->at[j][r] += w->at[p][r];
        }
    }
    const Slot *transl = &c->slots[t->shape_slots + t->part_slots];
    float shift[3] = {0, 0, 0};
    if (transl->data) memcpy(shift, transl->data + b * transl->stride, sizeof shift);
    if (c->joints)
        for (int j = 0; j < joints; j++)
            for (int r = 0; r < 3; r++) c->joints[(b * joints + j) * 3 + r] = w->at[j][r] + shift[r];
    if (c->rotations) memcpy(c->rotations + b * 9 * joints, w->world, sizeof(float) * 9 * (size_t)joints);
    if (!drive) return;
    for (int s = 0; s < t->shapes; s++) drive[s * step] = w->shape[s];
    drive = features + t->features * step;
    for (int r = 0; r < 3; r++) drive[r * step] = shift[r];
    drive += 3 * step;
    for (int j = 0; j < joints; j++) {
        float moved[3];
        turn(w->world[j], w->rest[j], moved);
        for (int r = 0; r < 3; r++) {
            for (int e = 0; e < 3; e++) drive[(12 * j + 4 * r + e) * step] = w->world[j][3 * r + e];
            drive[(12 * j + 4 * r + 3) * step] = w->at[j][r] - moved[r];
        }
    }
}

/* The gradient by r from that by the rotation R(r): of a turn from the left it is the torque, the sum of the columns of
 * R crossed with their gradients; the transposed left Jacobian of the exponential takes it to r. */
static void rotate_back(const Body *w, int j, float out[3])
{
    const float *local = w->local[j], *to_local = w->to_local[j], *r = w->vector[j];
    float torque[3] = {0, 0, 0}, part[3], once[3], twice[3];
    for (int c = 0; c < 3; c++) {
        float column[3] = {local[c], local[3 + c], local[6 + c]}, pull[3] = {to_local[c], to_local[3 + c], to_local[6 + c]};
        cross(column, pull, part);
        for (int e = 0; e < 3; e++) torque[e] += part[e];
    }
    float square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2], sinc = w->sinc[j], cosine = w->cosine[j];
    float first = -0.5f * sinc * sinc;                                                        /* -(1 - cos a) / a² */
    float second = (1 - sinc * cosine) / (square < 1.1920929e-7f ? 1.1920929e-7f : square); /* (1 - sin(a) / a) / a² */
    cross(r, torque, once);
    cross(r, once, twice);
    for (int e = 0; e < 3; e++) out[e] = torque[e] + first * once[e] + second * twice[e];
}

/* Gradients of body b by the arguments, after its `chain_forward`. `to_drive` is as `drive` was there; or NULL. */
static void chain_backward(const Call *c, Body *w, ptrdiff_t b, const float *to_drive, ptrdiff_t step)
{
    const Tree *t = c->tree;
    const int joints = t->joints, levers = to_drive ? 2 * joints : joints;
    const float *to_feature = NULL, *to_transform = NULL;
    float to_shift[3] = {0, 0, 0};
    if (to_drive) {
        to_feature = to_drive + t->shapes * step;
        for (int r = 0; r < 3; r++) to_shift[r] = to_feature[(t->features + r) * step];
        to_transform = to_feature + (t->features + 3) * step;
    }
    for (int j = 0; j < joints; j++) {
        for (int e = 0; e < 9; e++) {
            w->to_local[j][e] = 0;
            w->to_world[j][e] = c->rotations_grad ? c->rotations_grad[(b * joints + j) * 9 + e] : 0;
        }
        for (int r = 0; r < 3; r++) {
            float pull = c->joints_grad ? c->joints_grad[(b * joints + j) * 3 + r] : 0;
            w->to_at[j][r] = pull;
            to_shift[r] += pull;
        }
        if (!to_drive) continue;
        float pull[3];
        for (int r = 0; r < 3; r++) {
            pull[r] = to_transform[(12 * j + 4 * r + 3) * step];
            w->to_at[j][r] += pull[r];
            for (int e = 0; e < 3; e++)
                w->to_world[j][3 * r + e] += to_transform[(12 * j + 4 * r + e) * step] - pull[r] * w->rest[j][e];
        }
        turn_back(w->world[j], pull, w->to_rest[j]);
        for (int e = 0; e < 3; e++) w->to_rest[j][e] = -w->to_rest[j][e];
    }
    for (int f = 0; to_feature && f < t->features; f++)
        w->to_local[1 + t->moving[f] / 9][t->moving[f] % 9] = to_feature[f * step];
    for (int j = joints - 1; j >= 0; j--) {
        int p = t->parent[j];
        const float *pull = w->to_world[j], *force = w->to_at[j];
        if (p < 0) {
            for (int e = 0; e < 9; e++) w->to_local[j][e] += pull[e];
            for (int e = 0; e < 3; e++) w->to_bone[j][e] = force[e];
            continue;
        }
        const float *above = w->world[p], *local = w->local[j];
        for (int r = 0; r < 3; r++)
            for (int e = 0; e < 3; e++) {
                w->to_local[j][3 * r + e] += above[r] * pull[e] + above[3 + r] * pull[3 + e] + above[6 + r] * pull[6 + e];
                w->to_world[p][3 * r + e] += pull[3 * r] * local[3 * e] + pull[3 * r + 1] * local[3 * e + 1]
                    + pull[3 * r + 2] * local[3 * e + 2] + force[r] * w->bone[j][e];
            }
        turn_back(above, force, w->to_bone[j]);
        for (int e = 0; e < 3; e++) w->to_at[p][e] += force[e];
    }
    const float *to_lever = &w->to_bone[0][0];
    for (int n = 0; n < t->shape_slots; n++) {
        int count = c->slots[n].count;
        for (int k = 0; c->gradients[n] && k < count; k++) {
            int s = t->shape_start[n] + k;
            const float *along = t->lever + (size_t)(1 + s) * 6 * (size_t)joints;
            float sum[4] = {0, 0, 0, 0}; /* 3 or 6 numbers a joint: four sums leave at most two over */
            int e = 0;
            for (; e + 4 <= 3 * levers; e += 4)
                for (int q = 0; q < 4; q++) sum[q] += along[e + q] * to_lever[e + q];
            for (; e < 3 * levers; e++) sum[0] += along[e] * to_lever[e];
            float whole = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            c->gradients[n][b * count + k] = whole + (to_drive ? to_drive[s * step] : 0);
        }
    }
    for (int n = 0; n < t->part_slots; n++) {
        float *out = c->gradients[t->shape_slots + n];
        for (int k = 0; out && k < t->part_joints[n]; k++)
            rotate_back(w, t->part_start[n] + k, out + (b * t->part_joints[n] + k) * 3);
    }
    float *out = c->gradients[t->shape_slots + t->part_slots];
    if (out) memcpy(out + 3 * b, to_shift, sizeof to_shift);
}
