// kernels.cu for the processor: its kernels under the emulator, and its row function by itself.

#include "emulator.h"

#include KERNELS

template <class Arithmetic>
static void mark_rows(int64 count, const int64 *lots, const int64 *cost, const Entry *entries, const Entry *fees,
                      int64 *values, int64 *unrealised) {
    for (int64 row = 0; row < count; ++row) {
        const Mark mark = mark_row<Arithmetic>(lots[row], cost[row], entries[row], fees + row);
        values[row] = mark.value;
        unrealised[row] = mark.unrealised;
    }
}

// Marks each of `count` rows with an entry of its own and a fee of its own.
#define ROW_FUNCTION(NAME, ARITHMETIC)                                                                                 \
    extern "C" void NAME(int64 count, const int64 *lots, const int64 *cost, const Entry *entries, const Entry *fees,   \
                         int64 *values, int64 *unrealised) {                                                           \
        mark_rows<ARITHMETIC>(count, lots, cost, entries, fees, values, unrealised);                                   \
    }

ROW_FUNCTION(rows_narrow, Narrow)
ROW_FUNCTION(rows_wide, Wide)
ROW_FUNCTION(rows_whole, Whole)
