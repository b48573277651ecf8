/* What torch does in several passes over memory on a CPU, in one: GELU, cross-entropy, the softmax of causal scores, and
 * attention to a few neighbours. Built by native.py where there is a C compiler; every function has its match in torch.
 * Loops are cut by nothing but their own shape, so the same input gives the same bits. */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* exp of x <= 0 to two units in the last place (Cephes' expf): 2^n times a polynomial of the rest; 0 below -87.
 * Written without branches, so that compilers make vectors of it. */
static inline float exp_(float given) {
    float x = given < -87.0f ? -87.0f : given;
    float shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the low bits are round(x / ln 2) */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits, value;
    memcpy(&bits, &shifted, 4);
    memcpy(&value, &p, 4);
    value += bits << 23;
    memcpy(&p, &value, 4);
    return given < -87.0f ? 0.0f : p;
}

/* gelu(x) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), which is GPT-2's tanh form; and its slope, unless that is NULL */
void gelu(const float *restrict x, float *restrict y, float *restrict slope, int64_t n) {
    const float a = 1.5957691216057308f, b = 0.07135481282604193f;
    if (!slope) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float u = x[i] * (a + b * x[i] * x[i]), e = exp_(-fabsf(u));
            y[i] = x[i] * (u < 0.0f ? e : 1.0f) / (1.0f + e);
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float square = x[i] * x[i], u = x[i] * (a + b * square), e = exp_(-fabsf(u));
        float s = (u < 0.0f ? e : 1.0f) / (1.0f + e), value = x[i] * s;
        y[i] = value;
        slope[i] = s + value * (1.0f - s) * (a + 3.0f * b * square);
    }
}

/* exp(row - max) in place; the sum, and the max in *top */
static inline float exp_row(float *restrict row, int64_t n, float *top) {
    float m = row[0], sum = 0.0f;
#pragma omp simd reduction(max : m)
    for (int64_t j = 0; j < n; j++) m = row[j] > m ? row[j] : m;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        float e = exp_(row[j] - m);
        row[j] = e;
        sum += e;
    }
    *top = m;
    return sum;
}

/* Logits (rows, vocabulary) become the gradient of the counted losses' sum; losses (rows) in nats. counts may be NULL. */
void cross_entropy(float *restrict logits, const int64_t *restrict targets, const float *restrict counts,
                   float *restrict losses, int64_t rows, int64_t vocabulary) {
    for (int64_t i = 0; i < rows; i++) {
        float *row = logits + i * vocabulary, wanted = row[targets[i]], count = counts ? counts[i] : 1.0f, top;
        float sum = exp_row(row, vocabulary, &top);
        losses[i] = count * (logf(sum) + (top - wanted));
        float scale = count / sum;
#pragma omp simd
        for (int64_t j = 0; j < vocabulary; j++) row[j] *= scale;
        row[targets[i]] -= count;
    }
}

/* Scores (n, rows, columns) become shares: row r sees the first + r + 1 leading columns, the others get 0. Of these it
 * sees none before begins (n / heads, rows), unless that is NULL. */
void causal_softmax(float *restrict scores, int64_t n, int64_t rows, int64_t columns, int64_t first,
                    const int64_t *restrict begins, int64_t heads) {
    for (int64_t i = 0; i < n * rows; i++) {
        float *row = scores + i * columns, top;
        int64_t seen = first + i % rows + 1, before = begins ? begins[i / rows / heads * rows + i % rows] : 0;
        memset(row, 0, before * sizeof(float));
        row += before;
        seen -= before;
        float scale = 1.0f / exp_row(row, seen, &top);
#pragma omp simd
        for (int64_t j = 0; j < seen; j++) row[j] *= scale;
        memset(row + seen, 0, (columns - before - seen) * sizeof(float));
    }
}

/* The gradient of shares becomes that of scores. */
void causal_slope(float *restrict gradient, const float *restrict shares, int64_t n, int64_t rows, int64_t columns,
                  int64_t first) {
    for (int64_t i = 0; i < n * rows; i++) {
        float *g = gradient + i * columns, mean = 0.0f;
        const float *p = shares + i * columns;
        int64_t seen = first + i % rows + 1;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < seen; j++) mean += g[j] * p[j];
#pragma omp simd
        for (int64_t j = 0; j < seen; j++) g[j] = p[j] * (g[j] - mean);
        memset(g + seen, 0, (columns - seen) * sizeof(float));
    }
}

static inline float dot(const float *restrict a, const float *restrict b, int64_t n) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static inline void add(float *restrict to, float scale, const float *restrict x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] += scale * x[i];
}

typedef struct {
    int64_t batch, heads, length, width, window;
    int64_t to_batch, to_head, to_position;       /* strides of q, k and v */
    int64_t out_batch, out_head, out_position;    /* of the output, or of its gradient */
} band;

/* Each query and the window - 1 keys before it: out, and the shares (batch, heads, length, window), newest key first. No
 * key before begins (batch, length), unless that is NULL. */
void band_forward(const float *restrict q, const float *restrict k, const float *restrict v,
                  const int64_t *restrict begins, float *restrict out, float *restrict shares, const band *s) {
    float scale = 1.0f / sqrtf((float)s->width), top;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t t = 0; t < s->length; t++, shares += s->window) {
                int64_t here = b * s->to_batch + h * s->to_head + t * s->to_position;
                int64_t keys = t + 1 - (begins ? begins[b * s->length + t] : 0);
                int64_t seen = keys < s->window ? keys : s->window;
                float *o = out + b * s->out_batch + h * s->out_head + t * s->out_position;
                for (int64_t j = 0; j < seen; j++)
                    shares[j] = scale * dot(q + here, k + here - j * s->to_position, s->width);
                float share = 1.0f / exp_row(shares, seen, &top);
                memset(shares + seen, 0, (s->window - seen) * sizeof(float));
                memset(o, 0, s->width * sizeof(float));
                for (int64_t j = 0; j < seen; j++) {
                    shares[j] *= share;
                    add(o, shares[j], v + here - j * s->to_position, s->width);
                }
            }
}

/* Its gradients, (batch, heads, length, width) each, zero before. */
void band_backward(const float *restrict q, const float *restrict k, const float *restrict v,
                   const float *restrict shares, const float *restrict gradient, float *restrict dq, float *restrict dk,
                   float *restrict dv, float *restrict slope, const band *s) {
    float scale = 1.0f / sqrtf((float)s->width);
    int64_t width = s->width;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t t = 0; t < s->length; t++, shares += s->window, dq += width, dk += width, dv += width) {
                int64_t here = b * s->to_batch + h * s->to_head + t * s->to_position;
                int64_t seen = t + 1 < s->window ? t + 1 : s->window;
                const float *g = gradient + b * s->out_batch + h * s->out_head + t * s->out_position;
                float mean = 0.0f;
                for (int64_t j = 0; j < seen; j++) {
                    slope[j] = dot(g, v + here - j * s->to_position, width);
                    mean += slope[j] * shares[j];
                }
                for (int64_t j = 0; j < seen; j++) {
                    float ds = scale * shares[j] * (slope[j] - mean);
                    add(dq, ds, k + here - j * s->to_position, width);
                    add(dk - j * width, ds, q + here, width);
                    add(dv - j * width, shares[j], g, width);
                }
            }
}

/* ---- the same in bf16, the upper half of an fp32: read and written as such, computed in fp32, rounded to nearest */

static inline float from(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint16_t to(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits += 0x7fff + (bits >> 16 & 1); /* to even */
    return x != x ? 0x7fc0 : bits >> 16;
}

void gelu_bf16(const uint16_t *restrict x, uint16_t *restrict y, uint16_t *restrict slope, int64_t n) {
    const float a = 1.5957691216057308f, b = 0.07135481282604193f;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float v = from(x[i]), square = v * v, u = v * (a + b * square), e = exp_(-fabsf(u));
        float s = (u < 0.0f ? e : 1.0f) / (1.0f + e), value = v * s;
        y[i] = to(value);
        if (slope) slope[i] = to(s + value * (1.0f - s) * (a + 3.0f * b * square));
    }
}

/* exp(row - max) into wide; the sum, and the max in *top */
static inline float exp_row_bf16(const uint16_t *restrict row, float *restrict wide, int64_t n, float *top) {
    float m = from(row[0]), sum = 0.0f;
#pragma omp simd reduction(max : m)
    for (int64_t j = 0; j < n; j++) m = from(row[j]) > m ? from(row[j]) : m;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        float e = exp_(from(row[j]) - m);
        wide[j] = e;
        sum += e;
    }
    *top = m;
    return sum;
}

/* wide (vocabulary) is room to work in */
void cross_entropy_bf16(uint16_t *restrict logits, const int64_t *restrict targets,
                               const float *restrict counts, float *restrict losses, float *restrict wide,
                               int64_t rows, int64_t vocabulary) {
    for (int64_t i = 0; i < rows; i++) {
        uint16_t *row = logits + i * vocabulary;
        float wanted = from(row[targets[i]]), count = counts ? counts[i] : 1.0f, top;
        float sum = exp_row_bf16(row, wide, vocabulary, &top), scale = count / sum;
        losses[i] = count * (logf(sum) + (top - wanted));
#pragma omp simd
        for (int64_t j = 0; j < vocabulary; j++) row[j] = to(scale * wide[j]);
        row[targets[i]] = to(scale * wide[targets[i]] - count);
    }
}

/* wide (columns) is room to work in */
void causal_softmax_bf16(uint16_t *restrict scores, float *restrict wide, int64_t n, int64_t rows,
                                int64_t columns, int64_t first, const int64_t *restrict begins, int64_t heads) {
    for (int64_t i = 0; i < n * rows; i++) {
        uint16_t *row = scores + i * columns;
        int64_t seen = first + i % rows + 1, before = begins ? begins[i / rows / heads * rows + i % rows] : 0;
        float top;
        memset(row, 0, before * sizeof *row);
        row += before;
        seen -= before;
        float scale = 1.0f / exp_row_bf16(row, wide, seen, &top);
#pragma omp simd
        for (int64_t j = 0; j < seen; j++) row[j] = to(scale * wide[j]);
        memset(row + seen, 0, (columns - before - seen) * sizeof *row);
    }
}

void causal_slope_bf16(uint16_t *restrict gradient, const uint16_t *restrict shares, int64_t n, int64_t rows,
                              int64_t columns, int64_t first) {
    for (int64_t i = 0; i < n * rows; i++) {
        uint16_t *g = gradient + i * columns;
        const uint16_t *p = shares + i * columns;
        int64_t seen = first + i % rows + 1;
        float mean = 0.0f;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < seen; j++) mean += from(g[j]) * from(p[j]);
#pragma omp simd
        for (int64_t j = 0; j < seen; j++) g[j] = to(from(p[j]) * (from(g[j]) - mean));
        memset(g + seen, 0, (columns - seen) * sizeof *g);
    }
}
