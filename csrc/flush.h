/*  Flush-to-zero for the duration of a sweep, where the processor has it: adjoints below the smallest normal number
    would decay no further and cost ten times as much.  */
#ifndef TG_FLUSH_H
#define TG_FLUSH_H

#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
typedef unsigned int fp_mode;
static inline fp_mode flush_to_zero(void)
{
    fp_mode old = _mm_getcsr();
    _mm_setcsr(old | 0x8000u);
    return old;
}
static inline void restore_fp(fp_mode old)  /* the flags that the sweep raised stay raised, as after any arithmetic */
{
    _mm_setcsr((_mm_getcsr() & ~0x8000u) | (old & 0x8000u));
}
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t fp_mode;
static inline fp_mode flush_to_zero(void)
{
    fp_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | (1u << 24)));
    return old;
}
static inline void restore_fp(fp_mode old) { __asm__ volatile("msr fpcr, %0" : : "r"(old)); }
#else
typedef int fp_mode;
static inline fp_mode flush_to_zero(void) { return 0; }
static inline void restore_fp(fp_mode old) { (void)old; }
#endif

#endif
