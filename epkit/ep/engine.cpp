// A block of Equilibrium Propagation training steps for each member of an ensemble; `engine.py` compiles and calls it.
//
// It does what `engine.torch_steps` does, up to rounding. What makes it fast:
//
// - A diode that blocks holds its unit at exactly 0 V, so about half of all voltages, and most pixels, are exact zeros.
//   Every product lists the units that are not zero and reads the conductances of those only.
// - Conductances are kept in panels, a few vectors wide, one row after the other: a product walks through memory in
//   order, and its sums stay in registers. Inner layers are kept twice, also transposed, so that both directions are
//   the same product; both copies get the same update, equal to the bit.
// - All that belongs to one panel of one layer (its voltages, the conductances that lead to it from both sides, their
//   sums, the input current) is owned by one thread: a step needs one barrier a half iteration and two for the update.
//   An update is one pass over the conductances, which also sums them for the next step.
//
// No sum depends on the number of threads or on other members: a member's result is the same to the bit in any company.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

// One step of a reading, as `elementwise.Operation` has it; kinds in the order of `elementwise.KINDS`. Mirrored by
// `engine._NativeOperation`. Values are double, those of an affine one of the type T.
enum class Kind : int64_t { add, multiply, affine, nearest, sign, split, join };
struct Operation {
    Kind kind;
    int64_t side, draw;
    const void* values;
};

// Mirrored by `engine._NativeBlock`. Arrays are contiguous, of the type T of the network unless another is given.
struct Block {
    const int64_t* sizes;    // n_0 ... n_L
    const int64_t* rows;     // (stream, step, batch): training images
    const int64_t* stream;   // (member,)
    const int64_t* noisy;    // (layers + 1,): 1 where conductances, or last the biases, learn from what is read, or 0
    void* const* weights;    // of each layer (member, n_pre, n_post), the first with rows [+x, -x]
    void* const* biases;     // of each layer (member, n_post)
    const void *x, *target;  // (n, n_0), (n, n_L)
    const void *noise, *scale;  // (stream, step, draws, 2, batch, units) and (member,), or null
    const void *rates, *rise, *nudge;  // (layer, member), (step,), (2,)
    int64_t* wrong;             // (member,)
    double* cost;               // (member,)
    const Operation* operations;  // what a read-out of parts does, in place of adding noise times scale; or null
    double bias_rate, gain;
    double leak;  // share of its voltage that a unit keeps where its diode blocks, see `variants.LeakyNetwork`; or 0
    int64_t exponential;  // 1 where steps are those of `variants.ExponentialNetwork`, or 0
    int64_t operation_count, draws, reads;  // reads are averaged
    int64_t layers, members, steps, batch, iterations;
    int64_t threads, sharing;  // in all, and which members several of them share: 0 none, 1 the last few, 2 all
};

// Whether the processor gains by having memory fetched that it will need: see `multiply`.
const bool fetches_ahead = [] {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return !__builtin_cpu_is("intel");
#else
    return true;
#endif
}();

// Threads that work on one member meet here. They spin, because a stage takes microseconds, and let others run if one
// of them has lost its core.
class Barrier {
public:
    explicit Barrier(int size) : size_(size) {}
    void wait() {
        if (size_ == 1) return;
        const unsigned round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (spins > 2000) std::this_thread::yield();
#if defined(__x86_64__)
            else __builtin_ia32_pause();
#endif
        }
    }

private:
    const int size_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> round_{0};
};

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#else
constexpr int vector_bytes = 32;
#endif

template <class T> struct VectorOf {
    typedef T type __attribute__((vector_size(vector_bytes)));
};

// As many doubles as a vector of T has numbers: converters round in them.
template <class T> struct DoublesOf {
    typedef double type __attribute__((vector_size(vector_bytes * sizeof(double) / sizeof(T))));
};

// Zeroed memory on cache lines of its own. Nothing is written here: fresh pages are 0 and belong to who first uses them.
template <class E> class Array {
public:
    explicit Array(size_t count = 0) : base_(std::calloc(count * sizeof(E) + alignment(count), 1), std::free) {
        if (!base_) throw std::bad_alloc();
        const uintptr_t address = reinterpret_cast<uintptr_t>(base_.get()), unit = alignment(count);
        data_ = reinterpret_cast<E*>((address + unit - 1) / unit * unit);
#if defined(__linux__)
        // Conductances are many pages, and the processor remembers the places of few: ask for large ones.
        if (unit == huge) madvise(data_, count * sizeof(E), MADV_HUGEPAGE);
#endif
    }
    E* operator+(size_t i) const { return data_ + i; }
    E& operator[](size_t i) const { return data_[i]; }

private:
    static constexpr size_t huge = 1 << 21;
    static size_t alignment(size_t count) { return count * sizeof(E) > huge ? huge : 64; }

    std::unique_ptr<void, void (*)(void*)> base_;
    E* data_;
};

template <int N> using Width = std::integral_constant<int, N>;
// Vectors in a row of a panel: the sums of 8 and a few operands fill 16 registers. A panel has as many units whatever the
// vectors are, and so its sums have the same bits.
constexpr int widest = 256 / vector_bytes;

// f(Width<n>): the inner loops are compiled for each width, so that sums live in registers.
template <class F> void with_width(int n, F f) {
    switch (n) {
        case 1: return f(Width<1>{});
        case 2: return f(Width<2>{});
        case 3: return f(Width<3>{});
        case 4: return f(Width<4>{});
        case 5: return f(Width<5>{});
        case 6: return f(Width<6>{});
        case 7: return f(Width<7>{});
        default: return f(Width<8>{});
    }
}

// f(first, Width<n>) for strips of at most `Most` vectors that make up N.
template <int N, int Most, int First = 0, class F> void strips(F f) {
    constexpr int n = N - First < Most ? N - First : Most;
    f(First, Width<n>{});
    if constexpr (First + n < N) strips<N, Most, First + n>(f);
}

// One panel of a layer.
struct Panel {
    int first, width;  // in vectors
    int unit, units;   // in units; the last vector may have fewer units than lanes
    int owner;         // thread
};

// One network during a block of steps. Arrays of a layer are cut into panels: (rows, units) is stored as, for each
// panel, (rows, width) vectors, so panel p begins at vector rows * first. Rows of a state are (phase, batch).
template <class T> class Member {
    using V = typename VectorOf<T>::type;
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    static constexpr int lanes = sizeof(V) / sizeof(T);
    static constexpr int panel_units = widest * lanes;

    // What is learned from: differences and means of the voltages of the phases.
    struct Reading {
        Array<V> square;  // (units): sums over the batch of difference times mean
        Array<V> pair;    // (2 batch, units): scaled differences, then means
        Array<T> column;  // (units, 2 batch): means, then differences
    };

    struct Layer {
        int units, phases;  // phases: 0 while every voltage is known to be 0, 1 while both agree, 2
        std::vector<Panel> panels;
        Array<V> state;                   // (2 batch, units)
        Array<int16_t> live, live_count;  // (panel, 2 batch, panel_units): units of the panel that are not 0 V
        Array<V> bias, total;             // (units)
        Array<V> sign;                    // (units): +1 where the diode keeps v >= 0, -1 where it keeps v <= 0
        Reading readings[2];              // exact, and as read; empty where nothing learns from it
        Array<V> below, above;            // conductances to the layers below (n_pre, units), above (n_post, units)
        std::vector<double> sums;         // (panel): of the conductances below
        T mean = 0;                       // of those; both only where steps are exponential
    };

    // The images of one batch.
    struct Pixels {
        std::vector<int> lit, count;  // (batch, n_0): where an image is not 0; how many of those
        std::vector<T> value;         // (n_0, batch)
        std::vector<char> dark;       // (n_0): 0 in all images
    };

public:
    Member(const Block& block, int member, int threads)
        : b_(block), m_(member), batch_(int(block.batch)), inputs_(int(block.sizes[0])), barrier_(threads),
          drive_(size_t(block.batch) * vectors(block.sizes[1])),
          free_(size_t(block.batch) * vectors(block.sizes[block.layers])) {
        layers_.resize(block.layers);
        for (int i = 0; i <= block.layers; ++i) learned_from_[block.noisy[i]] = true;
        int item = 0;
        for (int l = 0; l < int(layers_.size()); ++l) {
            Layer& layer = layers_[l];
            const int units = layer.units = int(block.sizes[l + 1]), all = vectors(units);
            const int panels = (all + widest - 1) / widest;
            for (int p = 0; p < panels; ++p) {
                const int first = all * p / panels, width = all * (p + 1) / panels - first, unit = first * lanes;
                const int count = units - unit < width * lanes ? units - unit : width * lanes;
                layer.panels.push_back({first, width, unit, count, item++ % threads});
            }
            layer.state = Array<V>(size_t(2) * batch_ * all);
            layer.live = Array<int16_t>(size_t(panels) * 2 * batch_ * panel_units);
            layer.live_count = Array<int16_t>(size_t(panels) * 2 * batch_);
            layer.bias = Array<V>(all), layer.total = Array<V>(all);
            layer.sign = Array<V>(all);
            for (int i = 0; i < all * lanes; ++i) layer.sign[i / lanes][i % lanes] = i < units / 2 ? 1 : -1;
            for (int noisy = 0; noisy < 2; ++noisy) {
                if (!learned_from_[noisy]) continue;
                Reading& reading = layer.readings[noisy];
                reading.square = Array<V>(all), reading.pair = Array<V>(size_t(2) * batch_ * all);
                reading.column = Array<T>(size_t(units) * 2 * batch_);
            }
            layer.sums.resize(panels);
            layer.below = Array<V>((l ? block.sizes[l] : 2 * block.sizes[0]) * all);
            if (l + 1 < int(layers_.size())) layer.above = Array<V>(block.sizes[l + 2] * all);
        }
    }

    // What each thread of the team runs.
    void run(int thread) {
        const int last = int(layers_.size()) - 1;
        if (thread == 0) find_pixels(0);
        barrier_.wait();
        each(thread, 0, 1, [&](int l, const Panel& p, auto n) { load(l, p, n); });
        for (int k = 0; k < b_.steps; ++k) {
            std::vector<int> phases(last + 1, 0);
            if (thread == 0) fetch_images(k + 1);
            for (int half = 0; half < 4 * b_.iterations; ++half) {
                const bool nudged = half >= 2 * b_.iterations;
                each(thread, half % 2, 2, [&](int l, const Panel& p, auto n) { relax(k, l, p, n, phases, nudged); });
                for (int l = half % 2; l <= last; l += 2) phases[l] = phases_after(l, phases, nudged);
                barrier_.wait();
            }
            each(thread, 0, 1, [&](int l, const Panel& p, auto n) {
                for (int noisy = 0; noisy < 2; ++noisy)
                    if (learned_from_[noisy]) contrast(k, l, p, n, std::max(phases[l], 1), noisy);
            });
            if (thread == 0) judge(k), find_pixels(k + 1);
            if (thread == 0 && b_.exponential) find_means();
            barrier_.wait();
            each(thread, 0, 1, [&](int l, const Panel& p, auto n) {
                b_.exponential ? update<true>(k, l, p, n) : update<false>(k, l, p, n);
            });
        }
        each(thread, 0, 1, [&](int l, const Panel& p, auto n) { store(l, p, n); });
    }

private:
    static int vectors(int64_t units) { return int((units + lanes - 1) / lanes); }

    const int64_t* images(int k) const { return b_.rows + (b_.stream[m_] * b_.steps + k) * batch_; }

    const T* image_target(int k, int s) const {
        return static_cast<const T*>(b_.target) + images(k)[s] * layers_.back().units;
    }

    T rate(int k, int l) const {
        return static_cast<const T*>(b_.rates)[l * b_.members + m_] * static_cast<const T*>(b_.rise)[k];
    }

    T nudge(int phase) const { return static_cast<const T*>(b_.nudge)[phase]; }

    // f(layer, panel, width) for the panels that the thread owns, in layers first, first + by, ...
    template <class F> void each(int thread, int first, int by, F f) {
        for (int l = first; l < int(layers_.size()); l += by)
            for (const Panel& p : layers_[l].panels)
                if (p.owner == thread) with_width(p.width, [&](auto n) { f(l, p, n); });
    }

    // Vector v of a row of `units` numbers anywhere in memory, 0 beyond its end.
    static V load_vector(const T* row, int v, int units) {
        V value{};
        if (const int rest = units - v * lanes; rest >= lanes)
            std::memcpy(&value, row + v * lanes, sizeof(V));
        else
            std::memcpy(&value, row + v * lanes, rest * sizeof(T));
        return value;
    }

    // Negative numbers become 0; NaN stays, so that a diverged member is seen.
    static V clamp(V v) { return v < V{} ? V{} : v; }

    // A conductance after its step. An exponential step is in the logarithm, over the mean conductance, and at most 1;
    // the series exp(x) = 1 + x (1 + x / 2 (1 + ... is as exact as T.
    template <bool Exponential> static V descended(V conductance, V step, T mean) {
        if constexpr (!Exponential) return clamp(conductance - step);
        const V one = V{} + T(1), x = -step / mean, limited = x < -one ? -one : x > one ? one : x;
        V factor = one;
        for (int n = sizeof(T) == 4 ? 10 : 18; n; --n) factor = one + limited * factor * (T(1) / T(n));
        return conductance * factor;
    }

    // What is left of voltages where the diodes block; NaN counts as not blocked.
    static V blocked(V sign, V v) { return sign * v < V{} ? v : V{}; }

    // Lists where a row is not 0, without a branch: an entry is overwritten unless it counts.
    template <class I> static int find_nonzero(const T* row, int units, I* list) {
        int found = 0;
        for (int i = 0; i < units; ++i) {
            list[found] = I(i);
            Bits bits;
            std::memcpy(&bits, row + i, sizeof(T));
            found += bits + bits != 0;  // shifts the sign out
        }
        return found;
    }

    // The nudge spreads by one layer each time; ahead of it both phases agree.
    int phases_after(int l, const std::vector<int>& phases, bool nudged) const {
        int most = 1;
        if (l > 0 && phases[l - 1] > most) most = phases[l - 1];
        if (l + 1 < int(phases.size()) && phases[l + 1] > most) most = phases[l + 1];
        return nudged && l + 1 == int(phases.size()) ? 2 : most;
    }

    // sum (rows, N) += v w over the units of `from` that are not 0 V. A block of rows of w stays in the first cache
    // while all rows of v use it.
    template <int N> void multiply(V* sum, const Layer& from, const V* w, int rows) const {
        // The gaps between live units hide from some processors that the next block follows: have it fetched, unless all
        // that a panel reads is near anyway. On an AMD EPYC that gained up to 1.8 times, on an Intel Xeon it cost a tenth.
        const bool wide = fetches_ahead && size_t(from.units) * N * sizeof(V) > 1 << 17;
        for (size_t q = 0; q < from.panels.size(); ++q) {
            const Panel& p = from.panels[q];
            const V* block = w + size_t(p.unit) * N;
            const char* next = reinterpret_cast<const char*>(block + size_t(p.units) * N);
            const size_t share = wide ? (size_t(p.units) * N * sizeof(V) / rows + 63) / 64 * 64 : 0;
            for (int r = 0; r < rows; ++r) {
                for (size_t i = 0; i < share; i += 64) __builtin_prefetch(next + r * share + i);
                const T* v = reinterpret_cast<const T*>(from.state + (size_t(2) * batch_ * p.first + r * p.width));
                const size_t list = q * 2 * batch_ + r;
                const int16_t* live = from.live + list * panel_units;
                const int count = from.live_count[list];
                V part[N] = {};
                for (int c = 0; c < count; ++c) {
                    const V* row = block + live[c] * N;
                    const T value = v[live[c]];
                    for (int j = 0; j < N; ++j) part[j] += value * row[j];
                }
                for (int j = 0; j < N; ++j) sum[r * N + j] += part[j];
            }
        }
    }

    // A panel goes to its exact minimum given the layers below and above.
    template <int N> void relax(int k, int l, const Panel& p, Width<N>, const std::vector<int>& phases, bool nudged) {
        Layer& layer = layers_[l];
        const bool last = l + 1 == int(layers_.size());
        const int from_below = l == 0 || phases[l - 1] < 2 ? batch_ : 2 * batch_;
        const int rows = batch_ * phases_after(l, phases, nudged);
        V* v = layer.state + size_t(2) * batch_ * p.first;
        for (int r = 0; r < from_below; ++r)
            for (int j = 0; j < N; ++j) {
                v[r * N + j] = layer.bias[p.first + j];
                if (l == 0) v[r * N + j] += drive_[batch_ * p.first + r * N + j];
            }
        if (l > 0 && phases[l - 1]) multiply<N>(v, layers_[l - 1], layer.below + layers_[l - 1].units * p.first, from_below);
        if (rows > from_below) std::memcpy(v + batch_ * N, v, batch_ * N * sizeof(V));
        if (!last && phases[l + 1])
            multiply<N>(v, layers_[l + 1], layer.above + layers_[l + 1].units * p.first, batch_ * phases[l + 1]);

        for (int r = 0; r < rows; ++r) {
            for (int j = 0; j < N; ++j) {
                V current = v[r * N + j], total = layer.total[p.first + j];
                if (last && nudged) {
                    const T beta = nudge(r / batch_);
                    current += beta * load_vector(image_target(k, r % batch_), p.first + j, layer.units);
                    total += beta;
                }
                V settled = current / total;
                if (!last) {
                    const V kept = b_.leak > 0 ? T(b_.leak) * settled : V{};
                    settled = layer.sign[p.first + j] * settled < V{} ? kept : settled;
                } else if (!nudged) {
                    free_[batch_ * p.first + r * N + j] = settled;
                }
                v[r * N + j] = settled;
            }
            const size_t list = (&p - layer.panels.data()) * 2 * batch_ + r;
            const T* value = reinterpret_cast<const T*>(v + r * N);
            layer.live_count[list] = int16_t(find_nonzero(value, p.units, layer.live + list * panel_units));
        }
    }

    // The reading of a panel's voltages, noisy or exact; updates its biases if they learn from it.
    template <int N> void contrast(int k, int l, const Panel& p, Width<N>, int phases, bool noisy) {
        Layer& layer = layers_[l];
        Reading& reading = layer.readings[noisy];
        const T scale = T(1) / ((nudge(0) - nudge(1)) * T(batch_));
        const T sigma = b_.scale ? static_cast<const T*>(b_.scale)[m_] : T(0);
        int64_t units = 0, before = 0;
        for (int i = 0; i < int(layers_.size()); ++i) {
            if (i < l) before += layers_[i].units;
            units += layers_[i].units;
        }
        const T* noise = noisy ? static_cast<const T*>(b_.noise) : nullptr;
        if (noise) noise += (b_.stream[m_] * b_.steps + k) * b_.draws * 2 * batch_ * units + before;
        const V* v = layer.state + size_t(2) * batch_ * p.first;
        V *difference = reading.pair + size_t(2) * batch_ * p.first, *mean = difference + batch_ * N;
        V square[N] = {}, change[N] = {};
        for (int s = 0; s < batch_; ++s)
            for (int j = 0; j < N; ++j) {
                V upper = v[s * N + j], lower = v[((phases - 1) * batch_ + s) * N + j];
                if (noisy && b_.operations) {
                    read(l, p.first + j, s, noise, units, before, upper, lower);
                } else if (noise) {
                    upper += sigma * load_vector(noise + s * units, p.first + j, layer.units);
                    lower += sigma * load_vector(noise + (batch_ + s) * units, p.first + j, layer.units);
                }
                const V d = scale * (upper - lower), m = T(0.5) * (upper + lower);
                difference[s * N + j] = d, mean[s * N + j] = m;
                square[j] += m * d, change[j] += d;
                if (b_.leak > 0 && l + 1 < int(layers_.size())) {
                    const V sign = layer.sign[p.first + j], high = blocked(sign, upper), low = blocked(sign, lower);
                    square[j] += T(1 / b_.leak - 1) * (T(0.5) * (high + low)) * (scale * (high - low));
                }
            }
        for (int j = 0; j < N; ++j) {
            reading.square[p.first + j] = square[j];
            if (b_.noisy[b_.layers] == noisy) layer.bias[p.first + j] += T(b_.bias_rate) * rate(k, l) * change[j];
        }
        for (int r = 0; r < 2 * batch_; ++r) {
            const T* value = reinterpret_cast<const T*>(r < batch_ ? mean + r * N : difference + (r - batch_) * N);
            for (int i = 0; i < p.units; ++i) reading.column[size_t(p.unit + i) * 2 * batch_ + r] = value[i];
        }
    }

    // What a read-out of parts makes of a vector of both phases: the mean of its reads.
    void read(int l, int vector, int s, const T* noise, int64_t units, int64_t before, V& upper, V& lower) const {
        V sum[2] = {};
        for (int n = 0; n < b_.reads; ++n) {
            V pair[2] = {upper, lower};
            for (const Operation* o = b_.operations; o < b_.operations + b_.operation_count; ++o) {
                if (o->kind == Kind::split) {
                    const V d = pair[0] - pair[1], m = T(0.5) * (pair[0] + pair[1]);
                    pair[0] = d, pair[1] = m;
                } else if (o->kind == Kind::join) {
                    const V half = T(0.5) * pair[0], m = pair[1];
                    pair[0] = m + half, pair[1] = m - half;
                } else {
                    for (int side = 0; side < 2; ++side) {
                        if (o->side && o->side != side + 1) continue;
                        const int64_t row = ((o->draw + n) * 2 + side) * batch_ + s;
                        pair[side] = apply(*o, pair[side], l, vector, noise + (noise ? row * units : 0), units, before);
                    }
                }
            }
            sum[0] += pair[0], sum[1] += pair[1];
        }
        upper = sum[0] / T(b_.reads), lower = sum[1] / T(b_.reads);
        for (int i = layers_[l].units - vector * lanes; i < lanes; ++i) upper[i] = lower[i] = 0;  // beyond the layer
    }

    V apply(const Operation& o, V v, int l, int vector, const T* noise, int64_t units, int64_t before) const {
        using D = typename DoublesOf<T>::type;
        const double* values = static_cast<const double*>(o.values);
        const int count = layers_[l].units;
        if (o.kind == Kind::add) return v + T(values[m_]) * load_vector(noise, vector, count);
        if (o.kind == Kind::multiply) return v * (T(1) + T(values[m_]) * load_vector(noise, vector, count));
        if (o.kind == Kind::affine) {
            const T* gain = static_cast<const T*>(o.values) + m_ * units + before;
            return load_vector(gain, vector, count) * v + load_vector(gain + b_.members * units, vector, count);
        }
        if (o.kind == Kind::sign) {
            const T level = T(values[2 * l]), threshold = T(values[2 * l + 1]);
            const V up = V{} + level, limit = V{} + threshold;
            return v > limit ? up : v <= limit ? -up : v;  // NaN stays
        }
        const double lsb = values[4 * l], origin = values[4 * l + 1], big = 6755399441055744.0;  // 1.5 2^52
        const D least = D{} + values[4 * l + 2], most = D{} + values[4 * l + 3];
        D code = (__builtin_convertvector(v, D) - origin) / lsb;
        code = (code + big) - big;  // to the nearest integer, half to even
        code = code < least ? least : code > most ? most : code;
        return __builtin_convertvector(origin + code * lsb, V);
    }

    // Updates all conductances that lead to a panel, and prepares what it needs for the next step.
    template <bool Exponential, int N> void update(int k, int l, const Panel& p, Width<N> n) {
        Layer& layer = layers_[l];
        V total[N] = {};
        if (l == 0)
            update_input<Exponential>(k, p, n, total);
        else
            update_inner<Exponential>(k, l, l - 1, layer.below + layers_[l - 1].units * p.first, p, n, total);
        if constexpr (Exponential) add_up(l, p, n, total);
        if (l + 1 < int(layers_.size()))
            update_inner<Exponential>(k, l, l + 1, layer.above + layers_[l + 1].units * p.first, p, n, total);
        finish(l, p, n, total, k + 1);
    }

    // w -= rate (square_i + square_j - mean_i difference_j - difference_i mean_j); total += sums of the columns. Both
    // copies of a layer's conductances add the same terms in the same order.
    template <bool Exponential, int N>
    void update_inner(int k, int l, int other, V* w, const Panel& p, Width<N>, V* total) {
        const int between = l < other ? other : l, units = layers_[other].units;
        const int64_t noisy = b_.noisy[between];
        const Reading &reading = layers_[l].readings[noisy], &from = layers_[other].readings[noisy];
        const T eta = rate(k, between), typical = layers_[between].mean;
        const V* squares = reading.square + p.first;
        const V *difference = reading.pair + size_t(2) * batch_ * p.first, *mean = difference + batch_ * N;
        const int first = other < l ? 0 : batch_, second = batch_ - first;
        if (other > l) std::swap(difference, mean);
        const T* row_square = reinterpret_cast<const T*>(from.square + 0);
        for (int begin = 0; begin < units; begin += panel_units) {
            const int end = begin + panel_units < units ? begin + panel_units : units;
            strips<N, 2>([&](int c, auto m) {
                constexpr int M = decltype(m)::value;
                V sum[M] = {};
                auto rows = [&](int i, auto height) {
                    constexpr int H = decltype(height)::value;
                    V g[H][M];
                    for (int h = 0; h < H; ++h)
                        for (int j = 0; j < M; ++j) g[h][j] = row_square[i + h] + squares[c + j];
                    const T* column = from.column + size_t(i) * 2 * batch_;
                    for (int s = 0; s < batch_; ++s, ++column)
                        for (int j = 0; j < M; ++j)
                            for (int h = 0; h < H; ++h) {
                                g[h][j] -= column[h * 2 * batch_ + first] * difference[s * N + c + j];
                                g[h][j] -= column[h * 2 * batch_ + second] * mean[s * N + c + j];
                            }
                    for (int h = 0; h < H; ++h)
                        for (int j = 0; j < M; ++j) {
                            V& conductance = w[size_t(i + h) * N + c + j];
                            conductance = descended<Exponential>(conductance, eta * g[h][j], typical);
                            sum[j] += conductance;
                        }
                };
                int i = begin;
                for (; i + 4 <= end; i += 4) rows(i, Width<4>{});
                for (; i < end; ++i) rows(i, Width<1>{});
                for (int j = 0; j < M; ++j) total[c + j] += sum[j];
            });
        }
    }

    // The same for the rows +x and -x: w -= rate (square_j -+ x_i difference_j); x is 0 for most rows.
    template <bool Exponential, int N> void update_input(int k, const Panel& p, Width<N>, V* total) {
        const Layer& layer = layers_[0];
        const Pixels& pixels = pixels_[k % 2];
        const T eta = rate(k, 0), scale = eta * T(b_.gain);
        const Reading& reading = layer.readings[b_.noisy[0]];
        const V *squares = reading.square + p.first, *difference = reading.pair + size_t(2) * batch_ * p.first;
        std::vector<V> scaled(batch_ * N);
        for (int r = 0; r < batch_ * N; ++r) scaled[r] = scale * difference[r];
        V* w = layer.below + size_t(2) * inputs_ * p.first;
        for (int begin = 0; begin < inputs_; begin += panel_units / 2) {
            const int end = begin + panel_units / 2 < inputs_ ? begin + panel_units / 2 : inputs_;
            strips<N, 4>([&](int c, auto m) {
                constexpr int M = decltype(m)::value;
                V sum[M] = {}, square[M];
                for (int j = 0; j < M; ++j) square[j] = eta * squares[c + j];
                for (int i = begin; i < end; ++i) {
                    V product[M] = {};
                    if (!pixels.dark[i])
                        for (int s = 0; s < batch_; ++s)
                            for (int j = 0; j < M; ++j)
                                product[j] += pixels.value[i * batch_ + s] * scaled[s * N + c + j];
                    V *plus = w + size_t(2) * i * N + c, *minus = plus + N;
                    for (int j = 0; j < M; ++j) {
                        plus[j] = descended<Exponential>(plus[j], square[j] - product[j], layer.mean);
                        minus[j] = descended<Exponential>(minus[j], square[j] + product[j], layer.mean);
                        sum[j] += plus[j] + minus[j];
                    }
                }
                for (int j = 0; j < M; ++j) total[c + j] += sum[j];
            });
        }
    }

    // The sum of a panel's conductances below, whose total each unit has.
    template <int N> void add_up(int l, const Panel& p, Width<N>, const V* total) {
        double& sum = layers_[l].sums[&p - layers_[l].panels.data()] = 0;
        for (int i = 0; i < p.units; ++i) sum += total[i / lanes][i % lanes];
    }

    void find_means() {
        for (int l = 0; l < int(layers_.size()); ++l) {
            Layer& layer = layers_[l];
            const double count = double(l ? layers_[l - 1].units : 2 * inputs_) * layer.units;
            const double sum = std::accumulate(layer.sums.begin(), layer.sums.end(), 0.0);
            layer.mean = T(sum / count);
        }
    }

    // Total conductance of a panel's units, and the current that the inputs of step k push into it.
    template <int N> void finish(int l, const Panel& p, Width<N>, const V* total, int k) {
        // A unit that has lost every conductance floats: it stays at 0 V instead of becoming 0/0.
        const V tiny = V{} + std::numeric_limits<T>::min();
        for (int j = 0; j < N; ++j) layers_[l].total[p.first + j] = total[j] < tiny ? tiny : total[j];
        if (l > 0 || k >= b_.steps) return;
        const Pixels& pixels = pixels_[k % 2];
        const V* w = layers_[0].below + size_t(2) * inputs_ * p.first;
        V* drive = drive_ + size_t(batch_) * p.first;
        for (int s = 0; s < batch_; ++s) {
            const int* lit = &pixels.lit[s * inputs_];
            V sum[N] = {};
            for (int e = 0; e < pixels.count[s]; ++e) {
                const V* plus = w + size_t(2) * lit[e] * N;
                const T value = T(b_.gain) * pixels.value[lit[e] * batch_ + s];
                for (int j = 0; j < N; ++j) sum[j] += value * (plus[j] - plus[N + j]);
            }
            for (int j = 0; j < N; ++j) drive[s * N + j] = sum[j];
        }
    }

    // Images are far apart in memory: have them fetched while the step before is computed.
    void fetch_images(int k) const {
        for (int s = 0; k < b_.steps && s < batch_; ++s)
            for (int i = 0; i < inputs_; i += 64 / int(sizeof(T)))
                __builtin_prefetch(static_cast<const T*>(b_.x) + images(k)[s] * inputs_ + i, 0, 2);
    }

    void find_pixels(int k) {
        if (k >= b_.steps) return;
        Pixels& pixels = pixels_[k % 2];
        pixels.lit.resize(inputs_ * batch_ + 1), pixels.count.resize(batch_);
        pixels.value.assign(inputs_ * batch_, 0), pixels.dark.assign(inputs_, true);
        for (int s = 0; s < batch_; ++s) {
            const T* image = static_cast<const T*>(b_.x) + images(k)[s] * inputs_;
            int* lit = &pixels.lit[s * inputs_];
            const int count = pixels.count[s] = find_nonzero(image, inputs_, lit);
            for (int e = 0; e < count; ++e) pixels.value[lit[e] * batch_ + s] = image[lit[e]], pixels.dark[lit[e]] = false;
        }
    }

    // Wrong predictions and cost of the free outputs.
    void judge(int k) {
        const Layer& layer = layers_.back();
        std::vector<T> output(layer.units);
        for (int s = 0; s < batch_; ++s) {
            for (const Panel& p : layer.panels)
                std::memcpy(&output[p.unit], free_ + size_t(batch_) * p.first + s * p.width, p.units * sizeof(T));
            const T* target = image_target(k, s);
            T cost = 0;
            for (int j = 0; j < layer.units; ++j) cost += (output[j] - target[j]) * (output[j] - target[j]);
            b_.cost[m_] += T(0.5) * cost;
            b_.wrong[m_] += largest(output.data(), layer.units) != largest(target, layer.units);
        }
    }

    // Index of the largest value, or of the first NaN.
    static int largest(const T* value, int count) {
        int best = 0;
        for (int j = 0; j < count && value[best] == value[best]; ++j)
            if (value[j] > value[best] || value[j] != value[j]) best = j;
        return best;
    }

    // f(outside, inside, count) for every piece of a row of the caller's tensors that lies in a panel.
    template <int N, class F> void exchange(int l, const Panel& p, F f) {
        Layer& layer = layers_[l];
        const size_t pre = l ? layers_[l - 1].units : 2 * inputs_;
        T* weights = static_cast<T*>(b_.weights[l]) + m_ * pre * layer.units + p.unit;
        V* w = layer.below + pre * p.first;
        for (size_t i = 0; i < pre; ++i) {
            // Rows +x and -x of a pixel lie side by side.
            const size_t place = l ? i : i < pre / 2 ? 2 * i : 2 * i - pre + 1;
            f(weights + i * layer.units, reinterpret_cast<T*>(w + place * N), p.units);
        }
        T* bias = static_cast<T*>(b_.biases[l]) + m_ * layer.units + p.unit;
        f(bias, reinterpret_cast<T*>(layer.bias + p.first), p.units);
    }

    template <int N> void load(int l, const Panel& p, Width<N> n) {
        exchange<N>(l, p, [](const T* outside, T* inside, int count) { std::memcpy(inside, outside, count * sizeof(T)); });
        Layer& layer = layers_[l];
        V total[N] = {};
        if (l == 0)
            add_rows<N, 2>(layer.below + 2 * inputs_ * p.first, inputs_, total);
        else
            add_rows<N, 1>(layer.below + layers_[l - 1].units * p.first, layers_[l - 1].units, total);
        if (b_.exponential) add_up(l, p, n, total);
        if (l + 1 < int(layers_.size())) {
            const int post = layers_[l + 1].units;
            const T* weights = static_cast<const T*>(b_.weights[l + 1]) + m_ * int64_t(layer.units) * post;
            T* w = reinterpret_cast<T*>(layer.above + post * p.first);
            for (int i = 0; i < p.units; ++i)
                for (int j = 0; j < post; ++j) w[j * N * lanes + i] = weights[(p.unit + i) * int64_t(post) + j];
            add_rows<N, 1>(layer.above + post * p.first, post, total);
        }
        finish(l, p, n, total, 0);
    }

    template <int N> void store(int l, const Panel& p, Width<N>) {
        exchange<N>(l, p, [](T* outside, const T* inside, int count) { std::memcpy(outside, inside, count * sizeof(T)); });
    }

    // Sums of the columns over `count` single or paired rows, in the order of the updates: cutting a training into
    // blocks changes no bit.
    template <int N, int Pair> void add_rows(const V* w, int count, V* total) const {
        for (int begin = 0; begin < count; begin += panel_units / Pair) {
            V sum[N] = {};
            for (int i = begin; i < count && i < begin + panel_units / Pair; ++i)
                for (int j = 0; j < N; ++j) {
                    const V* row = w + size_t(i) * Pair * N + j;
                    sum[j] += Pair == 2 ? row[0] + row[N] : row[0];
                }
            for (int j = 0; j < N; ++j) total[j] += sum[j];
        }
    }

    const Block& b_;
    const int m_, batch_, inputs_;
    bool learned_from_[2] = {false, false};  // exact voltages, those that are read
    Barrier barrier_;
    std::vector<Layer> layers_;
    Array<V> drive_, free_;  // (batch, units) of the first and of the last layer
    Pixels pixels_[2];       // of this step and the next
};

// Whole rounds: each thread takes one member after the other. The rest, or all members one by one: a team on each.
template <class T> void run(const Block& block) {
    const int threads = int(block.threads), members = int(block.members);
    const int alone = block.sharing == 2 ? 0 : members - members % threads;
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    std::vector<std::thread> running;
    for (int t = 0; t < threads && alone; ++t)
        running.emplace_back([&] {
            try {
                for (int m; (m = next++) < alone;) Member<T>(block, m, 1).run(0);
            } catch (const std::bad_alloc&) {
                failed = true;
            }
        });
    for (auto& thread : running) thread.join();
    if (failed) throw std::bad_alloc();
    const int at_once = block.sharing == 2 ? 1 : std::max(1, members - alone);
    const int team = block.sharing ? threads / at_once : 1;
    for (int first = alone; first < members; first += at_once) {
        running.clear();
        std::vector<std::unique_ptr<Member<T>>> shared;
        for (int m = first; m < first + at_once; ++m) shared.push_back(std::make_unique<Member<T>>(block, m, team));
        for (auto& member : shared)
            for (int t = 0; t < team; ++t) running.emplace_back([&member, t] { member->run(t); });
        for (auto& thread : running) thread.join();
    }
}

}  // namespace

// 0, or 1 if memory ran out; some members may then have been trained.
extern "C" int epkit_steps(const Block* block, int bytes) {
    try {
        bytes == 4 ? run<float>(*block) : run<double>(*block);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
