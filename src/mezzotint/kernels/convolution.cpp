// y = x * w + b for 3x3 windows with one row of zeros around: the formulas are in convolution.py.
//
// Tiles of 4x4 outputs are made of 6x6 inputs. Transformed, a tile is 36 positions, at each of which
// the channels are mixed by a matrix of its own, so that the work is 36 matrix products:
//
//     v (36, tiles, given) = B^T x B      m (36, tiles, made) = v u      y = A^T m A + b
//
// and backwards, with the transposed matrices in the other order. Blocks of whole images pass
// through all of it while they are in a core's cache. Each number of y and dx is one thread's work,
// so neither depends on the number of threads; the gradient of w is a sum over shares of the batch,
// one or more a thread's, and rounds otherwise with another number.
//
// Images are channels_last: vectors are neighbouring channels, which both sides have a multiple of.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "numbers.h"

namespace {

const int LANES = WIDEST, ROWS = LANES == 16 ? 12 : 6;  // their sums take most of the registers
const int COLUMNS = 2 * LANES, POSITIONS = 36, STEP = 4, SIDE = 6;
const int64_t BLOCK = 48;    // tiles that pass through together
const int64_t SLICE = 32;    // channels of x whose part of the gradient of w is made together
const int64_t SMALL = 8192;  // numbers of given x made from which on its sums leave a core's cache, so
const int64_t DEEP = 4;      // that it pays to add so many blocks to them at once
const int64_t ENOUGH = 64;   // tiles that are worth sums of their own

typedef Lanes<LANES>::Number Vector;

inline Vector get(const float *from) { return get<LANES>(from); }
inline void put(float *to, Vector value) { put<LANES>(to, value); }

struct alignas(64) Line {  // of a cache: a vector that lies across two costs twice
    static const int COUNT = 16;
    float numbers[COUNT];
};

// Room for so many numbers, unset, that a thread keeps from call to call: memory that is given back
// to the system costs a fault a page when it is next asked for.
template <int which> float *room(int64_t count) {
    thread_local std::unique_ptr<Line[]> kept;
    thread_local int64_t size = 0;
    const int64_t lines = count / Line::COUNT + 1;
    if (size < lines) {
        kept.reset();
        size = 0;
        kept.reset(new Line[lines]);
        size = lines;
    }
    return kept[0].numbers;
}

int64_t whole(int64_t n, int64_t of) { return (n + of - 1) / of * of; }

struct Sizes {
    int64_t batch, height, width, given, made;
    int64_t down() const { return (height + STEP - 1) / STEP; }
    int64_t across() const { return (width + STEP - 1) / STEP; }
    int64_t tiles() const { return down() * across(); }
    int64_t pixels() const { return height * width; }
    // Of a block: as many as make BLOCK tiles, or fewer, so that all threads have as much to do.
    int64_t images(int64_t threads) const {
        const int64_t most = std::max<int64_t>(1, BLOCK / tiles()), blocks = (batch + most - 1) / most;
        const int64_t even = whole(blocks, threads);
        return (batch + even - 1) / even;
    }
};

// Numbers from position to position of (36, rows, columns). A line more than they take, lest all
// 36 fall on the same lines of a cache.
int64_t apart(int64_t rows, int64_t columns) { return rows * columns + COLUMNS; }

// ------------------------------------------------------------------------- transforms of a vector

// Positions 1 to 4 belong to the points 1, -1, 2 and -2 of polynomials, of which even and odd powers
// are given at 1 and at 2.
inline void at_points(Vector even, Vector odd, Vector evens, Vector odds, Vector *to, int s) {
    to[s] = even + odd;
    to[2 * s] = even - odd;
    to[3 * s] = evens + odds;
    to[4 * s] = evens - odds;
}

inline void b_transposed(const Vector *x, int s, Vector *v, int to) {
    const Vector even = x[4 * s] - 4.0f * x[2 * s], odd = x[3 * s] - 4.0f * x[s];
    const Vector evens = x[4 * s] - x[2 * s], odds = 2.0f * (x[3 * s] - x[s]);
    v[0] = 4.0f * x[0] - 5.0f * x[2 * s] + x[4 * s];
    at_points(even, odd, evens, odds, v, to);
    v[5 * to] = 4.0f * x[s] - 5.0f * x[3 * s] + x[5 * s];
}

inline void b(const Vector *v, int s, Vector *x, int to) {
    const Vector sum = v[s] + v[2 * s], difference = v[s] - v[2 * s];
    const Vector sums = v[3 * s] + v[4 * s], differences = v[3 * s] - v[4 * s];
    x[0] = 4.0f * v[0];
    x[to] = 4.0f * (v[5 * s] - difference) - 2.0f * differences;
    x[2 * to] = -5.0f * v[0] - 4.0f * sum - sums;
    x[3 * to] = difference + 2.0f * differences - 5.0f * v[5 * s];
    x[4 * to] = v[0] + sum + sums;
    x[5 * to] = v[5 * s];
}

inline void a_transposed(const Vector *m, int s, Vector *y, int to) {
    const Vector sum = m[s] + m[2 * s], difference = m[s] - m[2 * s];
    const Vector sums = m[3 * s] + m[4 * s], differences = m[3 * s] - m[4 * s];
    y[0] = m[0] + sum + sums;
    y[to] = difference + 2.0f * differences;
    y[2 * to] = sum + 4.0f * sums;
    y[3 * to] = difference + 8.0f * differences + m[5 * s];
}

inline void a(const Vector *y, int s, Vector *m, int to) {
    const Vector even = y[0] + y[2 * s], odd = y[s] + y[3 * s];
    const Vector evens = y[0] + 4.0f * y[2 * s], odds = 2.0f * y[s] + 8.0f * y[3 * s];
    m[0] = y[0];
    at_points(even, odd, evens, odds, m, to);
    m[5 * to] = y[3 * s];
}

inline void g(const Vector *w, int s, Vector *u, int to) {
    const Vector even = (w[0] + w[2 * s]) * (-1.0f / 6), odd = w[s] * (-1.0f / 6);
    const Vector evens = w[0] * (1.0f / 24) + w[2 * s] * (1.0f / 6), odds = w[s] * (1.0f / 12);
    u[0] = w[0] * 0.25f;
    at_points(even, odd, evens, odds, u, to);
    u[5 * to] = w[2 * s];
}

inline void g_transposed(const Vector *u, int s, Vector *w, int to) {
    const Vector sum = (u[s] + u[2 * s]) * (-1.0f / 6), sums = u[3 * s] + u[4 * s];
    w[0] = u[0] * 0.25f + sum + sums * (1.0f / 24);
    w[to] = (u[2 * s] - u[s]) * (1.0f / 6) + (u[3 * s] - u[4 * s]) * (1.0f / 12);
    w[2 * to] = sum + sums * (1.0f / 6) + u[5 * s];
}

// Squares of vectors: columns first, then rows.
template <int from, int to, void (*line)(const Vector *, int, Vector *, int)>
inline void square(const Vector *x, Vector *y) {
    Vector half[to * from];
    for (int j = 0; j < from; j++) line(x + j, from, half + j, from);
    for (int i = 0; i < to; i++) line(half + i * from, 1, y + i * to, 1);
}

// ------------------------------------------------------------------------------- matrix products

// c (rows, columns) = or += sum over k of a[r, k] b[k, columns], each with its own steps; columns are
// two vectors, or one.
template <int vectors, int rows, bool add>
void sums(const float *a, int64_t row, int64_t step, const float *b, int64_t below,
          int64_t depth, float *c, int64_t under) {
    Vector sum[rows][vectors];
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < vectors; o++) sum[r][o] = add ? get(c + r * under + o * LANES) : Vector{};
    for (int64_t k = 0; k < depth; k++) {
        Vector number[vectors];
        for (int o = 0; o < vectors; o++) number[o] = get(b + k * below + o * LANES);
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < vectors; o++) sum[r][o] += a[r * row + k * step] * number[o];
    }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < vectors; o++) put(c + r * under + o * LANES, sum[r][o]);
}

typedef void (*Sums)(const float *, int64_t, int64_t, const float *, int64_t, int64_t, float *,
                     int64_t);

template <class> struct Table;
template <int... i> struct Table<std::integer_sequence<int, i...>> {  // 1 to ROWS rows
    template <int vectors, bool add> static constexpr Sums of[] = {sums<vectors, i + 1, add>...};
};
typedef Table<std::make_integer_sequence<int, ROWS>> Tables;

// All rows, in parts as equal as can be: a last part of one row would take as long as one of five.
template <int vectors, bool add>
inline void product(const float *a, int64_t row, int64_t step, const float *b, int64_t below,
                    int64_t rows, int64_t depth, float *c, int64_t under) {
    const int64_t parts = (rows + ROWS - 1) / ROWS;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t start = rows * part / parts, end = rows * (part + 1) / parts;
        Tables::of<vectors, add>[end - start - 1](a + start * row, row, step, b, below, depth,
                                                  c + start * under, under);
    }
}

// Columns by twos of vectors, and a last vector alone: half of two would be zeros.
template <class Work> inline void in_columns(int64_t columns, Work work) {
    int64_t o = 0;
    for (; o + COLUMNS <= columns; o += COLUMNS) work(std::integral_constant<int, 2>(), o);
    if (o < columns) work(std::integral_constant<int, 1>(), o);
}

// -------------------------------------------------------------------------------- tiles of images

// Where the numbers of a tile are in an image; nothing's place is that of those outside.
template <int side>
inline void places(const Sizes &n, int64_t tile, int64_t border, int64_t channels, float *image,
                   float *nothing, float **place) {
    const int64_t top = tile / n.across() * STEP - border, left = tile % n.across() * STEP - border;
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++) {
            const int64_t y = top + i, x = left + j;
            const bool inside = y >= 0 && y < n.height && x >= 0 && x < n.width;
            place[i * side + j] = inside ? image + (y * n.width + x) * channels : nothing;
        }
}

// Transformed tiles of images: v (36, tiles, across), of which the first are channels.
template <int side, void (*line)(const Vector *, int, Vector *, int)>
void transform(const Sizes &n, const float *images, int64_t count, int64_t stride,
               int64_t channels, float *v, int64_t plane, int64_t across) {
    std::vector<float> nothing(channels, 0.0f);
    float *place[side * side];
    for (int64_t t = 0; t < count * n.tiles(); t++) {
        float *image = const_cast<float *>(images) + t / n.tiles() * n.pixels() * stride;
        places<side>(n, t % n.tiles(), side == SIDE, stride, image, nothing.data(), place);
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector x[side * side], made[POSITIONS];
            for (int i = 0; i < side * side; i++) x[i] = get(place[i] + c);
            square<side, SIDE, line>(x, made);
            for (int p = 0; p < POSITIONS; p++) put(v + p * plane + t * across + c, made[p]);
        }
    }
}

// The other way: tiles (36, tiles, across) and a bias, if there is one, become images or are added to
// what is there.
template <int side, void (*line)(const Vector *, int, Vector *, int)>
void collect(const Sizes &n, const float *m, int64_t plane, int64_t across, float *images,
             int64_t count, int64_t channels, const float *bias, bool added) {
    std::vector<float> nothing(channels, 0.0f);
    float *place[side * side];
    for (int64_t t = 0; t < count * n.tiles(); t++) {
        float *image = images + t / n.tiles() * n.pixels() * channels;
        places<side>(n, t % n.tiles(), side == SIDE, channels, image, nothing.data(), place);
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector x[POSITIONS], made[side * side];
            for (int p = 0; p < POSITIONS; p++) x[p] = get(m + p * plane + t * across + c);
            square<SIDE, side, line>(x, made);
            const Vector more = bias ? get(bias + c) : Vector{};
            for (int i = 0; i < side * side; i++)
                put(place[i] + c, added ? made[i] + more + get(place[i] + c) : made[i] + more);
        }
    }
}

// w (9, given, made) -> u (36, given, made), of which COLUMNS of `made` lie together, or the last vector.
void prepare(const float *w, int64_t given, int64_t made, float *u, int threads) {
    const int64_t plane = apart(given, made);
#pragma omp parallel for num_threads(threads)
    for (int64_t c = 0; c < given; c++)
        for (int64_t o = 0; o < made; o += LANES) {
            Vector from[9], to[POSITIONS];
            for (int i = 0; i < 9; i++) from[i] = get(w + (i * given + c) * made + o);
            square<3, SIDE, g>(from, to);
            const int64_t first = o / COLUMNS * COLUMNS, across = std::min<int64_t>(COLUMNS, made - first);
            float *place = u + first * given + c * across + o - first;
            for (int p = 0; p < POSITIONS; p++) put(place + p * plane, to[p]);
        }
}

// And its gradient the other way: u (36, given, made) -> w (9, given, made).
void finish(const float *u, int64_t given, int64_t made, float *w, int threads) {
    const int64_t plane = apart(given, made);
#pragma omp parallel for num_threads(threads)
    for (int64_t c = 0; c < given; c++)
        for (int64_t o = 0; o < made; o += LANES) {
            Vector from[POSITIONS], to[9];
            for (int p = 0; p < POSITIONS; p++) from[p] = get(u + p * plane + c * made + o);
            square<SIDE, 3, g_transposed>(from, to);
            for (int i = 0; i < 9; i++) put(w + (i * given + c) * made + o, to[i]);
        }
}

// m (36, tiles, made) = v (36, tiles, across) u (36, given, made), which is as prepared.
void mix(const float *v, int64_t v_plane, int64_t across, const float *u, int64_t tiles,
         int64_t given, int64_t made, float *m, int64_t m_plane) {
    const int64_t u_plane = apart(given, made);
    for (int p = 0; p < POSITIONS; p++)
        in_columns(made, [&](auto vectors, int64_t o) {
            product<vectors(), false>(v + p * v_plane, across, 1, u + p * u_plane + o * given,
                                      vectors() * LANES, tiles, given, m + p * m_plane + o, made);
        });
}

}  // namespace

// x (batch, height, width, given), w (9, given, made), bias (made,), beside like y or none
// -> y (batch, height, width, made).
extern "C" int convolve(const float *x, const float *w, const float *bias, const float *beside,
                        float *y, int64_t batch, int64_t height, int64_t width, int64_t given,
                        int64_t made, int threads) {
    const Sizes n = {batch, height, width, given, made};
    const int64_t images = n.images(threads), rows = images * n.tiles();
    const int64_t v_plane = apart(rows, given), m_plane = apart(rows, made);
    float *u = nullptr;
    if (fails([&] { u = room<0>(POSITIONS * apart(given, made)); })) return 1;
    prepare(w, given, made, u, threads);
    return in_threads((batch + images - 1) / images, threads, [&](int64_t block) {
        float *v = room<1>(POSITIONS * (v_plane + m_plane)), *m = v + POSITIONS * v_plane;
        const int64_t first = block * images, count = std::min(images, batch - first);
        const int64_t place = first * n.pixels() * made;
        transform<SIDE, b_transposed>(n, x + first * n.pixels() * given, count, given, given, v,
                                      v_plane, given);
        mix(v, v_plane, given, u, count * n.tiles(), given, made, m, m_plane);
        if (beside) std::copy_n(beside + place, count * n.pixels() * made, y + place);
        collect<STEP, a_transposed>(n, m, m_plane, made, y + place, count, made, bias, beside);
    });
}

// dy (batch, height, width, made), turned (9, made, given) or none -> dx like x;
// x or none -> dw (9, given, made), dbias (made,).
extern "C" int convolve_back(const float *dy, const float *turned, const float *x, float *dx,
                             float *dw, float *dbias, int64_t batch, int64_t height, int64_t width,
                             int64_t given, int64_t made, int threads) {
    const Sizes n = {batch, height, width, given, made};
    const int64_t tiles = n.tiles(), images = n.images(threads);
    const int64_t deep = images * (given * made > SMALL ? DEEP : 1);
    const int64_t m_plane = apart(deep * tiles, made), v_plane = apart(deep * tiles, SLICE);
    const int64_t back_plane = apart(images * tiles, given), du_plane = apart(given, made);
    // Threads share the images out; where there are more than that is good for, several have the same
    // images, but other channels of x and other blocks of dx.
    const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(threads, batch * tiles / ENOUGH));
    const int64_t slices = (given + SLICE - 1) / SLICE;
    const int64_t same = std::min((threads + shares - 1) / shares, slices);
    const int64_t size = POSITIONS * du_plane + made;  // of a share's sums
    float *u = nullptr;
    if (fails([&] { u = room<0>(POSITIONS * apart(made, given) + shares * size); })) return 1;
    float *du = u + POSITIONS * apart(made, given);
    if (turned) prepare(turned, made, given, u, threads);
    const int failed = in_threads(shares * same, threads, [&](int64_t work) {
        const int64_t share = work / same, mine = work % same;
        float *m = room<1>(POSITIONS * (m_plane + v_plane + back_plane));
        float *v = m + POSITIONS * m_plane, *dv = v + POSITIONS * v_plane;
        float *own = du + share * size, *own_bias = own + size - made;
        const int64_t left = std::min(slices * mine / same * SLICE, given);
        const int64_t right = std::min(slices * (mine + 1) / same * SLICE, given);
        for (int p = 0; x && p < POSITIONS; p++)
            std::fill(own + p * du_plane + left * made, own + p * du_plane + right * made, 0.0f);
        if (x && mine == 0) std::fill(own_bias, own_bias + made, 0.0f);
        const int64_t end = batch * (share + 1) / shares;
        for (int64_t start = batch * share / shares; start < end; start += deep) {
            const int64_t stop = std::min(start + deep, end), all = (stop - start) * tiles;
            for (int64_t first = start; first < stop; first += images) {
                const int64_t count = std::min(images, stop - first);
                float *some = m + (first - start) * tiles * made;
                transform<STEP, a>(n, dy + first * n.pixels() * made, count, made, made, some, m_plane,
                                   made);
                if (!turned || first / images % same != mine) continue;
                float *to = dx + first * n.pixels() * given;
                mix(some, m_plane, made, u, count * tiles, made, given, dv, back_plane);
                std::fill(to, to + count * n.pixels() * given, 0.0f);
                collect<SIDE, b>(n, dv, back_plane, given, to, count, given, nullptr, true);
            }
            if (!x) continue;
            for (int64_t c = left; c < right; c += SLICE) {
                const int64_t some = std::min(SLICE, right - c);
                transform<SIDE, b_transposed>(n, x + start * n.pixels() * given + c, stop - start,
                                              given, some, v, v_plane, SLICE);
                for (int p = 0; p < POSITIONS; p++)
                    in_columns(made, [&](auto vectors, int64_t o) {
                        product<vectors(), true>(v + p * v_plane, 1, SLICE, m + p * m_plane + o, made,
                                                 some, all, own + p * du_plane + c * made + o, made);
                    });
            }
            for (int64_t t = 0; mine == 0 && t < all; t++)  // a tile's sum is one of its positions
                for (int64_t o = 0; o < made; o++)
                    own_bias[o] += m[(SIDE + 1) * m_plane + t * made + o];
        }
    });
    if (failed || !x) return failed;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < size; i++)
        for (int64_t share = 1; share < shares; share++) du[i] += du[share * size + i];
    finish(du, given, made, dw, threads);
    std::copy(du + size - made, du + size, dbias);
    return 0;
}

// Numbers of a vector, of which both sides' channels are to be a multiple; 0 where the compiler was
// not told of vectors and fused multiplications, without which torch's own way is faster.
extern "C" int convolution_lanes() {
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
    return LANES;
#else
    return 0;
#endif
}

extern "C" int convolution_threads() {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}
