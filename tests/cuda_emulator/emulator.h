// CUDA on a processor, as far as kernels.cu needs it: every thread of a block is a fiber, and the calls at which a
// warp or a block waits for all of its threads are gates between fibers. Slow, deterministic and exact; a warp runs
// until it has to wait, so a wait that is missing shows. What it cannot show is speed, and races within a warp.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)

struct alignas(16) longlong2 {
    long long x, y;
};
struct alignas(16) uint4 {
    unsigned int x, y, z, w;
};
struct alignas(8) ushort4 {
    unsigned short x, y, z, w;
};

namespace emulator {

constexpr int WARP_LANES = 32;
constexpr int BLOCK_THREADS_MAX = 1024;
constexpr size_t STACK_BYTES = 64 * 1024;
constexpr int ARGUMENTS = 18;

struct Dimension {
    unsigned int x;
};

// All parties pass together; each knows by the generation that the gate has opened.
struct Gate {
    int arrived = 0, line = 0;
    unsigned long long generation = 0;
};

struct Warp {
    Gate gate;
    unsigned long long slots[2][WARP_LANES];
};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool is_started = false, is_done = false;
    const Gate *gate = nullptr; // where it waits, and since which generation
    unsigned long long generation = 0;
    std::vector<char> stack = std::vector<char>(STACK_BYTES);
};

static std::vector<Fiber> fibers(BLOCK_THREADS_MAX);
static Warp warps[BLOCK_THREADS_MAX / WARP_LANES];
static Gate block;
static jmp_buf scheduler;
static int current;
static bool is_apart; // threads met at different calls, or a call did not name every lane
static const void *kernel;
static unsigned long long arguments[ARGUMENTS];

} // namespace emulator

static emulator::Dimension threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

static void wait_for_all(Gate &gate, int parties, int line) {
    Fiber &own = fibers[current];
    is_apart |= gate.arrived && gate.line != line;
    gate.line = line;
    own.generation = gate.generation;
    if (++gate.arrived == parties) {
        gate.arrived = 0;
        ++gate.generation;
        return;
    }
    own.gate = &gate;
    if (!_setjmp(own.at)) {
        _longjmp(scheduler, 1);
    }
    own.gate = nullptr;
}

static void run_kernel() {
    using Words = void (*)(unsigned long long, unsigned long long, unsigned long long, unsigned long long,
                           unsigned long long, unsigned long long, unsigned long long, unsigned long long,
                           unsigned long long, unsigned long long, unsigned long long, unsigned long long,
                           unsigned long long, unsigned long long, unsigned long long, unsigned long long,
                           unsigned long long, unsigned long long);
    const unsigned long long *a = arguments;
    // Every argument is one word, so a kernel of fewer takes the first of them.
    reinterpret_cast<Words>(const_cast<void *>(kernel))(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
                                                        a[10], a[11], a[12], a[13], a[14], a[15], a[16], a[17]);
    fibers[current].is_done = true;
    _longjmp(scheduler, 1);
}

static void resume(int thread) {
    Fiber &fiber = fibers[thread];
    current = thread;
    threadIdx.x = thread;
    if (_setjmp(scheduler)) {
        return;
    }
    if (fiber.is_started) {
        _longjmp(fiber.at, 1);
    }
    fiber.is_started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.start, run_kernel, 0);
    setcontext(&fiber.start);
}

static bool can_move(const Fiber &fiber) {
    return !fiber.is_done && !(fiber.gate && fiber.gate->generation == fiber.generation);
}

// Runs one block, a warp as far as it comes before the next gets a turn: what a missing __syncthreads lets happen,
// happens here. False if some threads wait for others that never come.
static bool run_block(int threads, bool is_backwards) {
    block = Gate();
    for (Warp &warp : warps) {
        warp.gate = Gate();
    }
    for (int thread = 0; thread < threads; ++thread) {
        fibers[thread].is_started = fibers[thread].is_done = false;
        fibers[thread].gate = nullptr;
    }
    for (int left = threads, first = 0, idle = 0; left; first = (first + WARP_LANES) % threads) {
        bool has_moved = false;
        for (int lane = 0; lane < WARP_LANES; ++lane) {
            const int thread = is_backwards ? threads - 1 - first - lane : first + lane;
            if (can_move(fibers[thread])) {
                resume(thread);
                has_moved = true;
                left -= fibers[thread].is_done;
            }
        }
        idle = has_moved ? 0 : idle + WARP_LANES;
        if (idle >= threads) {
            return !left;
        }
        if (has_moved) {
            first -= WARP_LANES; // the same warp again
        }
    }
    return true;
}

template <class Value> static const unsigned long long *exchange(unsigned int lanes, Value value, int line) {
    is_apart |= lanes != 0xffffffffu;
    static_assert(sizeof(Value) <= sizeof(unsigned long long), "one word a lane");
    Warp &warp = warps[current / WARP_LANES];
    unsigned long long *slots = warp.slots[warp.gate.generation & 1];
    slots[current % WARP_LANES] = 0;
    memcpy(slots + current % WARP_LANES, &value, sizeof(value));
    wait_for_all(warp.gate, WARP_LANES, line);
    return slots;
}

template <class Value> static Value taken(const unsigned long long *slots, int lane) {
    Value value;
    memcpy(&value, slots + lane, sizeof(value));
    return value;
}

} // namespace emulator

template <class Value>
static Value __shfl_sync(unsigned int lanes, Value value, int lane, int line = __builtin_LINE()) {
    return emulator::taken<Value>(emulator::exchange(lanes, value, line), lane);
}

template <class Value>
static Value __shfl_up_sync(unsigned int lanes, Value value, int distance, int line = __builtin_LINE()) {
    const int from = emulator::current % emulator::WARP_LANES - distance;
    const unsigned long long *slots = emulator::exchange(lanes, value, line);
    return from < 0 ? value : emulator::taken<Value>(slots, from);
}

static inline unsigned int __ballot_sync(unsigned int lanes, int predicate, int line = __builtin_LINE()) {
    const unsigned long long *slots = emulator::exchange<int>(lanes, predicate != 0, line);
    unsigned int votes = 0;
    for (int lane = 0; lane < emulator::WARP_LANES; ++lane) {
        votes |= (unsigned int)slots[lane] << lane;
    }
    return votes;
}

static inline void __syncthreads(int line = __builtin_LINE()) {
    emulator::wait_for_all(emulator::block, (int)blockDim.x, line);
}

template <class Number> static Number atomicAdd(Number *sum, Number addend) {
    const Number former = *sum;
    *sum += addend;
    return former;
}

static inline int __popc(unsigned int bits) { return __builtin_popcount(bits); }
static inline int __clz(int bits) { return bits ? __builtin_clz((unsigned int)bits) : 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline double __ll2double_rn(long long number) { return (double)number; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __longlong_as_double(long long bits) {
    double number;
    memcpy(&number, &bits, sizeof(number));
    return number;
}
// Half to even, and the nearest there is where the number does not fit, as the device does it.
static inline long long __double2ll_rn(double number) {
    if (number >= 0x1p63) {
        return std::numeric_limits<long long>::max();
    }
    return number < -0x1p63 ? std::numeric_limits<long long>::min() : (long long)std::nearbyint(number);
}

// Runs a kernel on a grid of blocks, one after the other. Returns 0, or 1 when threads of a block never met, or met
// where they should not.
extern "C" int launch(const void *kernel, const unsigned long long *arguments, int count, int blocks, int threads,
                      int is_backwards) {
    emulator::kernel = kernel;
    emulator::is_apart = false;
    memcpy(emulator::arguments, arguments, (size_t)count * sizeof(*arguments));
    gridDim.x = (unsigned int)blocks;
    blockDim.x = (unsigned int)threads;
    for (int turn = 0; turn < blocks; ++turn) {
        blockIdx.x = (unsigned int)(is_backwards ? blocks - 1 - turn : turn);
        if (!emulator::run_block(threads, is_backwards) || emulator::is_apart) {
            return 1;
        }
    }
    return 0;
}
