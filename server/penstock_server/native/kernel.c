/* One pass over arriving values: copy and convert into float32, and statistics of the copy; and over the values of a
 * batch: normalisation.
 *
 * Plain C11 without Python: library.py loads it with ctypes, plain.py has the same functions in numpy. Values are taken
 * in blocks that stay in the cache: a block is copied, then its mean is computed, then its squared deviations from that
 * mean; blocks are merged by the pairwise update of Chan, Golub and LeVeque 1983. All sums are in double, in a fixed
 * order that does not depend on the processor, so that the same values give the same bits.
 *
 * No value of the source is looked at twice: it may be memory that another process changes meanwhile.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define BLOCK 4096          /* values: 16 KiB of float32 */
#define MOST_COMPONENTS 64  /* compiled.py leaves more to numpy */
#define INLINE static inline __attribute__((always_inline))

enum dtype { FLOAT32, FLOAT64, INT32, INT64 };
enum { ALL_FINITE = -1, NO_SUCH_ROW = -2, NOT_POSSIBLE = -3 };

typedef float four_floats __attribute__((vector_size(16)));
typedef int32_t four_masks __attribute__((vector_size(16)));
typedef double four_doubles __attribute__((vector_size(32)));
typedef int64_t four_long_masks __attribute__((vector_size(32)));

/* Of several components; the arrays are the caller's. */
struct moments {
    double count;
    double *mean, *m2, *low, *high;
};

static struct moments cleared(double *out, int64_t components)
{
    struct moments all = {0, out, out + components, out + 2 * components, out + 3 * components};
    for (int64_t k = 0; k < components; k++) {
        all.mean[k] = all.m2[k] = 0;
        all.low[k] = INFINITY;
        all.high[k] = -INFINITY;
    }
    return all;
}

INLINE void merge(struct moments *into, double count, int64_t k, double mean, double m2, double low, double high)
{
    double total = into->count + count, delta = mean - into->mean[k];
    into->mean[k] += delta * (count / total);
    into->m2[k] += m2 + delta * delta * (into->count * count / total);
    into->low[k] = low < into->low[k] ? low : into->low[k];
    into->high[k] = high > into->high[k] ? high : into->high[k];
}

/* Through pointers: a vector as an argument has no settled place where the processor lacks it. */
INLINE void extremes(const float *values, four_floats *low, four_floats *high)
{
    four_floats v;
    memcpy(&v, values, sizeof v);
#if defined(__SSE2__)
    *low = _mm_min_ps(v, *low);
    *high = _mm_max_ps(v, *high);
#else
    four_masks less = v < *low, more = v > *high;
    *low = (four_floats)(((four_masks)v & less) | ((four_masks)*low & ~less));
    *high = (four_floats)(((four_masks)v & more) | ((four_masks)*high & ~more));
#endif
}

INLINE void double_extremes(const double *values, four_doubles *low, four_doubles *high)
{
    four_doubles v;
    memcpy(&v, values, sizeof v);
    four_long_masks less = v < *low, more = v > *high;
    *low = (four_doubles)(((four_long_masks)v & less) | ((four_long_masks)*low & ~less));
    *high = (four_doubles)(((four_long_masks)v & more) | ((four_long_masks)*high & ~more));
}

/* Statistics of a block, merged into `all`: `groups` times four accumulators, each for one component, as four * groups
 * is a multiple of `components`. Returns 0 if a value is not finite: the sum of finite floats cannot overflow a double.
 */
#define STATISTICS(NAME, REAL, FOUR, EXTREMES)                                                                        \
    INLINE int NAME(const REAL *values, int64_t n, int groups, int64_t components, struct moments *all)               \
    {                                                                                                                 \
        const int64_t width = 4 * (int64_t)groups, whole = n - n % width;                                             \
        four_doubles sum[MOST_COMPONENTS], square[MOST_COMPONENTS];                                                   \
        FOUR low[MOST_COMPONENTS], high[MOST_COMPONENTS];                                                             \
        double middle[4 * MOST_COMPONENTS], count = (double)(n / components);                                         \
        for (int j = 0; j < groups; j++) {                                                                            \
            sum[j] = square[j] = (four_doubles){0, 0, 0, 0};                                                          \
            low[j] = (FOUR){INFINITY, INFINITY, INFINITY, INFINITY};                                                  \
            high[j] = -low[j];                                                                                        \
        }                                                                                                             \
        for (int64_t i = 0; i < whole; i += width)                                                                    \
            for (int j = 0; j < groups; j++) {                                                                        \
                const REAL *v = values + i + 4 * j;                                                                   \
                sum[j] += (four_doubles){v[0], v[1], v[2], v[3]};                                                     \
                EXTREMES(v, &low[j], &high[j]);                                                                       \
            }                                                                                                         \
        for (int64_t i = whole; i < n; i++) {                                                                         \
            const int64_t j = i - whole;                                                                              \
            const REAL v = values[i];                                                                                 \
            sum[j / 4][j % 4] += v;                                                                                   \
            low[j / 4][j % 4] = v < low[j / 4][j % 4] ? v : low[j / 4][j % 4];                                        \
            high[j / 4][j % 4] = v > high[j / 4][j % 4] ? v : high[j / 4][j % 4];                                     \
        }                                                                                                             \
        int finite = 1;                                                                                               \
        for (int64_t k = 0; k < components; k++) {                                                                    \
            double total = 0;                                                                                         \
            for (int64_t j = k; j < width; j += components)                                                           \
                total += sum[j / 4][j % 4];                                                                           \
            finite &= isfinite(total) != 0;                                                                           \
            for (int64_t j = k; j < width; j += components)                                                           \
                middle[j] = total / count;                                                                            \
        }                                                                                                             \
        for (int64_t i = 0; i < whole; i += width)                                                                    \
            for (int j = 0; j < groups; j++) {                                                                        \
                const REAL *v = values + i + 4 * j;                                                                   \
                four_doubles from;                                                                                    \
                memcpy(&from, middle + 4 * j, sizeof from);                                                           \
                from = (four_doubles){v[0], v[1], v[2], v[3]} - from;                                                 \
                square[j] += from * from;                                                                             \
            }                                                                                                         \
        for (int64_t i = whole; i < n; i++) {                                                                         \
            const int64_t j = i - whole;                                                                              \
            square[j / 4][j % 4] += (values[i] - middle[j]) * (values[i] - middle[j]);                                \
        }                                                                                                             \
        for (int64_t k = 0; k < components; k++) {                                                                    \
            double m2 = 0, least = INFINITY, most = -INFINITY;                                                        \
            for (int64_t j = k; j < width; j += components) {                                                         \
                m2 += square[j / 4][j % 4];                                                                           \
                least = low[j / 4][j % 4] < least ? low[j / 4][j % 4] : least;                                        \
                most = high[j / 4][j % 4] > most ? high[j / 4][j % 4] : most;                                         \
            }                                                                                                         \
            merge(all, count, k, middle[k], m2, least, most);                                                         \
        }                                                                                                             \
        all->count += count;                                                                                          \
        return finite;                                                                                                \
    }

STATISTICS(statistics, float, four_floats, extremes)
STATISTICS(double_statistics, double, four_doubles, double_extremes)

/* The number of accumulators is a constant for scalars and vectors, so that they stay in registers. */
#define BY_COMPONENTS(NAME, values, n, components, all)                                                               \
    ((components) == 1   ? NAME(values, n, 4, 1, all)                                                                 \
     : (components) == 2 ? NAME(values, n, 4, 2, all)                                                                 \
     : (components) == 3 ? NAME(values, n, 6, 3, all)                                                                 \
                         : NAME(values, n, (int)(components), components, all))

#define CONVERT(TYPE)                                                                                                 \
    for (int64_t i = 0; i < n; i++) {                                                                                 \
        TYPE value; /* by memcpy: a message's values may begin anywhere */                                            \
        memcpy(&value, source + i * (int64_t)sizeof value, sizeof value);                                             \
        destination[i] = shifted ? (float)((double)value - reference) : (float)value;                                 \
    }

INLINE void convert(const unsigned char *restrict source, enum dtype dtype, int64_t n, double reference, int shifted,
                    float *restrict destination)
{
    switch (dtype) {
    case FLOAT32:
        if (!shifted)
            memcpy(destination, source, (size_t)n * sizeof *destination);
        else
            CONVERT(float)
        break;
    case FLOAT64:
        CONVERT(double)
        break;
    case INT32:
        CONVERT(int32_t)
        break;
    case INT64:
        CONVERT(int64_t)
        break;
    }
}

static const int64_t ITEM[] = {4, 8, 4, 8};

/* As compiled.py packs it: 8 bytes for each member.
 *
 * source: (n, size) values of the dtype, at any address.
 * destination: (slots, width); row i of the source goes to its row rows[i], from `column` on.
 * reference: subtracted in double before a value becomes a float.
 * out: mean, m2, low and high of each component, (4, components); of no use if a value is not finite.
 */
struct task {
    const unsigned char *source;
    int64_t dtype, n, size;
    double reference;
    float *destination;
    int64_t slots, width;
    const int64_t *rows;
    int64_t column, components;
    double *out;
};

INLINE int64_t take(const struct task *t)
{
    struct moments all = cleared(t->out, t->components);
    const int64_t step = BLOCK - BLOCK % t->components, item = ITEM[t->dtype];
    for (int64_t row = 0; row < t->n; row++)
        for (int64_t at = 0; at < t->size; at += step) {
            const int64_t n = t->size - at < step ? t->size - at : step;
            float *to = t->destination + t->rows[row] * t->width + t->column + at;
            const unsigned char *from = t->source + (row * t->size + at) * item;
            if (t->reference != 0)
                convert(from, (enum dtype)t->dtype, n, t->reference, 1, to);
            else
                convert(from, (enum dtype)t->dtype, n, 0, 0, to);
            if (!BY_COMPONENTS(statistics, to, n, t->components, &all))
                for (int64_t i = 0; i < n; i++)
                    if (!isfinite(to[i]))
                        return row * t->size + at + i;
        }
    return ALL_FINITE;
}

INLINE void moments(const void *values, int is_double, int64_t n, int64_t components, double *out)
{
    struct moments all = cleared(out, components);
    const int64_t step = BLOCK - BLOCK % components;
    for (int64_t at = 0; at < n; at += step) {
        const int64_t some = n - at < step ? n - at : step;
        if (is_double)
            (void)BY_COMPONENTS(double_statistics, (const double *)values + at, some, components, &all);
        else
            (void)BY_COMPONENTS(statistics, (const float *)values + at, some, components, &all);
    }
}

/* A block of columns at a time, so that its means and deviations stay in the cache. */
INLINE void normalise(const float *restrict raw, int64_t n, int64_t width, const float *restrict mean,
                      const float *restrict deviation, float *restrict out)
{
    for (int64_t begin = 0; begin < width; begin += BLOCK) {
        const int64_t end = width - begin < BLOCK ? width : begin + BLOCK;
        for (int64_t row = 0; row < n; row++)
            for (int64_t i = begin; i < end; i++)
                out[row * width + i] = (raw[row * width + i] - mean[i]) / deviation[i];
    }
}

static int64_t take_anywhere(const struct task *t) { return take(t); }
static void moments_anywhere(const void *values, int is_double, int64_t n, int64_t components, double *out)
{
    moments(values, is_double, n, components, out);
}
static void normalise_anywhere(const float *raw, int64_t n, int64_t width, const float *mean, const float *deviation,
                               float *out)
{
    normalise(raw, n, width, mean, deviation, out);
}

/* The same code, and the same bits, with wider registers. */
#if defined(__x86_64__)
__attribute__((target("avx2"))) static int64_t take_wide(const struct task *t) { return take(t); }
__attribute__((target("avx2"))) static void moments_wide(const void *values, int is_double, int64_t n,
                                                         int64_t components, double *out)
{
    moments(values, is_double, n, components, out);
}
__attribute__((target("avx2"))) static void normalise_wide(const float *raw, int64_t n, int64_t width,
                                                           const float *mean, const float *deviation, float *out)
{
    normalise(raw, n, width, mean, deviation, out);
}
static int is_wide(void) { return __builtin_cpu_supports("avx2") != 0; }
#else
#define take_wide take_anywhere
#define moments_wide moments_anywhere
#define normalise_wide normalise_anywhere
static int is_wide(void) { return 0; }
#endif

static int narrow; /* for tests: do without wide registers */

void penstock_kernel_narrow(int wanted) { narrow = wanted; }

#ifndef PENSTOCK_KERNEL_SOURCE
#define PENSTOCK_KERNEL_SOURCE ""
#endif
/* The checksum of this file, with which library.py knows a library that an older version of it has left. */
const char *penstock_kernel_source(void) { return PENSTOCK_KERNEL_SOURCE; }

/* Returns the flat index within the source of the first value whose copy is not finite, or ALL_FINITE. Nothing is
 * written if a row is not in the destination.
 */
int64_t penstock_kernel_take(const struct task *task)
{
    if (task->dtype < FLOAT32 || task->dtype > INT64 || task->components < 1 || task->components > MOST_COMPONENTS)
        return NOT_POSSIBLE;
    for (int64_t row = 0; row < task->n; row++)
        if (task->rows[row] < 0 || task->rows[row] >= task->slots)
            return NO_SUCH_ROW;
    return is_wide() && !narrow ? take_wide(task) : take_anywhere(task);
}

/* Statistics of n values, of so many components at each point: mean, m2, low and high, (4, components). */
void penstock_kernel_moments(const void *values, int is_double, int64_t n, int64_t components, double *out)
{
    if (is_wide() && !narrow)
        moments_wide(values, is_double, n, components, out);
    else
        moments_anywhere(values, is_double, n, components, out);
}

/* Map n rows of `width` values to (value - mean) / deviation, column by column; no two of the arrays may overlap. */
void penstock_kernel_normalise(const float *raw, int64_t n, int64_t width, const float *mean, const float *deviation,
                               float *out)
{
    if (is_wide() && !narrow)
        normalise_wide(raw, n, width, mean, deviation, out);
    else
        normalise_anywhere(raw, n, width, mean, deviation, out);
}
