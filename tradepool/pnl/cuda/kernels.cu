// Marks of open positions, exact to the last 10^-8: the row function of tables.py and its sums, for CUDA devices.
//
// A row is worth v = lots * M / D, rounded half to even; its fee is |v| * rate / 10^7, rounded likewise; its
// unrealised PnL is v - fee - cost. Both divisions look up an Entry. Three kinds of arithmetic give the same
// result: `Narrow` and `Wide` in float64 within the limits of tables.py, `Whole` in integers alone, up to the
// wide limit, for devices where float64 is slow.
//
// Rows lie in tiles of TILE_ROWS, padded with rows that are worth nothing, so no row is ever tested for its
// place. A warp takes a tile at a time, a lane ROWS_PER_LANE neighbours in vector loads. A row that begins a run
// of its group has the bit HEAD in its code: counting heads gives the run, and only where a run ends is its group
// looked up. A row so costs 22 bytes. `Plain` sums are one int64 each, which the caller makes sure is enough;
// `Halved` sums are the sums of the low and of the high 32 bits, exact for 2^31 rows.
//
// All arguments are 8 bytes wide. No header is included: NVRTC is all that is needed to build this, and a test
// builds it with a C++ compiler, for which it defines the few names of CUDA that occur here.

typedef long long int64;
typedef unsigned long long uint64;
typedef unsigned int uint32;
typedef unsigned short uint16;

constexpr int THREADS = 256;
constexpr int WARP = 32;
constexpr int WARPS = THREADS / WARP;
constexpr int ROWS_PER_LANE = 4;
constexpr int STEP_ROWS = WARP * ROWS_PER_LANE;
constexpr int TILE_ROWS = 1024;
constexpr int CODE_BINS = 1024;
constexpr uint32 ALL_LANES = 0xffffffffu;
constexpr uint32 HEAD = 1u << 31;
constexpr int64 LOW_HALF = 0xffffffffLL;

// One line of the symbol table, or one fee class. `Narrow` and `Wide`: M, D, and the bits of M/D and 1/D in
// float64. `Whole`: M, D shifted up until its highest bit is set, floor((2^128 - 1) / that) - 2^64, the shift.
struct __align__(16) Entry {
    int64 multiplier;
    uint64 divisor;
    uint64 third;
    uint64 fourth;
};

struct Mark {
    int64 value;
    int64 unrealised;
};

static __device__ __forceinline__ uint64 magnitude(int64 number) {
    return number < 0 ? 0 - (uint64)number : (uint64)number;
}

// lots * M - result * D, in wrapping arithmetic: right as long as the true residue fits.
static __device__ __forceinline__ int64 residue_of(int64 lots, int64 result, const Entry &entry) {
    return (int64)((uint64)lots * (uint64)entry.multiplier - (uint64)result * entry.divisor);
}

// `result` moved by one where twice the residue is beyond D, or at it while `result` is odd.
static __device__ __forceinline__ int64 settled(int64 result, int64 residue, const Entry &entry) {
    const int64 twice = residue + residue;
    const int64 reach = (int64)entry.divisor - (result & 1);
    return result + (twice > reach) - (twice < -reach);
}

struct Narrow {
    static __device__ __forceinline__ int64 divide(int64 lots, const Entry &entry) {
        const double estimate = __dmul_rn(__ll2double_rn(lots), __longlong_as_double((int64)entry.third));
        const int64 result = __double2ll_rn(estimate);
        return settled(result, residue_of(lots, result, entry), entry);
    }
};

struct Wide {
    static __device__ __forceinline__ int64 divide(int64 lots, const Entry &entry) {
        const double estimate = __dmul_rn(__ll2double_rn(lots), __longlong_as_double((int64)entry.third));
        const int64 result = __double2ll_rn(estimate);
        const int64 residue = residue_of(lots, result, entry);
        const double share = __dmul_rn(__ll2double_rn(residue), __longlong_as_double((int64)entry.fourth));
        const int64 correction = __double2ll_rn(share);
        const int64 rest = (int64)((uint64)residue - (uint64)correction * entry.divisor);
        return settled(result + correction, rest, entry);
    }
};

struct Whole {
    // Division of two words by one with the divisor's reciprocal: N. Moller and T. Granlund, "Improved division
    // by invariant integers", IEEE Transactions on Computers 60 (2011), algorithm 4.
    static __device__ __forceinline__ int64 divide(int64 lots, const Entry &entry) {
        const uint64 x = magnitude(lots), m = magnitude(entry.multiplier);
        const uint64 divisor = entry.divisor, reciprocal = entry.third;
        // D is at most 2^60, so the shift is never 0, which would shift by 64 below.
        const int shift = (int)entry.fourth;
        const uint64 low = x * m << shift;
        const uint64 high = (__umul64hi(x, m) << shift) | (x * m >> (64 - shift));
        const uint64 fraction = reciprocal * high + low;
        uint64 quotient = __umul64hi(reciprocal, high) + high + (fraction < low) + 1;
        uint64 rest = low - quotient * divisor;
        if (rest > fraction) {
            quotient -= 1;
            rest += divisor;
        }
        if (rest >= divisor) {
            quotient += 1;
            rest -= divisor;
        }
        const uint64 missing = divisor - rest;
        quotient += rest > missing || (rest == missing && (quotient & 1));
        return (lots < 0) != (entry.multiplier < 0) ? (int64)(0 - quotient) : (int64)quotient;
    }
};

template <class Arithmetic>
static __device__ __forceinline__ Mark mark_row(int64 lots, int64 cost, const Entry &entry, const Entry *fee) {
    const int64 value = Arithmetic::divide(lots, entry);
    const int64 unrealised = value - cost;
    return {value, fee ? unrealised - Arithmetic::divide((int64)magnitude(value), *fee) : unrealised};
}

struct Plain {
    static constexpr int WORDS = 1;
    int64 sum;

    __device__ __forceinline__ void add(int64 number) { sum += number; }
    __device__ __forceinline__ void add(const Plain &other) { sum += other.sum; }
    __device__ __forceinline__ int64 word(int) const { return sum; }
    __device__ __forceinline__ int64 low_half() const { return sum & LOW_HALF; }
    __device__ __forceinline__ int64 high_half() const { return sum >> 32; }
    __device__ __forceinline__ Plain up(int lanes) const { return {__shfl_up_sync(ALL_LANES, sum, lanes)}; }
    __device__ __forceinline__ Plain last() const { return {__shfl_sync(ALL_LANES, sum, WARP - 1)}; }
};

struct Halved {
    static constexpr int WORDS = 2;
    int64 low, high;

    __device__ __forceinline__ void add(int64 number) {
        low += number & LOW_HALF;
        high += number >> 32;
    }
    __device__ __forceinline__ void add(const Halved &other) {
        low += other.low;
        high += other.high;
    }
    __device__ __forceinline__ int64 word(int at) const { return at ? high : low; }
    __device__ __forceinline__ int64 low_half() const { return low; }
    __device__ __forceinline__ int64 high_half() const { return high; }
    __device__ __forceinline__ Halved up(int lanes) const {
        return {__shfl_up_sync(ALL_LANES, low, lanes), __shfl_up_sync(ALL_LANES, high, lanes)};
    }
    __device__ __forceinline__ Halved last() const {
        return {__shfl_sync(ALL_LANES, low, WARP - 1), __shfl_sync(ALL_LANES, high, WARP - 1)};
    }
};

// What the two sums by code grow by.
template <class Sum> struct CodeSums {
    Sum value, unrealised;

    __device__ __forceinline__ void add(const Mark &mark) {
        value.add(mark.value);
        unrealised.add(mark.unrealised);
    }
    // The sums of all lanes, right in the last one.
    __device__ __forceinline__ void gather() {
#pragma unroll
        for (int reach = 1; reach < WARP; reach *= 2) {
            value.add(value.up(reach));
            unrealised.add(unrealised.up(reach));
        }
    }
};

template <class Sum> struct Tally {
    Sum unrealised, profit, exposure;
    uint32 winners;

    __device__ __forceinline__ void add(const Mark &mark) {
        unrealised.add(mark.unrealised);
        profit.add(mark.unrealised > 0 ? mark.unrealised : 0);
        exposure.add((int64)magnitude(mark.value));
        winners += mark.unrealised > 0;
    }
    __device__ __forceinline__ void add(const Tally &other) {
        unrealised.add(other.unrealised);
        profit.add(other.profit);
        exposure.add(other.exposure);
        winners += other.winners;
    }
    __device__ __forceinline__ Tally up(int lanes) const {
        return {unrealised.up(lanes), profit.up(lanes), exposure.up(lanes), __shfl_up_sync(ALL_LANES, winners, lanes)};
    }
    __device__ __forceinline__ Tally last() const {
        return {unrealised.last(), profit.last(), exposure.last(), __shfl_sync(ALL_LANES, winners, WARP - 1)};
    }
};

struct Rows {
    const int64 *lots;
    const int64 *cost;
    const uint32 *code;
    const uint16 *fee_class; // null where no row has a fee
    const int64 *tile_runs;  // how many runs begin before each tile
    const uint32 *run_groups;
};

struct Tables {
    const Entry *entries; // by code
    const int64 *limits;  // by code; null where no row can be beyond its limit
    const Entry *fees;    // by fee class
};

struct Results {
    uint64 *by_code; // [value low, value high, unrealised low, unrealised high][codes]
    int64 codes;
    uint64 *by_group; // [unrealised, profit, exposure][words of the sum][groups]
    uint32 *winners;
    int64 groups;
    int64 *unrealised; // by place; null where nobody asked
};

// 64-bit sums in shared memory out of the two 32-bit additions that devices have there: whoever wraps the low
// half carries one into the high one.
static __device__ __forceinline__ void add_to_bin(uint32 *low, uint32 *high, uint64 number) {
    const uint32 addend = (uint32)number;
    const uint32 carry = atomicAdd(low, addend) + addend < addend;
    const uint32 rest = (uint32)(number >> 32) + carry;
    if (rest) {
        atomicAdd(high, rest);
    }
}

// The sums by code of one block, of the first CODE_BINS codes; later ones go to the results directly.
template <class Sum> struct CodeBins {
    static constexpr int BINS = 2 * Sum::WORDS * CODE_BINS;
    uint32 *low, *high;

    __device__ void clear() {
        for (int bin = threadIdx.x; bin < BINS; bin += THREADS) {
            low[bin] = high[bin] = 0;
        }
        __syncthreads();
    }
    __device__ __forceinline__ void add(uint32 code, const CodeSums<Sum> &sums, const Results &results) {
        if (code >= CODE_BINS) {
            add_halves(results, code, 0, sums.value);
            add_halves(results, code, 1, sums.unrealised);
        } else {
            add_one(code, 0, sums.value);
            add_one(code, 1, sums.unrealised);
        }
    }
    __device__ void spill(const Results &results) {
        __syncthreads();
        for (int bin = threadIdx.x; bin < BINS; bin += THREADS) {
            const int64 sum = (int64)((uint64)high[bin] << 32 | low[bin]);
            const int code = bin % CODE_BINS, word = bin / CODE_BINS;
            if (!sum) {
                continue;
            }
            if (Sum::WORDS == 1) {
                add_halves(results, code, word, Plain{sum});
            } else {
                atomicAdd(results.by_code + word * results.codes + code, (uint64)sum);
            }
        }
    }

  private:
    __device__ __forceinline__ void add_one(uint32 code, int which, const Sum &sum) {
        for (int word = 0; word < Sum::WORDS; ++word) {
            const int bin = (which * Sum::WORDS + word) * CODE_BINS + code;
            add_to_bin(low + bin, high + bin, (uint64)sum.word(word));
        }
    }
    template <class Addend>
    static __device__ void add_halves(const Results &results, uint32 code, int which, const Addend &sum) {
        uint64 *word = results.by_code + 2 * which * results.codes + code;
        atomicAdd(word, (uint64)sum.low_half());
        atomicAdd(word + results.codes, (uint64)sum.high_half());
    }
};

static __device__ __forceinline__ void put(uint64 *word, int64 number, bool is_whole) {
    if (is_whole) {
        *word = (uint64)number;
    } else if (number) {
        atomicAdd(word, (uint64)number);
    }
}

template <class Sum>
static __device__ __forceinline__ void put(uint64 *words, int64 groups, const Sum &sum, bool is_whole) {
    for (int word = 0; word < Sum::WORDS; ++word) {
        put(words + word * groups, sum.word(word), is_whole);
    }
}

// Hand in what a run came to; `is_whole` where that is all of its group.
template <class Sum>
static __device__ __forceinline__ void put_run(const Rows &rows, const Results &results, int64 run,
                                               const Tally<Sum> &tally, bool is_whole) {
    const uint32 group = rows.run_groups[run];
    uint64 *words = results.by_group + group;
    const int64 stride = Sum::WORDS * results.groups;
    put(words, results.groups, tally.unrealised, is_whole);
    put(words + stride, results.groups, tally.profit, is_whole);
    put(words + 2 * stride, results.groups, tally.exposure, is_whole);
    if (is_whole) {
        results.winners[group] = tally.winners;
    } else if (tally.winners) {
        atomicAdd(results.winners + group, tally.winners);
    }
}

// The rows of one lane in one step, and which of them begin a run: bit j for row j.
struct LaneRows {
    int64 lots[ROWS_PER_LANE], cost[ROWS_PER_LANE];
    uint32 code[ROWS_PER_LANE], fee_class[ROWS_PER_LANE];
    uint32 heads;
};

static __device__ __forceinline__ LaneRows load(const Rows &rows, int64 place) {
    const longlong2 *lots = (const longlong2 *)(rows.lots + place), *cost = (const longlong2 *)(rows.cost + place);
    const longlong2 lots_a = lots[0], lots_b = lots[1], cost_a = cost[0], cost_b = cost[1];
    const uint4 code = *(const uint4 *)(rows.code + place);
    const ushort4 fee = rows.fee_class ? *(const ushort4 *)(rows.fee_class + place) : ushort4{0, 0, 0, 0};
    const uint32 heads = code.x >> 31 | code.y >> 31 << 1 | code.z >> 31 << 2 | code.w >> 31 << 3;
    return {{lots_a.x, lots_a.y, lots_b.x, lots_b.y},
            {cost_a.x, cost_a.y, cost_b.x, cost_b.y},
            {code.x & ~HEAD, code.y & ~HEAD, code.z & ~HEAD, code.w & ~HEAD},
            {fee.x, fee.y, fee.z, fee.w},
            heads};
}

template <class Arithmetic, class Sum>
static __device__ __forceinline__ Mark mark_one(const LaneRows &own, int at, const Tables &tables) {
    const uint32 code = own.code[at];
    const Entry *fee = own.fee_class[at] ? tables.fees + own.fee_class[at] : nullptr;
    const Mark mark = mark_row<Arithmetic>(own.lots[at], own.cost[at], tables.entries[code], fee);
    const bool is_beyond = tables.limits && (int64)magnitude(own.lots[at]) > tables.limits[code];
    return is_beyond ? Mark{0, 0} : mark;
}

// Marks one tile. `is_sorted`: each group has one run, so a run that begins and ends in the tile is its group.
template <class Arithmetic, class Sum>
static __device__ __forceinline__ void mark_tile(const Rows &rows, const Tables &tables, const Results &results,
                                                 CodeBins<Sum> bins, int64 tile, bool is_sorted) {
    const uint32 lane = threadIdx.x % WARP;
    const uint32 lanes_below = (1u << lane) - 1;
    const int64 first_run = rows.tile_runs[tile];
    int64 runs = first_run; // begun before the step; the open one is the last of them
    Tally<Sum> carry = {};  // of the open run, within the tile
#pragma unroll 1
    for (int step = 0; step < TILE_ROWS / STEP_ROWS; ++step) {
        const int64 place = tile * TILE_ROWS + step * STEP_ROWS + lane * ROWS_PER_LANE;
        const LaneRows own = load(rows, place);
        int64 run = runs - 1; // of the lane's first row, unless that is a head itself
#pragma unroll
        for (int at = 0; at < ROWS_PER_LANE; ++at) {
            const uint32 heads = __ballot_sync(ALL_LANES, own.heads >> at & 1);
            run += __popc(heads & lanes_below);
            runs += __popc(heads);
        }
        // Additions to one bin queue up, so where a code has half of the rows that begin a lane, the warp adds up its rows.
        const uint32 usual = __shfl_sync(ALL_LANES, own.code[0], 0);
        const bool is_usual = __popc(__ballot_sync(ALL_LANES, own.code[0] == usual)) >= WARP / 2;
        CodeSums<Sum> of_usual = {};
        const int64 ended_run = run;
        Tally<Sum> ended = {}, open = {}; // of the run that the lane found open, and of the one it leaves so
        bool has_head = false;
#pragma unroll
        for (int at = 0; at < ROWS_PER_LANE; ++at) {
            const Mark mark = mark_one<Arithmetic, Sum>(own, at, tables);
            if (own.heads >> at & 1) {
                if (has_head) {
                    put_run(rows, results, run, open, is_sorted);
                } else {
                    ended = open;
                    has_head = true;
                }
                open = {};
                run += 1;
            }
            open.add(mark);
            if (is_usual && own.code[at] == usual) {
                of_usual.add(mark);
            } else if (mark.value || mark.unrealised) {
                CodeSums<Sum> of_row = {};
                of_row.add(mark);
                bins.add(own.code[at], of_row, results);
            }
            if (results.unrealised) {
                results.unrealised[place + at] = mark.unrealised;
            }
        }
        if (is_usual) {
            of_usual.gather();
            if (lane == WARP - 1) {
                bins.add(usual, of_usual, results);
            }
        }
        if (lane == 0 && has_head) {
            ended.add(carry);
        } else if (lane == 0) {
            open.add(carry);
        }
        // From here on `open` grows to the sum of all lanes since the last one with a head.
        const uint32 heads_upto = __ballot_sync(ALL_LANES, has_head) & (lanes_below | 1u << lane);
        const uint32 start = heads_upto ? 31 - __clz((int)heads_upto) : 0;
        for (uint32 reach = 1; reach < WARP; reach *= 2) {
            const Tally<Sum> other = open.up((int)reach);
            if (lane >= start + reach) {
                open.add(other);
            }
        }
        const Tally<Sum> left = open.up(1);
        if (lane) {
            ended.add(left);
        }
        const bool is_first_row = step == 0 && lane == 0 && (own.heads & 1);
        if (has_head && !is_first_row) {
            put_run(rows, results, ended_run, ended, is_sorted && ended_run >= first_run);
        }
        carry = open.last();
    }
    if (lane == 0) {
        put_run(rows, results, runs - 1, carry, false);
    }
}

template <class Arithmetic, class Sum>
static __device__ __forceinline__ void mark_tiles(const Rows &rows, const Tables &tables, const Results &results,
                                                  int64 first_tile, int64 end_tile, bool is_sorted) {
    __shared__ uint32 low[CodeBins<Sum>::BINS], high[CodeBins<Sum>::BINS];
    CodeBins<Sum> bins = {low, high};
    bins.clear();
    const int64 warps = (int64)gridDim.x * WARPS;
    for (int64 tile = first_tile + (int64)blockIdx.x * WARPS + threadIdx.x / WARP; tile < end_tile; tile += warps) {
        mark_tile<Arithmetic, Sum>(rows, tables, results, bins, tile, is_sorted);
    }
    bins.spill(results);
}

// No row needs `Wide` where `Plain` sums suffice. BLOCKS: how many of these a multiprocessor shall hold, which bounds their registers.
#define MARK_KERNEL(NAME, ARITHMETIC, SUM, BLOCKS)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                      \
    NAME(const int64 *lots, const int64 *cost, const uint32 *code, const uint16 *fee_class, const int64 *tile_runs,    \
         const uint32 *run_groups, const Entry *entries, const int64 *limits, const Entry *fees, uint64 *by_code,      \
         int64 codes, uint64 *by_group, uint32 *winners, int64 groups, int64 *unrealised, int64 first_tile,            \
         int64 end_tile, int64 is_sorted) {                                                                            \
        const Rows rows = {lots, cost, code, fee_class, tile_runs, run_groups};                                        \
        const Tables tables = {entries, limits, fees};                                                                 \
        const Results results = {by_code, codes, by_group, winners, groups, unrealised};                               \
        mark_tiles<ARITHMETIC, SUM>(rows, tables, results, first_tile, end_tile, is_sorted);                           \
    }

MARK_KERNEL(mark_narrow_plain, Narrow, Plain, 3)
MARK_KERNEL(mark_narrow_halved, Narrow, Halved, 2)
MARK_KERNEL(mark_wide_halved, Wide, Halved, 2)
MARK_KERNEL(mark_whole_plain, Whole, Plain, 3)
MARK_KERNEL(mark_whole_halved, Whole, Halved, 2)

// Gives `count` rows new figures, their heads left as they are. `changes`: [place, lots, cost, code | fee << 32].
extern "C" __global__ void __launch_bounds__(THREADS)
rewrite_rows(const int64 *changes, int64 count, int64 *lots, int64 *cost, uint32 *code, uint16 *fee_class) {
    for (int64 at = (int64)blockIdx.x * THREADS + threadIdx.x; at < count; at += (int64)gridDim.x * THREADS) {
        const int64 place = changes[at];
        const uint64 packed = (uint64)changes[3 * count + at];
        lots[place] = changes[count + at];
        cost[place] = changes[2 * count + at];
        code[place] = (code[place] & HEAD) | (uint32)packed;
        fee_class[place] = (uint16)(packed >> 32);
    }
}
